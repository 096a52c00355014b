//! [`Run`]: the rows of consecutive ledger entries of one day, and their files.

use crate::layout::{Date, TableName};
use crate::rows::{Envelope, EventRows, TypeRows};
use annals_archive::Position;
use annals_archive::reader::Batch;
use annals_columns::Shape;
use annals_core::schema::Catalog;
use annals_core::{Error, ErrorKind, Result};
use arrow_array::RecordBatch;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Rows being gathered: what each table takes of them.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) date: Date,
    /// The last ledger entry that has rows in it.
    pub(super) last: Position,
    /// Rows of the table of all events, if it takes any.
    events: Option<EventRows>,
    types: Vec<OfType>,
    /// By name, where in `types`.
    known: HashMap<String, usize>,
    catalog: Arc<Catalog>,
}

#[derive(Debug)]
struct OfType {
    name: String,
    /// What its table takes; `None` if it has none.
    rows: Option<Rows>,
}

#[derive(Debug)]
struct Rows {
    /// Entries the table has already.
    has: Position,
    rows: TypeRows,
}

/// How much of a batch was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    All,
    /// The events before this one, whose type is not known.
    Until(usize),
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
            types: Vec::new(),
            known: HashMap::new(),
            catalog,
        }
    }

    /// Whether it knows what to do with a type.
    pub(super) fn knows(&self, event_type: &str) -> bool {
        self.known.contains_key(event_type)
    }

    /// Says what to do with a type: which columns its table has and up to where it has rows; or
    /// that it has no table.
    pub(super) fn learn(&mut self, event_type: &str, table: Option<(Position, &Shape)>) {
        let rows = table.map(|(has, shape)| Rows {
            has,
            rows: TypeRows::new(event_type, shape, self.catalog.clone()),
        });
        self.known.insert(event_type.to_owned(), self.types.len());
        self.types.push(OfType {
            name: event_type.to_owned(),
            rows,
        });
    }

    /// Adds the events of a batch, from one of them on, up to the first of a type that is not
    /// known. Takes a while: off the runtime's threads.
    pub(super) fn push(&mut self, batch: &Batch, from: usize) -> Result<Pushed> {
        let mut of_last = 0;
        for (at, event) in batch.iter().enumerate().skip(from) {
            let event = event?;
            let name = event.header.event_type;
            // The archive keeps types together.
            if self.types.get(of_last).is_none_or(|last| last.name != name) {
                let Some(&known) = self.known.get(name) else {
                    return Ok(Pushed::Until(at));
                };
                of_last = known;
            }
            let envelope = Envelope::of(&event);
            if let Some(events) = &mut self.events {
                events.push(&envelope)?;
            }
            if let Some(of_type) = &mut self.types[of_last].rows
                && event.location.position > of_type.has
            {
                of_type.rows.push(&envelope)?;
            }
        }
        self.last = batch.position();
        Ok(Pushed::All)
    }

    /// Rows in its largest table.
    pub(super) fn rows(&self) -> usize {
        let typed = self.typed().map(TypeRows::len).sum();
        self.events.as_ref().map_or(typed, EventRows::len)
    }

    /// Memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let typed: usize = self.typed().map(TypeRows::bytes).sum();
        typed + self.events.as_ref().map_or(0, EventRows::bytes)
    }

    /// Takes the rows, table by table, that of all events first.
    pub(super) fn take(mut self) -> impl Iterator<Item = Taken> {
        let events = self.events.filter(|rows| !rows.is_empty());
        let events = events.map(|mut rows| Taken {
            table: TableName::Events,
            rows: rows.finish(),
        });
        self.types.sort_by(|a, b| a.name.cmp(&b.name));
        let types = self.types.into_iter().filter_map(|of_type| {
            let mut rows = of_type.rows?.rows;
            (!rows.is_empty()).then(|| Taken {
                table: TableName::Type(of_type.name),
                rows: rows.finish(),
            })
        });
        events.into_iter().chain(types)
    }

    fn typed(&self) -> impl Iterator<Item = &TypeRows> {
        let rows = self
            .types
            .iter()
            .filter_map(|of_type| of_type.rows.as_ref());
        rows.map(|rows| &rows.rows)
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
