//! The names of CloudEvents attributes annals reads or writes, and the grammar of all others.
//!
//! Standard names where they exist (CloudEvents 1.0 and its documented extensions), ours otherwise.

use crate::envelope::cloud_event::cloud_event_attribute_value::Attr;
use crate::{Error, Result, event, header, names, range};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};

/// The entity the event is about.
pub const SUBJECT: &str = "subject";
/// When it happened, by the publisher's clock.
pub const TIME: &str = "time";
/// Media type of the payload.
pub const DATA_CONTENT_TYPE: &str = "datacontenttype";
/// Schema of the payload, a URI.
pub const DATA_SCHEMA: &str = "dataschema";
/// When the producer made the event, as distinct from when it happened (`recordedtime` extension).
pub const RECORDED_TIME: &str = "recordedtime";
/// W3C trace context (distributed tracing extension).
pub const TRACE_PARENT: &str = "traceparent";
/// W3C trace state (distributed tracing extension).
pub const TRACE_STATE: &str = "tracestate";
/// Key of partitioning (partitioning extension).
pub const PARTITION_KEY: &str = "partitionkey";
/// Correlation extension: the conversation this event belongs to.
pub const CORRELATION_ID: &str = "correlationid";
/// Correlation extension: the event or command that caused this one.
pub const CAUSATION_ID: &str = "causationid";
/// Ours: one incarnation of a publisher.
pub const PRODUCER_ID: &str = "producerid";
/// Ours: dense counter within [`PRODUCER_ID`], from 1, a 64-bit decimal string.
pub const PRODUCER_SEQ: &str = "producerseq";
/// Ours: version of the entity after this event, a 64-bit decimal string.
pub const ENTITY_VERSION: &str = "entityversion";
/// Ours, reserved: names the key the payload is encrypted under.
pub const DATA_KEY_ID: &str = "datakeyid";

/// The four that are fields of the envelope, not attributes in its map.
pub const REQUIRED: [&str; 4] = ["id", "source", "specversion", "type"];

/// Checks an attribute name: lower-case ASCII letters and digits, 1 to 64 bytes, and not `data`
/// nor one of [`REQUIRED`].
///
/// CloudEvents 1.0 sets the alphabet and recommends at most 20 characters; we allow 64.
pub fn check_name(name: &str) -> Result<()> {
    let well_formed = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !well_formed {
        return Err(Error::invalid(format!(
            "attribute name {name:?} is not 1 to 64 lower-case letters and digits"
        )));
    }
    if name == "data" || REQUIRED.contains(&name) {
        return Err(Error::invalid(format!(
            "attribute name {name:?} is reserved"
        )));
    }
    Ok(())
}

/// The value of an attribute that is given as text: `time` becomes a timestamp, `dataschema` a
/// URI, every other stays text. Text has no control characters.
pub fn parse_text(name: &str, text: impl Into<String>) -> Result<Attr> {
    let text = text.into();
    match name {
        TIME => range::rfc3339(&text)
            .map(event::timestamp_value)
            .ok_or_else(|| Error::invalid(format!("time {text:?} is not RFC 3339"))),
        // An empty extension attribute is allowed; what must not be empty is checked elsewhere.
        _ if text.is_empty() => Ok(Attr::CeString(text)),
        _ => {
            names::check(&format!("attribute {name}"), &text, usize::MAX)?;
            Ok(match name {
                DATA_SCHEMA => Attr::CeUri(text),
                _ => Attr::CeString(text),
            })
        }
    }
}

/// An attribute's value as CloudEvents writes it in text: RFC 3339 for timestamps, base64 for
/// bytes.
pub fn to_text(name: &str, value: &Attr) -> Result<String> {
    Ok(match value {
        Attr::CeBoolean(v) => v.to_string(),
        Attr::CeInteger(v) => v.to_string(),
        Attr::CeString(v) | Attr::CeUri(v) | Attr::CeUriRef(v) => v.clone(),
        Attr::CeBytes(v) => BASE64.encode(v),
        Attr::CeTimestamp(v) => header::timestamp(v.seconds, v.nanos)
            .map_err(|e| e.context(format_args!("attribute {name}")))?
            .to_string(),
    })
}
