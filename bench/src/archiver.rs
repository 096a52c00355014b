//! From the archive queue to the ledger, through `LocalBus`, against a bare zstd-1 loop.

use crate::generate::Generator;
use crate::local::{messages, open_broker, open_prepared, publish_all};
use crate::measure::{self, Pair, Run};
use crate::{bare, runtime, scratch_dir};
use annals_archive::archiver::{Archiver, Config, NothingKnown};
use annals_archive::bucket::DirectoryBucket;
use annals_archive::{Bucket, Ledger};
use annals_broker::Config as BrokerConfig;
use annals_core::Event;
use annals_core::system::{SystemClock, SystemDisk};
use anyhow::{Result, ensure};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVENTS: usize = 1_000_000;
const ROUNDS: usize = 5;

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    let mut generator = Generator::new(2);
    let events: Vec<Event> = (0..EVENTS).map(|_| generator.next()).collect();
    let pair = Pair::interleave(
        ROUNDS,
        || ours(&events),
        || {
            measure::run(|| {
                bare::zstd_loop(events.iter().map(|e| &e.bytes()[..]))?;
                Ok(EVENTS as u64)
            })
        },
    )?;
    println!("## Archiver: queue to ledger, zstd-1, blake3, fsync\n");
    println!("| | k ev/s | us CPU |");
    println!("|---|---|---|");
    println!(
        "| ours | {} | {} |",
        measure::rates(&pair.ours),
        measure::cpus(&pair.ours)
    );
    println!(
        "| bare zstd-1 | {} | {} |",
        measure::rates(&pair.bare),
        measure::cpus(&pair.bare)
    );
    println!(
        "\nours/bare rate **{:.2}**, CPU {:.2}. {EVENTS} events queued before the clock starts; \
         ours includes the broker's delivery and settling.\n",
        pair.rate_ratio(),
        pair.cpu_ratio(),
    );
    Ok(())
}

/// Archives all that is queued in a broker's directory; prints events, seconds, and this process's
/// memory in MiB at its highest. In a process of its own, whose memory is that of broker and
/// archiver alone.
pub(crate) async fn backlog(dir: &Path) -> Result<()> {
    let (broker, bus) = open_broker(BrokerConfig::new(dir.join("broker"))).await?;
    let bucket: Arc<dyn Bucket> = Arc::new(DirectoryBucket::open(
        Arc::new(SystemDisk),
        dir.join("bucket"),
    )?);
    let queued = broker.stats().messages;
    let start = Instant::now();
    let archiver = Archiver::start(
        Arc::clone(&bus),
        Ledger::open(bucket, "main").await?,
        Arc::new(NothingKnown),
        Arc::new(SystemClock),
        Config::of_bus("main"),
    )?;
    while archiver.stats().received < queued {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    archiver.seal().await?;
    let seconds = start.elapsed().as_secs_f64();
    let archived = archiver.stats().archived;
    archiver.stop().await?;
    let highest = measure::memory_mib(std::process::id())?.1;
    println!("{archived} {seconds} {highest}");
    bus.close().await?;
    broker.close().await?;
    Ok(())
}

fn ours(events: &[Event]) -> Result<Run> {
    let dir = scratch_dir()?;
    let runtime = runtime()?;
    let (broker, bus) = runtime.block_on(open_prepared(&dir.path().join("broker")))?;
    runtime.block_on(publish_all(&bus, messages(events)?, 8_192))?;
    let bucket: Arc<dyn Bucket> = Arc::new(DirectoryBucket::open(
        Arc::new(SystemDisk),
        dir.path().join("bucket"),
    )?);
    let run = measure::run(|| {
        runtime.block_on(async {
            let ledger = Ledger::open(bucket, "main").await?;
            let archiver = Archiver::start(
                Arc::clone(&bus),
                ledger,
                Arc::new(NothingKnown),
                Arc::new(SystemClock),
                Config::of_bus("main"),
            )?;
            while archiver.stats().received < events.len() as u64 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            archiver.seal().await?;
            let archived = archiver.stats().archived;
            ensure!(archived == events.len() as u64, "{archived} archived");
            archiver.stop().await?;
            Ok(archived)
        })
    })?;
    runtime.block_on(async {
        bus.close().await?;
        broker.close().await
    })?;
    Ok(run)
}
