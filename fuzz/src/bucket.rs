//! A bucket in memory, for archives that are made, spoilt and read again by the thousand.

use annals_archive::bucket::{Bucket, Created, Entry, LIST_MAX};
use annals_archive::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Objects by name.
pub type Objects = BTreeMap<String, Bytes>;

/// The bucket.
#[derive(Debug, Default)]
pub struct MemoryBucket(Mutex<Objects>);

impl MemoryBucket {
    /// A bucket that holds these.
    pub fn holding(objects: Objects) -> Self {
        Self(Mutex::new(objects))
    }

    /// All it holds.
    pub fn objects(&self) -> Objects {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let mut objects = self.lock();
        if objects.contains_key(name) {
            return Ok(Created::AlreadyExists);
        }
        objects.insert(name.to_owned(), bytes);
        Ok(Created::Created)
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.lock().insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Bytes> {
        let found = self.lock().get(name).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{name}: no such object")))
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let object = self.get(name).await?;
        let bounds = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok());
        match bounds {
            Some((start, end)) if start <= end && end <= object.len() => {
                Ok(object.slice(start..end))
            }
            _ => Err(Error::corrupt(format!(
                "{name}: {range:?} reaches past its end"
            ))),
        }
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.lock().get(name).map(|object| object.len() as u64))
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>> {
        let objects = self.lock();
        let below = objects.iter().filter(|(name, _)| {
            name.starts_with(folder) && after.is_none_or(|after| name.as_str() > after)
        });
        let entry = |(name, object): (&String, &Bytes)| Entry {
            name: name.clone(),
            len: object.len() as u64,
        };
        Ok(below.take(LIST_MAX).map(entry).collect())
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.lock().remove(name);
        Ok(())
    }
}
