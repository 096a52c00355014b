//! Where a platform's bucket lies, how a directory remembers it, and how it is opened.
//!
//! ```text
//!  <dir>/bucket/        the default: the bucket is a part of the directory
//!  <dir>/bucket.json    it is elsewhere: which place, written by the first `annals up` there
//! ```
//!
//! A directory holds the broker's log, and so messages that wait to be archived in *its* bucket:
//! it keeps the bucket it began with. Keys and other secrets come from the environment and are
//! never written down.

mod settings;
mod url;

pub use settings::StoreSettings;
pub use url::BucketUrl;

use crate::exit::{Exit, Failure, Result, at_path};
use annals_archive::Bucket;
use annals_archive::bucket::{DirectoryBucket, StoreBucket, probe};
use annals_core::system::SystemDisk;
use annals_core::{Disk, Error, ErrorKind, Random};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "bucket.json";
const FILE_WRITTEN: &str = "bucket.json.tmp";

/// A bucket's address and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketPlace {
    /// The address.
    pub bucket: BucketUrl,
    /// URL of the store, where it is not AWS' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region of the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// The bucket asked for, as verbs take it.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct BucketArgs {
    /// The bucket: s3://NAME/PREFIX or file:PATH [default: that of the directory]
    #[arg(long, global = true, value_name = "URL")]
    pub bucket: Option<BucketUrl>,
    /// URL of the S3 store, where it is not AWS' own [default: AWS_ENDPOINT_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub s3_endpoint: Option<String>,
}

impl BucketArgs {
    /// The bucket that is read when no server is asked: the one named, else the directory's.
    pub fn place(&self, dir: &Path, settings: &StoreSettings) -> Result<BucketPlace> {
        let known = BucketPlace::remembered(dir)?.unwrap_or_else(|| BucketPlace::inside(dir));
        let place = match &self.bucket {
            Some(named) if *named != known.bucket => BucketPlace::of(named.clone()),
            _ => known,
        };
        Ok(place.reached_by(self.s3_endpoint.as_ref(), settings))
    }

    /// The bucket that a platform on a directory uses. A directory that has one keeps it: another
    /// is a conflict.
    pub fn place_for_platform(&self, dir: &Path, settings: &StoreSettings) -> Result<BucketPlace> {
        let has = match BucketPlace::remembered(dir)? {
            Some(place) => Some(place),
            None => holds_anything(&dir.join("bucket"))?.then(|| BucketPlace::inside(dir)),
        };
        match (&self.bucket, has) {
            (Some(named), Some(has)) if *named != has.bucket => Err(Failure::new(
                Exit::Conflict,
                format!("{} has its bucket at {}", dir.display(), has.bucket),
            )
            .next(
                "leave --bucket out, or use another directory; to move it: \
                 docs/guide/object-store.md",
            )),
            _ => self.place(dir, settings),
        }
    }

    /// Opens the bucket that is read when no server is asked; one that is a directory has to exist.
    pub fn open_to_read(&self, dir: &Path) -> Result<Arc<dyn Bucket>> {
        let settings = StoreSettings::of_process();
        let place = self.place(dir, &settings)?;
        match &place.bucket {
            BucketUrl::Directory(root) if !root.is_dir() => Err(Failure::new(
                Exit::Unreachable,
                match &self.bucket {
                    None => format!("no server runs, and {} holds no archive", dir.display()),
                    Some(named) => format!("{named} does not exist"),
                },
            )
            .next(format!("annals up --data {}", dir.display()))),
            _ => place.open(Arc::new(SystemDisk), &settings),
        }
    }
}

impl BucketPlace {
    /// The bucket inside a platform's directory.
    pub fn inside(dir: &Path) -> Self {
        let root = dir.join("bucket");
        let root = std::path::absolute(&root).unwrap_or(root);
        Self::of(BucketUrl::Directory(root))
    }

    fn of(bucket: BucketUrl) -> Self {
        Self {
            bucket,
            endpoint: None,
            region: None,
        }
    }

    /// What is said now goes before what is remembered: a flag, then the environment.
    fn reached_by(mut self, endpoint: Option<&String>, settings: &StoreSettings) -> Self {
        if let BucketUrl::S3 { .. } = self.bucket {
            let said = endpoint.cloned().or(settings.endpoint());
            self.endpoint = said.or(self.endpoint);
            self.region = settings.region().or(self.region);
        }
        self
    }

