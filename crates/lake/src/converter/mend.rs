//! [`Converter::mend`]: a table's files read, and the days made anew of those that are damaged.

use super::{Converter, Days};
use crate::layout::{Date, TableName};
use crate::table::{Change, DataFile, Table};
use annals_core::Result;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeSet;

/// Files read at the same time, each whole.
const FILES_AT_ONCE: usize = 2;

/// What mending a table found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// Files that were read.
    pub files: u64,
    /// What was wrong with which of them.
    pub damage: Vec<String>,
    /// The days made anew.
    pub days: Vec<Date>,
    /// Rows of those days now.
    pub rows: u64,
}

impl Converter {
    /// Reads all files of a table, and makes the days anew that have a damaged or missing one.
    ///
    /// The table has a new version after it, damaged or not: who did not trust the one before can
    /// tell that it was looked after.
    pub async fn mend(&mut self, name: &TableName) -> Result<Mended> {
        let mut mended = Mended::default();
        let (mut table, _) = self.opened(name).await?;
        let files = table.files()?;
        mended.files = files.len() as u64;
        let found: Vec<_> = stream::iter(files.to_vec())
            .map(|file| check(table.clone(), file))
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        let mut days = BTreeSet::new();
        for (date, damage) in found.into_iter().flatten() {
            days.insert(date);
            mended.damage.push(damage);
        }
        mended.damage.sort();
        for date in &days {
            let days = Days {
                from: Some(*date),
                until: Some(Date(date.0 + 1)),
            };
            mended.rows += self.rebuild(name, days).await?.rows;
        }
        if days.is_empty() && table.version().is_some() {
            table.commit(Change::default()).await?;
            self.forget();
        }
        mended.days = days.into_iter().collect();
        Ok(mended)
    }
}

/// The day of a damaged file, and what is wrong.
async fn check(table: Table, file: DataFile) -> Result<Option<(Date, String)>> {
    let damage = table.damage_of(&file).await?;
    Ok(damage.map(|damage| (file.date, format!("{}: {damage}", file.path))))
}
