//! Publish and subscribe: the [`Bus`] trait and the buses behind it.
//!
//! ```text
//!  Publisher ──► Bus::publish ──► exchange ──► bindings ──► queue ──► Consumer::next ──► settle
//!  (stamps)                                                                         (ack, requeue)
//! ```
//!
//! - [`message`] — [`Message`] out, [`Delivery`] in, [`Settle`]
//! - [`topology`] — [`Topology`]: exchanges, queues, bindings, and the house layout of them
//! - [`publisher`] — [`Publisher`]: stamps, confirms, typed outcome
//! - [`memory`] — [`MemoryBus`], for tests
//! - [`local`] (feature `embedded`) — [`LocalBus`], the embedded broker in this process
//! - [`amqp`] (feature `amqp`) — [`AmqpBus`], RabbitMQ or the embedded broker over TCP
//! - `conformance` (feature `conformance`) — the suite that is the contract
//!
//! What is not promised: order across queues, order after a requeue, exactly-once delivery.

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(any(feature = "embedded", feature = "amqp"))]
mod exchanges;
#[cfg(feature = "embedded")]
pub mod local;
pub mod memory;
pub mod message;
pub mod publisher;
#[cfg(any(feature = "embedded", feature = "amqp"))]
mod reply;
mod tags;
pub mod topology;

#[cfg(feature = "amqp")]
pub use amqp::{AmqpBus, AmqpOptions};
pub use annals_core::{Error, ErrorKind, Result};
#[cfg(feature = "embedded")]
pub use local::LocalBus;
pub use memory::MemoryBus;
pub use message::{Delivery, Message, Outcome, Settle, Tags};
pub use publisher::{Holder, PublishError, PublishReceipt, Publisher, PublisherOptions};
pub use topology::{Binding, Exchange, ExchangeKind, Queue, Topology};

use async_trait::async_trait;
use std::fmt::Debug;

/// A message bus. Small on purpose: what every back-end can do, batch-shaped.
///
/// Implementers pass the `conformance` suite; users of events go through [`Publisher`].
#[async_trait]
pub trait Bus: Debug + Send + Sync + 'static {
    /// Makes exchanges, queues and bindings exist as described. Declaring what exists with the
    /// same settings changes nothing; with other settings it is [`ErrorKind::Conflict`].
    async fn declare(&self, topology: &Topology) -> Result<()>;

    /// Publishes, and returns when the bus has answered for each message: one outcome per
    /// message, in order. [`Outcome::Bus`] means the bus holds it durably.
    ///
    /// Messages of one call keep their order; so do those of one call after another.
    async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome>;

    /// Starts to consume a queue, with at most `prefetch` deliveries unsettled (0: no limit of
    /// ours; the bus may have one).
    async fn consume(&self, queue: &str, prefetch: u32) -> Result<Box<dyn Consumer>>;

    /// Ends all consumers and connections. Unsettled deliveries go back to their queues.
    async fn close(&self) -> Result<()>;
}

/// One consumer of one queue.
#[async_trait]
pub trait Consumer: Debug + Send {
    /// Waits for deliveries: one or more, in the queue's order; `None` when the consumer has
    /// ended (queue deleted, bus closed). Can be dropped and called again without loss.
    async fn next(&mut self) -> Result<Option<Vec<Delivery>>>;

    /// Settles deliveries of this consumer. Returns when the settlement is on its way; one that
    /// is lost with the connection shows as a redelivery.
    ///
    /// A delivery is settled once: [`Tags::One`] and [`Tags::UpTo`] of a tag that is settled, or
    /// was never given, are [`ErrorKind::Invalid`], settle nothing, and leave the consumer as it
    /// was. So an ack up to a tag must not be repeated.
    async fn settle(&mut self, settle: Settle, tags: Tags) -> Result<()>;

    /// Stops consuming; unsettled deliveries go back to the queue.
    async fn cancel(self: Box<Self>) -> Result<()>;
}
