//! [`Converter::rebuild`]: a table's days, made anew from the archive.

use super::gather::Takers;
use super::run::off_thread;
use super::{Converter, Progress, types};
use crate::file;
use crate::lake::mark_of;
use crate::layout::{Date, TableName};
use crate::rows::{EventRows, RowsHash};
use crate::table::{Change, DataFile, Table};
use annals_archive::Position;
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
    /// What the rows hashed to before; `None` where they could not be read.
    pub hash_before: Option<RowsHash>,
    /// What the rows hash to now.
    pub hash: RowsHash,
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
        let (table, until) = self.opened(name).await?;
        let files = table.files()?;
        let removed = files.iter().filter(|f| days.contains(f.date));
        let removed: Vec<DataFile> = removed.cloned().collect();
        let mut rebuilt = Rebuilt {
            hash_before: match table.rows_hash(&removed).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                hash => hash.ok(),
            },
            ..Rebuilt::default()
        };
        let (added, schema) = self.write_days(&table, days, until, &mut rebuilt).await?;
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
    pub(super) async fn opened(&mut self, name: &TableName) -> Result<(Table, Position)> {
        self.archive.refresh().await?;
        self.open(&mut Progress::default()).await?;
        let ledger = self.archive.ledger().clone();
        let (mut table, reset) = types::open_or_reset(&ledger, name.clone()).await?;
        if reset.is_some() {
            // All of its days, before some of them.
            self.forget();
            self.catch_up().await?;
            table = Table::open(ledger.bucket().clone(), ledger.bus(), name.clone()).await?;
        }
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

    /// Writes the files of some days, over those there are of the same content: they may be damaged.
    async fn write_days(
        &mut self,
        table: &Table,
        days: Days,
        until: Position,
        rebuilt: &mut Rebuilt,
    ) -> Result<(Vec<DataFile>, Option<SchemaRef>)> {
        let mut files = Vec::new();
        let mut schema = (*table.name() == TableName::Events).then(EventRows::schema);
        if until == Position(0) {
            return Ok((files, schema));
        }
        let selection = Selection {
            patterns: match table.name() {
                TableName::Events => Vec::new(),
                TableName::Type(name) => vec![TypePattern::new(name)?],
            },
            range: days.range(),
            axis: TimeAxis::Archive,
            ..Selection::all()
        };
        let takers = Takers::Only(table.name().clone());
        let mut gathering = self
            .gathering(takers, &selection, Position(1), until)
            .await?;
        let mut progress = Progress::default();
        while let Some(run) = self.gather(&mut gathering, &mut progress).await? {
            let date = run.date;
            for taken in run.take() {
                schema = Some(taken.rows.schema());
                let mut hash = rebuilt.hash;
                let made = off_thread(move || {
                    hash.add(&taken.rows);
                    Ok((hash, file::encode(taken.rows, date)?))
                });
                let (hash, file) = made.await?;
                rebuilt.hash = hash;
                files.push(table.replace(file).await?);
            }
        }
        rebuilt.damage.extend(gathering.damage());
        Ok((files, schema))
    }
}
