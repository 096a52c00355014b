//! The header scanner: reads an envelope's attributes in place, without decoding or copying.
//!
//! [`Header::scan`] is what every hot path (bus, archiver, reader, replay) knows of an event. It
//! accepts what a Protobuf decoder accepts, in the decoder's sense (last value of a repeated
//! field wins, unknown fields are skipped), with documented differences, all checked
//! against `prost` by a differential fuzz target: text that is not surfaced here is not checked to
//! be UTF-8, and a payload of several `proto_data` fields, which a decoder would merge, is refused;
//! and so is a `time` that Protobuf does not allow, and an attribute under another wire type than
//! a message's, which `prost` would read as if it had the right one.
//! [`crate::Event::parse`] adds what makes an envelope valid CloudEvents.
//!
//! Wire numbers are those of `proto/cloudevents/v1/cloudevents.proto`.

use crate::frame::take_varint;
use crate::{Error, Result, Timestamp, attribute};

/// The attributes of an envelope, borrowed from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header<'a> {
    /// Names the event within its source.
    pub id: &'a str,
    /// Who says so.
    pub source: &'a str,
    /// What happened.
    pub event_type: &'a str,
    /// `1.0` in a valid event.
    pub spec_version: &'a str,
    /// The entity it is about.
    pub subject: Option<&'a str>,
    /// When it happened, by the publisher's clock.
    pub time: Option<Timestamp>,
    /// Media type of the payload.
    pub data_content_type: Option<&'a str>,
    /// Incarnation of the producer.
    pub producer_id: Option<&'a str>,
    /// Dense counter within [`Header::producer_id`]; absent when it is no decimal number.
    pub producer_seq: Option<u64>,
    /// The payload.
    pub data: Data<'a>,
}

/// The payload as the envelope holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Data<'a> {
    /// No payload.
    #[default]
    None,
    /// `binary_data`: Protobuf, or JSON with content type `application/json`.
    Binary(&'a [u8]),
    /// `text_data`, unchecked UTF-8.
    Text(&'a [u8]),
    /// `proto_data`: an encoded `google.protobuf.Any`.
    Proto(&'a [u8]),
}

impl<'a> Data<'a> {
    /// The payload's bytes, whatever field holds them.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Data::None => &[],
            Data::Binary(bytes) | Data::Text(bytes) | Data::Proto(bytes) => bytes,
        }
    }
}

/// An attribute's value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Value<'a> {
    /// No variant is set.
    #[default]
    None,
    /// `ce_boolean`.
    Boolean(bool),
    /// `ce_integer`.
    Integer(i32),
    /// `ce_string`, `ce_uri` or `ce_uri_ref`; unchecked UTF-8.
    Text(&'a [u8]),
    /// `ce_bytes`.
    Bytes(&'a [u8]),
    /// `ce_timestamp`: seconds and nanoseconds as sent, not checked to be in range.
    Timestamp(i64, i32),
}

impl<'a> Value<'a> {
    fn as_text(self) -> Result<Option<&'a str>> {
        match self {
            Value::Text(bytes) => Ok(Some(text(bytes)?)),
            _ => Ok(None),
        }
    }
}

impl<'a> Header<'a> {
    /// Reads the attributes of an encoded envelope. Allocates nothing.
    #[inline]
    pub fn scan(bytes: &'a [u8]) -> Result<Self> {
        let mut header = Header::default();
        let mut proto_data_seen = false;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (field, after) = take_field(rest)?;
            rest = after;
            match field {
                Field {
                    number: 1,
                    wire: Wire::Bytes(v),
                } => header.id = text(v)?,
                Field {
                    number: 2,
                    wire: Wire::Bytes(v),
                } => header.source = text(v)?,
                Field {
                    number: 3,
                    wire: Wire::Bytes(v),
                } => header.spec_version = text(v)?,
                Field {
                    number: 4,
                    wire: Wire::Bytes(v),
                } => header.event_type = text(v)?,
                Field {
                    number: 5,
                    wire: Wire::Bytes(v),
                } => header.attribute(v)?,
                Field {
                    number: 6,
                    wire: Wire::Bytes(v),
                } => header.data = Data::Binary(v),
                Field {
                    number: 7,
                    wire: Wire::Bytes(v),
                } => header.data = Data::Text(v),
                Field {
                    number: 8,
                    wire: Wire::Bytes(v),
                } => {
                    if std::mem::replace(&mut proto_data_seen, true) {
                        return Err(Error::invalid("the envelope has several proto_data fields"));
                    }
                    check_any(v)?;
                    header.data = Data::Proto(v);
                }
                Field { number: 1..=8, .. } => return Err(malformed("wire type")),
                _ => {}
            }
        }
        Ok(header)
    }

    fn attribute(&mut self, entry: &'a [u8]) -> Result<()> {
        let (key, value) = take_attribute(entry)?;
        // By length first: most attributes are told apart without comparing text.
        match key {
            b"time" => {
                self.time = match value {
                    Value::Timestamp(seconds, nanos) => Some(timestamp(seconds, nanos)?),
                    _ => None,
                }
            }
            b"subject" => self.subject = value.as_text()?,
            b"datacontenttype" => self.data_content_type = value.as_text()?,
            b"producerid" => self.producer_id = value.as_text()?,
            b"producerseq" => {
                self.producer_seq = value.as_text()?.and_then(|v| v.parse().ok());
            }
            _ => {}
        }
        Ok(())
    }

    /// Identity: where (source, id) is the same, it is the same event.
    pub fn key(&self) -> (&'a str, &'a str) {
        (self.source, self.id)
    }
}

