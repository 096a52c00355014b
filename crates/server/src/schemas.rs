//! Schemas in the bucket: files by content, and numbered revisions that name them.
//!
//! ```text
//!  schemas/files/<blake3>.proto          a file, by its content
//!  schemas/revisions/<20 digits>.json    { "files": { "shop/v1/shop.proto": "<blake3>", … } }
//! ```
//!
//! Revisions are create-only and dense from 1. Of two who push at once, one is first; the other
//! adds its files to what the first one made.

use annals_archive::Bucket;
use annals_archive::bucket::{Created, LIST_MAX};
use annals_core::schema::Catalog;
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

const FILES: &str = "schemas/files/";
const REVISIONS: &str = "schemas/revisions/";

/// The schemas of a bucket.
#[derive(Debug, Clone)]
pub struct SchemaStore {
    bucket: Arc<dyn Bucket>,
}

/// A revision with its files: what is pushed and what is compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaFiles {
    /// Number of the revision; 0: none was ever pushed.
    #[serde(default)]
    pub revision: u64,
    /// Content by import name.
    pub files: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Revision {
    files: BTreeMap<String, String>,
}

impl SchemaFiles {
    /// Compiles the files.
    pub fn compile(&self) -> Result<Catalog> {
        Catalog::from_files(self.files.iter().map(|(name, text)| (name.as_str(), text)))
    }
}

impl SchemaStore {
    /// The schemas of a bucket.
    pub fn new(bucket: Arc<dyn Bucket>) -> Self {
        Self { bucket }
    }

    /// The newest revision, with its files.
    pub async fn latest(&self) -> Result<SchemaFiles> {
        let revision = self.last_number().await?;
        if revision == 0 {
            return Ok(SchemaFiles::default());
        }
        let name = revision_name(revision);
        let bytes = self.bucket.get(&name).await?;
        let stored: Revision = serde_json::from_slice(&bytes)
            .map_err(|e| Error::corrupt(format!("{name} is damaged")).caused_by(e))?;
        let mut files = BTreeMap::new();
        for (file, hash) in stored.files {
            files.insert(file, self.file(&hash).await?);
        }
        Ok(SchemaFiles { revision, files })
    }

    /// Stores the files of the newest revision with `pushed` added or replaced, if they compile
    /// together. Says which revision holds them; nothing changed: the newest one.
    pub async fn push(&self, pushed: BTreeMap<String, String>) -> Result<SchemaFiles> {
        loop {
            let mut next = self.latest().await?;
            let before = next.files.clone();
            next.files.extend(pushed.clone());
            if next.files == before {
                return Ok(next);
            }
            next.compile()?;
            let mut stored = Revision {
                files: BTreeMap::new(),
            };
            for (name, text) in &next.files {
                stored
                    .files
                    .insert(name.clone(), self.store_file(text).await?);
            }
            next.revision += 1;
            let json = serde_json::to_vec_pretty(&stored)
                .expect("a revision is plain data with string keys");
            let name = revision_name(next.revision);
            if self.bucket.create(&name, json.into()).await? == Created::Created {
                return Ok(next);
            }
        }
    }

    async fn store_file(&self, text: &str) -> Result<String> {
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.bucket.create(&file_name(&hash), bytes).await?;
        Ok(hash)
    }

    async fn file(&self, hash: &str) -> Result<String> {
        let name = file_name(hash);
        let bytes = self.bucket.get(&name).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::corrupt(format!("{name} is missing")),
            _ => e,
        })?;
        if blake3::hash(&bytes).to_hex().as_str() != hash {
            return Err(Error::corrupt(format!(
                "{name} is damaged: its hash differs"
            )));
        }
        String::from_utf8(bytes.to_vec())
            .map_err(|_| Error::corrupt(format!("{name} is damaged: it is not UTF-8")))
    }

    async fn last_number(&self) -> Result<u64> {
        let mut last = 0;
        let mut after = None;
        loop {
            let entries = self.bucket.list(REVISIONS, after.as_deref()).await?;
            for entry in &entries {
                last = last.max(revision_number(&entry.name).unwrap_or(0));
            }
            if entries.len() < LIST_MAX {
                return Ok(last);
            }
            after = entries.last().map(|e| e.name.clone());
        }
    }
}

fn file_name(hash: &str) -> String {
    format!("{FILES}{hash}.proto")
}

fn revision_name(number: u64) -> String {
    format!("{REVISIONS}{number:020}.json")
}

fn revision_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(REVISIONS)?.strip_suffix(".json")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_archive::bucket::DirectoryBucket;
    use annals_core::system::SystemDisk;

    const A: &str = "syntax = \"proto3\"; package a.v1; message A { string x = 1; }";
    const B: &str =
        "syntax = \"proto3\"; package b.v1; import \"a.proto\"; message B { a.v1.A a = 1; }";

    fn store(dir: &tempfile::TempDir) -> SchemaStore {
        let bucket = DirectoryBucket::open(Arc::new(SystemDisk), dir.path()).unwrap();
        SchemaStore::new(Arc::new(bucket))
    }

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[tokio::test]
    async fn pushes_add_up_and_an_unchanged_push_makes_no_revision() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        assert_eq!(store.latest().await.unwrap(), SchemaFiles::default());
        assert_eq!(
            store.push(files(&[("a.proto", A)])).await.unwrap().revision,
            1
        );
        assert_eq!(
            store.push(files(&[("a.proto", A)])).await.unwrap().revision,
            1
        );
        let both = store.push(files(&[("b.proto", B)])).await.unwrap();
        assert_eq!((both.revision, both.files.len()), (2, 2));
        assert_eq!(store.latest().await.unwrap(), both);
        assert!(both.compile().unwrap().get("b.v1.B").is_some());
    }

    #[tokio::test]
    async fn files_that_do_not_compile_are_refused_and_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let refusal = store.push(files(&[("b.proto", B)])).await.unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Invalid);
        assert_eq!(store.latest().await.unwrap().revision, 0);
    }

    #[tokio::test]
    async fn a_changed_file_is_detected_and_never_served() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        store.push(files(&[("a.proto", A)])).await.unwrap();
        let hash = blake3::hash(A.as_bytes()).to_hex();
        let path = dir.path().join(format!("schemas/files/{hash}.proto"));
        std::fs::write(path, A.replace('A', "Z")).unwrap();
        let error = store.latest().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
