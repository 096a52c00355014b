//! The broker's state, pure and deterministic: no I/O, no clock, no thread.
//!
//! - [`spec`] — what clients ask for
//! - [`arguments`] — `x-` arguments: which are honoured, which refused, which differ
//! - [`exchange`] — exchanges, bindings, routing
//! - [`index`] — what a queue holds: positions in the log, 8 bytes a message
//! - [`queue`], [`channel`] — queues; channels and consumers, and their credit
//! - [`segments`] — how many messages keep each segment of the log alive
//! - [`state`] — all of it together; [`calls`], [`dispatch`], [`settle`] — what changes it
//! - [`record`], [`snapshot`] — how it goes into the log, and comes back

pub(crate) mod arguments;
mod calls;
mod channel;
mod dispatch;
pub(crate) mod exchange;
pub(crate) mod index;
mod queue;
pub(crate) mod record;
pub(crate) mod segments;
mod settle;
mod slab;
pub(crate) mod snapshot;
pub(crate) mod spec;
pub(crate) mod state;
