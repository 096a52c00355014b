//! CloudEvents in binary mode: attributes in headers, the payload as the body.
//!
//! The AMQP binding of CloudEvents 1.0.2 as RabbitMQ's clients use it: attribute `x` is the header
//! `cloudEvents_x` or `cloudEvents:x`, `datacontenttype` is the content type. Headers may be text,
//! boolean, integer, bytes or timestamp; `time` may be RFC 3339 text or an AMQP timestamp.

use crate::attribute::{self, DATA_CONTENT_TYPE, DATA_SCHEMA, TIME};
use crate::envelope::cloud_event::{Data, cloud_event_attribute_value::Attr};
use crate::event::{SPEC_VERSION, timestamp_value};
use crate::properties::{CLOUD_EVENTS_PREFIX, FieldValue};
use crate::{Error, Event, EventBuilder, Properties, Result, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The other prefix that clients use.
const COLON_PREFIX: &str = "cloudEvents:";

/// Whether a message says that it is an event in binary mode: it has an attribute's header, and
/// its body does not claim to be a whole event.
pub fn is_binary(properties: &Properties) -> bool {
    let whole = properties.content_type().is_some_and(|t| {
        t.to_ascii_lowercase()
            .starts_with("application/cloudevents")
    });
    !whole && properties.headers().any(|(name, _)| strip(name).is_some())
}

/// Makes the canonical event of a message in binary mode.
pub fn decode(properties: &Properties, body: &Bytes) -> Result<Event> {
    let mut attributes = BTreeMap::new();
    for (header, value) in properties.headers() {
        let Some(name) = strip(header) else { continue };
        if let Some(value) = attribute_value(name, value)?
            && attributes.insert(name, value).is_some()
        {
            return Err(Error::invalid(format!("attribute {name} is there twice")));
        }
    }
    let spec_version = required(&mut attributes, "specversion")?;
    if spec_version != SPEC_VERSION {
        return Err(Error::invalid(format!(
            "specversion is {spec_version:?}, only {SPEC_VERSION:?} is known"
        )));
    }
    let id = required(&mut attributes, "id")?;
    let source = required(&mut attributes, "source")?;
    let event_type = required(&mut attributes, "type")?;
    // The property is where the binding puts it, and wins over a header of that name.
    if let Some(media) = properties.content_type() {
        attributes.insert(
            DATA_CONTENT_TYPE,
            attribute::parse_text(DATA_CONTENT_TYPE, media)?,
        );
    }
    let mut builder = EventBuilder::new(event_type, source, id)?;
    let has_data = !body.is_empty() || attributes.contains_key(DATA_CONTENT_TYPE);
    for (name, value) in attributes {
        builder = builder.value(name, value)?;
    }
    if has_data {
        builder = builder.raw_data(Data::BinaryData(body.clone()));
    }
    builder.build()
}

/// Writes an event in binary mode: persistent, with `message_id` and `type` beside the headers.
pub fn encode(event: &Event) -> Result<(Properties, Bytes)> {
    let mut envelope = event.decode()?;
    let mut builder = Properties::builder()
        .persistent()
        .message_id(&envelope.id)
        .message_type(&envelope.r#type)
        .header(&header_name("specversion"), SPEC_VERSION)
        .header(&header_name("id"), &envelope.id)
        .header(&header_name("source"), &envelope.source)
        .header(&header_name("type"), &envelope.r#type);
    let mut media = None;
    let mut absent_schema = true;
    for (name, value) in &envelope.attributes {
        absent_schema &= name != DATA_SCHEMA;
        match &value.attr {
            None => {}
            Some(value) if name == DATA_CONTENT_TYPE => {
                media = Some(attribute::to_text(name, value)?);
            }
            Some(value) => builder = builder.header_fields(&field(name, value)?),
        }
    }
    let body = match envelope.data.take() {
        None => Bytes::new(),
        Some(Data::BinaryData(bytes)) => bytes,
        Some(Data::TextData(text)) => text.into(),
        Some(Data::ProtoData(any)) => {
            media.get_or_insert_with(|| "application/protobuf".to_owned());
            if absent_schema {
                builder = builder.header(&header_name(DATA_SCHEMA), &any.type_url);
            }
            any.value.into()
        }
    };
    if let Some(media) = media {
        builder = builder.content_type(media);
    }
    Ok((builder.build()?, body))
}

fn strip(header: &str) -> Option<&str> {
    header
        .strip_prefix(CLOUD_EVENTS_PREFIX)
        .or_else(|| header.strip_prefix(COLON_PREFIX))
}

fn header_name(attribute: &str) -> String {
    format!("{CLOUD_EVENTS_PREFIX}{attribute}")
}

fn required(attributes: &mut BTreeMap<&str, Attr>, name: &str) -> Result<String> {
    match attributes.remove(name) {
        Some(Attr::CeString(text)) => Ok(text),
        Some(_) => Err(Error::invalid(format!("{name} is not text"))),
        None => Err(Error::invalid(format!("{name} is missing"))),
    }
}

fn attribute_value(name: &str, value: FieldValue<'_>) -> Result<Option<Attr>> {
    let wrong = |what: &str| Error::invalid(format!("attribute {name} {what}"));
    Ok(Some(match value {
        FieldValue::Void => return Ok(None),
        FieldValue::LongString(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| wrong("is not UTF-8"))?;
            attribute::parse_text(name, text)?
        }
        FieldValue::Timestamp(seconds) => i64::try_from(seconds)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map(timestamp_value)
            .ok_or_else(|| wrong("is out of range"))?,
        _ if name == TIME => return Err(wrong("is neither text nor a timestamp")),
        FieldValue::Boolean(value) => Attr::CeBoolean(value),
        // CloudEvents integers have 32 bits; a longer one is kept as its digits.
        FieldValue::Integer(value) => match i32::try_from(value) {
            Ok(value) => Attr::CeInteger(value),
            Err(_) => Attr::CeString(value.to_string()),
        },
        FieldValue::Bytes(bytes) => Attr::CeBytes(Bytes::copy_from_slice(bytes)),
        FieldValue::Float(_) | FieldValue::Other(..) => {
            return Err(wrong("is no type that CloudEvents has"));
        }
    }))
}

/// An attribute as an encoded header: AMQP's own type where it has one, else text.
fn field(name: &str, value: &Attr) -> Result<Vec<u8>> {
    let name_bytes = header_name(name);
    // Attribute names have at most 64 bytes.
    let mut out = vec![name_bytes.len() as u8];
    out.extend_from_slice(name_bytes.as_bytes());
    let (kind, bytes) = match value {
        Attr::CeBoolean(value) => {
            out.extend_from_slice(&[b't', u8::from(*value)]);
            return Ok(out);
        }
        Attr::CeInteger(value) => {
            out.push(b'I');
            out.extend_from_slice(&value.to_be_bytes());
            return Ok(out);
        }
        Attr::CeBytes(bytes) => (b'x', bytes.clone()),
        other => (b'S', attribute::to_text(name, other)?.into()),
    };
    let length = u32::try_from(bytes.len())
        .map_err(|_| Error::invalid(format!("attribute {name} is over 4 GiB")))?;
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&bytes);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Data as Payload;
    use crate::properties::PropertiesBuilder;

    fn plain() -> PropertiesBuilder {
        Properties::builder()
            .header("cloudEvents_specversion", "1.0")
            .header("cloudEvents_id", "i")
            .header("cloudEvents_source", "/s")
            .header("cloudEvents_type", "shop.v1.OrderPlaced")
    }

    fn decode_built(builder: PropertiesBuilder) -> Result<Event> {
        decode(&builder.build().unwrap(), &Bytes::from_static(b"{}"))
    }

    #[test]
    fn headers_and_body_become_a_canonical_event() {
        let properties = plain()
            .content_type("application/json")
            .header("cloudEvents:subject", "o-1")
            .header("cloudEvents_time", "2026-11-20T15:00:00+01:00")
            .header("other", "not an attribute")
            .header_fields(b"\x0dcloudEvents_nI\xff\xff\xff\xf9")
            .header_fields(b"\x0dcloudEvents_bt\x01")
            .build()
            .unwrap();
        assert!(is_binary(&properties));
        let event = decode(&properties, &Bytes::from_static(b"{}")).unwrap();
        let header = event.header();
        assert_eq!(header.key(), ("/s", "i"));
        assert_eq!(header.subject, Some("o-1"));
        assert_eq!(header.time, Some("2026-11-20T14:00:00Z".parse().unwrap()));
        assert_eq!(header.data_content_type, Some("application/json"));
        assert_eq!(header.data, Payload::Binary(b"{}"));
        let envelope = event.decode().unwrap();
        let value = |name: &str| envelope.attributes[name].attr.clone();
        assert_eq!(value("n"), Some(Attr::CeInteger(-7)));
        assert_eq!(value("b"), Some(Attr::CeBoolean(true)));
        assert_eq!(envelope.attributes.len(), 5);
        let (again, body) = encode(&event).unwrap();
        assert_eq!(decode(&again, &body).unwrap(), event);
        assert_eq!(again.message_id(), Some("i"));
        assert!(again.is_persistent());
    }

    #[test]
    fn an_amqp_timestamp_is_a_time_and_a_void_header_is_absent() {
        let time = [
            b"\x10cloudEvents_timeT",
            &1_700_000_000u64.to_be_bytes()[..],
        ]
        .concat();
        let event = decode_built(
            plain()
                .header_fields(&time)
                .header_fields(b"\x13cloudEvents_subjectV"),
        )
        .unwrap();
        assert_eq!(
            event.header().time,
            Some("2023-11-14T22:13:20Z".parse().unwrap())
        );
        assert_eq!(event.header().subject, None);
    }

    #[test]
    fn only_messages_with_attribute_headers_are_in_binary_mode() {
        let is = |builder: PropertiesBuilder| is_binary(&builder.build().unwrap());
        assert!(is(plain()));
        assert!(!is(Properties::builder().header("x", "y")));
        assert!(!is(plain().content_type("application/CloudEvents+protobuf")));
        assert!(!is(plain().content_type("application/cloudevents+json")));
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_name_of_the_attribute() {
        #[track_caller]
        fn check(builder: PropertiesBuilder, reason: &str) {
            let error = decode_built(builder).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        check(Properties::builder(), "specversion is missing");
        check(plain().header("cloudEvents:id", "j"), "id is there twice");
        check(plain().header("cloudEvents_time", "now"), "time");
        check(plain().header("cloudEvents_Big", "x"), "\"Big\"");
        check(plain().header("cloudEvents_data", "x"), "\"data\"");
        check(plain().header("cloudEvents_x", "a\nb"), "attribute x");
        check(plain().header_fields(b"\x10cloudEvents_timet\x01"), "time");
        check(
            plain().header_fields(b"\x0dcloudEvents_xF\0\0\0\0"),
            "attribute x",
        );
        check(
            plain().header_fields(b"\x0dcloudEvents_xS\0\0\0\x01\xff"),
            "attribute x",
        );
    }

    #[test]
    fn every_kind_of_payload_and_value_can_be_written() {
        let builder = || EventBuilder::new("t", "/s", "i").unwrap();
        let event = builder()
            .time("2026-11-20T14:00:00.5Z".parse().unwrap())
            .value("raw", Attr::CeBytes(Bytes::from_static(&[0, 255])))
            .unwrap()
            .protobuf(vec![1, 2]);
        let event = event.build().unwrap();
        let (properties, body) = encode(&event).unwrap();
        assert_eq!(decode(&properties, &body).unwrap(), event);
        let any = prost_types::Any {
            type_url: "type.googleapis.com/t".into(),
            value: vec![9],
        };
        let event = builder().raw_data(Data::ProtoData(any)).build().unwrap();
        let (properties, body) = encode(&event).unwrap();
        assert_eq!(&body[..], [9]);
        assert_eq!(properties.content_type(), Some("application/protobuf"));
        let bare = builder().build().unwrap();
        let (properties, body) = encode(&bare).unwrap();
        assert_eq!(decode(&properties, &body).unwrap(), bare);
    }
}
