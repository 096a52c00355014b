//! [`Target`]: where a replay's events go.
//!
//! - [`FileTarget`] — a file, there whole or not at all
//! - [`StreamTarget`] — any stream of bytes, such as standard output
//! - [`ExchangeTarget`] — a private exchange on a bus, every delivery marked
//! - [`ConsumerTarget`] — a function in this process, without copying

mod consumer;
mod exchange;
mod file;
mod format;
mod message;
mod stream;

pub use consumer::ConsumerTarget;
pub use exchange::{ExchangeTarget, exchange_name};
pub use file::FileTarget;
pub use format::Format;
pub use stream::StreamTarget;

use annals_archive::reader::EventRef;
use annals_core::Result;
use async_trait::async_trait;
use std::fmt::Debug;

/// Where a replay's events go, part by part, in order.
#[async_trait]
pub trait Target: Debug + Send {
    /// What it is, for the receipt: `file orders.jsonl`.
    fn describe(&self) -> String;

    /// Takes some events, at least one; on `Ok` they are there, as far as the target can say. Its
    /// slowness is what holds a replay back.
    async fn deliver(&mut self, events: &[EventRef<'_>]) -> Result<Delivered>;

    /// Makes what was delivered final; called once, after the last part.
    async fn finish(&mut self) -> Result<()>;
}

/// What became of the events of one part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Events that reached somebody.
    pub delivered: u64,
    /// Events nobody listens to there.
    pub unrouted: u64,
}

impl Delivered {
    /// All of a part was delivered.
    pub fn all(events: &[EventRef<'_>]) -> Self {
        Self {
            delivered: events.len() as u64,
            unrouted: 0,
        }
    }
}
