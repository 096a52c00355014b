//! The record: a published envelope, verbatim, and how it arrived. docs/formats/record.md.
//!
//! Encoded by hand, so that the event's bytes are copied and never decoded, and scanned in place.
//! What is written here any Protobuf library reads as `annals.archive.v1.Record`.

use annals_core::frame::{self, put_varint, varint_len};
use annals_core::wire::{self, Cursor, Malformed};
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
const EVENT: u32 = 1 << 3 | 2;
const DELIVERY: u32 = 2 << 3 | 2;
const ORIGINAL: u32 = 3 << 3 | 2;
const ORDINAL: u32 = 4 << 3;
const EXCHANGE: u32 = 1 << 3 | 2;
const ROUTING_KEY: u32 = 2 << 3 | 2;
const PROPERTIES: u32 = 3 << 3 | 2;
const RECEIVED_AT: u32 = 4 << 3;
const REDELIVERED: u32 = 5 << 3;
const UNDECODABLE: u32 = 6 << 3 | 2;

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
        out.push(DELIVERY as u8);
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
        Self::read(bytes).map_err(|Malformed| Error::corrupt("a record is damaged"))
    }

    #[inline]
    fn read(bytes: &'a [u8]) -> wire::Result<Self> {
        let mut record = RecordRef::default();
        let mut event = None;
        let mut rest = Cursor(bytes);
        while !rest.is_empty() {
            match rest.tag()? {
                // A decoder would merge two; we never write them, so bytes would be misread.
                EVENT if event.is_none() => event = Some(rest.bytes()?),
                DELIVERY => record.delivery.merge(rest.bytes()?)?,
                ORIGINAL => record.original = Some(rest.bytes()?),
                ORDINAL => record.ordinal = u32::try_from(rest.varint()?).map_err(|_| Malformed)?,
                other => rest.skip_unless(other, 1..=4, 0)?,
            }
        }
        record.event = event.ok_or(Malformed)?;
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
    fn merge(&mut self, bytes: &'a [u8]) -> wire::Result<()> {
        let mut rest = Cursor(bytes);
        while !rest.is_empty() {
            match rest.tag()? {
                EXCHANGE => self.exchange = text(rest.bytes()?)?,
                ROUTING_KEY => self.routing_key = text(rest.bytes()?)?,
                PROPERTIES => self.properties = rest.bytes()?,
                RECEIVED_AT => self.received_at_us = rest.varint()? as i64,
                REDELIVERED => self.redelivered = rest.varint()? != 0,
                UNDECODABLE => self.undecodable = text(rest.bytes()?)?,
                other => rest.skip_unless(other, 1..=6, 1)?,
            }
        }
        Ok(())
    }
}

/// Walks the length-delimited records of a decompressed frame.
pub fn iter(frame: &[u8]) -> impl Iterator<Item = Result<RecordRef<'_>>> {
    frame::iter(frame).map(|record| RecordRef::scan(record?))
}

#[inline]
fn text(bytes: &[u8]) -> wire::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
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

fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag as u8);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_text(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_bytes(tag, bytes, out);
    }
}

fn put_varint_field(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push(tag as u8);
        put_varint(value, out);
    }
}
