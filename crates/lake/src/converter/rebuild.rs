//! [`Converter::rebuild`]: a table's days, made anew from the archive.

use super::run::{Run, date_of, off_thread, store, types_of};
use super::{Converter, Progress, types};
use crate::lake::mark_of;
use crate::layout::{Date, TableName};
use crate::rows::EventRows;
use crate::table::{Change, DataFile, Table};
use annals_archive::Position;
use annals_archive::reader::{OnDamage, ReadOptions};
use annals_core::{Error, ErrorKind, Range, Result, Selection, TimeAxis, Timestamp, TypePattern};
use arrow_schema::SchemaRef;

/// Days of archiving, UTC: from the first up to, and without, the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Days {
    /// The first; `None`: the beginning.
    pub from: Option<Date>,
    /// The one after the last; `None`: no end.
    pub until: Option<Date>,
}

impl Days {
    /// Whether a day is one of them.
    pub fn contains(&self, date: Date) -> bool {
        self.from.is_none_or(|from| from <= date) && self.until.is_none_or(|until| date < until)
    }

    fn range(&self) -> Range {
        let time = |date: Date| Timestamp::from_microsecond(date.start_us()).ok();
        Range {
            from: self.from.and_then(time),
            until: self.until.and_then(time),
        }
    }
}

/// What a rebuild did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows of those days before.
    pub rows_before: u64,
    /// Rows of those days now.
    pub rows: u64,
    /// Files before.
    pub files_before: u64,
    /// Files now.
    pub files: u64,
    /// What in the archive was found damaged, and is not in the table.
    pub damage: Vec<String>,
}

impl Converter {
    /// Makes days of a table anew, in one change: readers see all of the old or all of the new.
    pub async fn rebuild(&mut self, name: &TableName, days: Days) -> Result<Rebuilt> {
        self.archive.refresh().await?;
        let mut progress = Progress::default();
        self.open(&mut progress).await?;
        let (table, until) = self.table_of(name).await?;
        let mut rebuilt = Rebuilt::default();
        let (added, schema) = self.write_days(&table, days, until, &mut rebuilt).await?;
        let removed: Vec<DataFile> = table.files()?;
        let removed = removed.into_iter().filter(|file| days.contains(file.date));
        let removed: Vec<DataFile> = removed.collect();
        rebuilt.files_before = removed.len() as u64;
        rebuilt.files = added.len() as u64;
        rebuilt.rows_before = removed.iter().map(|file| file.stats.num_records).sum();
        rebuilt.rows = added.iter().map(|file| file.stats.num_records).sum();
        // The same content is the same file: neither removed nor added.
        let stays =
            |file: &DataFile, others: &[DataFile]| others.iter().any(|o| o.path == file.path);
        let change = Change {
            schema,
            added: added
                .iter()
                .filter(|f| !stays(f, &removed))
                .cloned()
                .collect(),
            removed: removed
                .iter()
                .filter(|f| !stays(f, &added))
                .cloned()
                .collect(),
            marks: vec![(mark_of(self.archive.ledger().bus()), until.0)],
        };
        let mut table = table;
        let done = table.commit(change).await;
        self.forget();
        done.map(|()| rebuilt)
    }

    /// The table, and up to where it is to have rows.
    async fn table_of(&mut self, name: &TableName) -> Result<(Table, Position)> {
        let ledger = self.archive.ledger().clone();
        let (table, _) = types::open_or_reset(&ledger, name.clone()).await?;
        let own = table.mark(&mark_of(ledger.bus())).await?.unwrap_or(0);
        match name {
            TableName::Events => Ok((table, self.position)),
            TableName::Type(event_type) if self.schemas.catalog.get(event_type).is_none() => {
                Err(Error::new(
                    ErrorKind::NotFound,
                    format!("no schema defines the type {event_type:?}: it has no table"),
                ))
            }
            TableName::Type(_) => Ok((table, self.position.max(Position(own)))),
        }
    }

    async fn write_days(
        &mut self,
        table: &Table,
        days: Days,
        until: Position,
        rebuilt: &mut Rebuilt,
    ) -> Result<(Vec<DataFile>, Option<SchemaRef>)> {
        let selection = Selection {
            patterns: match table.name() {
                TableName::Events => Vec::new(),
                TableName::Type(name) => vec![TypePattern::new(name)?],
            },
            range: days.range(),
            axis: TimeAxis::Archive,
            ..Selection::all()
        };
        let options = ReadOptions {
            to_position: Some(until),
            on_damage: OnDamage::Report,
            ..ReadOptions::default()
        };
        let mut schema = None;
        let mut files = Vec::new();
        if until == Position(0) {
            return Ok((files, schema));
        }
        let mut events = self.archive.select(&selection, &options).await?;
        let mut run: Option<Run> = None;
        loop {
            let batch = events.next().await?;
            let date = match &batch {
                Some(batch) => date_of(batch)?,
                None => None,
            };
            let ends = |run: &Run| date.is_none_or(|d| d != run.date) || self.is_full(run);
            if batch.as_ref().is_none_or(|b| !b.is_empty())
                && let Some(whole) = run.take_if(|run| ends(run))
            {
                let date = whole.date;
                for taken in whole.take() {
                    schema = Some(taken.rows.schema());
                    files.push(store(table, taken.rows, date).await?);
                }
            }
            let (Some(batch), Some(date)) = (batch, date) else {
                break;
            };
            let mut open = match run.take() {
                Some(run) => run,
                None => self.run_for(table, date).await?,
            };
            for event_type in types_of(&batch)? {
                if !open.knows(&event_type) {
                    open.learn(&event_type, None);
                }
            }
            run = Some(
                off_thread(move || {
                    open.push(&batch)?;
                    Ok(open)
                })
                .await?,
            );
        }
        let damage = events.damage().into_iter();
        rebuilt
            .damage
            .extend(damage.map(|d| d.into_error().to_string()));
        if *table.name() == TableName::Events && schema.is_none() {
            schema = Some(EventRows::schema());
        }
        Ok((files, schema))
    }

    /// A run whose rows go to one table only.
    async fn run_for(&mut self, table: &Table, date: Date) -> Result<Run> {
        let catalog = self.schemas.catalog.clone();
        let TableName::Type(event_type) = table.name() else {
            return Ok(Run::new(date, true, catalog));
        };
        let ledger = self.archive.ledger().clone();
        let shape = self.types.shape(&ledger, event_type, &self.schemas).await?;
        let mut run = Run::new(date, false, catalog);
        run.learn(
            event_type,
            shape.as_deref().map(|shape| (Position(0), shape)),
        );
        Ok(run)
    }
}
