//! [`State`]: how far each type's table had come when the table of all events came to a position.
//! docs/formats/lake.md.
//!
//! ```text
//! lake/v1/<bus>/state/<position>.json   { "position": 17, "types": { "shop.v1.Order": { "position": 16 } } }
//! ```
//!
//! Written before the commit of the events' table that it belongs to. A type's table that has come
//! less far than this says has lost commits, and is made anew.

use crate::layout::TableName;
use annals_archive::bucket::LIST_MAX;
use annals_archive::{Bucket, Position};
use annals_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far the tables have come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The ledger entry up to which the table of all events has rows.
    pub position: u64,
    /// Tables of types, by type.
    pub types: BTreeMap<String, TypeState>,
}

/// What is known of a type's table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeState {
    /// The last ledger entry it has rows of.
    pub position: u64,
    /// The revision of the schemas its columns were last made of.
    #[serde(default)]
    pub revision: u64,
    /// Where a revision did not agree with the columns there were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<SchemaConflict>,
}

/// A field that changed in a way that its column cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaConflict {
    /// The field.
    pub field: String,
    /// What its column holds.
    pub column: String,
    /// What it is now.
    pub changed_to: String,
    /// The revision the column was last made of before.
    pub revision_before: u64,
    /// The revision that changed it.
    pub revision: u64,
}

impl State {
    /// Reads the state at a position; `None` if it is missing or damaged.
    pub async fn read(bucket: &Arc<dyn Bucket>, bus: &str, at: Position) -> Result<Option<Self>> {
        if at == Position(0) {
            return Ok(Some(Self::default()));
        }
        let bytes = match bucket.get(&name(bus, at.0)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let state = serde_json::from_slice(&bytes).ok();
        Ok(state.filter(|state: &Self| state.position == at.0))
    }

    /// Stores it, and removes those of positions before `keep_from`.
    pub async fn write(&self, bucket: &Arc<dyn Bucket>, bus: &str, keep_from: u64) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| Error::new(ErrorKind::Internal, "the state is no JSON").caused_by(e))?;
        bucket.put(&name(bus, self.position), bytes.into()).await?;
        let stored = bucket.list(&folder(bus), None).await?;
        debug_assert!(stored.len() < LIST_MAX, "older ones are removed every time");
        let first = name(bus, keep_from);
        for old in stored.iter().filter(|entry| entry.name < first) {
            bucket.delete(&old.name).await?;
        }
        Ok(())
    }
}

fn folder(bus: &str) -> String {
    let events = TableName::Events.folder(bus);
    let lake = events.rsplit_once('/').map_or("", |(lake, _)| lake);
    format!("{lake}/state/")
}

fn name(bus: &str, position: u64) -> String {
    format!("{}{position:020}.json", folder(bus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_archive::bucket::DirectoryBucket;
    use annals_core::system::SystemDisk;

    #[tokio::test]
    async fn a_state_is_read_back_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = DirectoryBucket::open(Arc::new(SystemDisk), dir.path()).unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(bucket);
        let read = |at| State::read(&bucket, "main", Position(at));
        assert_eq!(read(0).await.unwrap(), Some(State::default()));
        for position in 1..=3 {
            let state = State {
                position,
                types: BTreeMap::from([("shop.v1.Order".to_owned(), TypeState::default())]),
            };
            state.write(&bucket, "main", position - 1).await.unwrap();
            assert_eq!(read(position).await.unwrap(), Some(state));
        }
        assert_eq!(read(1).await.unwrap(), None);
        assert!(read(2).await.unwrap().is_some());
        bucket.put(&name("main", 3), "{".into()).await.unwrap();
        assert_eq!(read(3).await.unwrap(), None);
    }
}
