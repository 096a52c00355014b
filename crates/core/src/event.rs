//! [`Event`]: the canonical envelope as bytes. [`EventBuilder`]: how a new one is made.
//!
//! An event is its bytes: what was published is archived and replayed, and never encoded again.
//! The canonical envelope is a CloudEvent 1.0 in the Protobuf format; docs/formats/envelope.md.
//!
//! ```
//! use annals_core::{Event, EventBuilder, Timestamp};
//!
//! let event = EventBuilder::new("shop.v1.OrderPlaced", "/shop", "o-17-placed")?
//!     .time("2026-11-21T09:00:00Z".parse::<Timestamp>().unwrap())
//!     .subject("o-17")?
//!     .json(br#"{"total":42}"#)
//!     .build()?;
//! assert_eq!(event.header().subject, Some("o-17"));
//! assert_eq!(Event::parse(event.bytes().clone())?, event);
//! # Ok::<(), annals_core::Error>(())
//! ```

use crate::envelope::{
    CloudEvent,
    cloud_event::{
        CloudEventAttributeValue, Data as EnvelopeData, cloud_event_attribute_value::Attr,
    },
};
use crate::names::{LONG_BYTES_MAX, SHORT_BYTES_MAX, check};
use crate::{Error, EventId, EventType, Header, Result, Source, Subject, Timestamp, attribute};
use bytes::Bytes;
use prost::Message;

/// The version of CloudEvents an envelope states.
pub const SPEC_VERSION: &str = "1.0";
/// Media type of the canonical envelope.
pub const CONTENT_TYPE: &str = "application/cloudevents+protobuf";

/// A valid event: the canonical envelope's bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    bytes: Bytes,
}

