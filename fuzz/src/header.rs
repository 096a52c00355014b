//! The header scanner against a full decode by `prost`.
//!
//! They agree but where `core/src/header.rs` says so: the scanner leaves text that it does not
//! surface unchecked, and refuses several `proto_data` fields, times that are none, and attributes
//! under a wrong wire type.

use annals_core::envelope::CloudEvent;
use annals_core::envelope::cloud_event::{Data as Payload, cloud_event_attribute_value::Attr};
use annals_core::header::{self, Value};
use annals_core::{Data, Event, EventBuilder, Header};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;

/// Scanner and decoder agree on these bytes.
pub fn run(bytes: &[u8]) {
    match (Header::scan(bytes), CloudEvent::decode(bytes)) {
        (Ok(header), Ok(envelope)) => {
            compare(&header, &envelope);
            compare_attributes(bytes, &envelope);
        }
        (Ok(_), Err(error)) => {
            let text = error.to_string();
            assert!(text.contains("UTF-8"), "only the scanner accepts: {text}");
        }
        (Err(error), Ok(envelope)) => {
            let text = error.to_string();
            let several = text.contains("several proto_data");
            let time = text.contains("no Protobuf timestamp");
            let wire = text.contains("not valid Protobuf") && has_mistyped_attribute(bytes);
            assert!(several || time || wire, "only the decoder accepts: {text}");
            assert!(!time || has_timestamp(bytes, &envelope), "{text}");
        }
        (Err(_), Err(_)) => {}
    }
    if let Ok(event) = Event::parse(Bytes::copy_from_slice(bytes)) {
        assert_eq!(event.bytes(), bytes, "an event is its bytes");
        // Whoever asks for the whole of a valid event gets it.
        event.decode().expect("a valid event decodes");
    }
}

fn compare(header: &Header<'_>, envelope: &CloudEvent) {
    assert_eq!(header.id, envelope.id);
    assert_eq!(header.source, envelope.source);
    assert_eq!(header.event_type, envelope.r#type);
    assert_eq!(header.spec_version, envelope.spec_version);
    let attr = |name: &str| envelope.attributes.get(name).and_then(|v| v.attr.as_ref());
    let text = |name: &str| match attr(name) {
        Some(Attr::CeString(v) | Attr::CeUri(v) | Attr::CeUriRef(v)) => Some(v.as_str()),
        _ => None,
    };
    assert_eq!(header.subject, text("subject"));
    assert_eq!(header.data_content_type, text("datacontenttype"));
    assert_eq!(header.producer_id, text("producerid"));
    let seq = text("producerseq").and_then(|v| v.parse::<u64>().ok());
    assert_eq!(header.producer_seq, seq);
    let time = header.time.map(|time| time.as_nanosecond());
    let expected = match attr("time") {
        Some(Attr::CeTimestamp(t)) => {
            Some(i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos))
        }
        _ => None,
    };
    assert_eq!(time, expected);
    match (&envelope.data, header.data) {
        (None, Data::None) => {}
        (Some(Payload::BinaryData(expected)), Data::Binary(found)) => assert_eq!(expected, found),
        (Some(Payload::TextData(expected)), Data::Text(found)) => {
            assert_eq!(expected.as_bytes(), found);
        }
        (Some(Payload::ProtoData(expected)), Data::Proto(found)) => {
            let found = prost_types::Any::decode(found).expect("checked by the scanner");
            assert_eq!(expected, &found);
        }
        (expected, found) => panic!("payload {expected:?} against {found:?}"),
    }
}

fn compare_attributes(bytes: &[u8], envelope: &CloudEvent) {
    // Of a name twice, the last counts.
    let found: BTreeMap<&[u8], Value<'_>> = header::attributes(bytes).collect();
    assert_eq!(found.len(), envelope.attributes.len());
    for (name, expected) in &envelope.attributes {
        let expected = match &expected.attr {
            None => Value::None,
            Some(Attr::CeBoolean(v)) => Value::Boolean(*v),
            Some(Attr::CeInteger(v)) => Value::Integer(*v),
            Some(Attr::CeString(v) | Attr::CeUri(v) | Attr::CeUriRef(v)) => {
                Value::Text(v.as_bytes())
            }
            Some(Attr::CeBytes(v)) => Value::Bytes(v),
            Some(Attr::CeTimestamp(v)) => Value::Timestamp(v.seconds, v.nanos),
        };
        assert_eq!(found.get(name.as_bytes()), Some(&expected), "{name}");
    }
}

