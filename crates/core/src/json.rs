//! CloudEvents in JSON (single event, structured mode), to and from the canonical envelope.
//!
//! CloudEvents JSON Event Format 1.0.2, media type [`CONTENT_TYPE`]. What the format leaves open,
//! or JSON cannot say:
//!
//! - A payload of a JSON media type (`application/json`, `text/json`, `…+json`; none stated means
//!   `application/json`) keeps its text verbatim, and becomes `binary_data`.
//! - A payload of another media type is a JSON string, and becomes `text_data`.
//! - `time` is a timestamp, `dataschema` a URI, booleans and 32-bit integers are what they are;
//!   every other attribute is text, as JSON has no timestamps, URIs or bytes.
//! - `null` means that an attribute is absent (section 2.3); a payload of `null` is a payload.
//! - A key twice is refused, as readers differ on which one counts.

use crate::attribute::{self, DATA_CONTENT_TYPE, DATA_SCHEMA};
use crate::envelope::cloud_event::{Data, cloud_event_attribute_value::Attr};
use crate::event::SPEC_VERSION;
use crate::{Error, Event, EventBuilder, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use serde_core::de::{Error as _, MapAccess, Visitor};
use serde_core::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Media type of an event in JSON.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// Longest event in JSON that is decoded, in bytes.
pub const BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of objects and arrays, the event's own included.
pub const DEPTH_MAX: usize = 64;
/// Most members of an event.
pub const MEMBERS_MAX: usize = 1000;

const DATA: &str = "data";
const DATA_BASE64: &str = "data_base64";

/// Makes the canonical event of an event in JSON.
pub fn decode(json: &[u8]) -> Result<Event> {
    let text = check_bounds(json)?;
    let Members(mut members) = serde_json::from_str(text)
        .map_err(|e| Error::invalid("the event is no CloudEvent in JSON").caused_by(e))?;
    members.retain(|name, value| name == DATA || value.get() != "null");

    let spec_version = required(&mut members, "specversion")?;
    if spec_version != SPEC_VERSION {
        return Err(Error::invalid(format!(
            "specversion is {spec_version:?}, only {SPEC_VERSION:?} is known"
        )));
    }
    let id = required(&mut members, "id")?;
    let source = required(&mut members, "source")?;
    let event_type = required(&mut members, "type")?;
    let mut builder = EventBuilder::new(event_type, source, id)?;

    let data = members.remove(DATA);
    let base64 = members.remove(DATA_BASE64);
    let media = members.get(DATA_CONTENT_TYPE).copied();
    let media = media.map(|raw| text_of(DATA_CONTENT_TYPE, raw));
    let media = media.transpose()?;
    for (name, raw) in &members {
        builder = builder.value(name, attribute_value(name, raw.get())?)?;
    }
    match (data, base64) {
        (Some(_), Some(_)) => Err(Error::invalid("both data and data_base64 are present")),
        (Some(raw), None) => with_data(builder, raw, media.as_deref())?.build(),
        (None, Some(raw)) => {
            let text = text_of(DATA_BASE64, raw)?;
            let bytes = BASE64
                .decode(text.as_bytes())
                .map_err(|e| Error::invalid(format!("data_base64 is not base64: {e}")))?;
            builder.raw_data(Data::BinaryData(bytes.into())).build()
        }
        (None, None) => builder.build(),
    }
}

/// Writes an event as JSON: required attributes, then the others by name, then the payload.
///
/// A JSON payload is written as it is, without the white space around it; one that claims to be
/// JSON and is not goes into `data_base64`, like every binary payload.
pub fn encode(event: &Event) -> Result<Vec<u8>> {
    let envelope = event.decode()?;
    let mut out = Vec::with_capacity(event.bytes().len() + 128);
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    put_text("id", &envelope.id, &mut out);
    put_text("source", &envelope.source, &mut out);
    put_text("type", &envelope.r#type, &mut out);
    for (name, value) in &envelope.attributes {
        if let Some(value) = &value.attr {
            put_attribute(name, value, &mut out)?;
        }
    }
    let absent = |name| !envelope.attributes.contains_key(name);
    match &envelope.data {
        None => {}
        Some(Data::BinaryData(bytes)) => match json_text(&envelope, bytes) {
            Some(json) => put_raw(DATA, json, &mut out),
            None => put_text(DATA_BASE64, &BASE64.encode(bytes), &mut out),
        },
        Some(Data::TextData(text)) => match json_text(&envelope, text.as_bytes()) {
            Some(json) => put_raw(DATA, json, &mut out),
            None if is_json(media_type(&envelope)) && !absent(DATA_CONTENT_TYPE) => {
                put_text(DATA_BASE64, &BASE64.encode(text), &mut out);
            }
            None => {
                if absent(DATA_CONTENT_TYPE) {
                    put_text(DATA_CONTENT_TYPE, "text/plain", &mut out);
                }
                put_text(DATA, text, &mut out);
            }
        },
        Some(Data::ProtoData(any)) => {
            if absent(DATA_CONTENT_TYPE) {
                put_text(DATA_CONTENT_TYPE, "application/protobuf", &mut out);
            }
            if absent(DATA_SCHEMA) {
                put_text(DATA_SCHEMA, &any.type_url, &mut out);
            }
            put_text(DATA_BASE64, &BASE64.encode(&any.value), &mut out);
        }
    }
    out.push(b'}');
    Ok(out)
}

/// Whether a media type is JSON's: `*/json` or `*/*+json`, parameters aside.
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let ends_with = |suffix: &str| {
        let at = essence.len().checked_sub(suffix.len());
        at.and_then(|at| essence.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    ends_with("/json") || ends_with("+json")
}

/// Checks size, UTF-8 and depth before anything is parsed.
pub(crate) fn check_bounds(json: &[u8]) -> Result<&str> {
    if json.len() > BYTES_MAX {
        return Err(Error::invalid(format!(
            "{} bytes of JSON, at most {BYTES_MAX} are allowed",
            json.len()
        )));
    }
    if !is_within_depth(json, DEPTH_MAX) {
        return Err(Error::invalid(format!(
            "the JSON is nested deeper than {DEPTH_MAX}"
        )));
    }
    std::str::from_utf8(json).map_err(|e| Error::invalid("the JSON is not UTF-8").caused_by(e))
}

fn is_within_depth(json: &[u8], depth_max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > depth_max {
                    return false;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// The members of a JSON object, values as text; a name twice is an error.
struct Members<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if members.len() == MEMBERS_MAX {
                        let text = format!("more than {MEMBERS_MAX} members");
                        return Err(A::Error::custom(text));
                    }
                    if members.contains_key(name.as_str()) {
                        return Err(A::Error::custom(format!("{name:?} is there twice")));
                    }
                    members.insert(Cow::Owned(name), value);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

fn required(members: &mut BTreeMap<Cow<'_, str>, &RawValue>, name: &str) -> Result<String> {
    match members.remove(name) {
        Some(raw) => text_of(name, raw),
        None => Err(Error::invalid(format!("{name} is missing"))),
    }
}

fn text_of(name: &str, raw: &RawValue) -> Result<String> {
    serde_json::from_str(raw.get())
        .map_err(|_| Error::invalid(format!("{name} is not a JSON string")))
}

fn attribute_value(name: &str, raw: &str) -> Result<Attr> {
    let wrong = |what: &str| Error::invalid(format!("attribute {name} {what}"));
    let text = match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw).map_err(|_| wrong("is not text"))?,
        Some(b't' | b'f') => return Ok(Attr::CeBoolean(raw == "true")),
        Some(b'-' | b'0'..=b'9') => {
            let number = raw.parse();
            return number
                .map(Attr::CeInteger)
                .map_err(|_| wrong("is a number that is no 32-bit integer"));
        }
        _ => return Err(wrong("is an object or array")),
    };
    attribute::parse_text(name, text)
}

fn with_data(builder: EventBuilder, raw: &RawValue, media: Option<&str>) -> Result<EventBuilder> {
    Ok(match media {
        None => builder.json(raw.get()),
        Some(media) if is_json(media) => builder.data(raw.get().as_bytes().to_vec(), media),
        Some(media) => {
            let text = serde_json::from_str(raw.get()).map_err(|_| {
                Error::invalid(format!("data of media type {media} is not a JSON string"))
            })?;
            builder.raw_data(Data::TextData(text))
        }
    })
}

fn media_type(envelope: &crate::envelope::CloudEvent) -> &str {
    let value = envelope.attributes.get(DATA_CONTENT_TYPE);
    match value.and_then(|v| v.attr.as_ref()) {
        Some(Attr::CeString(text)) => text,
        _ => "",
    }
}

/// The payload as one JSON value, if that is what it is and says it is.
fn json_text<'a>(envelope: &crate::envelope::CloudEvent, data: &'a [u8]) -> Option<&'a str> {
    // One level is the event's own.
    if !is_json(media_type(envelope)) || !is_within_depth(data, DEPTH_MAX - 1) {
        return None;
    }
    let text = std::str::from_utf8(data).ok()?;
    serde_json::from_str::<&RawValue>(text)
        .ok()
        .map(RawValue::get)
}

fn put_attribute(name: &str, value: &Attr, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Attr::CeBoolean(v) => put_raw(name, if *v { "true" } else { "false" }, out),
        Attr::CeInteger(v) => put_raw(name, &v.to_string(), out),
        other => put_text(name, &attribute::to_text(name, other)?, out),
    }
    Ok(())
}