/// Walks all attributes of an envelope that [`Header::scan`] accepted, in wire order: name as
/// sent, value borrowed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (&[u8], Value<'_>)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (field, after) = take_field(rest).ok()?;
            rest = after;
            if let Field {
                number: 5,
                wire: Wire::Bytes(entry),
            } = field
            {
                return take_attribute(entry).ok();
            }
        }
        None
    })
}

/// The value of one attribute as text, from an envelope that [`Header::scan`] accepted.
pub fn attribute_text<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    attributes(bytes)
        .filter(|(key, _)| *key == name.as_bytes())
        .last()
        .and_then(|(_, value)| value.as_text().ok().flatten())
}

struct Field<'a> {
    number: u32,
    wire: Wire<'a>,
}

enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

#[inline]
fn take_field(bytes: &[u8]) -> Result<(Field<'_>, &[u8])> {
    let (tag, rest) = take_varint(bytes).ok_or_else(|| malformed("tag"))?;
    let tag = u32::try_from(tag).map_err(|_| malformed("tag"))?;
    let number = tag >> 3;
    if number == 0 {
        return Err(malformed("field number"));
    }
    let (wire, rest) = match tag & 7 {
        0 => {
            let (value, rest) = take_varint(rest).ok_or_else(|| malformed("varint"))?;
            (Wire::Varint(value), rest)
        }
        1 => (
            Wire::Other,
            rest.get(8..).ok_or_else(|| malformed("fixed64"))?,
        ),
        2 => {
            let (length, rest) = take_varint(rest).ok_or_else(|| malformed("length"))?;
            let length = usize::try_from(length).map_err(|_| malformed("length"))?;
            let (value, rest) = rest
                .split_at_checked(length)
                .ok_or_else(|| malformed("length"))?;
            (Wire::Bytes(value), rest)
        }
        3 => (Wire::Other, skip_group(rest, number)?),
        5 => (
            Wire::Other,
            rest.get(4..).ok_or_else(|| malformed("fixed32"))?,
        ),
        _ => return Err(malformed("wire type")),
    };
    Ok((Field { number, wire }, rest))
}

/// Deepest nesting of groups that is followed: as deep as `prost` goes.
const GROUP_DEPTH_MAX: usize = 100;

#[cold]
fn skip_group(bytes: &[u8], number: u32) -> Result<&[u8]> {
    let mut open = vec![number];
    let mut rest = bytes;
    while let Some(&innermost) = open.last() {
        let (tag, after) = take_varint(rest).ok_or_else(|| malformed("group"))?;
        let tag = u32::try_from(tag).map_err(|_| malformed("group"))?;
        match tag & 7 {
            3 if open.len() >= GROUP_DEPTH_MAX => return Err(malformed("group")),
            3 if tag >> 3 != 0 => open.push(tag >> 3),
            4 if tag >> 3 == innermost => drop(open.pop()),
            3 | 4 => return Err(malformed("group")),
            _ => {
                rest = take_field(rest)?.1;
                continue;
            }
        }
        rest = after;
    }
    Ok(rest)
}

