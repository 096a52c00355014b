//! A run's rows to files, all tables' side by side; then the commits, that of all events last.

use super::run::{Run, off_thread};
use super::{Converter, Progress};
use crate::file;
use crate::lake::mark_of;
use crate::layout::{Date, TableName};
use crate::rows::EventRows;
use crate::table::{Change, DataFile, Table};
use annals_archive::Position;
use annals_core::Result;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::{self, StreamExt, TryStreamExt};

/// Files written, and tables committed to, at the same time.
const TABLES_AT_ONCE: usize = 2;

/// A file that is uploaded, and not yet part of its table.
struct Stored {
    table: Table,
    schema: SchemaRef,
    file: DataFile,
}

impl Converter {
    /// Commits a run to all its tables, that of all events last: it now stands at `position`.
    pub(super) async fn commit_all(
        &mut self,
        run: Run,
        position: Position,
        progress: &mut Progress,
    ) -> Result<()> {
        let events = self.commit_types(run, progress).await?;
        let mut table = self.open(progress).await?;
        self.write_state_at(position).await?;
        let change = Change {
            schema: Some(EventRows::schema()),
            added: events.into_iter().collect(),
            marks: vec![(mark_of(self.archive.ledger().bus()), position.0)],
            ..Change::default()
        };
        table.commit(change).await?;
        self.events = Some(table);
        self.position = position;
        Ok(())
    }

    /// Writes the files of a run and commits those of types; returns that of all events.
    pub(super) async fn commit_types(
        &mut self,
        run: Run,
        progress: &mut Progress,
    ) -> Result<Option<DataFile>> {
        let last = run.last;
        let mark = (mark_of(self.archive.ledger().bus()), last.0);
        let (mut events, mut types) = (None, Vec::new());
        for stored in self.store(run, progress).await? {
            progress.files += 1;
            let rows = stored.file.stats.num_records;
            match stored.table.name() {
                TableName::Events => {
                    progress.events += rows;
                    events = Some(stored.file);
                }
                TableName::Type(_) => {
                    progress.typed += rows;
                    types.push(commit(stored, mark.clone()));
                }
            }
        }
        let committed: Vec<Table> = stream::iter(types)
            .buffer_unordered(TABLES_AT_ONCE)
            .try_collect()
            .await?;
        for table in committed {
            let name = table.name().as_str().to_owned();
            self.types.advance(&name, table, last);
        }
        Ok(events)
    }

    /// Uploads a run's files, the largest first.
    async fn store(&mut self, run: Run, progress: &mut Progress) -> Result<Vec<Stored>> {
        let date = run.date;
        let ledger = self.archive.ledger().clone();
        let mut files = Vec::new();
        for taken in run.take() {
            let table = match &taken.table {
                TableName::Events => self.open(progress).await?,
                TableName::Type(name) => self.types.open(&ledger, name).await?.table.clone(),
            };
            files.push(store(table, taken.rows, date));
        }
        files.reverse();
        stream::iter(files)
            .buffered(TABLES_AT_ONCE)
            .try_collect()
            .await
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

/// Writes rows as a file and uploads it.
async fn store(table: Table, rows: RecordBatch, date: Date) -> Result<Stored> {
    let schema = rows.schema();
    let file = off_thread(move || file::encode(&rows, date)).await?;
    let file = table.upload(file).await?;
    Ok(Stored {
        table,
        schema,
        file,
    })
}

async fn commit(stored: Stored, mark: (String, u64)) -> Result<Table> {
    let mut table = stored.table;
    let change = Change {
        schema: Some(stored.schema),
        added: vec![stored.file],
        marks: vec![mark],
        ..Change::default()
    };
    table.commit(change).await?;
    Ok(table)
}
