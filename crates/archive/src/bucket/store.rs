//! An object store as a bucket: S3 and its like, or memory.

use super::{Bucket, Created, Entry, LIST_MAX, check_folder, check_name};
use annals_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An object store as a [`Bucket`]. It must create conditionally (`If-None-Match: *` on S3) and
/// list in order of names; `probe` tells.
#[derive(Clone)]
pub struct StoreBucket {
    store: Arc<dyn ObjectStore>,
}

impl StoreBucket {
    /// Takes a store whose root is the bucket's root.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// A bucket in memory, for tests; gone with the process.
    pub fn memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Checks, by making the object `name`, that the store refuses to make it twice.
    pub async fn probe(&self, name: &str) -> Result<()> {
        self.create(name, Bytes::from_static(b"annals")).await?;
        match self
            .create(name, Bytes::from_static(b"annals again"))
            .await?
        {
            Created::AlreadyExists => Ok(()),
            Created::Created => Err(Error::invalid(format!(
                "{} replaces objects that were to be created only once: it cannot hold an archive",
                self.store
            ))),
        }
    }
}

impl fmt::Debug for StoreBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreBucket")
            .field(&self.store.to_string())
            .finish()
    }
}

#[async_trait]
impl Bucket for StoreBucket {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let path = path(name)?;
        match self
            .store
            .put_opts(&path, bytes.into(), PutMode::Create.into())
            .await
        {
            Ok(_) => Ok(Created::Created),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(Created::AlreadyExists),
            Err(e) => Err(error(name, e)),
        }
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&path(name)?, bytes.into()).await;
        put.map(drop).map_err(|e| error(name, e))
    }

    async fn get(&self, name: &str) -> Result<Bytes> {
        let got = self
            .store
            .get(&path(name)?)
            .await
            .map_err(|e| error(name, e))?;
        got.bytes().await.map_err(|e| error(name, e))
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let path = path(name)?;
        if range.is_empty() {
            // Stores refuse the empty range.
            return Ok(Bytes::new());
        }
        let (wanted, end) = (range.end - range.start, range.end);
        let found = match self.store.get_range(&path, range).await {
            Ok(bytes) if bytes.len() as u64 == wanted => return Ok(bytes),
            Ok(bytes) => format!("{} of {wanted} bytes", bytes.len()),
            Err(e) => match self.head(name).await? {
                None => return Err(error(name, e)),
                Some(len) if len >= end => return Err(error(name, e)),
                Some(len) => format!("an object of {len} bytes"),
            },
        };
        Err(Error::corrupt(format!(
            "{name} is cut: {wanted} bytes were asked for, found {found}"
        )))
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        match self.store.head(&path(name)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(error(name, e)),
        }
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>> {
        check_folder(folder)?;
        let prefix = Path::parse(folder).map_err(|e| Error::invalid(e.to_string()))?;
        let listed = match after {
            None => self.store.list(Some(&prefix)),
            Some(after) => self.store.list_with_offset(Some(&prefix), &path(after)?),
        };
        let entry = |meta: object_store::ObjectMeta| Entry {
            name: meta.location.as_ref().to_owned(),
            len: meta.size,
        };
        let found = listed
            .map_ok(entry)
            .take(LIST_MAX)
            .try_collect::<Vec<_>>()
            .await;
        let found = found.map_err(|e| error(folder, e))?;
        if !found.is_sorted_by(|a, b| a.name < b.name) {
            let message = format!("{} does not list in order of names", self.store);
            return Err(Error::invalid(message));
        }
        Ok(found)
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(error(name, e)),
        }
    }
}

fn path(name: &str) -> Result<Path> {
    check_name(name)?;
    Path::parse(name).map_err(|e| Error::invalid(format!("{name:?}: {e}")))
}

fn error(name: &str, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let kind = match &error {
        Store::NotFound { .. } => ErrorKind::NotFound,
        Store::AlreadyExists { .. } | Store::Precondition { .. } => ErrorKind::Conflict,
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => ErrorKind::NotAllowed,
        Store::InvalidPath { .. } | Store::NotSupported { .. } => ErrorKind::Invalid,
        // A timeout says nothing about what happened at the other end.
        _ => ErrorKind::Unknown,
    };
    Error::new(kind, format!("object {name}")).caused_by(error)
}
