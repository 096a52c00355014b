//! Records: what of the state goes into the log, and how it is replayed.
//!
//! Payloads (docs/formats/broker-log.md): numbers are varints, texts a length and bytes.

use super::spec::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueSpec};
use annals_core::frame::{put_varint, take_varint};
use bytes::Bytes;

/// A message: see [`crate::message`].
pub(crate) const PUBLISH: u8 = 1;
/// Queue id, then ranges: first minus the last number before, last minus first.
pub(crate) const SETTLED: u8 = 2;
/// An exchange was declared.
pub(crate) const EXCHANGE: u8 = 3;
/// An exchange was deleted, with its bindings.
pub(crate) const EXCHANGE_GONE: u8 = 4;
/// A queue was declared: its id, then its spec.
pub(crate) const QUEUE: u8 = 5;
/// A queue was deleted, with its bindings and messages: its id.
pub(crate) const QUEUE_GONE: u8 = 6;
/// A binding was made.
pub(crate) const BOUND: u8 = 7;
/// A binding was removed.
pub(crate) const UNBOUND: u8 = 8;
/// Queue id, and the sequence number below which messages may have been delivered.
pub(crate) const DELIVERED: u8 = 9;

type Record = (u8, Vec<u8>);

pub(crate) fn exchange(spec: &ExchangeSpec) -> Record {
    let mut out = Vec::new();
    put_exchange(spec, &mut out);
    (EXCHANGE, out)
}

pub(crate) fn exchange_gone(name: &str) -> Record {
    let mut out = Vec::new();
    put_text(name.as_bytes(), &mut out);
    (EXCHANGE_GONE, out)
}

pub(crate) fn queue(id: u32, spec: &QueueSpec) -> Record {
    let mut out = Vec::new();
    put_queue(id, spec, &mut out);
    (QUEUE, out)
}

pub(crate) fn queue_gone(id: u32) -> Record {
    let mut out = Vec::new();
    put_varint(id.into(), &mut out);
    (QUEUE_GONE, out)
}

pub(crate) fn bound(spec: &BindingSpec) -> Record {
    let mut out = Vec::new();
    put_binding(spec, &mut out);
    (BOUND, out)
}

pub(crate) fn unbound(spec: &BindingSpec) -> Record {
    let mut out = Vec::new();
    put_binding(spec, &mut out);
    (UNBOUND, out)
}

pub(crate) fn delivered(id: u32, below: u64) -> Record {
    let mut out = Vec::new();
    put_varint(id.into(), &mut out);
    put_varint(below, &mut out);
    (DELIVERED, out)
}

/// Writes a [`SETTLED`] payload.
pub(crate) fn put_settled(id: u32, ranges: &[(u64, u64)], out: &mut Vec<u8>) {
    put_varint(id.into(), out);
    let mut before = 0_u64;
    for &(first, last) in ranges {
        put_varint(zigzag(first.wrapping_sub(before) as i64), out);
        put_varint(last - first, out);
        before = last;
    }
}

/// Walks a [`SETTLED`] payload.
pub(crate) fn take_settled(payload: &[u8], mut each: impl FnMut(u32, u64, u64)) -> Option<()> {
    let mut input = Input(payload);
    let id = input.number()?;
    let mut before = 0_u64;
    while !input.0.is_empty() {
        let first = before.wrapping_add(unzigzag(input.long()?) as u64);
        let last = first.checked_add(input.long()?)?;
        each(id, first, last);
        before = last;
    }
    Some(())
}

pub(crate) fn put_exchange(spec: &ExchangeSpec, out: &mut Vec<u8>) {
    put_text(spec.name.as_bytes(), out);
    out.push(match spec.kind {
        ExchangeKind::Direct => 1,
        ExchangeKind::Topic => 2,
        ExchangeKind::Fanout => 3,
    });
    out.push(u8::from(spec.auto_delete) | u8::from(spec.internal) << 1);
    put_text(&spec.arguments, out);
}

pub(crate) fn put_queue(id: u32, spec: &QueueSpec, out: &mut Vec<u8>) {
    put_varint(id.into(), out);
    put_text(spec.name.as_bytes(), out);
    out.push(u8::from(spec.auto_delete));
    put_text(&spec.arguments, out);
}

pub(crate) fn put_binding(spec: &BindingSpec, out: &mut Vec<u8>) {
    put_text(spec.source.as_bytes(), out);
    let (kind, name) = match &spec.destination {
        Destination::Queue(name) => (1, name),
        Destination::Exchange(name) => (2, name),
    };
    out.push(kind);
    put_text(name.as_bytes(), out);
    put_text(spec.key.as_bytes(), out);
    put_text(&spec.arguments, out);
}

pub(crate) fn put_text(text: &[u8], out: &mut Vec<u8>) {
    put_varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

pub(crate) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads payloads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    pub(crate) fn long(&mut self) -> Option<u64> {
        let (value, rest) = take_varint(self.0)?;
        self.0 = rest;
        Some(value)
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        self.long()?.try_into().ok()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&value, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(value)
    }

    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.long()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Bytes::copy_from_slice(text))
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.into()).ok()
    }

    pub(crate) fn exchange(&mut self) -> Option<ExchangeSpec> {
        let name = self.text()?;
        let kind = match self.byte()? {
            1 => ExchangeKind::Direct,
            2 => ExchangeKind::Topic,
            3 => ExchangeKind::Fanout,
            _ => return None,
        };
        let flags = self.byte()?;
        Some(ExchangeSpec {
            name,
            kind,
            durable: true,
            auto_delete: flags & 1 != 0,
            internal: flags & 2 != 0,
            passive: false,
            arguments: self.bytes()?,
        })
    }

    pub(crate) fn queue(&mut self) -> Option<(u32, QueueSpec)> {
        let id = self.number()?;
        let spec = QueueSpec {
            name: self.text()?,
            durable: true,
            exclusive: false,
            auto_delete: self.byte()? & 1 != 0,
            passive: false,
            arguments: self.bytes()?,
        };
        Some((id, spec))
    }

    pub(crate) fn binding(&mut self) -> Option<BindingSpec> {
        let source = self.text()?;
        let kind = self.byte()?;
        let name = self.text()?;
        Some(BindingSpec {
            source,
            destination: match kind {
                1 => Destination::Queue(name),
                2 => Destination::Exchange(name),
                _ => return None,
            },
            key: self.text()?,
            arguments: self.bytes()?,
        })
    }
}
