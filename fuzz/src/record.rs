//! The record scanner against a full decode by `prost`.
//!
//! They agree but where `archive/src/record.rs` is stricter: a record has one event, its ordinal
//! has 32 bits, and there are no groups. `prost` alone bounds the numbers of unknown fields.

use annals_archive::record::{self, RecordRef};
use annals_archive::wire;
use annals_core::frame::{self, take_varint};
use prost::Message;

/// A record whose event is not looked into.
#[derive(Clone, PartialEq, Message)]
struct Loose {
    #[prost(bytes = "vec", optional, tag = "1")]
    event: Option<Vec<u8>>,
    #[prost(message, optional, tag = "2")]
    delivery: Option<wire::Delivery>,
    #[prost(bytes = "vec", optional, tag = "3")]
    original: Option<Vec<u8>>,
    #[prost(uint32, tag = "4")]
    ordinal: u32,
}

/// Scanner and decoder agree on these bytes as one record; as a frame of records they can be
/// walked, and what is found is written so that it is found again.
pub fn run(bytes: &[u8]) {
    match (RecordRef::scan(bytes), Loose::decode(bytes)) {
        (Ok(scanned), Ok(decoded)) => compare(&scanned, &decoded),
        (Ok(_), Err(error)) => {
            let text = error.to_string();
            assert!(
                text.contains("key value"),
                "only the scanner accepts: {text}"
            );
        }
        (Err(error), Ok(decoded)) => {
            let stricter = decoded.event.is_none() || is_refused(bytes, true);
            assert!(stricter, "only the decoder accepts: {error}");
        }
        (Err(_), Err(_)) => {}
    }
    let found: Vec<RecordRef<'_>> = record::iter(bytes).map_while(Result::ok).collect();
    let mut again = Vec::new();
    found
        .iter()
        .for_each(|record| record.encode_into(&mut again));
    let found_again: Result<Vec<_>, _> = record::iter(&again).collect();
    assert_eq!(found_again.expect("what was written is read"), found);
}

/// Whether a message that decodes has what the scanner refuses: a group, at the top a second event
/// or a larger ordinal, or such a thing in its delivery.
fn is_refused(mut message: &[u8], top: bool) -> bool {
    let mut events = 0;
    while let Some((tag, rest)) = take_varint(message) {
        let Some((value, after)) = (match tag & 7 {
            0 => take_varint(rest),
            1 => rest.get(8..).map(|after| (0, after)),
            5 => rest.get(4..).map(|after| (0, after)),
            2 => take_varint(rest),
            _ => return true,
        }) else {
            return false;
        };
        let (inner, after) = match tag & 7 {
            2 => after.split_at(
                after
                    .len()
                    .min(usize::try_from(value).unwrap_or(usize::MAX)),
            ),
            _ => (&[][..], after),
        };
        let refused = match (top, tag >> 3) {
            (true, 1) => {
                events += 1;
                events > 1
            }
            (true, 2) => is_refused(inner, false),
            (true, 4) => u32::try_from(value).is_err(),
            _ => false,
        };
        if refused {
            return true;
        }
        message = after;
    }
    false
}

fn compare(scanned: &RecordRef<'_>, decoded: &Loose) {
    assert_eq!(Some(scanned.event), decoded.event.as_deref());
    assert_eq!(scanned.original, decoded.original.as_deref());
    assert_eq!(scanned.ordinal, decoded.ordinal);
    let expected = decoded.delivery.clone().unwrap_or_default();
    let delivery = &scanned.delivery;
    assert_eq!(delivery.exchange, expected.exchange);
    assert_eq!(delivery.routing_key, expected.routing_key);
    assert_eq!(delivery.properties, expected.properties);
    assert_eq!(delivery.received_at_us, expected.received_at_us);
    assert_eq!(delivery.redelivered, expected.redelivered);
    assert_eq!(delivery.undecodable, expected.undecodable);
}

/// Records of every shape, with and without their length.
pub fn seeds() -> Vec<Vec<u8>> {
    let full = RecordRef {
        event: b"\x0a\x01i\x12\x02/s\x1a\x031.0\x22\x01t",
        delivery: record::DeliveryRef {
            exchange: "events",
            routing_key: "größe",
            properties: b"\x00\x00",
            received_at_us: -1,
            redelivered: true,
            undecodable: "why",
        },
        original: Some(b"{}"),
        ordinal: 300,
    };
    let small = RecordRef {
        event: b"",
        ..RecordRef::default()
    };
    let mut framed = Vec::new();
    full.encode_into(&mut framed);
    let alone = framed[1..].to_vec();
    small.encode_into(&mut framed);
    let mut seeds = vec![framed, alone];
    // A delivery in two parts, two events, an ordinal over 32 bits, a group, unknown fields, a
    // field number over 29 bits.
    seeds.extend(
        [
            &b"\x0a\x00\x12\x03\x0a\x01x\x12\x02\x28\x01"[..],
            b"\x0a\x00\x0a\x00",
            b"\x0a\x00\x20\xff\xff\xff\xff\x7f",
            b"\x0a\x00\x2b\x08\x01\x2c",
            b"\x0a\x00\x78\x05\x7d\x01\x02\x03\x04\x79\x01\x02\x03\x04\x05\x06\x07\x08\x7a\x01x",
            b"\x0a\x00\x80\x80\x80\x80\x80\x01\x05",
        ]
        .map(<[u8]>::to_vec),
    );
    // Groups in a delivery, as deep as a decoder follows them there, and one deeper.
    for depth in [99, 100] {
        let groups = [vec![0x3b; depth], vec![0x3c; depth]].concat();
        let mut record = b"\x0a\x00\x12".to_vec();
        frame::put_varint(groups.len() as u64, &mut record);
        seeds.push([record, groups].concat());
    }
    seeds
}
