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
        let events = self.open(&TableName::Events).await?;
        let position = self.position_of(&events).await?;
        let TableName::Type(event_type) = name else {
            return Ok(Converted {
                table: events,
                position,
            });
        };
        // After the events' table: it may have come further since, never less far.
        let table = self.open(name).await?;
        let own = self.position_of(&table).await?;
        let state = State::read(&self.bucket, &self.bus, position).await?;
        let known = state.and_then(|mut state| state.types.remove(event_type));
        match known {
            Some(known) if own.0 < known.position => Err(Error::corrupt(format!(
                "table {name} has lost commits: it stands at ledger entry {own}, not at {}",
                known.position
            ))),
            Some(_) => Ok(Converted {
                table,
                position: own.max(position),
            }),
            // Not made yet, or not known how far: what it says itself.
            None => Ok(Converted {
                table,
                position: own,
            }),
        }
    }

    /// The ledger entry up to which the table of all events has rows, and what is known of the
    /// tables of types then.
    pub async fn state(&self) -> Result<(Position, Option<State>)> {
        let events = self.open(&TableName::Events).await?;
        let position = self.position_of(&events).await?;
        let state = State::read(&self.bucket, &self.bus, position).await?;
        Ok((position, state))
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
