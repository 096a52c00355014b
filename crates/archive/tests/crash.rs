//! A crash at every step of writing: what was reported durable is there, intact, and nothing half
//! made lies under a final name.

mod support;

use annals_archive::archiver::{Batcher, ConsumerId, Limits};
use annals_archive::bucket::{Bucket, Created, DirectoryBucket};
use annals_archive::segment::SegmentWriter;
use annals_archive::{Ledger, Position};
use annals_bus::Delivery;
use annals_core::sim::SimDisk;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::*;

const ROOT: &str = "/data/bucket";
const BATCHES: usize = 4;
const EVENTS: usize = 7;
const IMAGES: usize = 6;

fn bucket_on(disk: &SimDisk) -> Arc<dyn Bucket> {
    Arc::new(DirectoryBucket::open(Arc::new(disk.clone()), ROOT).unwrap())
}

/// Archives one batch as the archiver does.
async fn archive(ledger: &Ledger, batch: usize) -> annals_archive::ledger::Entry {
    let mut batcher = Batcher::new(
        BUS,
        Limits {
            bytes: 1 << 20,
            per_consumer: 0,
        },
    );
    let from = ConsumerId {
        consumer: 0,
        generation: 1,
    };
    let hour_us = 3_600_000_000;
    for n in batch * EVENTS..(batch + 1) * EVENTS {
        let message = message(&event(n));
        let delivery = Delivery {
            tag: n as u64,
            redelivered: false,
            exchange: message.exchange,
            routing_key: message.routing_key,
            properties: message.properties,
            body: message.body,
        };
        // Every second batch in a new hour: new directories.
        batcher.push(
            from,
            &delivery,
            1_795_251_600_000_000 + batch as i64 / 2 * hour_us,
        );
    }
    let mut segments = Vec::new();
    let number = ledger.head().next().0;
    let sealed = batcher
        .take()
        .seal(BUS, number, &mut SegmentWriter::new().unwrap())
        .unwrap();
    for sealed in sealed {
        ledger
            .bucket()
            .create(&sealed.segment.name, sealed.bytes)
            .await
            .unwrap();
        segments.push(sealed.segment);
    }
    ledger.append(segments, 1, "w").await.unwrap()
}

async fn objects(bucket: &Arc<dyn Bucket>) -> BTreeMap<String, Bytes> {
    let mut objects = BTreeMap::new();
    for entry in bucket.list("", None).await.unwrap() {
        objects.insert(entry.name.clone(), bucket.get(&entry.name).await.unwrap());
    }
    objects
}

#[tokio::test]
async fn a_crash_at_any_step_keeps_what_was_reported_and_leaves_nothing_partial() {
    let disk = SimDisk::new();
    let bucket = bucket_on(&disk);
    let ledger = Ledger::open(Arc::clone(&bucket), BUS).await.unwrap();
    // Steps taken when the n-th entry was reported.
    let mut reported = vec![0];
    for batch in 0..BATCHES {
        archive(&ledger, batch).await;
        reported.push(disk.steps());
    }
    let finally = objects(&bucket).await;
    let all = read_all(&bucket, BUS).await.unwrap();
    assert_eq!(all.len(), BATCHES * EVENTS);

    let mut states = 0;
    for step in 0..=disk.steps() {
        let durable = reported.iter().rposition(|&at| at <= step).unwrap() as u64;
        for image in disk.crash_images(step, step as u64, IMAGES) {
            check_image(&image, durable, &finally, &all).await;
            states += 1;
        }
    }
    assert!(states > 1000, "only {states} states were looked at");
}

async fn check_image(
    image: &SimDisk,
    durable: u64,
    finally: &BTreeMap<String, Bytes>,
    all: &[Archived],
) {
    let bucket = bucket_on(image);
    for (name, bytes) in objects(&bucket).await {
        assert!(finally.get(&name) == Some(&bytes), "{name} is not whole");
        let again = bucket
            .create(&name, Bytes::from_static(b"other"))
            .await
            .unwrap();
        assert_eq!(again, Created::AlreadyExists, "{name}");
    }
    // Every entry that is there is intact with its segments: read_all checks the hashes.
    let archived = read_all(&bucket, BUS).await.unwrap();
    assert!(archived[..] == all[..archived.len()]);
    let ledger = Ledger::open(Arc::clone(&bucket), BUS).await.unwrap();
    assert!(
        ledger.head() >= Position(durable),
        "entry {durable} was reported, {} is there",
        ledger.head()
    );
    // And life goes on: the next batch is redelivered and archived again.
    let next = ledger.head().0 as usize;
    archive(&ledger, next).await;
    let after = read_all(&bucket, BUS).await.unwrap();
    assert_eq!(after.len(), (next + 1) * EVENTS);
    assert!(after[..archived.len()] == archived[..]);
}