fn put_raw(name: &str, json: &str, out: &mut Vec<u8>) {
    // Names are lower-case letters, digits and `_`: nothing to escape.
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(json.as_bytes());
}

fn put_text(name: &str, text: &str, out: &mut Vec<u8>) {
    put_raw(name, "", out);
    serde_json::to_writer(out, text).expect("text is written to memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Data as Payload;

    const COMMIT: &str = r#"{"specversion":"1.0","id":"a1","source":"/vcs/x","type":"vcs.v1.CommitPushed","subject":"x","time":"2017-12-21T20:25:45+01:00","datacontenttype":"application/json","data":{"a" : [1.50, "\u00e9"]}}"#;

    fn with(members: &str) -> String {
        format!(r#"{{"specversion":"1.0","id":"i","source":"/s","type":"t",{members}}}"#)
    }

    fn round_trip(event: &Event) -> Event {
        decode(&encode(event).unwrap()).unwrap()
    }

    #[test]
    fn an_event_in_json_becomes_canonical_and_keeps_the_text_of_its_payload() {
        let event = decode(COMMIT.as_bytes()).unwrap();
        let header = event.header();
        assert_eq!(header.key(), ("/vcs/x", "a1"));
        assert_eq!(header.event_type, "vcs.v1.CommitPushed");
        assert_eq!(header.subject, Some("x"));
        assert_eq!(header.time, Some("2017-12-21T19:25:45Z".parse().unwrap()));
        assert_eq!(header.data, Payload::Binary(br#"{"a" : [1.50, "\u00e9"]}"#));
        assert_eq!(
            String::from_utf8(encode(&event).unwrap()).unwrap(),
            r#"{"specversion":"1.0","id":"a1","source":"/vcs/x","type":"vcs.v1.CommitPushed","datacontenttype":"application/json","subject":"x","time":"2017-12-21T19:25:45Z","data":{"a" : [1.50, "\u00e9"]}}"#
        );
        assert_eq!(round_trip(&event), event);
    }

    #[test]
    fn each_kind_of_payload_has_its_place_and_survives_the_way_back() {
        #[track_caller]
        fn check(members: &str, media: Option<&str>, data: Payload<'_>) {
            let event = decode(with(members).as_bytes()).unwrap();
            assert_eq!(event.header().data_content_type, media, "{members}");
            assert_eq!(event.header().data, data, "{members}");
            assert_eq!(round_trip(&event), event, "{members}");
        }
        let json = Some("application/json");
        check(r#""data":7"#, json, Payload::Binary(b"7"));
        check(r#""data":null"#, json, Payload::Binary(b"null"));
        check(r#""data":"x""#, json, Payload::Binary(br#""x""#));
        check(
            r#""datacontenttype":"application/vnd.a+JSON; charset=utf-8","data":{}"#,
            Some("application/vnd.a+JSON; charset=utf-8"),
            Payload::Binary(b"{}"),
        );
        check(
            r#""datacontenttype":"text/xml","data":"<a\/>""#,
            Some("text/xml"),
            Payload::Text(b"<a/>"),
        );
        check(
            r#""datacontenttype":"application/protobuf","data_base64":"AQI\u003d""#,
            Some("application/protobuf"),
            Payload::Binary(&[1, 2]),
        );
        check(r#""data_base64":"AQI=""#, None, Payload::Binary(&[1, 2]));
        check(r#""subject":"s""#, None, Payload::None);
    }

    #[test]
    fn payloads_that_only_protobuf_can_hold_are_written_too() {
        let builder = || EventBuilder::new("t", "/s", "i").unwrap();
        let text = builder().raw_data(Data::TextData("hi".into())).build();
        assert_eq!(round_trip(&text.unwrap()).header().data.bytes(), b"hi");
        let any = prost_types::Any {
            type_url: "type.googleapis.com/t".into(),
            value: vec![9],
        };
        let proto = builder().raw_data(Data::ProtoData(any)).build().unwrap();
        let back = round_trip(&proto);
        assert_eq!(back.header().data, Payload::Binary(&[9]));
        assert_eq!(
            crate::header::attribute_text(back.bytes(), "dataschema"),
            Some("type.googleapis.com/t")
        );
        let lie = builder().json(b"{no json").build().unwrap();
        assert_eq!(round_trip(&lie), lie);
    }

    #[test]
    fn attributes_keep_their_json_type_and_null_means_absent() {
        let event = decode(with(r#""n":-7,"b":true,"u":"x","z":null"#).as_bytes()).unwrap();
        let envelope = event.decode().unwrap();
        let value = |name: &str| envelope.attributes.get(name).and_then(|v| v.attr.clone());
        assert_eq!(value("n"), Some(Attr::CeInteger(-7)));
        assert_eq!(value("b"), Some(Attr::CeBoolean(true)));
        assert_eq!(value("u"), Some(Attr::CeString("x".into())));
        assert_eq!(value("z"), None);
        assert_eq!(round_trip(&event), event);
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_name_of_the_field() {
        #[track_caller]
        fn check(json: &str, reason: &str) {
            let error = decode(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        check("", "no CloudEvent");
        check("[]", "no CloudEvent");
        check("{}", "specversion is missing");
        check(r#"{"specversion":1.0}"#, "specversion is not");
        check(r#"{"specversion":"0.3"}"#, "specversion is \"0.3\"");
        check(r#"{"specversion":"1.0","id":null}"#, "id is missing");
        check(r#"{"specversion":"1.0","id":""}"#, "source is missing");
        check(&with(r#""id":"2""#), "\"id\" is there twice");
        check(&with(r#""\u0069d":"2""#), "\"id\" is there twice");
        check(&with(r#""data":1,"data_base64":"""#), "both data");
        check(&with(r#""data_base64":"?""#), "data_base64");
        check(&with(r#""data_base64":1"#), "data_base64");
        check(&with(r#""datacontenttype":"text/xml","data":1"#), "data of");
        check(&with(r#""datacontenttype":1,"data":1"#), "datacontenttype");
        check(&with(r#""time":"yesterday""#), "time");
        check(&with(r#""time":12"#), "time");
        check(&with(r#""subject":"""#), "subject");
        check(&with(r#""subject":3"#), "subject");
        check(&with(r#""Upper":"x""#), "\"Upper\"");
        check(&with(r#""a_b":"x""#), "\"a_b\"");
        check(&with(r#""n":2147483648"#), "attribute n");
        check(&with(r#""n":1.5"#), "attribute n");
        check(&with(r#""o":{}"#), "attribute o");
        check(&with(r#""c":"a\r\nb""#), "attribute c");
        check(&with(r#""s":"\ud800""#), "attribute s");
        check(&(with(r#""x":"y""#) + "x"), "no CloudEvent");
    }

    #[test]
    fn bombs_are_refused_before_they_are_parsed() {
        let depth = |n: usize| with(&format!(r#""data":{}{}"#, "[".repeat(n), "]".repeat(n)));
        assert!(decode(depth(DEPTH_MAX - 1).as_bytes()).is_ok());
        assert!(decode(depth(DEPTH_MAX).as_bytes()).is_err());
        assert!(decode(depth(1_000_000).as_bytes()).is_err());
        assert!(decode(&vec![b' '; BYTES_MAX + 1]).is_err());
        let many: Vec<_> = (0..=MEMBERS_MAX).map(|i| format!(r#""a{i}":1"#)).collect();
        assert!(decode(with(&many.join(",")).as_bytes()).is_err());
    }
}
