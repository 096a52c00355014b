//! [`Lake`]: all tables of a bus, for those who read them.

use crate::layout::TableName;
use crate::state::State;
use crate::table::Table;
use annals_archive::{Bucket, Position};
use annals_core::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// The mark of a table: the ledger entry up to which it has rows.
pub(crate) fn mark_of(bus: &str) -> String {
    format!("annals/{bus}")
}

/// The tables of a bus. Cheap to clone; clones share what was read.
#[derive(Debug, Clone)]
pub struct Lake {
    bucket: Arc<dyn Bucket>,
    bus: Arc<str>,
    tables: Arc<tokio::sync::Mutex<HashMap<TableName, Table>>>,
}

/// A table, and the ledger entry up to which it is complete: what comes after is in the archive
/// only.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The table.
    pub table: Table,
    /// Up to where it is complete.
    pub position: Position,
}

/// A lake as its table of all events, and what was known of the others then, tell.
#[derive(Debug)]
pub struct Standing {
    lake: Lake,
    events: Table,
    /// The ledger entry up to which the table of all events has rows.
    pub position: Position,
    /// What is known of the tables of types; `None` where that is lost.
    pub state: Option<State>,
}

impl Standing {
    /// A table at its last version: it may have come further since, never less far.
    pub async fn table(&self, name: &TableName) -> Result<Converted> {
        let TableName::Type(event_type) = name else {
            return Ok(Converted {
                table: self.events.clone(),
                position: self.position,
            });
        };
        let table = self.lake.open(name).await?;
        let own = self.lake.position_of(&table).await?;
        let state = self.state.as_ref();
        match state.and_then(|state| state.types.get(event_type)) {
            Some(known) if own.0 < known.position => Err(Error::corrupt(format!(
                "table {name} has lost commits: it stands at ledger entry {own}, not at {}",
                known.position
            ))),
            Some(_) => Ok(Converted {
                table,
                position: own.max(self.position),
            }),
            // Not made yet, or not known how far: what it says itself.
            None => Ok(Converted {
                table,
                position: own,
            }),
        }
    }
}

impl Lake {
    /// The tables of a bus.
    pub fn new(bucket: Arc<dyn Bucket>, bus: &str) -> Self {
        Self {
            bucket,
            bus: bus.into(),
            tables: Arc::default(),
        }
    }

    /// The bucket.
    pub fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }

    /// The bus.
    pub fn bus(&self) -> &str {
        &self.bus
    }

    /// A table at its last version, and up to where it is complete.
    ///
    /// One that is damaged or has lost commits is [`ErrorKind::Corrupt`](crate::ErrorKind), and
    /// the converter makes it anew.
    pub async fn table(&self, name: &TableName) -> Result<Converted> {
        self.standing().await?.table(name).await
    }

    /// Where it stands now: read once for all that is asked of it.
    pub async fn standing(&self) -> Result<Standing> {
        let events = self.open(&TableName::Events).await?;
        let position = self.position_of(&events).await?;
        Ok(Standing {
            state: State::read(&self.bucket, &self.bus, position).await?,
            lake: self.clone(),
            events,
            position,
        })
    }

    async fn position_of(&self, table: &Table) -> Result<Position> {
        let mark = table.mark(&mark_of(&self.bus)).await?;
        Ok(Position(mark.unwrap_or(0)))
    }

    async fn open(&self, name: &TableName) -> Result<Table> {
        let kept = self.tables.lock().await.get(name).cloned();
        let opened = match kept {
            Some(mut table) => table.refresh().await.map(|()| table),
            None => Table::open(self.bucket.clone(), &self.bus, name.clone()).await,
        };
        let mut tables = self.tables.lock().await;
        match opened {
            Ok(table) => {
                tables.insert(name.clone(), table.clone());
                Ok(table)
            }
            Err(error) => {
                tables.remove(name);
                Err(error)
            }
        }
    }
}
