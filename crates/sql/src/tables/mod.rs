//! The tables of history: what is converted, from the lake's files; what is not yet, from the raw
//! archive and the archiver's open batch; all at one position.
//!
//! ```text
//!  archiver's open batch ──────────────► tail ──┐
//!  ledger entries after the lake's ────► tail ──┼──► HistoryTable ──► plan
//!  files of the lake ──► pruned by statistics ──┘
//! ```

mod counted;
mod counting;
mod grown;
mod history;
mod known;
mod lookup;
mod provider;
mod prune;
mod readers;
mod tail;

pub(crate) use counted::KnownCounts;
pub use history::{LakeHistory, Mending, OpenBatch, TypeCatalog};
