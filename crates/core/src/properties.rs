//! [`Properties`]: what travels beside a message's body, as AMQP 0-9-1 encodes it.
//!
//! The bytes are those of a content header frame after its body size: a flag word, then the
//! properties present, in order (AMQP 0-9-1, sections 2.3.5.2 and 4.2.6.1; field types as RabbitMQ's
//! errata define them). Kept as bytes, so that brokers and buses pass them on untouched; read in
//! place. What is true of *this delivery* of an event (a replay id, an attempt) is a header here,
//! never in the envelope.

use crate::{Error, Result};
use bytes::Bytes;

/// Header that marks a replayed delivery; its value is the replay's id.
pub const REPLAY_ID: &str = "annals-replay-id";
/// Prefix of the headers that carry attributes in binary mode, and of routing hints.
pub const CLOUD_EVENTS_PREFIX: &str = "cloudEvents_";

/// Encoded basic properties, checked once.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Properties {
    bytes: Bytes,
}

/// A header's value, borrowed. Field types in AMQP's letters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// `t`
    Boolean(bool),
    /// `b B s u I i l`: every integer.
    Integer(i64),
    /// `f`, `d`
    Float(f64),
    /// `S`: unchecked UTF-8.
    LongString(&'a [u8]),
    /// `x`
    Bytes(&'a [u8]),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `D`, `A`, `F`: decimal, array, table; encoded.
    Other(u8, &'a [u8]),
    /// `V`
    Void,
}

impl<'a> FieldValue<'a> {
    /// The value if it is UTF-8 text.
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            FieldValue::LongString(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// In wire order.
const ALL: [u16; 14] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    HEADERS,
    DELIVERY_MODE,
    PRIORITY,
    CORRELATION_ID,
    REPLY_TO,
    EXPIRATION,
    MESSAGE_ID,
    TIMESTAMP,
    TYPE,
    USER_ID,
    APP_ID,
    CLUSTER_ID,
];

impl Properties {
    /// Checks encoded properties and keeps them; nothing may follow the last.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        let flags = flags(&bytes).ok_or_else(|| malformed("flags"))?;
        if flags & 0b11 != 0 {
            return Err(malformed("flags"));
        }
        let mut rest = &bytes[2..];
        for flag in ALL.into_iter().filter(|flag| flags & flag != 0) {
            let (value, after) = take_property(flag, rest).ok_or_else(|| malformed("length"))?;
            if flag == HEADERS {
                check_table(value, 0)?;
            }
            rest = after;
        }
        if rest.is_empty() {
            Ok(Self { bytes })
        } else {
            Err(malformed("length"))
        }
    }

    /// No properties.
    pub fn none() -> Self {
        Self {
            bytes: Bytes::from_static(&[0, 0]),
        }
    }

    /// Starts a new set of properties.
    pub fn builder() -> PropertiesBuilder {
        PropertiesBuilder::default()
    }

    /// The encoded form.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Media type of the body.
    pub fn content_type(&self) -> Option<&str> {
        self.short(CONTENT_TYPE)
    }

    /// Encoding of the body.
    pub fn content_encoding(&self) -> Option<&str> {
        self.short(CONTENT_ENCODING)
    }

    /// 2: survives a restart in a durable queue; 1 or absent: need not.
    pub fn is_persistent(&self) -> bool {
        self.find(DELIVERY_MODE) == Some(&[2])
    }

    /// Priority; carried, not acted on.
    pub fn priority(&self) -> Option<u8> {
        self.find(PRIORITY).map(|v| v[0])
    }

    /// Correlation id.
    pub fn correlation_id(&self) -> Option<&str> {
        self.short(CORRELATION_ID)
    }

    /// Where a reply goes.
    pub fn reply_to(&self) -> Option<&str> {
        self.short(REPLY_TO)
    }

    /// Time to live in milliseconds, as text.
    pub fn expiration(&self) -> Option<&str> {
        self.short(EXPIRATION)
    }

    /// The event's id.
    pub fn message_id(&self) -> Option<&str> {
        self.short(MESSAGE_ID)
    }

    /// Seconds since 1970.
    pub fn timestamp(&self) -> Option<u64> {
        self.find(TIMESTAMP)
            .map(|v| u64::from_be_bytes(v.try_into().expect("checked when made")))
    }

    /// The event's type.
    pub fn message_type(&self) -> Option<&str> {
        self.short(TYPE)
    }

    /// The user that published.
    pub fn user_id(&self) -> Option<&str> {
        self.short(USER_ID)
    }

    /// The service that published.
    pub fn app_id(&self) -> Option<&str> {
        self.short(APP_ID)
    }

    /// Deprecated `cluster_id`.
    pub fn cluster_id(&self) -> Option<&str> {
        self.short(CLUSTER_ID)
    }

    /// The encoded header table, without its length; empty when there is none.
    pub fn header_table(&self) -> &[u8] {
        self.find(HEADERS).unwrap_or(&[])
    }

    /// The headers, in wire order.
    pub fn headers(&self) -> Fields<'_> {
        Fields {
            rest: self.header_table(),
        }
    }

    /// One header.
    pub fn header(&self, name: &str) -> Option<FieldValue<'_>> {
        self.headers()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// A builder that starts with these properties. Text that is not UTF-8 is left out.
    pub fn to_builder(&self) -> PropertiesBuilder {
        let short = |at: usize| self.short(ALL[at]).map(str::to_owned);
        PropertiesBuilder {
            short: std::array::from_fn(|at| match ALL[at] {
                HEADERS | DELIVERY_MODE | PRIORITY | TIMESTAMP => None,
                _ => short(at),
            }),
            headers: self.header_table().to_vec(),
            delivery_mode: self.find(DELIVERY_MODE).map(|v| v[0]),
            priority: self.priority(),
            timestamp: self.timestamp(),
        }
    }

    /// The same properties with one header set to a text; another of that name goes.
    pub fn with_header(&self, name: &str, value: &str) -> Result<Self> {
        let mut kept = Vec::with_capacity(self.header_table().len());
        let mut fields = self.headers();
        loop {
            let before = fields.rest;
            match fields.next() {
                None => break,
                Some((key, _)) if key == name => {}
                Some(_) => kept.extend_from_slice(&before[..before.len() - fields.rest.len()]),
            }
        }
        let mut builder = self.to_builder();
        builder.headers = kept;
        builder.header(name, value).build()
    }

    fn short(&self, flag: u16) -> Option<&str> {
        self.find(flag).and_then(|v| std::str::from_utf8(v).ok())
    }

    fn find(&self, wanted: u16) -> Option<&[u8]> {
        let flags = flags(&self.bytes)?;
        if flags & wanted == 0 {
            return None;
        }
        let mut rest = &self.bytes[2..];
        for flag in ALL.into_iter().filter(|flag| flags & flag != 0) {
            let (value, after) = take_property(flag, rest)?;
            if flag == wanted {
                return Some(value);
            }
            rest = after;
        }
        None
    }
}

impl Default for Properties {
    fn default() -> Self {
        Self::none()
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Properties")
            .field("content_type", &self.content_type())
            .field("message_id", &self.message_id())
            .field("type", &self.message_type())
            .field("headers", &self.headers().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Iterator over the fields of an encoded table: name, value. Ends at the first malformed one.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Walks an encoded table, without its length.
    pub fn new(table: &'a [u8]) -> Self {
        Self { rest: table }
    }

    /// The encoded fields not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, FieldValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = take_short(self.rest)?;
        let (value, rest) = take_value(rest)?;
        self.rest = rest;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// Makes encoded properties.
#[derive(Debug, Clone, Default)]
pub struct PropertiesBuilder {
    short: [Option<String>; 14],
    headers: Vec<u8>,
    delivery_mode: Option<u8>,
    priority: Option<u8>,
    timestamp: Option<u64>,
}

macro_rules! short_setter {
    ($($(#[$doc:meta])* $name:ident = $flag:expr),* $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: impl Into<String>) -> Self {
            self.short[$flag.leading_zeros() as usize] = Some(value.into());
            self
        })*
    };
}

impl PropertiesBuilder {
    short_setter! {
        /// Media type of the body.
        content_type = CONTENT_TYPE,
        /// Encoding of the body.
        content_encoding = CONTENT_ENCODING,
        /// Correlation id.
        correlation_id = CORRELATION_ID,
        /// Where a reply goes.
        reply_to = REPLY_TO,
        /// Time to live in milliseconds, as text.
        expiration = EXPIRATION,
        /// The event's id.
        message_id = MESSAGE_ID,
        /// The event's type.
        message_type = TYPE,
        /// The user that publishes.
        user_id = USER_ID,
        /// The service that publishes.
        app_id = APP_ID,
        /// Deprecated `cluster_id`.
        cluster_id = CLUSTER_ID,
    }

    /// Delivery mode 2: survives a restart in a durable queue.
    #[must_use]
    pub fn persistent(self) -> Self {
        self.delivery_mode(2)
    }

    /// Delivery mode as a number.
    #[must_use]
    pub fn delivery_mode(mut self, mode: u8) -> Self {
        self.delivery_mode = Some(mode);
        self
    }

    /// Priority.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn timestamp(mut self, seconds: u64) -> Self {
        self.timestamp = Some(seconds);
        self
    }

    /// Adds a header with text.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        put_short(name.as_bytes(), &mut self.headers);
        self.headers.push(b'S');
        self.headers
            .extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.headers.extend_from_slice(value.as_bytes());
        self
    }

    /// Adds headers that are already encoded fields (a table without its length).
    #[must_use]
    pub fn header_fields(mut self, fields: &[u8]) -> Self {
        self.headers.extend_from_slice(fields);
        self
    }

    /// Encodes. Refuses short strings over 255 bytes and malformed header fields.
    pub fn build(self) -> Result<Properties> {
        let mut flags = 0;
        let mut out = vec![0, 0];
        for flag in ALL {
            let before = out.len();
            match flag {
                HEADERS if !self.headers.is_empty() => {
                    out.extend_from_slice(&(self.headers.len() as u32).to_be_bytes());
                    out.extend_from_slice(&self.headers);
                }
                DELIVERY_MODE => out.extend(self.delivery_mode),
                PRIORITY => out.extend(self.priority),
                TIMESTAMP => out.extend(self.timestamp.iter().flat_map(|t| t.to_be_bytes())),
                _ => {
                    if let Some(text) = &self.short[flag.leading_zeros() as usize] {
                        if text.len() > 255 {
                            return Err(Error::invalid("a property is over 255 bytes"));
                        }
                        put_short(text.as_bytes(), &mut out);
                    }
                }
            }
            if out.len() > before {
                flags |= flag;
            }
        }
        out[..2].copy_from_slice(&u16::to_be_bytes(flags));
        Properties::parse(out)
    }
}

fn flags(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
}

fn take_property(flag: u16, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match flag {
        HEADERS => take_long(bytes),
        DELIVERY_MODE | PRIORITY => bytes.split_at_checked(1),
        TIMESTAMP => bytes.split_at_checked(8),
        _ => take_short(bytes),
    }
}

fn take_short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(length.into())
}

fn take_long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

fn put_short(text: &[u8], out: &mut Vec<u8>) {
    // Names come from code or were checked; a longer one is cut where the length byte ends.
    let text = &text[..text.len().min(255)];
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

fn take_value(bytes: &[u8]) -> Option<(FieldValue<'_>, &[u8])> {
    fn fixed<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
        bytes.split_first_chunk().map(|(v, rest)| (*v, rest))
    }
    let (&kind, rest) = bytes.split_first()?;
    Some(match kind {
        b't' => fixed(rest).map(|([v], rest)| (FieldValue::Boolean(v != 0), rest))?,
        b'b' => fixed(rest).map(|(v, r)| (FieldValue::Integer(i8::from_be_bytes(v).into()), r))?,
        b'B' => fixed(rest).map(|([v], r)| (FieldValue::Integer(v.into()), r))?,
        b's' => fixed(rest).map(|(v, r)| (FieldValue::Integer(i16::from_be_bytes(v).into()), r))?,
        b'u' => fixed(rest).map(|(v, r)| (FieldValue::Integer(u16::from_be_bytes(v).into()), r))?,
        b'I' => fixed(rest).map(|(v, r)| (FieldValue::Integer(i32::from_be_bytes(v).into()), r))?,
        b'i' => fixed(rest).map(|(v, r)| (FieldValue::Integer(u32::from_be_bytes(v).into()), r))?,
        b'l' | b'L' => fixed(rest).map(|(v, r)| (FieldValue::Integer(i64::from_be_bytes(v)), r))?,
        b'f' => fixed(rest).map(|(v, r)| (FieldValue::Float(f32::from_be_bytes(v).into()), r))?,
        b'd' => fixed(rest).map(|(v, r)| (FieldValue::Float(f64::from_be_bytes(v)), r))?,
        b'T' => fixed(rest).map(|(v, r)| (FieldValue::Timestamp(u64::from_be_bytes(v)), r))?,
        b'D' => rest
            .split_at_checked(5)
            .map(|(v, r)| (FieldValue::Other(b'D', v), r))?,
        b'S' => take_long(rest).map(|(v, rest)| (FieldValue::LongString(v), rest))?,
        b'x' => take_long(rest).map(|(v, rest)| (FieldValue::Bytes(v), rest))?,
        b'A' | b'F' => take_long(rest).map(|(v, rest)| (FieldValue::Other(kind, v), rest))?,
        b'V' => (FieldValue::Void, rest),
        _ => return None,
    })
}

/// Deepest nesting of tables and arrays.
const DEPTH_MAX: usize = 32;

/// Checks an encoded table, nested ones included: names are UTF-8, values whole.
pub fn check_table(table: &[u8], depth: usize) -> Result<()> {
    let mut rest = table;
    while !rest.is_empty() {
        let (name, after) = take_short(rest).ok_or_else(|| malformed("table"))?;
        std::str::from_utf8(name).map_err(|_| malformed("header name"))?;
        rest = check_value(after, depth)?;
    }
    Ok(())
}

fn check_value(bytes: &[u8], depth: usize) -> Result<&[u8]> {
    let (value, rest) = take_value(bytes).ok_or_else(|| malformed("table"))?;
    match value {
        FieldValue::Other(b'F' | b'A', _) if depth >= DEPTH_MAX => Err(malformed("nesting")),
        FieldValue::Other(b'F', table) => check_table(table, depth + 1).map(|()| rest),
        FieldValue::Other(b'A', mut items) => {
            while !items.is_empty() {
                items = check_value(items, depth + 1)?;
            }
            Ok(rest)
        }
        _ => Ok(rest),
    }
}

fn malformed(what: &str) -> Error {
    Error::invalid(format!("malformed AMQP properties ({what})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_round_trip_and_are_read_in_place() {
        let properties = Properties::builder()
            .content_type("application/cloudevents+protobuf")
            .persistent()
            .message_id("id-1")
            .message_type("vcs.v1.TagCreated")
            .app_id("vcs")
            .timestamp(7)
            .header(REPLAY_ID, "r-1")
            .header("other", "x")
            .build()
            .unwrap();
        let again = Properties::parse(properties.bytes().clone()).unwrap();
        assert_eq!(
            again.content_type(),
            Some("application/cloudevents+protobuf")
        );
        assert!(again.is_persistent());
        assert_eq!(again.message_id(), Some("id-1"));
        assert_eq!(again.message_type(), Some("vcs.v1.TagCreated"));
        assert_eq!(again.app_id(), Some("vcs"));
        assert_eq!(again.timestamp(), Some(7));
        assert_eq!(again.header(REPLAY_ID).unwrap().as_str(), Some("r-1"));
        assert_eq!(again.headers().count(), 2);
        assert_eq!(again.correlation_id(), None);
        assert_eq!(Properties::none().headers().count(), 0);
    }

    #[test]
    fn a_header_is_replaced_and_all_else_stays() {
        let properties = Properties::builder()
            .content_type("a/b")
            .content_encoding("gzip")
            .delivery_mode(1)
            .priority(9)
            .correlation_id("c")
            .cluster_id("l")
            .timestamp(7)
            .header("other", "x")
            .header(REPLAY_ID, "old")
            .header_fields(b"\x01nI\0\0\0\x07")
            .header(REPLAY_ID, "older")
            .build()
            .unwrap();
        assert_eq!(properties.to_builder().build().unwrap(), properties);
        let changed = properties.with_header(REPLAY_ID, "new").unwrap();
        let names: Vec<_> = changed.headers().map(|(name, _)| name).collect();
        assert_eq!(names, ["other", "n", REPLAY_ID]);
        assert_eq!(changed.header(REPLAY_ID).unwrap().as_str(), Some("new"));
        assert_eq!(changed.content_encoding(), Some("gzip"));
        assert_eq!(changed.cluster_id(), Some("l"));
        assert_eq!(
            (changed.priority(), changed.timestamp()),
            (Some(9), Some(7))
        );
        assert!(!changed.is_persistent());
        let none = Properties::none().with_header("a", "b").unwrap();
        assert_eq!(none.headers().count(), 1);
    }

    #[test]
    fn malformed_properties_are_refused() {
        #[track_caller]
        fn check(bytes: &'static [u8]) {
            assert!(Properties::parse(bytes).is_err(), "{bytes:?}");
        }
        check(&[]);
        check(&[0x80]);
        check(&[0x80, 0, 5, b'a']);
        check(&[0, 0, 1]);
        check(&[0, 1]);
        check(&[0x20, 0, 0, 0, 0, 3, 1, b'k', b'?']);
        check(&[0x20, 0, 0, 0, 0, 9, 1, b'k', b'S', 0, 0, 0, 9, 1, 1]);
    }

    #[test]
    fn deep_nesting_ends_with_an_error_not_the_stack() {
        let mut table = Vec::new();
        for _ in 0..10_000 {
            let mut outer = vec![1, b'k', b'F'];
            outer.extend_from_slice(&(table.len() as u32).to_be_bytes());
            outer.extend_from_slice(&table);
            table = outer;
            if table.len() > 1 << 16 {
                break;
            }
        }
        assert!(Properties::builder().header_fields(&table).build().is_err());
    }
}
