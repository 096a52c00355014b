//! A run's rows to files, all tables' side by side; some runs' files to their tables, that of all
//! events last.

use super::run::{Run, off_thread};
use super::{Converter, Progress};
use crate::file;
use crate::lake::mark_of;
use crate::layout::{Date, TableName};
use crate::rows::EventRows;
use crate::table::{Change, DataFile, Table};
use annals_archive::Position;
use annals_core::{Error, Result};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Files written, and tables committed to, at the same time.
const TABLES_AT_ONCE: usize = 2;
/// Runs that are committed together, while there is more: a commit takes its time however little
/// it adds, and what is not committed is read from the archive.
const RUNS_TO_COMMIT: usize = 8;

/// A run that is to be stored: what each table takes, the largest first.
pub(super) struct Prepared {
    date: Date,
    last: Position,
    tables: Vec<(Table, RecordBatch)>,
}

/// Files that are uploaded, and not yet part of their tables.
#[derive(Default)]
pub(super) struct Stored {
    runs: usize,
    last: Position,
    files: BTreeMap<TableName, (SchemaRef, Vec<DataFile>)>,
}

impl Prepared {
    /// Uploads the files. Knows nothing of the converter: the next run is gathered meanwhile.
    pub(super) async fn store(self) -> Result<Stored> {
        let date = self.date;
        let stored = self.tables.into_iter().map(|(table, rows)| async move {
            let schema = rows.schema();
            let file = off_thread(move || file::encode(rows, date)).await?;
            let file = table.upload(file).await?;
            Ok::<_, Error>((table.name().clone(), (schema, vec![file])))
        });
        let files = stream::iter(stored).buffered(TABLES_AT_ONCE);
        Ok(Stored {
            runs: 1,
            last: self.last,
            files: files.try_collect().await?,
        })
    }
}

impl Stored {
    /// Adds the files of later entries.
    pub(super) fn add(&mut self, later: Self) {
        self.runs += later.runs;
        self.last = later.last;
        for (table, (schema, files)) in later.files {
            match self.files.entry(table) {
                Entry::Vacant(new) => {
                    new.insert((schema, files));
                }
                Entry::Occupied(known) => known.into_mut().1.extend(files),
            }
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.runs == 0
    }

    /// Whether it is time to commit them, though more is to come.
    pub(super) fn are_many(&self) -> bool {
        self.runs >= RUNS_TO_COMMIT
    }

    /// Up to which ledger entry they have rows.
    pub(super) fn last(&self) -> Position {
        self.last
    }
}

impl Converter {
    /// Takes the rows of a run, for the tables there are.
    pub(super) async fn prepare(&mut self, run: Run, progress: &mut Progress) -> Result<Prepared> {
        let (date, last) = (run.date, run.last);
        let ledger = self.archive.ledger().clone();
        let mut tables = Vec::new();
        for taken in run.take() {
            let table = match &taken.table {
                TableName::Events => self.open(progress).await?,
                TableName::Type(name) => self.types.open(&ledger, name).await?.table.clone(),
            };
            tables.push((table, taken.rows));
        }
        Ok(Prepared { date, last, tables })
    }

    /// Commits files to all tables, that of all events last: the lake now stands at `position`.
    pub(super) async fn commit(
        &mut self,
        mut stored: Stored,
        position: Position,
        progress: &mut Progress,
    ) -> Result<()> {
        let events = stored.files.remove(&TableName::Events);
        self.commit_types(stored, progress).await?;
        let added = events.map(|(_, files)| files).unwrap_or_default();
        progress.files += added.len() as u64;
        progress.events += rows_of(&added);
        let mut table = self.open(progress).await?;
        self.write_state_at(position).await?;
        let change = Change {
            schema: Some(EventRows::schema()),
            added,
            marks: vec![(mark_of(self.archive.ledger().bus()), position.0)],
            ..Change::default()
        };
        table.commit(change).await?;
        self.events = Some(table);
        self.position = position;
        Ok(())
    }

    /// Commits files to the tables of types.
    pub(super) async fn commit_types(
        &mut self,
        stored: Stored,
        progress: &mut Progress,
    ) -> Result<()> {
        let last = stored.last;
        let ledger = self.archive.ledger().clone();
        let mark = (mark_of(ledger.bus()), last.0);
        let mut commits = Vec::new();
        for (name, (schema, files)) in stored.files {
            progress.files += files.len() as u64;
            progress.typed += rows_of(&files);
            let mut table = self.types.open(&ledger, name.as_str()).await?.table.clone();
            let change = Change {
                schema: Some(schema),
                added: files,
                marks: vec![mark.clone()],
                ..Change::default()
            };
            commits.push(async move {
                table.commit(change).await?;
                Ok::<_, Error>(table)
            });
        }
        let committed: Vec<Table> = stream::iter(commits)
            .buffer_unordered(TABLES_AT_ONCE)
            .try_collect()
            .await?;
        for table in committed {
            let name = table.name().as_str().to_owned();
            self.types.advance(&name, table, last);
        }
        Ok(())
    }

    pub(super) async fn write_state(&mut self) -> Result<()> {
        self.write_state_at(self.position).await
    }

    async fn write_state_at(&mut self, position: Position) -> Result<()> {
        let ledger = self.archive.ledger();
        let keep_from = self.position.0;
        let state = self.types.state_at(position);
        state.write(ledger.bucket(), ledger.bus(), keep_from).await
    }
}

fn rows_of(files: &[DataFile]) -> u64 {
    files.iter().map(|file| file.stats.num_records).sum()
}
