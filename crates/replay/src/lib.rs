//! History back out: a selection of the archive, delivered to a target, proven by a receipt.
//!
//! ```text
//!  Request ──► Replay::plan ──► Replay::run ──► Receipt
//!  (selection,   (exact count)   │  archive ──► pace ──► Target
//!   rate)                        └─ register: replays/<id>.json, replays/<id>.receipt.json
//! ```
//!
//! - [`request`] — [`Request`]: what to replay and how fast; which types are commands
//! - [`replay`] — [`Replay`]: plan, run
//! - [`targets`] — [`Target`]: file, stream of bytes, private exchange, consumer in this process
//! - [`register`] — [`Register`]: the replays of a bucket; [`KnownReplays`] for the archiver
//! - [`receipt`] — [`Plan`], [`Progress`], [`Receipt`], [`Listed`]
//!
//! Every event of a selection is delivered once per (source, id), in ledger order, the bytes as
//! published; every delivery onto a bus is marked by the header `annals-replay-id`, so that the
//! archiver knows it.

mod pace;
pub mod receipt;
pub mod register;
pub mod replay;
pub mod request;
pub mod targets;

pub use annals_core::{Error, ErrorKind, Result};
pub use receipt::{Listed, ListedEvent, Plan, Progress, Receipt};
pub use register::{KnownReplays, Register};
pub use replay::Replay;
pub use request::Request;
pub use targets::{Delivered, Target};
