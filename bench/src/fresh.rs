//! Questions where the lake lags: a raw tail of 100,000 events, and an event just published.

use crate::generate::Generator;
use crate::lake::schemas;
use crate::local::{messages, open_broker, publish_all};
use crate::measure::median;
use crate::questions::about;
use crate::replay::{append, bucket_of};
use crate::scratch_dir;
use crate::sql::{ask, asked, engine, sample, scanned, spread};
use annals_archive::Ledger;
use annals_archive::archiver::{Archiver, Config, NothingKnown};
use annals_archive::reader::Batch;
use annals_broker::Config as BrokerConfig;
use annals_core::system::SystemClock;
use annals_core::{Error, ErrorKind, Event, Selection};
use annals_lake::Converter;
use annals_lake::converter::Config as ConverterConfig;
use annals_sql::tables::OpenBatch;
use anyhow::{Result, ensure};
use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::RwLock;

const TAIL: u64 = 100_000;
const ROUNDS: usize = 7;
const PUBLISHED: usize = 20;
const CONVERTED: usize = 1_000;
/// Questions that are asked again with a tail.
const AGAIN: [&str; 5] = [
    "count by",
    "source and id",
    "id alone",
    "newest 20, four",
    "newest 20, all",
];

/// Prints the part, of an archive whose lake has all of its so many events.
pub(crate) async fn run(archive: &Path, events: u64) -> Result<()> {
    let scratch = scratch_dir()?;
    let dir = scratch.path().join("archive");
    link_all(archive, &dir)?;
    append(&dir, Generator::after(8, events), TAIL).await?;
    with_tail(&dir).await?;
    just_published(&dir, &scratch.path().join("broker"), events + TAIL).await
}

async fn with_tail(dir: &Path) -> Result<()> {
    println!("With {TAIL} newer events that are not in the lake yet:\n");
    println!("| question | ours, ms | first, ms | rows | scanned |");
    println!("|---|---|---|---|---|");
    let events = sample(&engine(dir, None).await?).await?;
    for question in asked() {
        if !AGAIN.iter().any(|again| question.name.contains(again)) {
            continue;
        }
        let engine = engine(dir, None).await?;
        let event = |round: usize| &events[round * events.len() / (ROUNDS + 1)];
        let (first, _, mut summary) = ask(&engine, &about(&question.ours, event(0))).await?;
        let mut ms = Vec::new();
        for round in 1..=ROUNDS {
            let (took, _, cost) = ask(&engine, &about(&question.ours, event(round))).await?;
            ms.push(took);
            summary = cost;
        }
        println!(
            "| {} | {} | {first:.0} | {} | {} |",
            question.name,
            spread(&ms),
            summary.rows,
            scanned(&summary)
        );
    }
    println!();
    Ok(())
}

/// From publishing to an answer that has it: out of the archiver's memory, and out of the lake.
async fn just_published(dir: &Path, broker: &Path, made: u64) -> Result<()> {
    let (broker, bus) = open_broker(BrokerConfig::new(broker)).await?;
    let bucket = bucket_of(dir)?;
    let mut converter = Converter::new(
        Ledger::open(bucket.clone(), "main").await?,
        schemas()?,
        ConverterConfig::default(),
    );
    converter.catch_up().await?;
    let archiver = Archiver::start(
        bus.clone(),
        Ledger::open(bucket, "main").await?,
        Arc::new(NothingKnown),
        Arc::new(SystemClock),
        Config::of_bus("main"),
    )?;
    let archiver = Arc::new(RwLock::new(Some(archiver)));
    let engine = engine(dir, Some(Arc::new(OfArchiver(archiver.clone())))).await?;
    let mut generator = Generator::after(9, made);
    let (mut visible, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..PUBLISHED {
        let event = generator.next();
        let sql = format!(
            "SELECT time FROM events WHERE source = '{}' AND id = '{}'",
            event.header().source,
            event.header().id
        );
        let message = messages(std::slice::from_ref(&event))?;
        let start = Instant::now();
        publish_all(&bus, message, 1).await?;
        let mut times = 1.0;
        while ask(&engine, &sql).await?.1.is_empty() {
            times += 1.0;
        }
        visible.push(start.elapsed().as_secs_f64() * 1000.0);
        asked.push(times);
    }
    let more: Vec<Event> = (0..CONVERTED).map(|_| generator.next()).collect();
    let message = messages(&more)?;
    let start = Instant::now();
    publish_all(&bus, message, 1024).await?;
    let received = (PUBLISHED + CONVERTED) as u64;
    if let Some(archiver) = &*archiver.read().await {
        while archiver.stats().received < received {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        archiver.seal().await?;
    }
    let sealed = start.elapsed();
    let progress = converter.catch_up().await?;
    let converted = start.elapsed();
    ensure!(progress.events == received, "{progress:?}");
    println!(
        "Published, then asked for by source and id until it is there (archiver in the same process): \
         {} ms, asked {:.0} times. {CONVERTED} events published, sealed and converted at once: \
         sealed after {:.0} ms, in the lake after {:.0} ms.\n",
        spread(&visible),
        median(asked),
        sealed.as_secs_f64() * 1000.0,
        converted.as_secs_f64() * 1000.0,
    );
    if let Some(archiver) = archiver.write().await.take() {
        archiver.stop().await?;
    }
    bus.close().await?;
    broker.close().await?;
    Ok(())
}

/// The archiver of this process.
#[derive(Debug)]
struct OfArchiver(Arc<RwLock<Option<Archiver>>>);

#[async_trait]
impl OpenBatch for OfArchiver {
    async fn open(&self) -> annals_core::Result<Batch> {
        match &*self.0.read().await {
            Some(archiver) => Ok(archiver.open_records(&Selection::all()).await?.into_batch()),
            None => Err(Error::new(ErrorKind::Closed, "the archiver has stopped")),
        }
    }
}

/// A directory with the same files under the same names: objects of a bucket never change.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_name() == ".tmp" {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => link_all(&entry.path(), &target)?,
            false => std::fs::hard_link(entry.path(), target)?,
        }
    }
    Ok(())
}
