//! What a message's body is: the canonical envelope, one of the two other bodies a plain client
//! may publish, or a foreign message. Nothing is ever refused.

use annals_bus::Delivery;
use annals_core::envelope::cloud_event::Data;
use annals_core::event::CONTENT_TYPE;
use annals_core::{Error, Event, EventBuilder, Header, Result, binary, json};
use bytes::Bytes;

/// Type of the event made around a body that is none.
pub const UNDECODABLE: &str = "annals.archive.v1.Undecodable";

/// Media type of an event in JSON.
const JSON_CONTENT_TYPE: &str = "application/cloudevents+json";
/// Longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// A body as an event.
#[derive(Debug, Clone)]
pub struct Body {
    /// The event: the body itself where it was canonical.
    pub event: Event,
    /// The body as published, where the event was decoded from another form.
    pub original: Option<Bytes>,
    /// Why the body is no event; it is then the payload of [`Body::event`]. Empty otherwise.
    pub undecodable: String,
}

impl Body {
    /// The header of a delivery whose body is the canonical envelope, as nearly all are: no
    /// [`Body`] has to be made of it.
    #[inline]
    pub fn canonical(delivery: &Delivery) -> Option<Header<'_>> {
        if media_type(delivery).eq_ignore_ascii_case(CONTENT_TYPE) {
            Event::check(&delivery.body).ok()
        } else {
            None
        }
    }

    /// Reads the body of a delivery from the archive queue of `bus`.
    ///
    /// The same message always gives the same event, so that redeliveries are duplicates.
    #[inline]
    pub fn of(delivery: &Delivery, bus: &str) -> Self {
        match decode(delivery) {
            Ok((event, original)) => Self {
                event,
                original,
                undecodable: String::new(),
            },
            Err(reason) => Self::undecodable(delivery, bus, &reason),
        }
    }

    #[cold]
    fn undecodable(delivery: &Delivery, bus: &str, reason: &Error) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [
            delivery.exchange.as_bytes(),
            delivery.routing_key.as_bytes(),
            &delivery.body,
        ] {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        let event = EventBuilder::new(
            UNDECODABLE,
            format!("/annals/archive/{bus}"),
            hasher.finalize().to_hex(),
        )
        .map(|builder| builder.raw_data(Data::BinaryData(delivery.body.clone())))
        .and_then(EventBuilder::build)
        .expect("the bus's name was checked, the rest is ours");
        let mut undecodable = reason.to_string();
        undecodable.truncate(undecodable.floor_char_boundary(REASON_BYTES_MAX));
        Self {
            event,
            original: None,
            undecodable,
        }
    }
}

#[inline]
fn decode(delivery: &Delivery) -> Result<(Event, Option<Bytes>)> {
    let properties = &delivery.properties;
    let body = &delivery.body;
    let media_type = media_type(delivery);
    if media_type.eq_ignore_ascii_case(CONTENT_TYPE) {
        return Event::parse(body.clone()).map(|event| (event, None));
    }
    if media_type.eq_ignore_ascii_case(JSON_CONTENT_TYPE) {
        return json::decode(body).map(|event| (event, Some(body.clone())));
    }
    if binary::is_binary(properties) {
        return binary::decode(properties, body).map(|event| (event, Some(body.clone())));
    }
    Err(Error::invalid(match media_type {
        "" => "neither a content type nor cloudEvents_ headers".to_owned(),
        other => format!("content type {other:?} without cloudEvents_ headers"),
    }))
}

/// The content type without its parameters; empty when there is none.
#[inline]
fn media_type(delivery: &Delivery) -> &str {
    let stated = delivery.properties.content_type().unwrap_or_default();
    if stated == CONTENT_TYPE {
        return stated;
    }
    let essence = stated
        .split_once(';')
        .map_or(stated, |(essence, _)| essence);
    essence.trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_core::Properties;

    fn delivery(content_type: &str, body: impl Into<Bytes>) -> Delivery {
        Delivery {
            tag: 1,
            redelivered: false,
            exchange: "annals.main".into(),
            routing_key: "shop.v1.OrderPlaced".into(),
            properties: Properties::builder()
                .content_type(content_type)
                .build()
                .unwrap(),
            body: body.into(),
        }
    }

    fn event() -> Event {
        let builder = EventBuilder::new("shop.v1.OrderPlaced", "/shop", "o-1").unwrap();
        builder.json(br#"{"total":42}"#).build().unwrap()
    }

    #[test]
    fn a_canonical_body_is_the_event_and_its_bytes_are_shared() {
        let body = event().bytes().clone();
        let read = Body::of(
            &delivery("Application/CloudEvents+Protobuf; x=y", body.clone()),
            "main",
        );
        assert_eq!(read.event.bytes().as_ptr(), body.as_ptr());
        assert_eq!((read.original, read.undecodable.as_str()), (None, ""));
    }

    #[test]
    fn json_and_binary_bodies_become_events_and_keep_their_bytes() {
        let json = Bytes::from(json::encode(&event()).unwrap());
        let read = Body::of(
            &delivery("application/cloudevents+json; charset=UTF-8", json.clone()),
            "main",
        );
        assert_eq!(read.event.header().key(), ("/shop", "o-1"));
        assert_eq!(read.original, Some(json));

        let (properties, body) = binary::encode(&event()).unwrap();
        let read = Body::of(
            &Delivery {
                properties,
                ..delivery("", body.clone())
            },
            "main",
        );
        assert_eq!(read.event.header().key(), ("/shop", "o-1"));
        assert_eq!((read.original, read.undecodable.as_str()), (Some(body), ""));
    }

    #[test]
    fn anything_else_is_kept_in_a_made_envelope_that_is_always_the_same() {
        for (content_type, body) in [
            ("application/cloudevents+protobuf", &b"\xff\xff"[..]),
            ("application/cloudevents+json", b"{"),
            ("text/plain", b"hello"),
            ("", b""),
        ] {
            let read = Body::of(&delivery(content_type, body), "main");
            assert_eq!(
                read.event.header().event_type,
                UNDECODABLE,
                "{content_type}"
            );
            assert_eq!(read.event.header().data.bytes(), body);
            assert!(!read.undecodable.is_empty() && read.undecodable.len() <= REASON_BYTES_MAX);
            let again = Body::of(&delivery(content_type, body), "main");
            assert_eq!(again.event, read.event);
        }
        let id = |key: &str, body: &'static str| {
            let delivery = Delivery {
                routing_key: key.into(),
                ..delivery("", body)
            };
            Body::of(&delivery, "main").event.header().id.to_owned()
        };
        assert_ne!(id("ab", "c"), id("a", "bc"));
    }
}
