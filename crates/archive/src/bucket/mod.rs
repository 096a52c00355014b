//! Where objects lie: [`Bucket`], over a directory or an object store.
//!
//! The few operations both can do, with the meaning the archive's safety rests on: what `create`
//! says is made is whole and durable, and no name is ever made twice.

#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod probe;
#[cfg(feature = "s3")]
mod s3;
mod store;

pub use directory::DirectoryBucket;
pub use probe::probe;
pub use store::StoreBucket;

use annals_core::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::ops::Range;

/// Most entries one [`Bucket::list`] returns.
pub const LIST_MAX: usize = 1000;
/// Longest object name, in bytes: what S3 takes.
pub const NAME_BYTES_MAX: usize = 1024;

/// A place for objects: immutable ones ([`create`](Bucket::create)) and derived ones that may be
/// replaced ([`put`](Bucket::put)).
///
/// Names are `/`-separated components as [`check_name`] takes them. Implementers pass the
/// `conformance` suite.
#[async_trait]
pub trait Bucket: Debug + Send + Sync + 'static {
    /// Makes an object if the name is free. On `Ok`, of either kind, the object of that name is
    /// durable. After an error it may or may not exist, whole: call again with the same bytes.
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created>;

    /// Makes or replaces an object; durable on `Ok`, and never a mixture. Derived data only.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<()>;

    /// The whole object; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is none.
    async fn get(&self, name: &str) -> Result<Bytes>;

    /// A stretch of the object. One that reaches past its end is
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): whoever asks knows the length.
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes>;

    /// The object's length; `None` if there is no such object.
    async fn head(&self, name: &str) -> Result<Option<u64>>;

    /// The first [`LIST_MAX`] objects below `folder` (empty, or ends with `/`) in the bucket's
    /// order of names, after the name `after`. Fewer than [`LIST_MAX`]: there are no more.
    ///
    /// Names are compared byte by byte, as S3 does, or component by component, as stores do that
    /// keep folders; a bucket does always the one or always the other. They differ only where a
    /// folder's name begins like its neighbour's (`shop/` and `shop.v1/`).
    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>>;

    /// Removes an object; nothing happens if there is none. Derived data only.
    async fn delete(&self, name: &str) -> Result<()>;
}

/// What became of [`Bucket::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object was made.
    Created,
    /// The name was taken; what it names was not touched.
    AlreadyExists,
}

/// One object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, from the bucket's root.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
}

/// Checks an object's name: components of 1 to 255 bytes, none starts with `.tmp`, none is `.` or
/// `..`, no control characters, at most [`NAME_BYTES_MAX`] bytes in all.
pub fn check_name(name: &str) -> Result<()> {
    let sound = |part: &str| {
        (1..=255).contains(&part.len())
            && part != "."
            && part != ".."
            && !part.starts_with(TEMPORARY)
            && !part.chars().any(|c| c.is_control() || c == '\\')
    };
    if name.len() <= NAME_BYTES_MAX && name.split('/').all(sound) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is not a valid object name"
    )))
}

/// What no component may start with: a directory keeps unfinished objects under this name.
const TEMPORARY: &str = ".tmp";

/// Checks a folder's name: empty, or a valid name and `/`.
fn check_folder(folder: &str) -> Result<()> {
    match folder.strip_suffix('/') {
        None if folder.is_empty() => Ok(()),
        Some(name) => check_name(name),
        None => Err(Error::invalid(format!(
            "folder {folder:?} does not end with /"
        ))),
    }
}
