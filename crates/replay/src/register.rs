//! [`Register`]: the replays of a bucket, under create-only names.
//!
//! `replays/<id>.json` is made before the first event goes out, `replays/<id>.receipt.json` after
//! the last. The archiver asks it whether a marked delivery is of a replay of ours.

use crate::Receipt;
use crate::request::Described;
use annals_archive::archiver::Known;
use annals_archive::bucket::{Created, LIST_MAX};
use annals_archive::reader::{Archive, OnDamage};
use annals_archive::{Bucket, Ledger};
use annals_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

const FOLDER: &str = "replays/";
const RECEIPT: &str = ".receipt.json";
const STARTED: &str = ".json";
/// Replay ids of which the answer is remembered.
const REMEMBERED_MAX: usize = 1000;

/// The replays of a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Register {
    bucket: Arc<dyn Bucket>,
}

/// A replay that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The replay.
    pub id: String,
    /// Bus whose archive is read.
    pub bus: String,
    /// Which events.
    pub selection: Described,
    /// Where they go.
    pub target: String,
    /// Most events a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Ledger entry it reads up to.
    pub position: u64,
    /// Events it will hand over.
    pub to_deliver: u64,
    /// RFC 3339.
    pub started_at: String,
}

impl Register {
    /// The register in a bucket.
    pub fn new(bucket: Arc<dyn Bucket>) -> Self {
        Self { bucket }
    }

    /// Whether a replay of this id was started here. Any text may be asked.
    pub async fn is_ours(&self, id: &str) -> Result<bool> {
        Ok(is_id(id) && self.bucket.head(&name(id, STARTED)).await?.is_some())
    }

    /// One replay, and its receipt once it has one; `None` if there is no such replay.
    pub async fn read(&self, id: &str) -> Result<Option<(Started, Option<Receipt>)>> {
        if !is_id(id) {
            return Ok(None);
        }
        match self.read_object(&name(id, STARTED)).await? {
            Some(started) => Ok(Some((started, self.read_object(&name(id, RECEIPT)).await?))),
            None => Ok(None),
        }
    }

    /// Ids of all replays, oldest first.
    pub async fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let entries = self.bucket.list(FOLDER, after.as_deref()).await?;
            let is_last = entries.len() < LIST_MAX;
            after = entries.last().map(|entry| entry.name.clone());
            ids.extend(entries.iter().filter_map(|entry| {
                let id = entry.name.strip_prefix(FOLDER)?.strip_suffix(STARTED)?;
                is_id(id).then(|| id.to_owned())
            }));
            if is_last {
                return Ok(ids);
            }
        }
    }

    /// Writes down that a replay starts; an id is used once.
    pub(crate) async fn start(&self, started: &Started) -> Result<()> {
        self.create(&name(&started.id, STARTED), started).await
    }

    /// Writes down what a replay has done.
    pub(crate) async fn finish(&self, receipt: &Receipt) -> Result<()> {
        self.create(&name(&receipt.id, RECEIPT), receipt).await
    }

    async fn create(&self, name: &str, content: &impl Serialize) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(content)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot be written").caused_by(e))?;
        bytes.push(b'\n');
        match self.bucket.create(name, Bytes::from(bytes)).await? {
            Created::Created => Ok(()),
            Created::AlreadyExists => Err(Error::new(
                ErrorKind::Conflict,
                format!("{name} already exists"),
            )),
        }
    }

    async fn read_object<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.bucket.get(name).await {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Error::corrupt(format!("{name} cannot be read")).caused_by(e)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the archiver asks about marked deliveries: this bucket's replays, this ledger's events.
#[derive(Debug)]
pub struct KnownReplays {
    register: Register,
    archive: Mutex<Archive>,
    remembered: Mutex<BTreeMap<String, bool>>,
}

impl KnownReplays {
    /// Answers from the bucket and the ledger.
    pub fn new(ledger: Ledger) -> Self {
        Self {
            register: Register::new(ledger.bucket().clone()),
            archive: Mutex::new(Archive::at(ledger)),
            remembered: Mutex::default(),
        }
    }
}

#[async_trait]
impl Known for KnownReplays {
    async fn is_our_replay(&self, id: &str) -> Result<bool> {
        let mut remembered = self.remembered.lock().await;
        if let Some(&ours) = remembered.get(id) {
            return Ok(ours);
        }
        let ours = self.register.is_ours(id).await?;
        // A replay is registered before its first event: the answer for an id never changes.
        if remembered.len() >= REMEMBERED_MAX {
            remembered.pop_first();
        }
        remembered.insert(id.to_owned(), ours);
        Ok(ours)
    }

    async fn is_archived(&self, source: &str, id: &str) -> Result<bool> {
        let mut archive = self.archive.lock().await;
        for refreshed in [false, true] {
            if refreshed {
                let before = archive.position();
                if archive.refresh().await? == before {
                    return Ok(false);
                }
            }
            let index = archive.index(OnDamage::Stop).await?;
            if index.lookup(source, id).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Replay ids are UUIDs; nothing else ever names an object.
fn is_id(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn name(id: &str, suffix: &str) -> String {
    format!("{FOLDER}{id}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_archive::bucket::StoreBucket;

    #[tokio::test]
    async fn only_registered_ids_are_ours_whatever_is_asked() {
        let register = Register::new(Arc::new(StoreBucket::memory()));
        const ID: &str = "0195a8f0-0000-7000-8000-000000000001";
        let started = Started {
            id: ID.to_owned(),
            bus: "main".to_owned(),
            selection: Described::default(),
            target: "file".to_owned(),
            rate: None,
            position: 3,
            to_deliver: 7,
            started_at: "2026-11-21T12:00:00Z".to_owned(),
        };
        assert!(!register.is_ours(ID).await.unwrap());
        register.start(&started).await.unwrap();
        assert!(register.is_ours(ID).await.unwrap());
        let again = register.start(&started).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict);
        for id in ["", "..", "../x", &ID.to_uppercase(), &ID.replace('1', "2")] {
            assert!(!register.is_ours(id).await.unwrap(), "{id}");
        }
        assert_eq!(register.ids().await.unwrap(), [ID]);
        assert_eq!(register.read(ID).await.unwrap(), Some((started, None)));
        assert_eq!(register.read("x").await.unwrap(), None);
    }
}
