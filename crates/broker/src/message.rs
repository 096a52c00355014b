//! Messages: as published, as the log holds them, as they are delivered.
//!
//! The payload of a publish record (docs/formats/broker-log.md), varints as in Protobuf:
//! `copies` | `copies` × (queue id, sequence number) | len, exchange | len, routing key |
//! len, properties | body. A copy is a place in a durable queue; a message none of whose copies
//! outlives a restart lists none.

use crate::log::{LogReader, Lsn};
use annals_core::frame::{put_varint, take_varint};
use annals_core::{Error, Properties, Result};
use bytes::Bytes;
use std::sync::Arc;

/// A message to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// Exchange; empty for the default exchange, which routes by queue name.
    pub exchange: Arc<str>,
    /// Routing key.
    pub routing_key: Arc<str>,
    /// Properties, as AMQP encodes them.
    pub properties: Properties,
    /// The body.
    pub body: Bytes,
    /// Whether it is returned if it reaches no queue.
    pub mandatory: bool,
    /// The channel's confirm number, dense from 1; 0 for none wanted.
    pub confirm: u64,
}

impl Publish {
    /// What it counts in the bounds: its bytes, and something for itself.
    pub(crate) fn cost(&self) -> usize {
        self.properties.bytes().len() + self.body.len() + 128
    }
}

/// A message as a consumer gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Exchange it was published to.
    pub exchange: Arc<str>,
    /// Routing key it was published with.
    pub routing_key: Arc<str>,
    /// Properties, as AMQP encodes them.
    pub properties: Properties,
    /// The body as published.
    pub body: Bytes,
}

/// A delivery: its tag, and where its message lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Names it to [`crate::Session::settle`]; dense from 1 within a channel.
    pub tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    pub(crate) lsn: Lsn,
}

impl Delivered {
    /// Reads the message: from memory if it is recent, else from disk, on the caller's thread.
    pub fn load(&self, reader: &LogReader) -> Result<Message> {
        parse(&reader.read(self.lsn)?, &mut Names::default())
    }

    /// Reads several messages, in order. One that cannot be read fails all.
    pub fn load_all(deliveries: &[Delivered], reader: &LogReader) -> Result<Vec<Message>> {
        Self::load_each(deliveries, reader).into_iter().collect()
    }

    /// Reads several messages, in order, each for itself. [`ErrorKind::Corrupt`] stays so;
    /// [`ErrorKind::NotFound`] may be a message that was moved since it was delivered, which comes
    /// again from its new place once it is requeued.
    ///
    /// [`ErrorKind::Corrupt`]: annals_core::ErrorKind::Corrupt
    /// [`ErrorKind::NotFound`]: annals_core::ErrorKind::NotFound
    pub fn load_each(deliveries: &[Delivered], reader: &LogReader) -> Vec<Result<Message>> {
        let mut names = Names::default();
        let positions: Vec<Lsn> = deliveries.iter().map(|delivered| delivered.lsn).collect();
        if !positions.is_sorted() {
            let each = positions.into_iter();
            return each
                .map(|lsn| parse(&reader.read(lsn)?, &mut names))
                .collect();
        }
        let payloads = reader.read_run(&positions, usize::MAX).into_iter();
        payloads
            .map(|payload| parse(&payload?, &mut names))
            .collect()
    }

    /// Where its message lies in the log.
    pub fn position(&self) -> Lsn {
        self.lsn
    }
}

/// The last exchange and routing key seen: neighbours mostly share them.
#[derive(Debug, Default)]
struct Names {
    exchange: Option<Arc<str>>,
    routing_key: Option<Arc<str>>,
}

/// Writes the start of a publish record: all but properties and body, which follow it.
pub(crate) fn put_head(
    copies: &[(u32, u64)],
    exchange: &str,
    routing_key: &str,
    properties: usize,
    out: &mut Vec<u8>,
) {
    put_varint(copies.len() as u64, out);
    for &(queue, sequence) in copies {
        put_varint(queue.into(), out);
        put_varint(sequence, out);
    }
    for text in [exchange, routing_key] {
        put_varint(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
    put_varint(properties as u64, out);
}

/// Walks the copies of a publish record; what follows them is the message, the same bytes for
/// whatever copies.
pub(crate) fn take_copies(payload: &[u8], mut each: impl FnMut(u32, u64)) -> Option<&[u8]> {
    let (count, mut rest) = take_varint(payload)?;
    for _ in 0..count {
        let (queue, after) = take_varint(rest)?;
        let (sequence, after) = take_varint(after)?;
        each(u32::try_from(queue).ok()?, sequence);
        rest = after;
    }
    Some(rest)
}

fn parse(payload: &Bytes, names: &mut Names) -> Result<Message> {
    take_message(payload, names)
        .ok_or_else(|| Error::corrupt("a publish record of the broker's log is malformed"))
}

fn take_message(payload: &Bytes, names: &mut Names) -> Option<Message> {
    let rest = take_copies(payload, |_, _| {})?;
    let (exchange, rest) = take_sized(rest)?;
    let (routing_key, rest) = take_sized(rest)?;
    let (properties, body) = take_sized(rest)?;
    Some(Message {
        exchange: interned(&mut names.exchange, exchange)?,
        routing_key: interned(&mut names.routing_key, routing_key)?,
        properties: Properties::parse(payload.slice_ref(properties)).ok()?,
        body: payload.slice_ref(body),
    })
}

fn take_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_varint(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

fn interned(last: &mut Option<Arc<str>>, text: &[u8]) -> Option<Arc<str>> {
    match last {
        Some(last) if last.as_bytes() == text => Some(last.clone()),
        _ => {
            let text: Arc<str> = std::str::from_utf8(text).ok()?.into();
            Some(last.insert(text).clone())
        }
    }
}
