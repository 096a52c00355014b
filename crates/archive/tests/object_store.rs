//! Object stores as they are: real servers that speak S3, stores that lie, answers that are lost.

use annals_archive::bucket::{Bucket, Created, StoreBucket, conformance, probe};
use annals_core::{ErrorKind, Random, system::SystemRandom};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

// --- real servers ---

/// The settings that `cargo xtask services up` left for a server, in `.services` in the
/// repository's root or where `ANNALS_SERVICES_DIR` says.
fn service(name: &str) -> Option<Vec<(String, String)>> {
    let services = std::env::var_os("ANNALS_SERVICES_DIR").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.services"),
        PathBuf::from,
    );
    let env = std::fs::read_to_string(services.join(name).join("env")).ok()?;
    let setting = |line: &str| Some(line.split_once('=')?).map(|(n, v)| (n.into(), v.into()));
    Some(env.lines().filter_map(setting).collect())
}

async fn check_service(name: &str) {
    let Some(settings) = service(name) else {
        // Past the capture of test output: nobody is to take this for a pass.
        let message = format!("SKIPPED: {name} conforms: `cargo xtask services up {name}`\n");
        std::io::stderr().write_all(message.as_bytes()).unwrap();
        return;
    };
    let run = format!("conformance-{:016x}", SystemRandom.next_u64());
    let mut number = 0;
    let mut make = || {
        number += 1;
        let prefix = format!("{run}/{number}");
        StoreBucket::s3("annals", &prefix, settings.clone()).unwrap()
    };
    probe(&make(), "one").await.unwrap();
    conformance::check_all(make).await;
}

#[tokio::test]
async fn seaweedfs_conforms() {
    check_service("s3").await;
}

#[tokio::test]
async fn moto_conforms() {
    check_service("moto").await;
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_unavailable() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let settings = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "secret-that-is-not-told"),
    ];
    let settings = settings.map(|(n, v)| (n.to_owned(), v.to_owned()));
    let bucket = StoreBucket::s3("annals", "", settings).unwrap();
    let reading = bucket.get("x").await.unwrap_err();
    assert_eq!(reading.kind(), ErrorKind::Unavailable, "{reading}");
    let writing = bucket.create("x", Bytes::new()).await.unwrap_err();
    assert!(writing.is_ambiguous(), "{writing}");
    for error in [reading, writing] {
        let told = format!("{error} {error:?} {bucket:?}");
        assert!(!told.contains("secret-that-is-not-told"), "{told}");
    }
}

// --- stores that lie ---

/// What a store does otherwise than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// It makes a name again.
    CreatesAgain,
    /// It refuses to make a name again, and writes all the same.
    RefusesAndWrites,
    /// It looks whether a name is taken, and some time later it writes.
    LooksThenWrites,
    /// It does not overwrite.
    KeepsTheFirst,
    /// It gives the whole object for a range.
    IgnoresRanges,
    /// It forgets to list.
    ListsNothing,
    /// It lists backwards.
    ListsBackwards,
    /// It starts a list at its beginning, whatever is asked.
    IgnoresTheOffset,
    /// It does not delete.
    KeepsTheDeleted,
}

const LIES: [Lie; 9] = [
    Lie::CreatesAgain,
    Lie::RefusesAndWrites,
    Lie::LooksThenWrites,
    Lie::KeepsTheFirst,
    Lie::IgnoresRanges,
    Lie::ListsNothing,
    Lie::ListsBackwards,
    Lie::IgnoresTheOffset,
    Lie::KeepsTheDeleted,
];

/// What becomes of one request to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is lost.
    RequestLost,
    /// Refused: another request for the name is under way. Nothing is written.
    Busy,
}

const FAULTS: [Fault; 3] = [Fault::AnswerLost, Fault::RequestLost, Fault::Busy];

/// A store in memory with one lie, or with faults for the next creates.
#[derive(Debug, Default)]
struct Strange {
    inner: InMemory,
    lie: Option<Lie>,
    faults: Mutex<VecDeque<Fault>>,
    creates: Mutex<u32>,
}

impl Strange {
    fn lying(lie: Lie) -> StoreBucket {
        StoreBucket::new(Arc::new(Self {
            lie: Some(lie),
            ..Self::default()
        }))
    }

    fn faulty(faults: &[Fault]) -> (Arc<Self>, StoreBucket) {
        let store = Arc::new(Self {
            faults: Mutex::new(faults.iter().copied().collect()),
            ..Self::default()
        });
        (store.clone(), StoreBucket::new(store))
    }

    async fn create(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        *self.creates.lock() += 1;
        let overwrite = PutOptions::from(PutMode::Overwrite);
        let fault = self.faults.lock().pop_front();
        match (self.lie, fault) {
            (Some(Lie::CreatesAgain), _) => self.inner.put_opts(location, payload, overwrite).await,
            (Some(Lie::RefusesAndWrites), _) => {
                let made = self.inner.put_opts(location, payload.clone(), opts).await;
                self.inner.put_opts(location, payload, overwrite).await?;
                made
            }
            (Some(Lie::LooksThenWrites), _) => {
                if self.inner.head(location).await.is_ok() {
                    return Err(taken(location));
                }
                tokio::task::yield_now().await;
                self.inner.put_opts(location, payload, overwrite).await
            }
            (_, Some(Fault::AnswerLost)) => {
                // Whatever the answer was.
                let _ = self.inner.put_opts(location, payload, opts).await;
                Err(lost())
            }
            (_, Some(Fault::RequestLost)) => Err(lost()),
            (_, Some(Fault::Busy)) => Err(taken(location)),
            _ => self.inner.put_opts(location, payload, opts).await,
        }
    }
}

