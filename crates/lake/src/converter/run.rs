//! [`Run`]: the rows of consecutive ledger entries of one day, and their files.

use crate::layout::{Date, TableName};
use crate::rows::{EventRows, TypeRows};
use annals_archive::Position;
use annals_archive::reader::Batch;
use annals_columns::Shape;
use annals_core::schema::Catalog;
use annals_core::{Error, ErrorKind, Result};
use arrow_array::RecordBatch;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Rows being gathered: what each table takes of them.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) date: Date,
    /// The last ledger entry that has rows in it.
    pub(super) last: Position,
    /// Rows of the table of all events, if it takes any.
    events: Option<EventRows>,
    /// The types that have tables; `None` for one that has none.
    types: HashMap<String, Option<OfType>>,
    catalog: Arc<Catalog>,
}

#[derive(Debug)]
struct OfType {
    /// Entries its table has already.
    has: Position,
    rows: TypeRows,
}

/// The rows of one table, taken from a run.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) table: TableName,
    pub(super) rows: RecordBatch,
}

impl Run {
    /// An empty run of a day.
    pub(super) fn new(date: Date, with_events: bool, catalog: Arc<Catalog>) -> Self {
        Self {
            date,
            last: Position(0),
            events: with_events.then(EventRows::default),
            types: HashMap::new(),
            catalog,
        }
    }

    /// Whether it knows what to do with a type.
    pub(super) fn knows(&self, event_type: &str) -> bool {
        self.types.contains_key(event_type)
    }

    /// Says what to do with a type: which columns its table has and up to where it has rows; or
    /// that it has no table.
    pub(super) fn learn(&mut self, event_type: &str, table: Option<(Position, &Shape)>) {
        let of_type = table.map(|(has, shape)| OfType {
            has,
            rows: TypeRows::new(event_type, shape, self.catalog.clone()),
        });
        self.types.insert(event_type.to_owned(), of_type);
    }

    /// Adds the events of a ledger entry, whose types are all known. Takes a while: off the
    /// runtime's threads.
    pub(super) fn push(&mut self, batch: &Batch) -> Result<()> {
        for event in batch.iter() {
            let event = event?;
            if let Some(events) = &mut self.events {
                events.push(&event)?;
            }
            let of_type = self.types.get_mut(event.header.event_type);
            if let Some(Some(of_type)) = of_type
                && event.location.position > of_type.has
            {
                of_type.rows.push(&event)?;
            }
        }
        self.last = batch.position();
        Ok(())
    }

    /// Rows in its largest table.
    pub(super) fn rows(&self) -> usize {
        let typed = self.types.values().flatten().map(|t| t.rows.len()).sum();
        self.events.as_ref().map_or(typed, EventRows::len)
    }

    /// Memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let typed: usize = self.types.values().flatten().map(|t| t.rows.bytes()).sum();
        typed + self.events.as_ref().map_or(0, EventRows::bytes)
    }

    /// Takes the rows, table by table, that of all events last.
    pub(super) fn take(self) -> impl Iterator<Item = Taken> {
        let types: BTreeMap<String, OfType> = self
            .types
            .into_iter()
            .filter_map(|(name, of_type)| Some((name, of_type.filter(|t| !t.rows.is_empty())?)))
            .collect();
        let types = types.into_iter().map(|(name, mut of_type)| Taken {
            table: TableName::Type(name),
            rows: of_type.rows.finish(),
        });
        let events = self.events.filter(|rows| !rows.is_empty());
        types.chain(events.map(|mut rows| Taken {
            table: TableName::Events,
            rows: rows.finish(),
        }))
    }
}

/// The types of a batch's events.
pub(super) fn types_of(batch: &Batch) -> Result<BTreeSet<String>> {
    let mut types: BTreeSet<String> = BTreeSet::new();
    let mut last = String::new();
    for event in batch.iter() {
        let event_type = event?.header.event_type;
        if event_type != last || types.is_empty() {
            last.clear();
            last.push_str(event_type);
            types.insert(last.clone());
        }
    }
    Ok(types)
}

/// The day a batch was archived on; `None` if it is empty.
pub(super) fn date_of(batch: &Batch) -> Result<Option<Date>> {
    let first = batch.iter().next().transpose()?;
    Ok(first.map(|event| Date::of_us(event.received_at_us)))
}

/// Runs what computes for long off the runtime's threads.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::new(ErrorKind::Internal, "converting panicked").caused_by(e))?
}
