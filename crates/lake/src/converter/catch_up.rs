//! [`Converter::catch_up`]: everything the ledger has and the tables have not.

use super::run::{Run, date_of, off_thread, store, types_of};
use super::{Converter, Progress};
use crate::lake::mark_of;
use crate::layout::TableName;
use crate::rows::EventRows;
use crate::table::{Change, Table};
use annals_archive::Position;
use annals_archive::reader::{Batch, OnDamage, ReadOptions};
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
        let options = self.options(self.position.next(), until);
        let mut events = self.archive.select(&Selection::all(), &options).await?;
        let mut run: Option<Run> = None;
        while let Some(batch) = events.next().await? {
            let Some(date) = date_of(&batch)? else {
                continue;
            };
            if run
                .as_ref()
                .is_some_and(|run| run.date != date || self.is_full(run))
            {
                let whole = run.take().expect("there is one");
                let last = whole.last;
                self.commit_all(whole, last, progress).await?;
            }
            let mut open = match run.take() {
                Some(run) => run,
                None => Run::new(date, true, self.schemas.catalog.clone()),
            };
            let lost = self.learn(&mut open, &batch, progress).await?;
            if !lost.is_empty() {
                return Ok(lost);
            }
            run = Some(push(open, batch).await?);
        }
        progress.damage.extend(
            events
                .damage()
                .into_iter()
                .map(|d| d.into_error().to_string()),
        );
        match run {
            Some(run) => self.commit_all(run, until, progress).await?,
            None => self.position = until,
        }
        Ok(Vec::new())
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
        let options = self.options(Position(1), self.position);
        let mut events = self.archive.select(&selection, &options).await?;
        let mut run: Option<Run> = None;
        while let Some(batch) = events.next().await? {
            let Some(date) = date_of(&batch)? else {
                continue;
            };
            if run
                .as_ref()
                .is_some_and(|run| run.date != date || self.is_full(run))
            {
                self.commit_types(run.take().expect("there is one"), progress)
                    .await?;
            }
            let mut open = match run.take() {
                Some(run) => run,
                None => Run::new(date, false, self.schemas.catalog.clone()),
            };
            // Made anew or not: this is what it was made anew for.
            self.learn(&mut open, &batch, progress).await?;
            run = Some(push(open, batch).await?);
        }
        progress.damage.extend(
            events
                .damage()
                .into_iter()
                .map(|d| d.into_error().to_string()),
        );
        if let Some(run) = run {
            self.commit_types(run, progress).await?;
        }
        for event_type in types {
            self.types.settle(event_type);
        }
        Ok(())
    }

    /// Tells a run what to do with the types of a batch; returns those whose tables were just made
    /// anew.
    async fn learn(
        &mut self,
        run: &mut Run,
        batch: &Batch,
        progress: &mut Progress,
    ) -> Result<Vec<String>> {
        let ledger = self.archive.ledger().clone();
        let mut lost = Vec::new();
        for event_type in types_of(batch)? {
            if run.knows(&event_type) {
                continue;
            }
            let shape = self
                .types
                .shape(&ledger, &event_type, &self.schemas)
                .await?;
            let Some(shape) = shape else {
                run.learn(&event_type, None);
                continue;
            };
            let table = self.types.open(&ledger, &event_type).await?;
            if let Some(why) = table.reset.take() {
                progress.rebuilt.push((table.table.name().clone(), why));
                lost.push(event_type.clone());
            }
            run.learn(&event_type, Some((table.position, &shape)));
        }
        Ok(lost)
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

    fn options(&self, from: Position, to: Position) -> ReadOptions {
        ReadOptions {
            from_position: from,
            to_position: Some(to),
            // What is damaged is told of and left out: the rest of history is not to wait for it.
            on_damage: OnDamage::Report,
            ..ReadOptions::default()
        }
    }

    pub(super) fn is_full(&self, run: &Run) -> bool {
        run.rows() >= self.config.run_rows || run.bytes() >= self.config.run_bytes
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

async fn push(mut run: Run, batch: Batch) -> Result<Run> {
    off_thread(move || {
        run.push(&batch)?;
        Ok(run)
    })
    .await
}
