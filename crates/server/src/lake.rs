//! The lake as verbs and the HTTP API show it.

use crate::exit::{Exit, Failure, Result};
use annals_archive::Ledger;
use annals_archive::reader::{Archive, OnDamage};
use annals_lake::converter::{Days, Progress, Rebuilt, Schemas};
use annals_lake::layout::{Date, EVENTS};
use annals_lake::state::SchemaConflict;
use annals_lake::{ErrorKind, Lake, Standing, TableName};
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Tables opened at the same time.
const TABLES_AT_ONCE: usize = 8;

/// How far the lake has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeStatus {
    /// The last ledger entry there is.
    pub ledger_position: u64,
    /// The ledger entry up to which the table of all events has rows.
    pub position: u64,
    /// The tables.
    pub tables: Vec<LakeTable>,
    /// Fields that changed in a way their columns cannot.
    pub conflicts: Vec<Conflict>,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeTable {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Distinct events of it in the archive; more than rows while the lake lags.
    pub events: u64,
    /// Its files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// Its Delta version; absent while there is no table.
    pub version: Option<u64>,
    /// Up to which ledger entry it is complete.
    pub position: u64,
    /// What is wrong with it, if anything is.
    pub damage: Option<String>,
}

/// A field that changed in a way its column cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its table.
    pub table: String,
    /// Which, what it was, what it is, since when.
    #[serde(flatten)]
    pub conflict: SchemaConflict,
}

impl LakeStatus {
    /// Of the lake of a ledger.
    pub async fn of(ledger: Ledger, schemas: &Schemas) -> Result<Self> {
        let lake = Lake::new(ledger.bucket().clone(), ledger.bus());
        let mut archive = Archive::at(ledger);
        let ledger_position = archive.refresh().await?.0;
        let counts = archive.index(OnDamage::Report).await?.counts();
        let mut events: BTreeMap<String, u64> = BTreeMap::new();
        for ((event_type, _), count) in &counts.archived {
            *events.entry(event_type.clone()).or_default() += count;
        }
        let all = events.values().sum();
        let mut status = Self {
            ledger_position,
            ..Self::default()
        };
        let standing = match lake.standing().await {
            Ok(standing) => Ok(Arc::new(standing)),
            // Told of with each table.
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let first = row_of(standing.clone(), &TableName::Events, all).await?;
        status.position = first.position;
        status.tables.push(first);
        let state = standing.as_ref().ok().and_then(|s| s.state.clone());
        let state = state.unwrap_or_default();
        let with_schema = events.keys().filter(|t| schemas.catalog.get(t).is_some());
        let mut types: BTreeSet<&str> = with_schema.map(String::as_str).collect();
        let made = state.types.iter().filter(|(_, known)| known.position > 0);
        types.extend(made.map(|(event_type, _)| event_type.as_str()));
        let types: Result<Vec<_>> = types
            .into_iter()
            .map(|event_type| {
                let count = events.get(event_type).copied().unwrap_or(0);
                Ok((TableName::of_type(event_type)?, count))
            })
            .collect();
        // Each is a log to read: thousands of them are worth every core.
        let mut rows = stream::iter(types?)
            .map(|(name, count)| {
                let standing = standing.clone();
                tokio::spawn(async move { row_of(standing, &name, count).await })
            })
            .buffered(TABLES_AT_ONCE);
        while let Some(row) = rows.next().await {
            let row = row.map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
            status.tables.push(row?);
        }
        for (event_type, known) in state.types {
            status
                .conflicts
                .extend(known.conflicts.into_iter().map(|conflict| Conflict {
                    table: event_type.clone(),
                    conflict,
                }));
        }
        Ok(status)
    }
}

async fn row_of(
    standing: std::result::Result<Arc<Standing>, String>,
    name: &TableName,
    events: u64,
) -> Result<LakeTable> {
    let mut row = LakeTable {
        table: name.to_string(),
        events,
        ..LakeTable::default()
    };
    let standing = match standing {
        Ok(standing) => standing,
        Err(damage) => {
            row.damage = Some(damage);
            return Ok(row);
        }
    };
    let converted = match standing.table(name).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            row.damage = Some(error.to_string());
            return Ok(row);
        }
        opened => opened?,
    };
    let files = converted.table.files()?;
    row.files = files.len() as u64;
    row.rows = files.iter().map(|file| file.stats.num_records).sum();
    row.bytes = files.iter().map(|file| file.len).sum();
    row.version = converted.table.version();
    row.position = converted.position.0;
    Ok(row)
}

/// What converting did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvertedRow {
    /// The ledger entry it stood at.
    pub from: u64,
    /// The ledger entry it stands at.
    pub to: u64,
    /// Rows written to the table of all events.
    pub events: u64,
    /// Rows written to the tables of types.
    pub typed: u64,
    /// Files added.
    pub files: u64,
}

impl From<Progress> for ConvertedRow {
    fn from(progress: Progress) -> Self {
        Self {
            from: progress.from.0,
            to: progress.to.0,
            events: progress.events,
            typed: progress.typed,
            files: progress.files,
        }
    }
}

/// Which days of which table to make anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebuildRequest {
    /// `events`, or a type.
    pub table: String,
    /// First day of archiving, as `2026-11-21`, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The day after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl RebuildRequest {
    /// The table and the days.
    pub fn read(&self) -> Result<(TableName, Days)> {
        let table = match self.table.as_str() {
            EVENTS => TableName::Events,
            event_type => TableName::of_type(event_type)?,
        };
        let day = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => Date::parse(text).map(Some).ok_or_else(|| {
                let text = format!("{text:?} is no day such as 2026-11-21");
                Failure::new(Exit::Invalid, text)
            }),
        };
        let (from, until) = (day(&self.from)?, day(&self.until)?);
        Ok((table, Days { from, until }))
    }
}

/// What a rebuild did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuiltRow {
    /// The table.
    pub table: String,
    /// Rows of those days before.
    pub rows_before: u64,
    /// Rows of those days now.
    pub rows: u64,
    /// What the rows hashed to before, whatever their order; absent where they could not be read.
    pub hash_before: Option<String>,
    /// What the rows hash to now: the same rows, the same hash.
    pub hash: String,
    /// Files before.
    pub files_before: u64,
    /// Files now.
    pub files: u64,
    /// What is missing, as it is damaged in the archive.
    pub damage: Vec<String>,
}

impl RebuiltRow {
    /// Of a table.
    pub fn new(table: &str, rebuilt: Rebuilt) -> Self {
        Self {
            table: table.to_owned(),
            rows_before: rebuilt.rows_before,
            rows: rebuilt.rows,
            hash_before: rebuilt.hash_before.map(|hash| hash.to_string()),
            hash: rebuilt.hash.to_string(),
            files_before: rebuilt.files_before,
            files: rebuilt.files,
            damage: rebuilt.damage,
        }
    }
}
