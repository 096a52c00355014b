//! Durable publish through `LocalBus`, against a bare segmented log, at several numbers in flight.

use crate::bare::BareLog;
use crate::generate::Generator;
use crate::measure::{self, Pair, Run};
use crate::{runtime, scratch_dir};
use annals_broker::{Broker, Config};
use annals_bus::publisher::event_properties;
use annals_bus::{Bus, LocalBus, Message, Outcome, Topology, topology};
use annals_core::Event;
use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

const ROUNDS: usize = 5;
/// Segments zeroed before the clock starts: enough for what is published here.
const SPARES: u32 = 7;
/// Batches of a publisher that are under way together.
const PARTS: usize = 4;
/// Most messages of a bare commit.
const GROUP_MAX: usize = 4_096;

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    println!("## `LocalBus`: durable publish\n");
    println!(
        "| in flight | ours, k ev/s | bare log behind a queue, k ev/s | ours/bare | ours, us CPU | bare, us CPU | fsyncs per 1,000 |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (in_flight, events) in [(1, 5_000), (256, 200_000), (4_096, 500_000)] {
        let mut generator = Generator::new(1);
        let events: Vec<Event> = (0..events).map(|_| generator.next()).collect();
        let mut fsyncs = 0.0;
        let pair = Pair::interleave(
            ROUNDS,
            || {
                let (run, per_thousand) = ours(&events, in_flight)?;
                fsyncs = per_thousand;
                Ok(run)
            },
            || bare(&events, in_flight),
        )?;
        println!(
            "| {in_flight} | {} | {} | **{:.2}** | {} | {} | {fsyncs:.2} |",
            measure::rates(&pair.ours),
            measure::rates(&pair.bare),
            pair.rate_ratio(),
            measure::cpus(&pair.ours),
            measure::cpus(&pair.bare),
        );
    }
    println!();
    Ok(())
}

/// A broker, with the topology of the bus `main`.
pub(crate) async fn open_broker(config: Config) -> Result<(Broker, Arc<dyn Bus>)> {
    let broker = Broker::open(
        config,
        Arc::new(SystemDisk),
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    )?;
    let bus: Arc<dyn Bus> = Arc::new(LocalBus::new(&broker));
    bus.declare(&Topology::of_bus("main")).await?;
    Ok((broker, bus))
}

/// A broker that has all the segments it will need: in the long run they are recycled, so that
/// zeroing them is not part of what is measured.
pub(crate) async fn open_prepared(dir: &Path) -> Result<(Broker, Arc<dyn Bus>)> {
    let mut config = Config::new(dir);
    config.log.spare_segments = SPARES;
    // The least that so many spares may have: no more is made.
    let segment_bytes = u64::from(config.log.segment_bytes);
    config.log.disk_bytes_max = u64::from(SPARES + 2) * segment_bytes;
    let prepared = u64::from(SPARES + 1) * segment_bytes;
    let opened = open_broker(config).await?;
    wait_for_bytes(dir, prepared)?;
    Ok(opened)
}

/// Waits until a folder takes so many bytes of the disk.
pub(crate) fn wait_for_bytes(dir: &Path, bytes: u64) -> Result<()> {
    while bytes_in(dir)? < bytes {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What the files of a folder take on the disk, those in its folders too.
fn bytes_in(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(bytes)
}

/// The messages a publisher would make of events.
pub(crate) fn messages(events: &[Event]) -> Result<Vec<Message>> {
    let exchange: Arc<str> = topology::bus_exchange("main").into();
    let message = |event: &Event| -> Result<Message> {
        Ok(Message {
            exchange: exchange.clone(),
            routing_key: event.header().event_type.into(),
            properties: event_properties(event, "bench")?,
            body: event.bytes().clone(),
            mandatory: true,
        })
    };
    events.iter().map(message).collect()
}

/// Publishes in batches, up to [`PARTS`] of them under way, so that no more than `in_flight`
/// messages are.
pub(crate) async fn publish_all(
    bus: &Arc<dyn Bus>,
    messages: Vec<Message>,
    in_flight: usize,
) -> Result<u64> {
    let count = messages.len() as u64;
    let parts = PARTS.min(in_flight);
    let bus = Arc::clone(bus);
    // On a worker, where confirms arrive too.
    let publishing = tokio::spawn(async move {
        let mut messages = messages.into_iter();
        let batches = std::iter::from_fn(|| {
            let batch: Vec<Message> = messages.by_ref().take(in_flight / parts).collect();
            (!batch.is_empty()).then_some(batch)
        });
        let outcomes = stream::iter(batches.map(|batch| bus.publish(batch))).buffered(parts);
        let is_bus = |outcomes: Vec<Outcome>| outcomes.iter().filter(|o| o.is_bus()).count();
        outcomes.map(is_bus).fold(0, async |sum, n| sum + n).await
    });
    let confirmed = publishing.await? as u64;
    ensure!(confirmed == count, "{confirmed} of {count} were confirmed");
    Ok(count)
}

fn ours(events: &[Event], in_flight: usize) -> Result<(Run, f64)> {
    let dir = scratch_dir()?;
    let messages = messages(events)?;
    let runtime = runtime()?;
    let (broker, bus) = runtime.block_on(open_prepared(&dir.path().join("broker")))?;
    let before = broker.stats().syncs;
    let run = measure::run(|| runtime.block_on(publish_all(&bus, messages, in_flight)))?;
    let fsyncs = broker.stats().syncs - before;
    runtime.block_on(async {
        bus.close().await?;
        broker.close().await
    })?;
    Ok((run, fsyncs as f64 * 1000.0 / run.events as f64))
}

/// A publisher with so many in flight, a queue, a writer that commits what is in it.
fn bare(events: &[Event], in_flight: usize) -> Result<Run> {
    let dir = scratch_dir()?;
    let bytes: usize = events.iter().map(|e| e.bytes().len() + 8).sum();
    let mut log = BareLog::new(dir.path(), bytes as u64)?;
    measure::run(|| {
        let (queue, queued) = mpsc::channel::<Bytes>();
        let (confirms, confirmed) = mpsc::channel::<usize>();
        let writer = std::thread::spawn(move || -> Result<()> {
            let mut group = Vec::new();
            while let Ok(first) = queued.recv() {
                group.push(first);
                group.extend(queued.try_iter().take(GROUP_MAX - 1));
                log.commit(group.iter().map(|payload| &payload[..]))?;
                // The publisher may have seen its last confirm.
                let _ = confirms.send(group.len());
                group.clear();
            }
            Ok(())
        });
        let mut waiting = 0;
        for event in events {
            queue.send(event.bytes().clone())?;
            waiting += 1;
            while waiting == in_flight {
                waiting -= confirmed.recv()?;
            }
        }
        while waiting > 0 {
            waiting -= confirmed.recv()?;
        }
        drop(queue);
        writer.join().expect("no panic")?;
        Ok(events.len() as u64)
    })
}
