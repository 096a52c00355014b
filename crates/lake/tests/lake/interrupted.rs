//! A converter stopped at any of its writes, before or after it took effect.

use crate::world::{BUS, ORDER, ORDERS_V1, World, order, schemas};
use annals_archive::Bucket;
use annals_archive::bucket::{Created, Entry, StoreBucket};
use annals_core::{Error, ErrorKind, Result};
use annals_lake::{Lake, TableName};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A bucket whose n-th write fails, and all after it: before it took effect or after.
#[derive(Debug)]
struct Failing {
    bucket: StoreBucket,
    left: AtomicI64,
    after_effect: bool,
}

impl Failing {
    fn fails(&self) -> (bool, bool) {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        (left == 1, left <= 1)
    }

    fn error() -> Error {
        Error::new(ErrorKind::Unavailable, "the bucket is out of reach")
    }
}

#[async_trait]
impl Bucket for Failing {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let (now, failed) = self.fails();
        if !failed {
            return self.bucket.create(name, bytes).await;
        }
        if now && self.after_effect {
            self.bucket.create(name, bytes).await?;
        }
        Err(Self::error())
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let (now, failed) = self.fails();
        if !failed || (now && self.after_effect) {
            self.bucket.put(name, bytes).await?;
        }
        if failed { Err(Self::error()) } else { Ok(()) }
    }

    async fn get(&self, name: &str) -> Result<Bytes> {
        self.bucket.get(name).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.bucket.get_range(name, range).await
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        self.bucket.head(name).await
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>> {
        self.bucket.list(folder, after).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let (now, failed) = self.fails();
        if !failed || (now && self.after_effect) {
            self.bucket.delete(name).await?;
        }
        if failed { Err(Self::error()) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_at_any_write_and_started_again_every_event_has_one_row() {
    for after_effect in [false, true] {
        let mut writes = 0;
        for fail_at in 1.. {
            let failing = Arc::new(Failing {
                bucket: StoreBucket::memory(),
                left: AtomicI64::new(i64::MAX),
                after_effect,
            });
            let mut world = World::on(failing.clone()).await;
            let mut expected = 0;
            let mut stopped = false;
            failing.left.store(i64::MAX, Ordering::SeqCst);
            for step in 0..3 {
                let events: Vec<_> = (0..3)
                    .map(|n| order(&format!("{step}-{n}"), n, 7))
                    .collect();
                world.archive(&events).await;
                expected += events.len();
                if step == 1 {
                    failing.left.store(fail_at, Ordering::SeqCst);
                }
                // A converter of its own each time, as after a kill.
                let done = world.converter(schemas(1, ORDERS_V1)).catch_up().await;
                if step == 1 {
                    stopped = done.is_err();
                    failing.left.store(i64::MAX, Ordering::SeqCst);
                    // More is archived before the next one starts: its runs are other ones.
                }
            }
            let counts = world.counts(&[ORDER]).await;
            assert_eq!(
                (counts["events"], counts[ORDER]),
                (expected, expected),
                "at {fail_at}"
            );
            let ids = world
                .rows(&TableName::of_type(ORDER).unwrap(), &["id"])
                .await;
            assert!(
                ids.windows(2).all(|w| w[0] != w[1]),
                "at {fail_at}: {ids:?}"
            );
            let lake = Lake::new(world.bucket.clone(), BUS);
            assert_eq!(lake.standing().await.unwrap().position.0, 3);
            if !stopped {
                break;
            }
            writes += 1;
        }
        assert!(
            writes >= 5,
            "a step writes two files, two commits and the state: {writes}"
        );
    }
}