/// Field 5 under a wire type other than 2, wherever the bytes look like it.
fn has_mistyped_attribute(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .any(|byte| byte & 0x78 == 5 << 3 && byte & 7 != 2)
}

/// A refused time may be one that a later attribute of the name replaces.
fn has_timestamp(bytes: &[u8], envelope: &CloudEvent) -> bool {
    let out_of_range = |seconds, nanos| header::timestamp(seconds, nanos).is_err();
    let last = envelope
        .attributes
        .get("time")
        .and_then(|v| v.attr.as_ref())
        .is_some_and(
            |attr| matches!(attr, Attr::CeTimestamp(t) if out_of_range(t.seconds, t.nanos)),
        );
    last || header::attributes(bytes).any(|(name, value)| {
        name == b"time" && matches!(value, Value::Timestamp(s, n) if out_of_range(s, n))
    })
}

/// Envelopes of every shape, and Protobuf's darker corners.
pub fn seeds() -> Vec<Vec<u8>> {
    let builder = || EventBuilder::new("vcs.v1.TagCreated", "/vcs/tokio-rs/axum", "v1").unwrap();
    let full = builder()
        .time("2021-06-12T18:36:08.5Z".parse().unwrap())
        .subject("tokio-rs/axum")
        .and_then(|b| b.attribute("producerid", "p1"))
        .and_then(|b| b.attribute("producerseq", "18446744073709551615"))
        .and_then(|b| b.value("flag", Attr::CeBoolean(true)))
        .and_then(|b| b.value("count", Attr::CeInteger(-3)))
        .and_then(|b| b.value("raw", Attr::CeBytes(Bytes::from_static(&[0, 255]))))
        .and_then(|b| b.value("dataschema", Attr::CeUri("https://x/y".into())))
        .and_then(|b| b.value("ref", Attr::CeUriRef("../z".into())))
        .unwrap()
        .protobuf(vec![1, 2, 3]);
    let any = prost_types::Any {
        type_url: "type.googleapis.com/vcs.v1.TagCreated".into(),
        value: vec![8, 1],
    };
    let text = builder().raw_data(Payload::TextData("größe".into()));
    let proto = builder().raw_data(Payload::ProtoData(any));
    let before_1970 = builder().time("1969-12-31T23:59:59.25Z".parse().unwrap());
    let events = [full, text, proto, before_1970].map(|b| b.build().unwrap().bytes().to_vec());
    let mut seeds = Vec::from(events);
    // A group, an unknown field of each wire type, an attribute without a value, an overlong
    // varint, a timestamp in two parts.
    seeds.extend(
        [
            &b"\x53\x08\x01\x5b\x5c\x54"[..],
            b"\x48\x01\x51\0\0\0\0\0\0\0\0\x5d\0\0\0\0\x62\x01x",
            b"\x2a\x06\x0a\x04time",
            b"\x0a\x81\x80\x00x",
            b"\x2a\x10\x0a\x04time\x12\x08\x3a\x02\x08\x05\x3a\x02\x10\x07",
            b"\x2a\x0e\x0a\x04time\x12\x02\x08\x01\x12\x02\x3a\x00",
        ]
        .map(<[u8]>::to_vec),
    );
    // Groups as deep as a decoder follows them, and one field deeper.
    let deep = |depth, content: &[u8]| [&vec![0x63; depth], content, &vec![0x64; depth]].concat();
    seeds.extend([
        deep(100, b""),
        deep(99, b"\x08\x01"),
        deep(100, b"\x08\x01"),
    ]);
    seeds
}
