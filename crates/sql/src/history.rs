//! Where tables come from: [`History`] is pinned at one position, [`Pinned`] gives its tables.

use annals_core::Result;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The table that holds the envelope of every event.
pub const EVENTS: &str = "events";

/// Everything that happened, as tables. Each question pins it once.
#[async_trait]
pub trait History: Debug + Send + Sync + 'static {
    /// All tables as they are now.
    async fn pin(&self) -> Result<Arc<dyn Pinned>>;
}

/// All tables at one position of the ledger: what is read through it does not move.
#[async_trait]
pub trait Pinned: Debug + Send + Sync + 'static {
    /// The ledger position all tables stand at.
    fn position(&self) -> u64;

    /// The names of all tables: [`EVENTS`], and one per event type by its full name.
    fn tables(&self) -> Vec<TableName>;

    /// The table of this exact name; `None` if there is none.
    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>>;

    /// What was read through this so far.
    fn scanned(&self) -> Scanned;

    /// Told that what was read is damaged: whether the tables, pinned again, are read from
    /// elsewhere.
    fn distrust(&self) -> bool {
        false
    }
}

/// The full name of a table: `events`, or an event type such as `vcs.v1.CommitPushed`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(Arc<str>);

impl TableName {
    /// A table of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last dot: `CommitPushed` of `vcs.v1.CommitPushed`.
    pub fn last_part(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a question has read, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Lake files opened.
    pub files: u64,
    /// Bytes read from them.
    pub bytes: u64,
    /// Rows of the raw tail.
    pub tail_rows: u64,
}

/// Counts what is read, from many tasks at once; [`ScanCounters::now`] is a [`Scanned`].
#[derive(Debug, Default)]
pub struct ScanCounters {
    files: AtomicU64,
    bytes: AtomicU64,
    tail_rows: AtomicU64,
}

impl ScanCounters {
    /// Counts lake files opened.
    pub fn add_files(&self, files: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
    }

    /// Counts bytes read from lake files.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts rows of the raw tail.
    pub fn add_tail_rows(&self, rows: u64) {
        self.tail_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn now(&self) -> Scanned {
        Scanned {
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            tail_rows: self.tail_rows.load(Ordering::Relaxed),
        }
    }
}
