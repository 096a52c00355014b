//! What goes onto a bus and what comes off it.

use annals_core::{Error, ErrorKind, Properties};
use bytes::Bytes;
use std::sync::Arc;

/// A message to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Exchange; empty for the default exchange, which routes by queue name.
    pub exchange: Arc<str>,
    /// Routing key: the event's type.
    pub routing_key: Arc<str>,
    /// Properties, as AMQP encodes them.
    pub properties: Properties,
    /// The body: the event's bytes.
    pub body: Bytes,
    /// Whether a message that reaches no queue is an error ([`annals_core::ErrorKind::NotFound`])
    /// rather than dropped.
    pub mandatory: bool,
}

/// What became of a published message.
#[derive(Debug)]
pub enum Outcome {
    /// The bus holds it durably.
    Bus,
    /// It was not taken, for the stated reason; or, if the kind is
    /// [`annals_core::ErrorKind::Unknown`], nobody can say: publish again with the same id.
    Failed(Error),
}

impl Outcome {
    /// Whether the bus holds the message.
    pub fn is_bus(&self) -> bool {
        matches!(self, Outcome::Bus)
    }

    /// As a result.
    pub fn into_result(self) -> Result<(), Error> {
        match self {
            Outcome::Bus => Ok(()),
            Outcome::Failed(error) => Err(error),
        }
    }
}

/// The error of a mandatory message that reached no queue.
pub(crate) fn no_queue(exchange: &str, routing_key: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("no queue is bound to exchange {exchange:?} for routing key {routing_key:?}"),
    )
}

/// A message as a consumer gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Names this delivery to [`crate::Consumer::settle`]; grows by at least one from delivery to
    /// delivery of one consumer.
    pub tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Exchange it was published to.
    pub exchange: Arc<str>,
    /// Routing key it was published with.
    pub routing_key: Arc<str>,
    /// Properties, as AMQP encodes them.
    pub properties: Properties,
    /// The body as published.
    pub body: Bytes,
}

/// How deliveries are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Done: the bus may forget them.
    Ack,
    /// Not now: they go back to their place in the queue.
    Requeue,
    /// Never: dropped (or dead-lettered where that is set up).
    Reject,
}

/// Which deliveries are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tags {
    /// One.
    One(u64),
    /// It and all unsettled ones before it.
    UpTo(u64),
}
