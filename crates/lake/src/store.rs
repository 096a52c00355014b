//! [`BucketStore`]: a bucket as the object store that Delta and the query engine speak to.
//!
//! The tables' libraries bring an `object_store` of their own version. Over this adapter they lie
//! in the same bucket as the archive, made durable by the same code: no second client, no second
//! set of credentials.

use annals_archive::Bucket;
use annals_archive::bucket::{Created, LIST_MAX};
use annals_core::ErrorKind;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store_13::path::Path;
use object_store_13::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart, coalesce_ranges,
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

const STORE: &str = "annals bucket";

/// A bucket, as an object store.
///
/// Objects have no time of change: all say 1970. Conditions on times and tags are refused.
#[derive(Debug, Clone)]
pub struct BucketStore {
    bucket: Arc<dyn Bucket>,
}

impl BucketStore {
    /// The objects of a bucket.
    pub fn new(bucket: Arc<dyn Bucket>) -> Self {
        Self { bucket }
    }

    async fn put(&self, location: &Path, bytes: Bytes, mode: &PutMode) -> Result<PutResult> {
        let name = location.as_ref();
        match mode {
            PutMode::Overwrite => self.bucket.put(name, bytes).await.map_err(error_of(name))?,
            PutMode::Create => {
                let made = self.bucket.create(name, bytes).await;
                if made.map_err(error_of(name))? == Created::AlreadyExists {
                    return Err(Error::AlreadyExists {
                        path: name.to_owned(),
                        source: "the name is taken".into(),
                    });
                }
            }
            PutMode::Update(_) => return Err(unsupported("a conditional update")),
        }
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    /// What lies below a folder, after a name, in order of names.
    fn walk(
        &self,
        prefix: Option<&Path>,
        after: Option<String>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = folder_of(prefix);
        let bucket = self.bucket.clone();
        let pages = stream::try_unfold(Some(after), move |next| {
            let (bucket, folder) = (bucket.clone(), folder.clone());
            async move {
                let Some(after) = next else { return Ok(None) };
                let page = bucket.list(&folder, after.as_deref()).await;
                let page = page.map_err(error_of(&folder))?;
                let more = page.len() == LIST_MAX;
                let last = page.last().map(|entry| entry.name.clone());
                let metas: Vec<_> = page
                    .into_iter()
                    .map(|e| Ok(meta(Path::parse(&e.name)?, e.len)))
                    .collect();
                Ok::<_, Error>(Some((
                    stream::iter(metas),
                    more.then_some(last).filter(Option::is_some),
                )))
            }
        });
        pages.try_flatten().boxed()
    }
}

impl fmt::Display for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

#[async_trait]
impl ObjectStore for BucketStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.put(location, payload.into(), &options.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Gathered {
            store: self.clone(),
            location: location.clone(),
            parts: Mutex::default(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let name = location.as_ref();
        if options.if_match.is_some() || options.version.is_some() {
            return Err(unsupported("a condition on tags or versions"));
        }
        let len = self.bucket.head(name).await.map_err(error_of(name))?;
        let len = len.ok_or_else(|| not_found(name))?;
        let range = match &options.range {
            None => 0..len,
            Some(range) => range
                .as_range(len)
                .map_err(|e| generic(format!("{name}: {e}")))?,
        };
        let bytes = match options.head || range.is_empty() {
            true => Bytes::new(),
            false => {
                let read = self.bucket.get_range(name, range.clone()).await;
                read.map_err(error_of(name))?
            }
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            meta: meta(location.clone(), len),
            range,
            attributes: Attributes::new(),
        })
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        // Who asks for ranges knows the length: no need to ask for it first.
        let name = location.as_ref();
        let read = |range| async move {
            let bytes = self.bucket.get_range(name, range).await;
            bytes.map_err(error_of(name))
        };
        coalesce_ranges(ranges, read, COALESCE_BYTES).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let bucket = self.bucket.clone();
        locations
            .and_then(move |location| {
                let bucket = bucket.clone();
                async move {
                    let name = location.as_ref();
                    bucket.delete(name).await.map_err(error_of(name))?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.walk(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        // A bucket lists after a name of the folder; any other offset is all of it or nothing.
        let folder = folder_of(prefix);
        let offset = offset.as_ref().to_owned();
        match offset.starts_with(&folder) && offset.len() > folder.len() {
            true => self.walk(prefix, Some(offset)),
            false => self
                .walk(prefix, None)
                .try_filter(move |m| std::future::ready(m.location.as_ref() > offset.as_str()))
                .boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = folder_of(prefix);
        let mut folders = BTreeSet::new();
        let mut objects = Vec::new();
        let mut all = self.walk(prefix, None);
        while let Some(object) = all.try_next().await? {
            match object.location.as_ref()[folder.len()..].split_once('/') {
                Some((first, _)) => drop(folders.insert(format!("{folder}{first}"))),
                None => objects.push(object),
            }
        }
        let folders: Result<Vec<Path>> = folders.iter().map(|f| Ok(Path::parse(f)?)).collect();
        Ok(ListResult {
            common_prefixes: folders?,
            objects,
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let name = from.as_ref();
        let bytes = self.bucket.get(name).await.map_err(error_of(name))?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.put(to, bytes, &mode).await.map(drop)
    }
}

/// Ranges closer than this are read as one: reading on is cheaper than asking again.
const COALESCE_BYTES: u64 = 256 << 10;

/// An upload in parts, put as one object at its end.
#[derive(Debug)]
struct Gathered {
    store: BucketStore,
    location: Path,
    parts: Mutex<BytesMut>,
}

#[async_trait]
impl MultipartUpload for Gathered {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let mut parts = self.parts.lock();
        data.iter().for_each(|part| parts.extend_from_slice(part));
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let bytes = std::mem::take(&mut *self.parts.lock()).freeze();
        self.store
            .put(&self.location, bytes, &PutMode::Overwrite)
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.lock().clear();
        Ok(())
    }
}

fn folder_of(prefix: Option<&Path>) -> String {
    match prefix.map(AsRef::as_ref) {
        None | Some("") => String::new(),
        Some(folder) => format!("{folder}/"),
    }
}

fn meta(location: Path, size: u64) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: DateTime::<Utc>::UNIX_EPOCH,
        size,
        e_tag: None,
        version: None,
    }
}

fn error_of(name: &str) -> impl FnOnce(annals_core::Error) -> Error + use<> {
    let path = name.to_owned();
    move |error| match error.kind() {
        ErrorKind::NotFound => Error::NotFound {
            path,
            source: Box::new(error),
        },
        _ => Error::Generic {
            store: STORE,
            source: Box::new(error),
        },
    }
}

fn not_found(name: &str) -> Error {
    Error::NotFound {
        path: name.to_owned(),
        source: "there is no such object".into(),
    }
}

fn generic(text: String) -> Error {
    Error::Generic {
        store: STORE,
        source: text.into(),
    }
}

fn unsupported(what: &str) -> Error {
    Error::NotSupported {
        source: format!("a bucket has no {what}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_archive::bucket::DirectoryBucket;
    use annals_core::system::SystemDisk;
    use object_store_13::ObjectStoreExt;

    fn store(dir: &tempfile::TempDir) -> BucketStore {
        let bucket = DirectoryBucket::open(Arc::new(SystemDisk), dir.path()).unwrap();
        BucketStore::new(Arc::new(bucket))
    }

    async fn names(of: BoxStream<'static, Result<ObjectMeta>>) -> Vec<String> {
        let metas: Vec<ObjectMeta> = of.try_collect().await.unwrap();
        metas.iter().map(|m| m.location.to_string()).collect()
    }

    #[tokio::test]
    async fn objects_are_made_once_replaced_read_in_ranges_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let create = || PutOptions::from(PutMode::Create);
        let path = Path::from("t/_delta_log/1.json");
        let made = store.put_opts(&path, "one".into(), create()).await;
        made.unwrap();
        let again = store.put_opts(&path, "two".into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        assert_eq!(
            store.get(&path).await.unwrap().bytes().await.unwrap(),
            "one"
        );
        ObjectStoreExt::put(&store, &path, "three".into())
            .await
            .unwrap();
        assert_eq!(store.get_range(&path, 1..3).await.unwrap(), "hr");
        assert_eq!(store.head(&path).await.unwrap().size, 5);
        let missing = store.get(&Path::from("t/none")).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })));
        ObjectStoreExt::put(&store, &Path::from("t/data"), "x".into())
            .await
            .unwrap();
        ObjectStoreExt::put(&store, &Path::from("tx/data"), "x".into())
            .await
            .unwrap();
        let below = names(store.list(Some(&Path::from("t")))).await;
        assert_eq!(below, ["t/_delta_log/1.json", "t/data"]);
        let after = store.list_with_offset(Some(&Path::from("t")), &path);
        assert_eq!(names(after).await, ["t/data"]);
        let level = store
            .list_with_delimiter(Some(&Path::from("t")))
            .await
            .unwrap();
        assert_eq!(level.common_prefixes, [Path::from("t/_delta_log")]);
        assert_eq!(level.objects.len(), 1);
        store.delete(&path).await.unwrap();
        assert_eq!(names(store.list(Some(&Path::from("t")))).await, ["t/data"]);
    }

    #[tokio::test]
    async fn an_upload_in_parts_is_one_object_once_complete() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let path = Path::from("t/large");
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part("one".into()).await.unwrap();
        upload.put_part("two".into()).await.unwrap();
        assert!(store.get(&path).await.is_err());
        upload.complete().await.unwrap();
        assert_eq!(
            store.get(&path).await.unwrap().bytes().await.unwrap(),
            "onetwo"
        );
    }
}
