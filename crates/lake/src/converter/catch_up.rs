//! [`Converter::catch_up`]: everything the ledger has and the tables have not.

use super::gather::Takers;
use super::run::{Run, store};
use super::{Converter, Progress};
use crate::lake::mark_of;
use crate::layout::{Date, TableName};
use crate::rows::EventRows;
use crate::table::{Change, Table};
use annals_archive::Position;
use annals_archive::reader::OnDamage;
use annals_core::{Result, Selection, TypePattern};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeSet;

/// Tables written at the same time.
const TABLES_AT_ONCE: usize = 2;
/// Types whose history is written in one go.
const BACKFILL_TYPES: usize = 256;

impl Converter {
    /// Brings the tables up to the ledger's head.
    ///
    /// After an error nothing is half done: call again, after [`Converter::forget`] where it is
    /// [`ErrorKind::Conflict`](crate::ErrorKind) or [`ErrorKind::Unknown`](crate::ErrorKind).
    pub async fn catch_up(&mut self) -> Result<Progress> {
        let mut progress = Progress::default();
        let done = self.catch_up_with(&mut progress).await;
        if done.is_err() {
            self.forget();
        }
        done.map(|()| progress)
    }

    async fn catch_up_with(&mut self, progress: &mut Progress) -> Result<()> {
        let head = self.archive.refresh().await?;
        self.open(progress).await?;
        progress.from = self.position;
        self.backfill_new(progress).await?;
        while self.position < head {
            let lost = self.convert(head, progress).await?;
            if lost.is_empty() {
                break;
            }
            // Found on the way: their history first, then the rest.
            self.backfill(&lost, progress).await?;
        }
        progress.to = self.position;
        Ok(())
    }

    /// Converts up to a position; or returns types whose tables were made anew, having stopped.
    async fn convert(&mut self, until: Position, progress: &mut Progress) -> Result<Vec<String>> {
        let from = self.position.next();
        let mut gathering = self
            .gathering(Takers::All, &Selection::all(), from, until)
            .await?;
        while let Some(run) = self.gather(&mut gathering, progress).await? {
            let last = run.last;
            self.commit_all(run, last, progress).await?;
        }
        progress.damage.extend(gathering.damage());
        if gathering.lost.is_empty() && self.position < until {
            // What comes last has no rows: all of it copies, or damaged. Nobody is to read it again.
            let none = self.run_of(&Takers::All, Date(0));
            self.commit_all(none, until, progress).await?;
        }
        Ok(gathering.lost)
    }

    /// Gives the types that have a schema now and had none, or that the state does not know, their
    /// history.
    async fn backfill_new(&mut self, progress: &mut Progress) -> Result<()> {
        let index = self.archive.index(OnDamage::Report).await?;
        let counts = index.counts();
        let with_events: BTreeSet<&str> = counts
            .archived
            .keys()
            .map(|(event_type, _)| event_type.as_str())
            .collect();
        let reliable = self.types.is_known();
        let types: Vec<String> = self
            .schemas
            .catalog
            .types()
            .map(|t| t.full_name().to_owned())
            .collect();
        let new: Vec<String> = types
            .into_iter()
            .filter(|name| TableName::of_type(name).is_ok() && self.types.known(name).is_none())
            .collect();
        let (history, fresh): (Vec<String>, Vec<String>) = new
            .into_iter()
            .partition(|name| with_events.contains(name.as_str()));
        if self.position > Position(0) {
            for some in history.chunks(BACKFILL_TYPES) {
                if !reliable {
                    self.reset(some, progress).await?;
                }
                self.backfill(some, progress).await?;
            }
        }
        for name in history.iter().chain(&fresh) {
            self.types.note(name);
        }
        if !history.is_empty() && self.position > Position(0) {
            self.write_state().await?;
        }
        Ok(())
    }

    /// Writes the history of types up to where the events' table has come.
    pub(super) async fn backfill(
        &mut self,
        types: &[String],
        progress: &mut Progress,
    ) -> Result<()> {
        let patterns: Result<Vec<TypePattern>> = types.iter().map(TypePattern::new).collect();
        let selection = Selection {
            patterns: patterns?,
            ..Selection::all()
        };
        let mut gathering = self
            .gathering(Takers::Types, &selection, Position(1), self.position)
            .await?;
        while let Some(run) = self.gather(&mut gathering, progress).await? {
            self.commit_types(run, progress).await?;
        }
        progress.damage.extend(gathering.damage());
        for event_type in types {
            self.types.settle(event_type);
        }
        Ok(())
    }

    /// Commits a run to all its tables, that of all events last: it now stands at `position`.
    async fn commit_all(
        &mut self,
        run: Run,
        position: Position,
        progress: &mut Progress,
    ) -> Result<()> {
        let date = run.date;
        let events = self.commit_types(run, progress).await?;
        let mut table = self.open(progress).await?;
        self.write_state_at(position).await?;
        let mut change = Change {
            schema: Some(EventRows::schema()),
            marks: vec![(mark_of(self.archive.ledger().bus()), position.0)],
            ..Change::default()
        };
        if let Some(rows) = events {
            progress.events += rows.num_rows() as u64;
            progress.files += 1;
            change.added.push(store(&table, rows, date).await?);
        }
        table.commit(change).await?;
        self.events = Some(table);
        self.position = position;
        Ok(())
    }

    /// Commits a run to the tables of types; returns the rows of the table of all events.
    async fn commit_types(
        &mut self,
        run: Run,
        progress: &mut Progress,
    ) -> Result<Option<arrow_array::RecordBatch>> {
        let (date, last) = (run.date, run.last);
        let ledger = self.archive.ledger().clone();
        let mut events = None;
        let mut commits = Vec::new();
        for taken in run.take() {
            let TableName::Type(event_type) = &taken.table else {
                events = Some(taken.rows);
                continue;
            };
            let table = self.types.open(&ledger, event_type).await?.table.clone();
            progress.typed += taken.rows.num_rows() as u64;
            progress.files += 1;
            let mark = (mark_of(ledger.bus()), last.0);
            commits.push(commit_rows(table, taken.rows, date, mark));
        }
        let committed: Vec<Table> = stream::iter(commits)
            .buffer_unordered(TABLES_AT_ONCE)
            .try_collect()
            .await?;
        for table in committed {
            let name = table.name().as_str().to_owned();
            self.types.advance(&name, table, last);
        }
        Ok(events)
    }

    async fn reset(&mut self, types: &[String], progress: &mut Progress) -> Result<()> {
        for event_type in types {
            let ledger = self.archive.ledger().clone();
            let why = "the lake's state is missing or damaged";
            let name = self.types.reset(&ledger, event_type).await?;
            progress.rebuilt.push((name, why.to_owned()));
        }
        Ok(())
    }

    async fn write_state(&mut self) -> Result<()> {
        self.write_state_at(self.position).await
    }

    async fn write_state_at(&mut self, position: Position) -> Result<()> {
        let ledger = self.archive.ledger();
        let keep_from = self.position.0;
        let state = self.types.state_at(position);
        state.write(ledger.bucket(), ledger.bus(), keep_from).await
    }
}

async fn commit_rows(
    mut table: Table,
    rows: arrow_array::RecordBatch,
    date: crate::layout::Date,
    mark: (String, u64),
) -> Result<Table> {
    let schema = rows.schema();
    let added = store(&table, rows, date).await?;
    let change = Change {
        schema: Some(schema),
        added: vec![added],
        marks: vec![mark],
        ..Change::default()
    };
    table.commit(change).await?;
    Ok(table)
}