    fn remembered(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Failure::new(Exit::Invalid, format!("{}: {e}", path.display()))
                    .next("correct it: it says where the archive is; docs/guide/object-store.md")
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(at_path(&path)(e)),
        }
    }

    /// Writes the place down in a directory, durably, unless it is the one inside it.
    pub fn remember(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        if *self == Self::inside(dir) || Self::remembered(dir)?.as_ref() == Some(self) {
            return Ok(());
        }
        let (path, written) = (dir.join(FILE), dir.join(FILE_WRITTEN));
        let text = serde_json::to_string_pretty(self).expect("a place is plain data") + "\n";
        let write = || {
            // Left behind by a process that was killed here.
            match disk.remove(&written) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let file = disk.create(&written)?;
            file.write_all_at(text.as_bytes(), 0)?;
            file.sync_data()?;
            disk.rename(&written, &path)?;
            disk.sync_dir(dir)
        };
        write().map_err(at_path(&path))
    }

    /// Opens the bucket. Nothing is sent to a store yet.
    pub fn open(&self, disk: Arc<dyn Disk>, settings: &StoreSettings) -> Result<Arc<dyn Bucket>> {
        Ok(match &self.bucket {
            BucketUrl::Directory(root) => Arc::new(DirectoryBucket::open(disk, root)?),
            BucketUrl::S3 { name, prefix } => {
                let (endpoint, region) = (self.endpoint.as_ref(), self.region.as_ref());
                let settings = settings.clone().with(endpoint, region);
                Arc::new(StoreBucket::s3(name, prefix, settings)?)
            }
        })
    }

    /// Opens the bucket for a platform: a store is tried first, and refused if it does not do what
    /// the archive's safety rests on.
    pub async fn open_checked(
        &self,
        disk: Arc<dyn Disk>,
        random: &dyn Random,
        settings: &StoreSettings,
    ) -> Result<Arc<dyn Bucket>> {
        let bucket = self.open(disk, settings)?;
        if let BucketUrl::S3 { .. } = self.bucket {
            self.check(&*bucket, random).await?;
        }
        Ok(bucket)
    }

    /// Tries a bucket, by objects that are removed again.
    pub async fn check(&self, bucket: &dyn Bucket, random: &dyn Random) -> Result<()> {
        let unique = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
        probe(bucket, &unique).await.map_err(|e| self.refusal(e))
    }

    fn refusal(&self, error: Error) -> Failure {
        let (exit, what, next) = match error.kind() {
            ErrorKind::Invalid => (
                Exit::Invalid,
                "cannot hold an archive",
                "use another store: what is needed of one is in docs/guide/object-store.md",
            ),
            ErrorKind::NotAllowed => (
                Exit::NotAllowed,
                "refuses access",
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may get, put, list \
                 and delete there",
            ),
            ErrorKind::NotFound => (
                Exit::Invalid,
                "is not there",
                "make the bucket, or name another with --bucket",
            ),
            _ => (
                Exit::Unreachable,
                "cannot be reached",
                "see that the store runs; its URL is AWS_ENDPOINT_URL or --s3-endpoint, its keys \
                 are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ),
        };
        Failure::new(exit, format!("{self} {what}: {error}")).next(next)
    }
}

impl fmt::Display for BucketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bucket)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

/// Whether there is anything in a directory that is not being written just now.
fn holds_anything(dir: &Path) -> Result<bool> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(at_path(dir)(e)),
    };
    for entry in entries {
        let name = entry.map_err(at_path(dir))?.file_name();
        if !name.to_string_lossy().starts_with(".tmp") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(bucket: Option<&str>, endpoint: Option<&str>) -> BucketArgs {
        BucketArgs {
            bucket: bucket.map(|url| url.parse().unwrap()),
            s3_endpoint: endpoint.map(str::to_owned),
        }
    }

    fn settings(endpoint: &str) -> StoreSettings {
        let set = ("AWS_ENDPOINT_URL".to_owned(), endpoint.to_owned());
        StoreSettings::from_variables([set])
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_what_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let place = |endpoint, settings: &StoreSettings| {
            let place = args(None, endpoint).place(dir.path(), settings).unwrap();
            (place.bucket.to_string(), place.endpoint)
        };
        let none = StoreSettings::default();
        let inside = format!("file:{}", dir.path().join("bucket").display());
        assert_eq!(place(None, &none), (inside, None));

        let first = args(Some("s3://events/shop"), Some("http://remembered"));
        let first = first.place_for_platform(dir.path(), &none).unwrap();
        first.remember(&SystemDisk, dir.path()).unwrap();
        let at = |endpoint: &str| ("s3://events/shop".to_owned(), Some(endpoint.to_owned()));
        assert_eq!(place(None, &none), at("http://remembered"));
        let said = settings("http://said");
        assert_eq!(place(None, &said), at("http://said"));
        assert_eq!(place(Some("http://flag"), &said), at("http://flag"));
    }

    #[test]
    fn another_bucket_is_read_but_no_platform_is_moved_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let none = StoreSettings::default();
        let first = args(Some("s3://events"), None);
        let place = first.place_for_platform(dir.path(), &none).unwrap();
        place.remember(&SystemDisk, dir.path()).unwrap();
        let other = args(Some("s3://events/other"), None);
        let refused = other.place_for_platform(dir.path(), &none).unwrap_err();
        assert_eq!(refused.exit, Exit::Conflict);
        assert!(refused.to_string().contains("s3://events"), "{refused}");
        let read = other.place(dir.path(), &none).unwrap();
        assert_eq!(Some(read.bucket), other.bucket);
    }

    #[test]
    fn what_is_remembered_holds_no_secret_and_outlives_a_write_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_WRITTEN), "{\"buck").unwrap();
        let keys = [
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned()),
            ("AWS_REGION".to_owned(), "eu-central-1".to_owned()),
        ];
        let settings = StoreSettings::from_variables(keys);
        let place = args(Some("s3://events"), None);
        let place = place.place_for_platform(dir.path(), &settings).unwrap();
        place.remember(&SystemDisk, dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(
            text.contains("eu-central-1") && !text.contains("hush"),
            "{text}"
        );
        assert_eq!(BucketPlace::remembered(dir.path()).unwrap(), Some(place));
    }
}
