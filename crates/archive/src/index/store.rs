//! [`Store`]: the objects of one bus's index, written through memory, read with their checksums.

use super::OverlayBucket;
use super::part::Footer;
use super::wire;
use crate::bucket::Entry;
use crate::ledger::Position;
use crate::{Bucket, layout};
use annals_core::{Error, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Footers (filters, block tables) kept in memory, in bytes; those beyond are read each time.
const FOOTERS_BYTES_MAX: usize = 48 << 20;
/// An object from this length on is not held in memory until the next state, in bytes.
const HELD_BYTES_MAX: usize = 256 << 10;

/// The objects of an index. Cheap to clone; clones share what is held in memory.
#[derive(Clone)]
pub(super) struct Store {
    bucket: Arc<OverlayBucket>,
    folder: Arc<str>,
    old_folder: Arc<str>,
    /// Whether anything is written to the bucket below.
    pub(super) persist: bool,
    footers: Arc<Mutex<Footers>>,
}

#[derive(Default)]
struct Footers {
    bytes: usize,
    by_name: HashMap<String, Arc<Footer>>,
}

impl Store {
    pub(super) fn new(bucket: Arc<dyn Bucket>, bus: &str, persist: bool) -> Self {
        Self {
            bucket: Arc::new(OverlayBucket::new(bucket)),
            folder: layout::index_folder(bus).into(),
            old_folder: layout::old_index_folder(bus).into(),
            persist,
            footers: Arc::default(),
        }
    }

    /// What the names of all objects start with.
    pub(super) fn folder(&self) -> &str {
        &self.folder
    }

    pub(super) fn state_folder(&self) -> String {
        format!("{}state/", self.folder)
    }

    pub(super) fn state_name(&self, position: Position) -> String {
        format!("{}state/{:020}.binpb", self.folder, position.0)
    }

    pub(super) fn run_name(&self, first: u64, last: u64) -> String {
        format!("{}runs/{first:020}-{last:020}.binpb", self.folder)
    }

    pub(super) fn part_name(&self, first: u64, last: u64, part: usize) -> String {
        format!("{}runs/{first:020}-{last:020}-{part:06}.rows", self.folder)
    }

    /// Makes or replaces an object: of the same name only ever with the same bytes, but where one
    /// that was damaged is made anew.
    pub(super) async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self.persist && bytes.len() >= HELD_BYTES_MAX {
            true => self.bucket.base().put(name, bytes).await,
            false => self.bucket.put(name, bytes).await,
        }
    }

    /// Writes what is held in memory to the bucket.
    pub(super) async fn flush(&self) -> Result<()> {
        if self.persist {
            for (name, bytes) in self.bucket.written() {
                self.bucket.base().put(&name, bytes).await?;
                self.bucket.forget(&name);
            }
        }
        Ok(())
    }

    /// Drops an object that is held in memory only; `false` where it may be in the bucket.
    pub(super) fn forget(&self, name: &str) -> bool {
        let mut footers = self.footers.lock();
        if let Some(footer) = footers.by_name.remove(name) {
            footers.bytes -= footer.bytes();
        }
        self.bucket.forget(name)
    }

    /// Removes objects that no state in use names.
    pub(super) async fn delete(&self, names: &[String]) -> Result<()> {
        for name in names {
            self.forget(name);
            match self.persist {
                true => self.bucket.base().delete(name).await?,
                false => self.bucket.delete(name).await?,
            }
        }
        Ok(())
    }

    /// Removes what the format before left behind.
    pub(super) async fn delete_old_format(&self) -> Result<()> {
        let objects = self.list(&self.old_folder).await?;
        let names: Vec<String> = objects.into_iter().map(|object| object.name).collect();
        self.delete(&names).await
    }

    /// Objects below a folder, all of them.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let mut found: Vec<Entry> = Vec::new();
        loop {
            let after = found.last().map(|entry| entry.name.clone());
            let more = self.bucket.list(folder, after.as_deref()).await?;
            let complete = more.len() < crate::bucket::LIST_MAX;
            found.extend(more);
            if complete {
                return Ok(found);
            }
        }
    }

    pub(super) async fn is_gone(&self, name: &str) -> Result<bool> {
        Ok(self.bucket.head(name).await?.is_none())
    }

    /// All objects of the index.
    pub(super) async fn list_all(&self) -> Result<Vec<Entry>> {
        self.list(&self.folder).await
    }

    /// Reads an object made by [`checked`]: the message's bytes and their hash.
    pub(super) async fn read_checked(&self, name: &str) -> Result<(Bytes, Bytes)> {
        let file = self.bucket.get(name).await?;
        let file = wire::Checked::decode(file).map_err(|e| damaged(name).caused_by(e))?;
        if blake3::hash(&file.message).as_bytes()[..] != file.hash[..] {
            return Err(damaged(name));
        }
        Ok((file.message, file.hash))
    }

    /// The footer of a part.
    pub(super) async fn footer(&self, name: &str, part: &wire::Part) -> Result<Arc<Footer>> {
        if let Some(footer) = self.footers.lock().by_name.get(name) {
            return Ok(footer.clone());
        }
        let start = Footer::start(part.rows);
        let range = start..part.length.max(start);
        let bytes = self
            .bucket
            .get_range(name, range)
            .await
            .map_err(|e| e.context(name))?;
        let footer = Footer::parse(&bytes, part.rows, part.footer_crc32c);
        let footer = Arc::new(footer.map_err(|e| e.context(name))?);
        let mut footers = self.footers.lock();
        if footers.bytes + footer.bytes() <= FOOTERS_BYTES_MAX
            && footers
                .by_name
                .insert(name.to_owned(), footer.clone())
                .is_none()
        {
            footers.bytes += footer.bytes();
        }
        Ok(footer)
    }

    /// A stretch of a part's rows, unchecked.
    pub(super) async fn read_range(
        &self,
        name: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes> {
        self.bucket.get_range(name, range).await
    }

    /// Makes a state's object; one of the same number and bytes may be there already.
    pub(super) async fn put_state(&self, position: Position, bytes: Bytes) -> Result<()> {
        let name = self.state_name(position);
        let bucket: &dyn Bucket = match self.persist {
            true => &**self.bucket.base(),
            false => &*self.bucket,
        };
        if bucket.create(&name, bytes.clone()).await? == crate::bucket::Created::AlreadyExists
            && bucket.get(&name).await? != bytes
        {
            // The same position of another history, or damage: derived, so made anew.
            bucket.put(&name, bytes).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bucket, persist, ..
        } = self;
        f.debug_struct("Store")
            .field("bucket", bucket)
            .field("persist", persist)
            .finish()
    }
}

/// A message as an object with its hash.
pub(super) fn checked(message: &impl Message) -> (Bytes, Bytes) {
    let message = Bytes::from(message.encode_to_vec());
    let hash = Bytes::copy_from_slice(blake3::hash(&message).as_bytes());
    let file = wire::Checked {
        message,
        hash: hash.clone(),
    };
    (file.encode_to_vec().into(), hash)
}

#[cold]
pub(super) fn damaged(name: &str) -> Error {
    Error::corrupt(format!("{name}: an object of the index is damaged"))
}