fn lost() -> Error {
    Error::Generic {
        store: "strange",
        source: "the connection broke".into(),
    }
}

fn taken(location: &Path) -> Error {
    Error::AlreadyExists {
        path: location.to_string(),
        source: "409".into(),
    }
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Strange({:?})", self.lie)
    }
}

#[async_trait]
impl ObjectStore for Strange {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        match (&opts.mode, self.lie) {
            (PutMode::Create, _) => self.create(location, payload, opts).await,
            (_, Some(Lie::KeepsTheFirst)) => {
                let first = PutOptions::from(PutMode::Create);
                let made = self.inner.put_opts(location, payload, first).await;
                made.or(Ok(PutResult {
                    e_tag: None,
                    version: None,
                    extensions: Default::default(),
                }))
            }
            _ => self.inner.put_opts(location, payload, opts).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        mut options: GetOptions,
    ) -> object_store::Result<GetResult> {
        if self.lie == Some(Lie::IgnoresRanges) {
            options.range = None;
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match self.lie {
            Some(Lie::KeepsTheDeleted) => locations,
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let list = self.inner.list(prefix);
        match self.lie {
            Some(Lie::ListsNothing) => futures::stream::empty().boxed(),
            Some(Lie::ListsBackwards) => list
                .collect::<Vec<_>>()
                .map(|all| futures::stream::iter(all.into_iter().rev()))
                .flatten_stream()
                .boxed(),
            _ => list,
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.lie {
            Some(Lie::IgnoresTheOffset) => self.inner.list(prefix),
            _ => self.inner.list_with_offset(prefix, offset),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn every_lie_is_found_by_the_probe_and_nothing_else_is() {
    probe(&StoreBucket::memory(), "one").await.unwrap();
    for lie in LIES {
        let bucket = Strange::lying(lie);
        let refusal = probe(&bucket, "one").await.expect_err(&format!("{lie:?}"));
        assert_eq!(refusal.kind(), ErrorKind::Invalid, "{lie:?}: {refusal}");
        if let Lie::CreatesAgain | Lie::RefusesAndWrites | Lie::LooksThenWrites = lie {
            assert!(refusal.to_string().contains("creat"), "{lie:?}: {refusal}");
        }
    }
}

#[tokio::test]
async fn the_probe_leaves_nothing_behind_and_can_be_repeated() {
    let store = Arc::new(InMemory::new());
    let bucket = StoreBucket::new(store.clone());
    for _ in 0..2 {
        probe(&bucket, "the same").await.unwrap();
        assert_eq!(store.list(None).count().await, 0);
    }
    // Also where it refuses.
    let (strange, bucket) = Strange::faulty(&[]);
    let lie = Arc::new(Strange {
        lie: Some(Lie::IgnoresRanges),
        ..Strange::default()
    });
    assert!(probe(&StoreBucket::new(lie.clone()), "x").await.is_err());
    assert_eq!(lie.inner.list(None).count().await, 0);
    probe(&bucket, "x").await.unwrap();
    assert_eq!(strange.inner.list(None).count().await, 0);
}

// --- answers that are lost ---

/// Every sequence of faults up to this long; one more create than that is tried.
const FAULTS_MAX: usize = 4;

fn sequences() -> Vec<Vec<Fault>> {
    let mut all = vec![Vec::new()];
    for start in 0.. {
        let Some(sequence) = all.get(start).cloned() else {
            return all;
        };
        if sequence.len() < FAULTS_MAX {
            all.extend(FAULTS.map(|fault| [&sequence[..], &[fault]].concat()));
        }
    }
    unreachable!("sequences are finite")
}

#[tokio::test(start_paused = true)]
async fn whoever_made_an_object_is_told_so_whatever_answers_were_lost() {
    let sequences = sequences();
    assert_eq!(sequences.len(), 1 + 3 + 9 + 27 + 81);
    for faults in sequences {
        let (store, bucket) = Strange::faulty(&faults);
        let made = bucket.create("n", Bytes::from_static(b"ours")).await;
        assert_eq!(made.unwrap(), Created::Created, "{faults:?}");
        assert_eq!(bucket.get("n").await.unwrap(), "ours", "{faults:?}");
        // One fault never costs more than one try.
        assert!(*store.creates.lock() as usize <= faults.len() + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_came_late_is_told_so_whatever_answers_were_lost() {
    for faults in sequences() {
        let (store, bucket) = Strange::faulty(&faults);
        let theirs = Bytes::from_static(b"theirs");
        store.inner.put(&"n".into(), theirs.into()).await.unwrap();
        let made = bucket.create("n", Bytes::from_static(b"ours")).await;
        assert_eq!(made.unwrap(), Created::AlreadyExists, "{faults:?}");
        assert_eq!(bucket.get("n").await.unwrap(), "theirs", "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_made_by_another_are_another_s() {
    // No answer of ours was lost: it cannot be ours.
    let bucket = StoreBucket::memory();
    let bytes = Bytes::from_static(b"the same");
    let first = bucket.create("lease", bytes.clone()).await.unwrap();
    let second = bucket.create("lease", bytes).await.unwrap();
    assert_eq!((first, second), (Created::Created, Created::AlreadyExists));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_took_is_never_called_taken() {
    // More refusals than tries, and no object: 409 tells of another's create that then failed.
    let (store, bucket) = Strange::faulty(&[Fault::Busy; 100]);
    let error = bucket.create("n", Bytes::new()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(bucket.head("n").await.unwrap(), None);
    let tries = *store.creates.lock();
    assert!((2..100).contains(&tries), "{tries} tries");
}