impl Event {
    /// Takes an encoded envelope if it is a valid CloudEvent in our bounds; keeps its bytes.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        Self::check(&bytes)?;
        Ok(Self { bytes })
    }

    /// The attributes of an encoded envelope, if it is one that [`Event::parse`] takes.
    pub fn check(bytes: &[u8]) -> Result<Header<'_>> {
        let header = Header::scan_all(bytes)?;
        validate(&header)?;
        Ok(header)
    }

    /// The envelope, as published.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The attributes, borrowed. Scans the envelope: keep the header where it is used often.
    pub fn header(&self) -> Header<'_> {
        Header::scan(&self.bytes).expect("an Event's bytes were scanned when it was made")
    }

    /// The whole envelope, decoded. For display and conversion; hot paths use [`Event::header`].
    pub fn decode(&self) -> Result<CloudEvent> {
        CloudEvent::decode(&self.bytes[..])
            .map_err(|e| Error::invalid("the envelope does not decode").caused_by(e))
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = self.header();
        f.debug_struct("Event")
            .field("type", &header.event_type)
            .field("source", &header.source)
            .field("id", &header.id)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// What makes a scanned envelope a valid event: CloudEvents 1.0's required attributes, in our
/// bounds.
pub fn validate(header: &Header<'_>) -> Result<()> {
    if header.spec_version != SPEC_VERSION {
        return Err(Error::invalid(format!(
            "specversion is {:?}, only {SPEC_VERSION:?} is known",
            header.spec_version
        )));
    }
    check("id", header.id, SHORT_BYTES_MAX)?;
    check("source", header.source, LONG_BYTES_MAX)?;
    check("type", header.event_type, SHORT_BYTES_MAX)?;
    match header.subject {
        Some(subject) => check("subject", subject, LONG_BYTES_MAX),
        None => Ok(()),
    }
}

/// Makes an envelope: required attributes first, then what else is known, then [`build`].
///
/// [`build`]: EventBuilder::build
#[derive(Debug, Clone)]
pub struct EventBuilder {
    envelope: CloudEvent,
}

impl EventBuilder {
    /// Starts an event of a type, from a source, with an id.
    pub fn new(
        event_type: impl AsRef<str>,
        source: impl AsRef<str>,
        id: impl AsRef<str>,
    ) -> Result<Self> {
        let event_type = EventType::new(event_type)?;
        let source = Source::new(source)?;
        let id = EventId::new(id)?;
        let envelope = CloudEvent {
            id: id.as_str().to_owned(),
            source: source.as_str().to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            r#type: event_type.as_str().to_owned(),
            ..CloudEvent::default()
        };
        Ok(Self { envelope })
    }

    /// When it happened.
    #[must_use]
    pub fn time(self, time: Timestamp) -> Self {
        self.set(attribute::TIME, timestamp_value(time))
    }

    /// The entity it is about.
    pub fn subject(self, subject: impl AsRef<str>) -> Result<Self> {
        let subject = Subject::new(subject)?;
        Ok(self.set(
            attribute::SUBJECT,
            Attr::CeString(subject.as_str().to_owned()),
        ))
    }

    /// Another attribute, as text.
    pub fn attribute(self, name: &str, value: impl Into<String>) -> Result<Self> {
        self.value(name, Attr::CeString(value.into()))
    }

    /// Another attribute, of any CloudEvents type. `time` must be a timestamp, `subject` text.
    pub fn value(self, name: &str, value: Attr) -> Result<Self> {
        attribute::check_name(name)?;
        match (name, &value) {
            (attribute::TIME, Attr::CeTimestamp(_)) => {}
            (attribute::TIME, _) => return Err(Error::invalid("time is not a timestamp")),
            (attribute::SUBJECT, Attr::CeString(subject)) => drop(Subject::new(subject)?),
            (attribute::SUBJECT, _) => return Err(Error::invalid("subject is not text")),
            _ => {}
        }
        Ok(self.set(name, value))
    }

    /// Whether an attribute is set.
    pub fn has(&self, name: &str) -> bool {
        self.envelope.attributes.contains_key(name)
    }

    /// A payload in Protobuf.
    #[must_use]
    pub fn protobuf(self, payload: impl Into<Bytes>) -> Self {
        self.data(payload, "application/protobuf")
    }

    /// A payload in JSON.
    #[must_use]
    pub fn json(self, payload: impl AsRef<[u8]>) -> Self {
        self.data(Bytes::copy_from_slice(payload.as_ref()), "application/json")
    }

    /// A payload of any media type.
    #[must_use]
    pub fn data(mut self, payload: impl Into<Bytes>, content_type: &str) -> Self {
        self.envelope.data = Some(EnvelopeData::BinaryData(payload.into()));
        self.set(
            attribute::DATA_CONTENT_TYPE,
            Attr::CeString(content_type.to_owned()),
        )
    }

    /// A payload with no stated media type.
    #[must_use]
    pub fn raw_data(mut self, payload: EnvelopeData) -> Self {
        self.envelope.data = Some(payload);
        self
    }

    /// Encodes the envelope: fields in number order, attributes sorted by name.
    pub fn build(self) -> Result<Event> {
        Event::parse(self.envelope.encode_to_vec())
    }

    fn set(mut self, name: &str, value: Attr) -> Self {
        let value = CloudEventAttributeValue { attr: Some(value) };
        self.envelope.attributes.insert(name.to_owned(), value);
        self
    }
}

/// A timestamp as an attribute's value.
pub fn timestamp_value(time: Timestamp) -> Attr {
    // Protobuf wants nanoseconds counted forward from the second, jiff signs both alike.
    let nanos = time.as_nanosecond();
    Attr::CeTimestamp(prost_types::Timestamp {
        seconds: nanos.div_euclid(1_000_000_000) as i64,
        nanos: nanos.rem_euclid(1_000_000_000) as i32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Data;

    fn sample() -> EventBuilder {
        EventBuilder::new("vcs.v1.CommitPushed", "/vcs/tokio-rs/axum", "a1")
            .unwrap()
            .time("2021-06-12T18:36:08.5Z".parse().unwrap())
            .subject("tokio-rs/axum")
            .unwrap()
            .attribute(attribute::PRODUCER_ID, "p1")
            .unwrap()
            .attribute(attribute::PRODUCER_SEQ, "18446744073709551615")
            .unwrap()
            .protobuf(vec![1, 2, 3])
    }

    #[test]
    fn the_header_reads_what_the_builder_wrote() {
        let event = sample().build().unwrap();
        let header = event.header();
        assert_eq!(header.key(), ("/vcs/tokio-rs/axum", "a1"));
        assert_eq!(header.event_type, "vcs.v1.CommitPushed");
        assert_eq!(header.subject, Some("tokio-rs/axum"));
        assert_eq!(header.time.unwrap().to_string(), "2021-06-12T18:36:08.5Z");
        assert_eq!(header.producer_id, Some("p1"));
        assert_eq!(header.producer_seq, Some(u64::MAX));
        assert_eq!(header.data_content_type, Some("application/protobuf"));
        assert_eq!(header.data, Data::Binary(&[1, 2, 3]));
    }

    #[test]
    fn attributes_are_encoded_in_sorted_order_so_equal_events_have_equal_bytes() {
        let one = sample()
            .attribute("zz", "1")
            .unwrap()
            .attribute("aa", "2")
            .unwrap();
        let two = sample()
            .attribute("aa", "2")
            .unwrap()
            .attribute("zz", "1")
            .unwrap();
        let (one, two) = (one.build().unwrap(), two.build().unwrap());
        assert_eq!(one.bytes(), two.bytes());
        let names: Vec<_> = crate::header::attributes(one.bytes())
            .map(|(name, _)| name)
            .collect();
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time: Timestamp = "1969-12-31T23:59:59.25Z".parse().unwrap();
        let event = EventBuilder::new("t", "s", "i")
            .unwrap()
            .time(time)
            .build()
            .unwrap();
        assert_eq!(event.header().time, Some(time));
    }

    #[test]
    fn envelopes_that_are_no_cloud_events_are_refused_with_the_reason() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut CloudEvent), reason: &str) {
            let mut builder = sample();
            change(&mut builder.envelope);
            let error = builder.build().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        check(|e| e.id.clear(), "id is empty");
        check(|e| e.id = "x".repeat(256), "id is 256 bytes");
        check(|e| e.source.clear(), "source is empty");
        check(|e| e.r#type = "a\0".into(), "type contains");
        check(|e| e.spec_version = "0.3".into(), "specversion");
        check(
            |e| {
                let far = prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                };
                let value = CloudEventAttributeValue {
                    attr: Some(Attr::CeTimestamp(far)),
                };
                e.attributes.insert("time".into(), value);
            },
            "no Protobuf timestamp",
        );
        assert!(Event::parse(&b"\x0a\xff"[..]).is_err());
        assert!(Event::parse(&b""[..]).is_err());
    }
}
