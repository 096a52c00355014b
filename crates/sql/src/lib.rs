//! Questions to all of history: DataFusion over the lake and the raw tail.
//!
//! In reading order:
//!
//! - [`history`] — [`History`], the seam: where tables come from
//! - [`tables`] — its tables: the lake's files, united with the raw tail
//! - [`limits`] — [`EngineConfig`] and [`Limit`]: what a question may use
//! - [`engine`] — [`Engine`] answers a [`Question`] with an [`Answer`]
//! - [`guard`] — what is a question at all: one reading statement, of a bounded size
//! - `names` — `vcs.v1.CommitPushed` unquoted, near names for a wrong one
//! - `functions` — what may be called: a list, `latest`, `json_get`, `payload_json`
//! - [`render`] — an answer as JSON, CSV, Arrow IPC, or a table for a terminal
//!
//! Invariant: nothing that is asked here can write, or read anything but [`History`]'s tables.

pub mod engine;
mod failure;
mod functions;
pub mod guard;
pub mod history;
pub mod limits;
mod names;
pub mod render;
pub mod tables;

pub use datafusion;
pub use engine::{Answer, Engine, Question, Summary};
pub use history::{EVENTS, History, Pinned, ScanCounters, Scanned, TableName};
pub use limits::{EngineConfig, Limit};
pub use render::Format;
