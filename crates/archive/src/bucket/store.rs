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
use std::time::Duration;

/// Tries of one create; the waits between them double.
const CREATE_TRIES: u32 = 6;
/// The first wait.
const CREATE_BACKOFF: Duration = Duration::from_millis(100);

/// An object store as a [`Bucket`]. It must create conditionally (`If-None-Match: *` on S3) and
/// list in order of names, by bytes or by components; [`probe`](super::probe) tells.
#[derive(Clone)]
pub struct StoreBucket {
    store: Arc<dyn ObjectStore>,
    /// The same store, but one request is one try: it is known of each what was answered.
    creator: Arc<dyn ObjectStore>,
}

impl StoreBucket {
    /// Takes a store whose root is the bucket's root. It must not retry a create by itself: a
    /// create that took effect though its answer was lost would be taken for another's.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self::with_creator(Arc::clone(&store), store)
    }

    pub(super) fn with_creator(store: Arc<dyn ObjectStore>, creator: Arc<dyn ObjectStore>) -> Self {
        Self { store, creator }
    }

    /// A bucket in memory, for tests; gone with the process.
    pub fn memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Whose a name is that the store says is taken; `None` if it is not taken after all.
    ///
    /// A store may say so of a name that another is only about to take (409 on S3), so it is
    /// looked at. Where the answer to an earlier try of ours was lost, our bytes are our object.
    async fn owner(&self, name: &str, bytes: &Bytes, answer_lost: bool) -> Result<Option<Created>> {
        if !answer_lost {
            return Ok(self.head(name).await?.map(|_| Created::AlreadyExists));
        }
        match self.get(name).await {
            Ok(found) if found == bytes => Ok(Some(Created::Created)),
            Ok(_) => Ok(Some(Created::AlreadyExists)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(unknown(name, "it is taken, by whom is not known").caused_by(e)),
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
        let mut answer_lost = false;
        let mut backoff = CREATE_BACKOFF;
        for tries_left in (0..CREATE_TRIES).rev() {
            let put = self
                .creator
                .put_opts(&path, bytes.clone().into(), PutMode::Create.into());
            let failed = match put.await {
                Ok(_) => return Ok(Created::Created),
                Err(e) if is_taken(&e) => match self.owner(name, &bytes, answer_lost).await {
                    Ok(Some(created)) => return Ok(created),
                    Ok(None) => unknown(name, "another is about to create it").caused_by(e),
                    Err(e) => return Err(e),
                },
                Err(e) => {
                    let error = write_error(name, e);
                    if !error.is_ambiguous() {
                        return Err(error);
                    }
                    answer_lost = true;
                    error
                }
            };
            if tries_left == 0 {
                return Err(failed);
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
        unreachable!("the last try returns")
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&path(name)?, bytes.into()).await;
        put.map(drop).map_err(|e| write_error(name, e))
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
        let by_bytes = found.is_sorted_by(|a, b| a.name < b.name);
        let by_components = || found.is_sorted_by(|a, b| a.name.split('/').lt(b.name.split('/')));
        if !by_bytes && !by_components() {
            let message = format!("{} does not list in order of names", self.store);
            return Err(Error::invalid(message));
        }
        Ok(found)
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(write_error(name, e)),
        }
    }
}

fn path(name: &str) -> Result<Path> {
    check_name(name)?;
    Path::parse(name).map_err(|e| Error::invalid(format!("{name:?}: {e}")))
}

/// Whether a store refused a create because of what is there.
fn is_taken(error: &object_store::Error) -> bool {
    use object_store::Error::{AlreadyExists, Precondition};
    matches!(error, AlreadyExists { .. } | Precondition { .. })
}

/// Of a request that changes nothing.
fn error(name: &str, error: object_store::Error) -> Error {
    described(name, error, ErrorKind::Unavailable)
}

/// Of a request that writes: a timeout says nothing about what happened at the other end.
fn write_error(name: &str, error: object_store::Error) -> Error {
    described(name, error, ErrorKind::Unknown)
}

fn unknown(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::Unknown, format!("object {name}: {what}"))
}

fn described(name: &str, error: object_store::Error, otherwise: ErrorKind) -> Error {
    use object_store::Error as Store;
    let kind = match &error {
        Store::NotFound { .. } => ErrorKind::NotFound,
        Store::AlreadyExists { .. } | Store::Precondition { .. } => ErrorKind::Conflict,
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => ErrorKind::NotAllowed,
        Store::InvalidPath { .. } | Store::NotSupported { .. } | Store::NotImplemented { .. } => {
            ErrorKind::Invalid
        }
        _ => otherwise,
    };
    Error::new(kind, format!("object {name}")).caused_by(error)
}
