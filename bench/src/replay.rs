//! 20 million distinct events into a consumer in process, against a bare zstd and scan loop.

use crate::generate::{Generator, TYPES};
use crate::measure::{self, Pair};
use crate::{data_dir, runtime};
use annals_archive::archiver::{Batcher, ConsumerId, Limits};
use annals_archive::bucket::DirectoryBucket;
use annals_archive::index::Index;
use annals_archive::reader::{Archive, ReadOptions};
use annals_archive::segment::SegmentWriter;
use annals_archive::{Bucket, Ledger, record};
use annals_bus::publisher::event_properties;
use annals_bus::{Delivery, topology};
use annals_core::system::SystemDisk;
use annals_core::{Header, Selection, TypePattern};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const ROUNDS: usize = 5;
const BATCH_BYTES: usize = 64 << 20;

/// How many events; 20 million unless told.
pub(crate) fn events() -> u64 {
    std::env::var("ANNALS_BENCH_EVENTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000_000)
}

/// The directory with the archive of so many events, made if it is not there.
pub(crate) fn archive_of(events: u64) -> Result<PathBuf> {
    let dir = data_dir()?.join(format!("archive-{events}"));
    if !dir.join("complete").exists() {
        eprintln!("making an archive of {events} events, once …");
        runtime()?.block_on(append(&dir, Generator::new(3), events))?;
        std::fs::write(dir.join("complete"), "")?;
    }
    Ok(dir)
}

/// A directory as a bucket.
pub(crate) fn bucket_of(dir: &Path) -> Result<Arc<dyn Bucket>> {
    Ok(Arc::new(DirectoryBucket::open(Arc::new(SystemDisk), dir)?))
}

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    let events = events();
    let dir = archive_of(events)?;
    let runtime = runtime()?;
    let bucket = bucket_of(&dir)?;
    let index = measure::run(|| runtime.block_on(catch_up(&bucket)))?;
    let segments = segments(&dir.join("raw"))?;
    let all = Pair::interleave(
        ROUNDS,
        || measure::run(|| runtime.block_on(select(&bucket, &Selection::all(), events))),
        || measure::run(|| bare(&segments, events)),
    )?;
    let one_type = Selection {
        patterns: vec![TypePattern::new(TYPES[0])?],
        ..Selection::all()
    };
    let one = measure::run(|| runtime.block_on(select(&bucket, &one_type, 0)))?;
    let full_seconds = measure::median(all.ours.iter().map(|r| r.wall.as_secs_f64()));
    println!("## Replay: {events} events into a consumer in process\n");
    println!("| | k ev/s | us CPU |");
    println!("|---|---|---|");
    println!(
        "| ours, skip lists applied | {} | {} |",
        measure::rates(&all.ours),
        measure::cpus(&all.ours)
    );
    println!(
        "| bare zstd + scan, 2 threads | {} | {} |",
        measure::rates(&all.bare),
        measure::cpus(&all.bare)
    );
    println!(
        "\nours/bare rate **{:.2}**; all in **{full_seconds:.1} s**; one type of eight ({} events) in \
         {:.2} s, **{:.2}** of the full time. Index stage before it: {:.1} s ({:.0} k ev/s) where it was \
         not there yet. Memory at its highest {} MiB.\n",
        all.rate_ratio(),
        one.events,
        one.wall.as_secs_f64(),
        one.wall.as_secs_f64() / full_seconds,
        index.wall.as_secs_f64(),
        index.rate() / 1000.0,
        measure::memory_mib(std::process::id())?.1,
    );
    Ok(())
}

async fn catch_up(bucket: &Arc<dyn Bucket>) -> Result<u64> {
    let ledger = Ledger::open(Arc::clone(bucket), "main").await?;
    Index::open_or_rebuild(&ledger).await?;
    Ok(events())
}

async fn select(bucket: &Arc<dyn Bucket>, selection: &Selection, expected: u64) -> Result<u64> {
    let archive = Archive::open(Arc::clone(bucket), "main").await?;
    let mut stream = archive.select(selection, &ReadOptions::default()).await?;
    let (mut count, mut sum) = (0u64, 0u64);
    while let Some(batch) = stream.next().await? {
        for event in batch.iter() {
            let event = event?;
            // A consumer that looks at the header, so that nothing is optimised away.
            sum = sum.wrapping_add(
                event.header.id.len() as u64 + event.header.data.bytes().len() as u64,
            );
            count += 1;
        }
    }
    ensure!(
        expected == 0 || count == expected,
        "{count} of {expected} events"
    );
    std::hint::black_box(sum);
    Ok(count)
}

/// The least that gives the same events: whole files, decompressed and scanned by two threads.
fn bare(segments: &[PathBuf], expected: u64) -> Result<u64> {
    let (next, count, sum) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(path) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                let raw = zstd::decode_all(&std::fs::read(path)?[..])?;
                let mut seen = 0;
                for record in record::iter(&raw) {
                    let header = Header::scan(record?.event)?;
                    sum.fetch_add(header.id.len() as u64, Ordering::Relaxed);
                    seen += 1;
                }
                count.fetch_add(seen, Ordering::Relaxed);
            }
            Ok(())
        };
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads
            .into_iter()
            .try_for_each(|t| t.join().expect("no panic"))
    })?;
    let count = count.into_inner();
    ensure!(count == expected, "{count} of {expected} events");
    Ok(count)
}

/// Adds events to an archive by the archiver's own batching and sealing, without a bus.
pub(crate) async fn append(dir: &Path, mut generator: Generator, events: u64) -> Result<()> {
    let bucket = bucket_of(dir)?;
    let ledger = Ledger::open(Arc::clone(&bucket), "main").await?;
    let limits = Limits {
        bytes: BATCH_BYTES,
        per_consumer: 0,
    };
    let mut batcher = Batcher::new("main", limits);
    let mut writer = SegmentWriter::new()?;
    let from = ConsumerId {
        consumer: 0,
        generation: 0,
    };
    let exchange: Arc<str> = topology::bus_exchange("main").into();
    for tag in 1..=events {
        let event = generator.next();
        let now_us = 1_760_000_000_000_000 + generator.made() as i64 * 50;
        let delivery = Delivery {
            tag,
            redelivered: false,
            exchange: exchange.clone(),
            routing_key: event.header().event_type.into(),
            properties: event_properties(&event, "bench")?,
            body: event.bytes().clone(),
        };
        batcher.push(from, &delivery, now_us);
        if batcher.is_due(now_us) || tag == events {
            let sealed = batcher
                .take()
                .seal("main", ledger.head().0 + 1, &mut writer)?;
            let mut registered = Vec::new();
            for segment in sealed {
                bucket.create(&segment.segment.name, segment.bytes).await?;
                registered.push(segment.segment);
            }
            ledger.append(registered, now_us, "bench").await?;
        }
    }
    Ok(())
}

/// All files in a directory and in those in it, in order.
pub(crate) fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    Ok(found)
}
