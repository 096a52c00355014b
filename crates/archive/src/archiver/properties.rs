//! What of a message's AMQP properties is archived: what the envelope does not say.
//!
//! Left out are the canonical content type, delivery mode 2, a `message_id` that is the event's id,
//! a `type` that is its type, and every header that carries an attribute: whoever publishes the
//! event again writes them anew. The rest is kept as it came.

use annals_core::event::CONTENT_TYPE as CANONICAL;
use annals_core::properties::{CLOUD_EVENTS_PREFIX, Fields};
use annals_core::{Header, Properties};

// Flag bits, in wire order from the highest: AMQP 0-9-1, section 4.2.6.1.
const CONTENT_TYPE: u16 = 1 << 15;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;

/// The prefix some clients use for attributes.
const COLON_PREFIX: &str = "cloudEvents:";

/// Replaces `out` by what is archived of `properties` beside an event with this `header`; empty
/// when nothing is left.
#[inline]
pub(super) fn reduce(properties: &Properties, header: &Header<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0, 0]);
    let (flags, mut rest) = split(properties.bytes());
    let mut kept = 0;
    let mut open = flags;
    while open != 0 {
        let flag = 1 << (15 - open.leading_zeros());
        open &= !flag;
        let (field, after) = rest.split_at(field_len(flag, rest));
        rest = after;
        let said = match flag {
            CONTENT_TYPE => field[1..] == *CANONICAL.as_bytes(),
            DELIVERY_MODE => field == [2],
            MESSAGE_ID => field[1..] == *header.id.as_bytes(),
            TYPE => field[1..] == *header.event_type.as_bytes(),
            HEADERS => {
                if put_headers(&field[4..], out) {
                    kept |= flag;
                }
                continue;
            }
            _ => false,
        };
        if !said {
            out.extend_from_slice(field);
            kept |= flag;
        }
    }
    if kept == 0 {
        out.clear();
    } else {
        out[..2].copy_from_slice(&kept.to_be_bytes());
    }
}

fn split(bytes: &[u8]) -> (u16, &[u8]) {
    let (flags, rest) = bytes.split_first_chunk().expect("Properties have flags");
    (u16::from_be_bytes(*flags), rest)
}

/// Length of a property's encoding. That it lies within the bytes was checked when the
/// [`Properties`] were made.
fn field_len(flag: u16, bytes: &[u8]) -> usize {
    match flag {
        HEADERS => {
            let len = bytes.first_chunk().expect("a table has a length");
            4 + u32::from_be_bytes(*len) as usize
        }
        DELIVERY_MODE | PRIORITY => 1,
        TIMESTAMP => 8,
        _ => 1 + usize::from(bytes[0]),
    }
}

/// Appends a table without the attributes' headers; says whether any header is left.
fn put_headers(table: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut fields = Fields::new(table);
    loop {
        let before = fields.rest();
        let Some((name, _)) = fields.next() else {
            break;
        };
        if !name.starts_with(CLOUD_EVENTS_PREFIX) && !name.starts_with(COLON_PREFIX) {
            out.extend_from_slice(&before[..before.len() - fields.rest().len()]);
        }
    }
    let len = out.len() - start - 4;
    if len == 0 {
        out.truncate(start);
        return false;
    }
    out[start..start + 4].copy_from_slice(&(len as u32).to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_core::properties::{PropertiesBuilder, REPLAY_ID};

    fn reduced(builder: PropertiesBuilder) -> Option<Properties> {
        let header = Header {
            id: "o-1",
            event_type: "shop.v1.OrderPlaced",
            ..Header::default()
        };
        let mut out = vec![9; 9];
        reduce(&builder.build().unwrap(), &header, &mut out);
        (!out.is_empty()).then(|| Properties::parse(out).unwrap())
    }

    fn canonical() -> PropertiesBuilder {
        Properties::builder()
            .content_type(CANONICAL)
            .persistent()
            .message_id("o-1")
            .message_type("shop.v1.OrderPlaced")
    }

    #[test]
    fn what_the_envelope_says_is_not_archived_again() {
        assert_eq!(reduced(Properties::builder()), None);
        assert_eq!(reduced(canonical()), None);
        assert_eq!(
            reduced(
                canonical()
                    .header("cloudEvents_id", "o-1")
                    .header("cloudEvents:id", "x")
            ),
            None
        );
    }

    #[test]
    fn what_else_there_is_stays_as_it_came() {
        let builder = Properties::builder()
            .content_type("application/cloudevents+json")
            .content_encoding("utf-8")
            .delivery_mode(1)
            .priority(3)
            .correlation_id("c")
            .reply_to("r")
            .expiration("1000")
            .message_id("another")
            .timestamp(7)
            .message_type("another")
            .user_id("u")
            .app_id("shop")
            .cluster_id("k")
            .header(REPLAY_ID, "r-1")
            .header("x", "y");
        let all = builder.clone().build().unwrap();
        assert_eq!(reduced(builder.clone()), Some(all.clone()));
        let hinted = builder.header("cloudEvents_subject", "s");
        assert_eq!(reduced(hinted), Some(all));
        let app = reduced(canonical().app_id("shop")).unwrap();
        assert_eq!(app, Properties::builder().app_id("shop").build().unwrap());
    }
}
