//! From the ledger to the tables: [`Converter`].
//!
//! ```text
//!  ledger entries ──► Run (rows of one day, bounded) ──► files ──► commit of each type's table
//!  (duplicates left out)                                                │
//!                                              state document ◄─────────┘
//!                                                    │
//!                                                    └──► commit of the events' table
//! ```
//!
//! - `gather` — the archive, cut into runs
//! - `run` — the rows of consecutive ledger entries
//! - `commit` — a run to its tables
//! - `types` — the tables of types, their columns, how far each has come
//! - `rebuild` — a table's days made anew
//! - `mend` — which days have to be, as their files are damaged
//!
//! Every commit says, as Delta's application transaction, up to which ledger entry its table has
//! rows; a table takes rows after that only. So a converter may be killed anywhere: the next one
//! goes on from the events' table, and types' tables that were further leave out what they have.

mod catch_up;
mod commit;
mod gather;
mod mend;
mod rebuild;
mod run;
mod types;

pub use mend::Mended;
pub use rebuild::{Days, Rebuilt};
pub use types::payload_fields;

use crate::lake::mark_of;
use crate::layout::TableName;
use crate::state::State;
use crate::table::Table;
use annals_archive::reader::Archive;
use annals_archive::{Ledger, Position};
use annals_core::Result;
use annals_core::schema::Catalog;
use std::sync::Arc;
use types::TypeTables;

/// How a converter works.
#[derive(Debug, Clone)]
pub struct Config {
    /// A run ends at this many rows …
    pub run_rows: usize,
    /// … or at this much memory, about; a single ledger entry may take more.
    pub run_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run_rows: 1 << 19,
            run_bytes: 96 << 20,
        }
    }
}

/// The schemas that give types their tables.
#[derive(Debug, Clone)]
pub struct Schemas {
    /// Number of the revision.
    pub revision: u64,
    /// The types.
    pub catalog: Arc<Catalog>,
}

/// Keeps the tables of a bus up with its ledger. One per bus at a time; a second one is told of by
/// [`ErrorKind::Conflict`](crate::ErrorKind) and changes nothing.
#[derive(Debug)]
pub struct Converter {
    archive: Archive,
    config: Config,
    schemas: Schemas,
    /// Up to where the events' table has rows.
    position: Position,
    events: Option<Table>,
    types: TypeTables,
}

/// What a converter did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Position before.
    pub from: Position,
    /// Position now.
    pub to: Position,
    /// Rows written to the table of all events.
    pub events: u64,
    /// Rows written to the tables of types.
    pub typed: u64,
    /// Files added.
    pub files: u64,
    /// Tables that were made anew, and why.
    pub rebuilt: Vec<(TableName, String)>,
    /// What in the archive was found damaged, and is not in the tables.
    pub damage: Vec<String>,
}

impl Converter {
    /// The converter of a ledger.
    pub fn new(ledger: Ledger, schemas: Schemas, config: Config) -> Self {
        Self {
            types: TypeTables::new(ledger.bus()),
            archive: Archive::at(ledger),
            config,
            schemas,
            position: Position(0),
            events: None,
        }
    }

    /// Takes new schemas: types' tables get their columns with the next run, and types that had no
    /// schema their history.
    pub fn set_schemas(&mut self, schemas: Schemas) {
        self.schemas = schemas;
        self.types.forget_shapes();
    }

    /// Up to where the table of all events has rows.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Begins again from what is stored, at the next catch-up; after an error.
    pub fn forget(&mut self) {
        self.events = None;
        self.types.forget();
    }

    /// Opens the events' table and finds out how far it has come. One that is damaged is made
    /// anew: the tables of types then leave out what they have.
    async fn open(&mut self, progress: &mut Progress) -> Result<Table> {
        if let Some(table) = &self.events {
            return Ok(table.clone());
        }
        let ledger = self.archive.ledger().clone();
        let (table, why) = types::open_or_reset(&ledger, TableName::Events).await?;
        progress
            .rebuilt
            .extend(why.map(|why| (TableName::Events, why)));
        let mark = table.mark(&mark_of(ledger.bus())).await?;
        self.position = Position(mark.unwrap_or(0));
        let state = State::read(ledger.bucket(), ledger.bus(), self.position).await?;
        self.types.set_state(state);
        self.events = Some(table.clone());
        Ok(table)
    }
}
