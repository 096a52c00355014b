//! [`OverlayBucket`]: a bucket whose writes stay in memory.

use crate::Bucket;
use crate::bucket::{Created, Entry, LIST_MAX};
use annals_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Reads a bucket through what was written over it; never writes to the bucket.
///
/// Who may only read thereby computes derived data that is missing, and an index being built keeps
/// objects here that the next merge replaces.
#[derive(Debug)]
pub struct OverlayBucket {
    base: Arc<dyn Bucket>,
    /// `None`: deleted.
    written: Mutex<BTreeMap<String, Option<Bytes>>>,
}

impl OverlayBucket {
    /// Nothing over a bucket.
    pub fn new(base: Arc<dyn Bucket>) -> Self {
        let written = Mutex::default();
        Self { base, written }
    }

    /// The bucket below.
    pub fn base(&self) -> &Arc<dyn Bucket> {
        &self.base
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.written.lock().values().flatten().map(Bytes::len).sum()
    }

    /// The objects held in memory.
    pub(crate) fn written(&self) -> Vec<(String, Bytes)> {
        let written = self.written.lock();
        let held = written
            .iter()
            .filter_map(|(name, bytes)| Some((name.clone(), bytes.clone()?)));
        held.collect()
    }

    /// Forgets an object held in memory; whether it was.
    pub(crate) fn forget(&self, name: &str) -> bool {
        self.written.lock().remove(name).is_some()
    }

    fn held(&self, name: &str) -> Option<Result<Bytes>> {
        let held = self.written.lock().get(name)?.clone();
        Some(held.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{name} was deleted"))))
    }
}

#[async_trait]
impl Bucket for OverlayBucket {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        if self.head(name).await?.is_some() {
            return Ok(Created::AlreadyExists);
        }
        // Looked at again under the lock: of two who create at once, one is first.
        let mut written = self.written.lock();
        if let Some(Some(_)) = written.get(name) {
            return Ok(Created::AlreadyExists);
        }
        written.insert(name.to_owned(), Some(bytes));
        Ok(Created::Created)
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.written.lock().insert(name.to_owned(), Some(bytes));
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Bytes> {
        match self.held(name) {
            Some(held) => held,
            None => self.base.get(name).await,
        }
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let Some(held) = self.held(name) else {
            return self.base.get_range(name, range).await;
        };
        let held = held?;
        if range.start > range.end || range.end > held.len() as u64 {
            let message = format!("{name} is cut: {} bytes, {range:?} asked for", held.len());
            return Err(Error::corrupt(message));
        }
        Ok(held.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        match self.held(name) {
            Some(held) => Ok(held.ok().map(|bytes| bytes.len() as u64)),
            None => self.base.head(name).await,
        }
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>> {
        let mut after = after.map(str::to_owned);
        let mut found = Vec::new();
        loop {
            let below = self.base.list(folder, after.as_deref()).await?;
            let last = below.last().map(|entry| entry.name.clone());
            let complete = below.len() < LIST_MAX;
            // What is written is merged in as far as the names below are known.
            let until = if complete { None } else { last.clone() };
            let mut names: BTreeMap<String, Option<u64>> = below
                .into_iter()
                .map(|entry| (entry.name, Some(entry.len)))
                .collect();
            for (name, bytes) in self.written.lock().iter() {
                let listed = name.starts_with(folder)
                    && after.as_ref().is_none_or(|after| name > after)
                    && until.as_ref().is_none_or(|until| name <= until);
                if listed {
                    names.insert(name.clone(), bytes.as_ref().map(|b| b.len() as u64));
                }
            }
            let live = names
                .into_iter()
                .filter_map(|(name, len)| Some(Entry { name, len: len? }));
            found.extend(live);
            if complete || found.len() >= LIST_MAX {
                found.truncate(LIST_MAX);
                return Ok(found);
            }
            after = last;
        }
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.written.lock().insert(name.to_owned(), None);
        Ok(())
    }
}
