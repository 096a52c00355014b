//! The record: a published envelope, verbatim, and how it arrived. docs/formats/record.md.
//!
//! Encoded by hand, so that the event's bytes are copied and never decoded, and scanned in place.
//! What is written here any Protobuf library reads as `annals.archive.v1.Record`.

use annals_core::frame::{self, put_varint, take_varint, varint_len};
use annals_core::{Error, Result};

/// A record, borrowed from the bytes it was scanned from or is to be encoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordRef<'a> {
    /// The envelope as published.
    pub event: &'a [u8],
    /// How it reached the archiver.
    pub delivery: DeliveryRef<'a>,
    /// The message body; only when it was not the canonical envelope.
    pub original: Option<&'a [u8]>,
    /// Position of arrival within the ledger entry, across its segments.
    pub ordinal: u32,
}

/// How a message reached the archiver, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryRef<'a> {
    /// Exchange it was published to.
    pub exchange: &'a str,
    /// Routing key it was published with.
    pub routing_key: &'a str,
    /// AMQP properties, less what the envelope says; empty when nothing is left.
    pub properties: &'a [u8],
    /// Archiver's clock, microseconds since 1970.
    pub received_at_us: i64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Why the event is a made one around [`RecordRef::original`]; empty when the body was valid.
    pub undecodable: &'a str,
}

// Tags: field number << 3 | wire type (0 varint, 2 length-delimited).
const EVENT: u8 = 1 << 3 | 2;
const DELIVERY: u8 = 2 << 3 | 2;
const ORIGINAL: u8 = 3 << 3 | 2;
const ORDINAL: u8 = 4 << 3;
const EXCHANGE: u8 = 1 << 3 | 2;
const ROUTING_KEY: u8 = 2 << 3 | 2;
const PROPERTIES: u8 = 3 << 3 | 2;
const RECEIVED_AT: u8 = 4 << 3;
const REDELIVERED: u8 = 5 << 3;
const UNDECODABLE: u8 = 6 << 3 | 2;

impl<'a> RecordRef<'a> {
    /// Length of the encoded record, without its length prefix.
    pub fn encoded_len(&self) -> usize {
        bytes_len(self.event)
            + nested_len(self.delivery.encoded_len())
            + self.original.map_or(0, bytes_len)
            + varint_field_len(self.ordinal.into())
    }

    /// Appends the record, length-delimited.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let delivery_len = self.delivery.encoded_len();
        let len = bytes_len(self.event)
            + nested_len(delivery_len)
            + self.original.map_or(0, bytes_len)
            + varint_field_len(self.ordinal.into());
        out.reserve(len + varint_len(len as u64));
        put_varint(len as u64, out);
        put_bytes(EVENT, self.event, out);
        out.push(DELIVERY);
        put_varint(delivery_len as u64, out);
        self.delivery.encode_into(out);
        if let Some(original) = self.original {
            put_bytes(ORIGINAL, original, out);
        }
        put_varint_field(ORDINAL, self.ordinal.into(), out);
    }

    /// Reads a record in place, from its bytes without the length prefix.
    ///
    /// Does not look into the event: that is [`annals_core::Header::scan`]'s.
    #[inline]
    pub fn scan(bytes: &'a [u8]) -> Result<Self> {
        let mut record = RecordRef::default();
        let mut event = None;
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                // A decoder would merge two; we never write them, so bytes would be misread.
                (1, Value::Bytes(v)) if event.is_none() => event = Some(v),
                (2, Value::Bytes(v)) => record.delivery.merge(v)?,
                (3, Value::Bytes(v)) => record.original = Some(v),
                (4, Value::Varint(v)) => {
                    record.ordinal = u32::try_from(v).map_err(|_| damaged("ordinal"))?;
                }
                (1..=4, _) => return Err(damaged("field")),
                _ => {}
            }
        }
        record.event = event.ok_or_else(|| damaged("no event"))?;
        Ok(record)
    }
}

impl<'a> DeliveryRef<'a> {
    fn encoded_len(&self) -> usize {
        text_len(self.exchange)
            + text_len(self.routing_key)
            + if self.properties.is_empty() {
                0
            } else {
                bytes_len(self.properties)
            }
            + varint_field_len(self.received_at_us as u64)
            + varint_field_len(self.redelivered.into())
            + text_len(self.undecodable)
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        put_text(EXCHANGE, self.exchange.as_bytes(), out);
        put_text(ROUTING_KEY, self.routing_key.as_bytes(), out);
        put_text(PROPERTIES, self.properties, out);
        put_varint_field(RECEIVED_AT, self.received_at_us as u64, out);
        put_varint_field(REDELIVERED, self.redelivered.into(), out);
        put_text(UNDECODABLE, self.undecodable.as_bytes(), out);
    }

    #[inline]
    fn merge(&mut self, bytes: &'a [u8]) -> Result<()> {
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(v)) => self.exchange = text(v)?,
                (2, Value::Bytes(v)) => self.routing_key = text(v)?,
                (3, Value::Bytes(v)) => self.properties = v,
                (4, Value::Varint(v)) => self.received_at_us = v as i64,
                (5, Value::Varint(v)) => self.redelivered = v != 0,
                (6, Value::Bytes(v)) => self.undecodable = text(v)?,
                (1..=6, _) => return Err(damaged("delivery field")),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Walks the length-delimited records of a decompressed frame.
pub fn iter(frame: &[u8]) -> impl Iterator<Item = Result<RecordRef<'_>>> {
    frame::iter(frame).map(|record| RecordRef::scan(record?))
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, rest) = take_varint(self.rest).ok_or_else(|| damaged("tag"))?;
        let (value, rest) = match tag & 7 {
            0 => {
                let (value, rest) = take_varint(rest).ok_or_else(|| damaged("varint"))?;
                (Value::Varint(value), rest)
            }
            1 => (Value::Other, rest.get(8..).ok_or_else(|| damaged("cut"))?),
            2 => {
                let (len, rest) = take_varint(rest).ok_or_else(|| damaged("length"))?;
                let (value, rest) = usize::try_from(len)
                    .ok()
                    .and_then(|len| rest.split_at_checked(len))
                    .ok_or_else(|| damaged("length"))?;
                (Value::Bytes(value), rest)
            }
            5 => (Value::Other, rest.get(4..).ok_or_else(|| damaged("cut"))?),
            _ => return Err(damaged("wire type")),
        };
        self.rest = rest;
        match tag >> 3 {
            0 => Err(damaged("field number")),
            number => Ok(Some((number, value))),
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged("text is not UTF-8"))
}

fn nested_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn bytes_len(bytes: &[u8]) -> usize {
    nested_len(bytes.len())
}

fn text_len(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        bytes_len(text.as_bytes())
    }
}

fn varint_field_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

fn put_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_text(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_bytes(tag, bytes, out);
    }
}

fn put_varint_field(tag: u8, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(tag);
        put_varint(value, out);
    }
}

#[cold]
fn damaged(what: &str) -> Error {
    Error::corrupt(format!("a record is damaged ({what})"))
}
