//! What a client asks for, and how it is refused: specs of exchanges, queues, bindings, consumers.

use bytes::Bytes;
use std::fmt;

/// A request that is not granted, in RabbitMQ's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// AMQP reply code.
    pub code: u16,
    /// Reply text, e.g. `NOT_FOUND - no queue 'x' in vhost '/'`.
    pub text: String,
}

impl Refusal {
    /// A refusal with its code's name before the text.
    pub fn new(code: u16, text: impl fmt::Display) -> Self {
        let name = match code {
            320 => "CONNECTION_FORCED",
            403 => "ACCESS_REFUSED",
            404 => "NOT_FOUND",
            405 => "RESOURCE_LOCKED",
            406 => "PRECONDITION_FAILED",
            503 => "COMMAND_INVALID",
            506 => "RESOURCE_ERROR",
            530 => "NOT_ALLOWED",
            540 => "NOT_IMPLEMENTED",
            _ => "INTERNAL_ERROR",
        };
        Self {
            code,
            text: format!("{name} - {text}"),
        }
    }

    /// Whether AMQP closes the connection over it, and not the channel alone.
    pub fn closes_connection(&self) -> bool {
        !matches!(self.code, 311..=313 | 403..=406)
    }

    pub(crate) fn closed() -> Self {
        Self::new(320, "broker is closed")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

impl std::error::Error for Refusal {}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// By equality of routing and binding key.
    Direct,
    /// By pattern.
    Topic,
    /// To all.
    Fanout,
}

impl ExchangeKind {
    /// The kind by AMQP's name of it.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        match name {
            "direct" => Ok(Self::Direct),
            "topic" => Ok(Self::Topic),
            "fanout" => Ok(Self::Fanout),
            "headers" => Err(Refusal::new(
                540,
                "exchange type 'headers' is not supported yet",
            )),
            _ => Err(Refusal::new(503, format!("unknown exchange type '{name}'"))),
        }
    }

    /// AMQP's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

/// An exchange to declare.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeSpec {
    /// Name.
    pub name: String,
    /// How it routes; not looked at if passive.
    pub kind: ExchangeKind,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it goes with the last binding from it.
    pub auto_delete: bool,
    /// Whether only exchanges may publish to it.
    pub internal: bool,
    /// Only asks whether it exists.
    pub passive: bool,
    /// Encoded AMQP table without its length.
    pub arguments: Bytes,
}

/// A queue to declare.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec {
    /// Name; empty for one the server mints.
    pub name: String,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it is this session's alone, and gone with it.
    pub exclusive: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Only asks whether it exists.
    pub passive: bool,
    /// Encoded AMQP table without its length.
    pub arguments: Bytes,
}

/// A queue as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    /// Name.
    pub name: String,
    /// Messages ready for delivery.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// What a binding leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// Another exchange.
    Exchange(String),
}

/// A binding to make or to remove.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BindingSpec {
    /// Exchange messages come from.
    pub source: String,
    /// Where they go.
    pub destination: Destination,
    /// Binding key.
    pub key: String,
    /// Encoded AMQP table without its length; part of the binding's identity.
    pub arguments: Bytes,
}

/// A consumer to start.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumeSpec {
    /// Channel it lives on.
    pub channel: u16,
    /// Queue it takes from.
    pub queue: String,
    /// Its name within the channel.
    pub consumer_tag: String,
    /// Whether a delivery counts as settled once taken.
    pub no_ack: bool,
    /// Whether it wants the queue for itself.
    pub exclusive: bool,
    /// Most deliveries unsettled; 0 for no limit of the client's.
    pub prefetch: u32,
    /// Encoded AMQP table without its length.
    pub arguments: Bytes,
}

/// What is done with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Done.
    Ack,
    /// Back to its place in the queue.
    Requeue,
    /// Dropped.
    Reject,
}

/// Deliveries of a channel to settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// Delivery tag; 0 with `multiple` stands for all that are unsettled.
    pub tag: u64,
    /// Whether all unsettled ones before it are meant too.
    pub multiple: bool,
    /// What is done with them.
    pub how: Settle,
}
