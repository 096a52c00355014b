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

use crate::wire::{self, Cursor};
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
    #[inline]
    fn as_text(self) -> Scan<Option<&'a str>> {
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
        match header.read::<false>(bytes) {
            Ok(()) => Ok(header),
            Err(malformed) => Err(malformed.into()),
        }
    }

    /// As [`Header::scan`], and checks in the same walk what that leaves unchecked: names of
    /// attributes, and all text, also what a later field replaces. What passes, a Protobuf
    /// decoder accepts.
    pub(crate) fn scan_all(bytes: &'a [u8]) -> Result<Self> {
        let mut header = Header::default();
        match header.read::<true>(bytes) {
            Ok(()) => Ok(header),
            Err(Malformed::Name) => Err(name_error(bytes)),
            Err(malformed) => Err(malformed.into()),
        }
    }

    fn read<const ALL: bool>(&mut self, bytes: &'a [u8]) -> Scan<()> {
        let mut proto_data_seen = false;
        let mut rest = Cursor(bytes);
        while !rest.is_empty() {
            match rest.tag()? {
                ID => self.id = text(rest.bytes()?)?,
                SOURCE => self.source = text(rest.bytes()?)?,
                SPEC_VERSION => self.spec_version = text(rest.bytes()?)?,
                TYPE => self.event_type = text(rest.bytes()?)?,
                ATTRIBUTE => self.attribute::<ALL>(rest.bytes()?)?,
                BINARY_DATA => self.data = Data::Binary(rest.bytes()?),
                TEXT_DATA => {
                    let data = rest.bytes()?;
                    if ALL {
                        text(data)?;
                    }
                    self.data = Data::Text(data);
                }
                PROTO_DATA => {
                    if std::mem::replace(&mut proto_data_seen, true) {
                        return Err(Malformed::ProtoDataTwice);
                    }
                    let any = rest.bytes()?;
                    check_any::<ALL>(any)?;
                    self.data = Data::Proto(any);
                }
                other => rest.skip_unless(other, 1..=8, 0)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn attribute<const ALL: bool>(&mut self, entry: &'a [u8]) -> Scan<()> {
        // Apart, so that the plain case's value never leaves the registers.
        if let Some((key, value)) = plain_attribute(entry) {
            return self.surface::<ALL>(key, value);
        }
        let (key, value) = take_attribute::<ALL>(entry)?;
        self.surface::<ALL>(key, value)
    }

    #[inline(always)]
    fn surface<const ALL: bool>(&mut self, key: &'a [u8], value: Value<'a>) -> Scan<()> {
        match key {
            b"time" => {
                self.time = match value {
                    Value::Timestamp(seconds, nanos) => {
                        Some(instant(seconds, nanos).ok_or(Malformed::Timestamp)?)
                    }
                    _ if ALL => value.as_text()?.and(None),
                    _ => None,
                }
            }
            b"subject" => self.subject = value.as_text()?,
            b"datacontenttype" => self.data_content_type = value.as_text()?,
            b"producerid" => self.producer_id = value.as_text()?,
            b"producerseq" => {
                self.producer_seq = value.as_text()?.and_then(|v| v.parse().ok());
            }
            _ if ALL => {
                if attribute::check_name(text(key)?).is_err() {
                    return Err(Malformed::Name);
                }
                value.as_text()?;
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
    let mut rest = Cursor(bytes);
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match rest.tag().ok()? {
                ATTRIBUTE => return take_attribute::<false>(rest.bytes().ok()?).ok(),
                other => rest.skip(other, 0).ok()?,
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

/// The instant a `google.protobuf.Timestamp` names: years 1 to 9999, nanoseconds 0 to 999,999,999.
pub fn timestamp(seconds: i64, nanos: i32) -> Result<Timestamp> {
    instant(seconds, nanos).ok_or_else(|| {
        Error::invalid(format!(
            "{seconds} s and {nanos} ns is no Protobuf timestamp"
        ))
    })
}

/// The names the scanner surfaces, so that a reader of [`attributes`] can skip them.
pub const SURFACED: [&str; 5] = [
    attribute::TIME,
    attribute::SUBJECT,
    attribute::DATA_CONTENT_TYPE,
    attribute::PRODUCER_ID,
    attribute::PRODUCER_SEQ,
];

/// Length-delimited fields of the envelope, as tags: field number, then wire type 2.
const ID: u32 = 1 << 3 | 2;
const SOURCE: u32 = 2 << 3 | 2;
const SPEC_VERSION: u32 = 3 << 3 | 2;
const TYPE: u32 = 4 << 3 | 2;
const ATTRIBUTE: u32 = 5 << 3 | 2;
const BINARY_DATA: u32 = 6 << 3 | 2;
const TEXT_DATA: u32 = 7 << 3 | 2;
const PROTO_DATA: u32 = 8 << 3 | 2;

/// Small, so that results are passed in registers; [`Error`] is made once, at the door.
type Scan<T> = std::result::Result<T, Malformed>;

#[derive(Debug, Clone, Copy)]
enum Malformed {
    Protobuf,
    Utf8,
    ProtoDataTwice,
    Timestamp,
    Name,
}

impl From<wire::Malformed> for Malformed {
    #[inline(always)]
    fn from(_: wire::Malformed) -> Self {
        Malformed::Protobuf
    }
}

impl From<Malformed> for Error {
    #[cold]
    fn from(malformed: Malformed) -> Self {
        Error::invalid(match malformed {
            Malformed::Protobuf => "the envelope is not valid Protobuf".to_owned(),
            Malformed::Utf8 => "the envelope has text that is not UTF-8".to_owned(),
            Malformed::ProtoDataTwice => "the envelope has several proto_data fields".to_owned(),
            Malformed::Timestamp => "the envelope's time is no Protobuf timestamp".to_owned(),
            Malformed::Name => "an attribute's name is not allowed".to_owned(),
        })
    }
}

/// Which attribute's name is wrong, and how.
#[cold]
fn name_error(bytes: &[u8]) -> Error {
    let names = attributes(bytes).filter_map(|(name, _)| std::str::from_utf8(name).ok());
    let wrong = names.map(attribute::check_name).find_map(Result::err);
    wrong.unwrap_or_else(|| Malformed::Name.into())
}

/// An entry of the attribute map as encoders write it: each part once, nothing else, and lengths
/// of one byte. `None` says nothing of the entry.
#[inline(always)]
fn plain_attribute(entry: &[u8]) -> Option<(&[u8], Value<'_>)> {
    let &[0x0a, key_len @ ..0x80, ref rest @ ..] = entry else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(key_len.into())?;
    let &[0x12, value_len @ ..0x80, tag, len, ref bytes @ ..] = rest else {
        return None;
    };
    if usize::from(value_len) != bytes.len() + 2 || usize::from(len) != bytes.len() {
        return None;
    }
    let value = match tag {
        0x1a | 0x2a | 0x32 => Value::Text(bytes),
        0x22 => Value::Bytes(bytes),
        0x3a => {
            let (seconds, nanos) = take_timestamp(bytes, 0, 0).ok()?;
            Value::Timestamp(seconds, nanos)
        }
        _ => return None,
    };
    Some((key, value))
}

/// An entry of the attribute map: key, and value in the sense of a Protobuf decoder.
#[inline]
fn take_attribute<const ALL: bool>(entry: &[u8]) -> Scan<(&[u8], Value<'_>)> {
    let mut key: &[u8] = &[];
    let mut value = Value::None;
    let mut rest = Cursor(entry);
    while !rest.is_empty() {
        match rest.tag()? {
            0x0a => {
                if ALL {
                    text(key)?;
                }
                key = rest.bytes()?;
            }
            0x12 => take_value::<ALL>(rest.bytes()?, &mut value)?,
            other => rest.skip_unless(other, 1..=2, 1)?,
        }
    }
    Ok((key, value))
}

#[inline]
fn take_value<'a, const ALL: bool>(bytes: &'a [u8], value: &mut Value<'a>) -> Scan<()> {
    let mut rest = Cursor(bytes);
    while !rest.is_empty() {
        if ALL {
            // What is replaced; the last is checked by whoever asked.
            value.as_text()?;
        }
        *value = match rest.tag()? {
            0x08 => Value::Boolean(rest.varint()? != 0),
            0x10 => Value::Integer(rest.varint()? as i32),
            // ce_string, ce_uri, ce_uri_ref.
            0x1a | 0x2a | 0x32 => Value::Text(rest.bytes()?),
            0x22 => Value::Bytes(rest.bytes()?),
            // A decoder merges a repeated message into what it has.
            0x3a => {
                let (seconds, nanos) = match *value {
                    Value::Timestamp(seconds, nanos) => (seconds, nanos),
                    _ => (0, 0),
                };
                let (seconds, nanos) = take_timestamp(rest.bytes()?, seconds, nanos)?;
                Value::Timestamp(seconds, nanos)
            }
            other => {
                rest.skip_unless(other, 1..=7, 2)?;
                continue;
            }
        };
    }
    Ok(())
}

#[inline]
fn take_timestamp(bytes: &[u8], mut seconds: i64, mut nanos: i32) -> wire::Result<(i64, i32)> {
    let mut rest = Cursor(bytes);
    while !rest.is_empty() {
        match rest.tag()? {
            0x08 => seconds = rest.varint()? as i64,
            0x10 => nanos = rest.varint()? as i32,
            other => rest.skip_unless(other, 1..=2, 3)?,
        }
    }
    Ok((seconds, nanos))
}

fn check_any<const ALL: bool>(bytes: &[u8]) -> Scan<()> {
    let mut rest = Cursor(bytes);
    while !rest.is_empty() {
        match rest.tag()? {
            0x0a if ALL => drop(text(rest.bytes()?)?),
            0x0a | 0x12 => drop(rest.bytes()?),
            other => rest.skip_unless(other, 1..=2, 1)?,
        }
    }
    Ok(())
}

#[inline]
fn instant(seconds: i64, nanos: i32) -> Option<Timestamp> {
    const FIRST: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
    if seconds < FIRST || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    Timestamp::new(seconds, nanos).ok()
}

#[inline]
fn text(bytes: &[u8]) -> Scan<&str> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8)
}