/// An entry of the attribute map: key, and value in the sense of a Protobuf decoder.
#[inline]
fn take_attribute(entry: &[u8]) -> Result<(&[u8], Value<'_>)> {
    let mut key: &[u8] = &[];
    let mut value = Value::None;
    let mut rest = entry;
    while !rest.is_empty() {
        let (field, after) = take_field(rest)?;
        rest = after;
        match field {
            Field {
                number: 1,
                wire: Wire::Bytes(v),
            } => key = v,
            Field {
                number: 2,
                wire: Wire::Bytes(v),
            } => take_value(v, &mut value)?,
            Field { number: 1 | 2, .. } => return Err(malformed("attribute")),
            _ => {}
        }
    }
    Ok((key, value))
}

fn take_value<'a>(bytes: &'a [u8], value: &mut Value<'a>) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (field, after) = take_field(rest)?;
        rest = after;
        *value = match field {
            Field {
                number: 1,
                wire: Wire::Varint(v),
            } => Value::Boolean(v != 0),
            Field {
                number: 2,
                wire: Wire::Varint(v),
            } => Value::Integer(v as i32),
            Field {
                number: 3 | 5 | 6,
                wire: Wire::Bytes(v),
            } => Value::Text(v),
            Field {
                number: 4,
                wire: Wire::Bytes(v),
            } => Value::Bytes(v),
            // A decoder merges a repeated message into what it has.
            Field {
                number: 7,
                wire: Wire::Bytes(v),
            } => match *value {
                Value::Timestamp(seconds, nanos) => take_timestamp(v, seconds, nanos)?,
                _ => take_timestamp(v, 0, 0)?,
            },
            Field { number: 1..=7, .. } => return Err(malformed("attribute value")),
            _ => *value,
        };
    }
    Ok(())
}

fn take_timestamp(bytes: &[u8], mut seconds: i64, mut nanos: i32) -> Result<Value<'_>> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (field, after) = take_field(rest)?;
        rest = after;
        match field {
            Field {
                number: 1,
                wire: Wire::Varint(v),
            } => seconds = v as i64,
            Field {
                number: 2,
                wire: Wire::Varint(v),
            } => nanos = v as i32,
            Field { number: 1 | 2, .. } => return Err(malformed("timestamp")),
            _ => {}
        }
    }
    Ok(Value::Timestamp(seconds, nanos))
}

fn check_any(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (field, after) = take_field(rest)?;
        rest = after;
        if let Field {
            number: 1 | 2,
            wire: Wire::Varint(_) | Wire::Other,
        } = field
        {
            return Err(malformed("proto_data"));
        }
    }
    Ok(())
}

/// Checks all text of an envelope that [`Header::scan`] accepted, also what a later field
/// replaces: what passes, a Protobuf decoder accepts.
pub(crate) fn check_text(bytes: &[u8]) -> Result<()> {
    each_field(bytes, |number, value| match number {
        5 => each_field(value, |number, value| match number {
            1 => text(value).map(drop),
            2 => each_field(value, |number, value| match number {
                3 | 5 | 6 => text(value).map(drop),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        7 => text(value).map(drop),
        8 => each_field(value, |number, value| match number {
            1 => text(value).map(drop),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

/// Visits the length-delimited fields of a message.
fn each_field(bytes: &[u8], mut visit: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (field, after) = take_field(rest)?;
        rest = after;
        if let Wire::Bytes(value) = field.wire {
            visit(field.number, value)?;
        }
    }
    Ok(())
}

/// The instant a `google.protobuf.Timestamp` names: years 1 to 9999, nanoseconds 0 to 999,999,999.
pub fn timestamp(seconds: i64, nanos: i32) -> Result<Timestamp> {
    const FIRST: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
    if seconds < FIRST || !(0..1_000_000_000).contains(&nanos) {
        return Err(Error::invalid(format!(
            "{seconds} s and {nanos} ns is no Protobuf timestamp"
        )));
    }
    Timestamp::new(seconds, nanos).map_err(|_| {
        Error::invalid(format!(
            "{seconds} s and {nanos} ns is no Protobuf timestamp"
        ))
    })
}

#[inline]
fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|_| Error::invalid("the envelope has text that is not UTF-8"))
}

#[cold]
fn malformed(what: &str) -> Error {
    Error::invalid(format!("the envelope is not valid Protobuf ({what})"))
}

/// The names the scanner surfaces, so that a reader of [`attributes`] can skip them.
pub const SURFACED: [&str; 5] = [
    attribute::TIME,
    attribute::SUBJECT,
    attribute::DATA_CONTENT_TYPE,
    attribute::PRODUCER_ID,
    attribute::PRODUCER_SEQ,
];
