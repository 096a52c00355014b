//! The TCP front: AMQP 0-9-1 for ordinary RabbitMQ clients, on [`Session`](crate::Session).
//!
//! ```text
//!            ┌─ intake ─► codec ─► connection ─► channel ─► Session
//!  socket ◄─┤               (one reader per connection, one batch per read)
//!            └─ output ◄───────── writer ◄──── SessionEvents
//! ```
//!
//! - [`serve`] — accepts connections until told to stop
//! - [`AmqpConfig`], [`User`] — who may connect, and every bound
//!
//! Publishes, deliveries, settlements and confirms are coded by hand and in place; all other
//! methods by `amq-protocol`, the codec of the `lapin` client. Codes and texts of errors are those
//! of RabbitMQ.

mod channel;
mod codec;
mod config;
mod connection;
mod content;
mod decode;
mod events;
mod fault;
mod handshake;
mod intake;
mod listener;
mod method;
mod output;
mod serving;
mod writer;

pub use config::{AmqpConfig, User};
pub use decode::decode_all;
pub use listener::serve;
