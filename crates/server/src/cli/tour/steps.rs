//! The steps of the tour between start and stop; each checks its own result.

use super::figures::Figures;
use super::questions;
use crate::cli::publish::{FileOptions, FileReport, connect, publish_file};
use crate::exit::{Exit, Failure, Result, at_path};
use crate::history::{History, Stats, Verification};
use crate::ingest::Ingest;
use crate::output::{bytes_text, grouped};
use crate::platform::{Parts, Platform};
use crate::replays::{Prepared, ReplayRequest};
use crate::sample;
use annals_bus::{Bus, LocalBus, Settle, Tags};
use annals_core::properties::REPLAY_ID;
use annals_core::{Event, Selection, Subject, frame};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Deliveries the private replay's consumer is handed ahead.
const PREFETCH: u32 = 1_000;
/// Lines of a file that are converted at a time.
const LINES_AT_ONCE: usize = 20_000;
/// Events of one call when all are published a second time.
const REPEAT_EVENTS: usize = 10_000;
/// Takes them all.
pub(super) async fn take(
    platform: &Platform,
    dir: &Path,
    from: Option<PathBuf>,
    figures: &mut Figures,
) -> Result<()> {
    let parts = platform.parts();
    let stored = parts.push_schemas(sample::schemas()).await?;
    let types = parts.ingest().catalog().types().count();
    figures.step(
        "schema",
        format!("{types} types described by revision {}", stored.revision),
    );

    let path = match from {
        Some(path) => path,
        None => write_sample(dir)?,
    };
    // What the publisher sends, made apart from it: what comes back is compared with this.
    let expected = Expected::read(&path, &parts.ingest())?;
    figures.step(
        "read",
        format!(
            "{} events of {} subjects",
            grouped(expected.count()),
            expected.subjects.len()
        ),
    );

    publish(platform, &path, &expected, figures).await?;
    archive(parts, &expected, figures).await?;
    verify(parts, &expected, figures).await?;
    questions::ask(parts, &expected, figures).await?;
    replay_file(parts, dir, &expected, figures).await?;
    replay_subject(parts, &expected, figures).await?;
    replay_private(parts, &expected, figures).await?;
    publish_again(platform, expected, figures).await
}

fn write_sample(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("events-5000.jsonl.zst");
    std::fs::write(&path, sample::EVENTS).map_err(at_path(&path))?;
    Ok(path)
}

async fn publish(
    platform: &Platform,
    path: &Path,
    expected: &Expected,
    figures: &mut Figures,
) -> Result<()> {
    let report = publish_over_amqp(platform, path).await?;
    agree("events published", report.published, expected.count())?;
    agree("bytes published", report.bytes, expected.bytes())?;
    figures.events(
        "publish",
        report.published,
        format!(
            "{} events, {}, confirmed over AMQP",
            grouped(report.published),
            bytes_text(report.bytes)
        ),
    );
    Ok(())
}

async fn publish_over_amqp(platform: &Platform, path: &Path) -> Result<FileReport> {
    let connection = connect(&platform.address().amqp_uri()).await?;
    let options = FileOptions {
        keep_going: false,
        bad_line: &|_, _| {},
        progress: &|_| {},
    };
    let ingest = platform.parts().ingest();
    let ended = publish_file(&connection.publisher, ingest, path.to_owned(), options).await;
    connection.close().await;
    ended.map_err(|(_, failure)| failure)
}

async fn archive(parts: &Parts, expected: &Expected, figures: &mut Figures) -> Result<()> {
    parts.seal().await?;
    let stats = stats(parts).await?;
    agree("events archived", stats.events, expected.distinct)?;
    agree("records archived", stats.records, expected.count())?;
    agree("undecodable bodies", stats.undecodable, 0)?;
    figures.events(
        "archive",
        stats.records,
        format!(
            "segments in the ledger: {}, {}, entries: {}",
            stats.segments,
            bytes_text(stats.bytes),
            stats.ledger_position
        ),
    );
    Ok(())
}

async fn verify(parts: &Parts, expected: &Expected, figures: &mut Figures) -> Result<()> {
    let found = Verification::of_bucket(parts.bucket().clone(), None).await?;
    agree("records verified", found.records, expected.count())?;
    if let Some(finding) = found.findings.first() {
        let message = format!("{}: {}: {}", finding.kind, finding.name, finding.detail);
        return Err(Failure::new(Exit::Difference, message));
    }
    figures.events(
        "verify",
        found.records,
        format!(
            "chain, hashes and {} records intact, {} read",
            grouped(found.records),
            bytes_text(found.bytes)
        ),
    );
    Ok(())
}

/// Replays everything to a file, and compares it with what was published, byte by byte.
async fn replay_file(
    parts: &Parts,
    dir: &Path,
    expected: &Expected,
    figures: &mut Figures,
) -> Result<()> {
    let path = dir.join("replayed.binpb");
    let prepared = prepare(parts).await?;
    let selected = prepared.plan().selected;
    agree("events selected", selected, expected.distinct)?;
    let mut target = prepared.file(parts.config().disk.clone(), path.clone())?;
    let receipt = prepared.run(&mut target, |_| {}).await?;
    agree("events delivered to the file", receipt.delivered, selected)?;
    let replayed = std::fs::read(&path).map_err(at_path(&path))?;
    compare("the replayed file", &replayed, &expected.once(|_| true))?;
    figures.events(
        "replay",
        selected,
        format!(
            "{} events to a file, {}, equal to what was published",
            grouped(selected),
            bytes_text(replayed.len() as u64)
        ),
    );
    Ok(())
}

/// Replays the smallest subject, and compares it in order.
async fn replay_subject(parts: &Parts, expected: &Expected, figures: &mut Figures) -> Result<()> {
    let smallest = expected.subjects.iter().min_by_key(|(_, count)| **count);
    let Some((subject, count)) = smallest else {
        return Err(Failure::new(Exit::NothingMatched, "no event has a subject"));
    };
    let selection = Selection {
        subject: Some(Subject::new(subject)?),
        ..Selection::all()
    };
    let mut stream = history(parts).await?.delimited(&selection).await?;
    let mut replayed = Vec::new();
    while let Some(part) = stream.next().await {
        replayed.extend_from_slice(&part?);
    }
    let wanted = expected.once(|event| event.header().subject == Some(subject));
    compare("the replayed subject", &replayed, &wanted)?;
    figures.events(
        "subject",
        *count,
        format!("{} events of {subject}, in order", grouped(*count)),
    );
    Ok(())
}

/// Replays everything to an exchange of its own, takes it from there, and compares it; nothing of
/// it reaches the archive.
async fn replay_private(parts: &Parts, expected: &Expected, figures: &mut Figures) -> Result<()> {
    const QUEUE: &str = "annals.tour.rebuild";
    let prepared = prepare(parts).await?;
    let mut target = prepared
        .private(parts.broker(), &[QUEUE.to_owned()])
        .await?;
    let receipt = prepared.run(&mut target, |_| {}).await?;
    agree(
        "events delivered to the exchange",
        receipt.delivered,
        expected.distinct,
    )?;
    let bus = LocalBus::new(parts.broker());
    let mut consumer = bus.consume(QUEUE, PREFETCH).await?;
    let (mut heard, mut count) = (Vec::new(), 0);
    while count < expected.distinct {
        let Some(deliveries) = consumer.next().await? else {
            return Err(Failure::new(
                Exit::Difference,
                "the replay's queue ended early",
            ));
        };
        let Some(last) = deliveries.last().map(|d| d.tag) else {
            continue;
        };
        for delivery in &deliveries {
            if delivery.properties.header(REPLAY_ID).is_none() {
                return Err(Failure::new(
                    Exit::Difference,
                    "a replayed delivery is not marked",
                ));
            }
            frame::put(&delivery.body, &mut heard);
            count += 1;
        }
        consumer.settle(Settle::Ack, Tags::UpTo(last)).await?;
    }
    bus.close().await?;
    compare("the private replay", &heard, &expected.once(|_| true))?;
    parts.seal().await?;
    agree(
        "records after a private replay",
        stats(parts).await?.records,
        expected.count(),
    )?;
    figures.events(
        "private",
        count,
        format!(
            "{} events through an exchange of its own, none archived again",
            grouped(count)
        ),
    );
    Ok(())
}

async fn prepare(parts: &Parts) -> Result<Prepared> {
    let request = ReplayRequest {
        selection: Default::default(),
        to: None,
        rate: None,
    };
    let config = parts.config();
    let archive = parts.archive().await?;
    Prepared::new(archive, &request, config.clock.clone(), &*config.random).await
}

/// Publishes the same events a second time: the archive keeps them, and counts nothing twice.
async fn publish_again(
    platform: &Platform,
    expected: Expected,
    figures: &mut Figures,
) -> Result<()> {
    let (count, distinct) = (expected.count(), expected.distinct);
    let connection = connect(&platform.address().amqp_uri()).await?;
    for part in expected.events.chunks(REPEAT_EVENTS) {
        for result in connection.publisher.publish_events(part.to_vec()).await {
            result.map_err(|refusal| refusal.error)?;
        }
    }
    connection.close().await;
    let parts = platform.parts();
    parts.seal().await?;
    let stats = stats(parts).await?;
    agree("records after publishing twice", stats.records, 2 * count)?;
    agree("events after publishing twice", stats.events, distinct)?;
    agree("conflicts after publishing twice", stats.conflicts, 0)?;
    let selected = history(parts).await?.count(&Selection::all()).await?;
    agree("events selected after publishing twice", selected, distinct)?;
    questions::ask_again(parts, &expected.types).await?;
    figures.events(
        "repeat",
        count,
        format!(
            "published again: {} duplicates kept, none counted",
            grouped(stats.duplicates)
        ),
    );
    Ok(())
}

async fn history(parts: &Parts) -> Result<History> {
    Ok(History::new(parts.archive().await?, parts.bucket().clone()))
}

async fn stats(parts: &Parts) -> Result<Stats> {
    history(parts).await?.stats().await
}

pub(super) fn agree(what: &str, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!("{what}: {}, not {}", grouped(found), grouped(expected));
    Err(Failure::new(Exit::Difference, message))
}

fn compare(what: &str, found: &[u8], expected: &[u8]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let at = found
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let message = format!(
        "{what} has {} bytes of {}, and differs from byte {at} on",
        found.len(),
        expected.len()
    );
    Err(Failure::new(Exit::Difference, message))
}

/// The events of a file, as they have to come back.
#[derive(Default)]
pub(super) struct Expected {
    events: Vec<Event>,
    /// Events of different (source, id); so are those counted by type and subject.
    pub(super) distinct: u64,
    pub(super) types: BTreeMap<String, u64>,
    pub(super) subjects: BTreeMap<String, u64>,
}

impl Expected {
    fn read(path: &Path, ingest: &Ingest) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(at_path(path))?;
        let packed = path.extension().is_some_and(|e| e == "zst");
        let reader: Box<dyn Read> = match packed {
            true => Box::new(zstd::Decoder::new(file)?),
            false => Box::new(file),
        };
        let mut expected = Self::default();
        let mut keys = BTreeSet::new();
        let mut lines = BufReader::new(reader).split(b'\n');
        loop {
            let part: Vec<_> = lines
                .by_ref()
                .take(LINES_AT_ONCE)
                .collect::<Result<_, _>>()?;
            if part.is_empty() {
                break;
            }
            for event in convert(&part, ingest)? {
                if keys.insert(owned_key(&event)) {
                    expected.note(&event);
                }
                expected.events.push(event);
            }
        }
        expected.distinct = keys.len() as u64;
        Ok(expected)
    }

    fn note(&mut self, event: &Event) {
        let header = event.header();
        *self.types.entry(header.event_type.to_owned()).or_default() += 1;
        if let Some(subject) = header.subject {
            *self.subjects.entry(subject.to_owned()).or_default() += 1;
        }
    }

    fn count(&self) -> u64 {
        self.events.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.events.iter().map(|e| e.bytes().len() as u64).sum()
    }

    /// The wanted events, each once, as a replay writes them.
    fn once(&self, wanted: impl Fn(&Event) -> bool) -> Vec<u8> {
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for event in self.events.iter().filter(|e| wanted(e)) {
            if seen.insert(owned_key(event)) {
                frame::put(event.bytes(), &mut out);
            }
        }
        out
    }
}

/// Converts lines on all processors; the events in their order.
fn convert(lines: &[Vec<u8>], ingest: &Ingest) -> Result<Vec<Event>> {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let share = lines.len().div_ceil(threads).max(1);
    let convert = |part: &[Vec<u8>]| -> Result<Vec<Event>, annals_core::Error> {
        part.iter().map(|line| ingest.event(line)).collect()
    };
    let converted = std::thread::scope(|scope| {
        let parts = lines
            .chunks(share)
            .map(|part| scope.spawn(move || convert(part)));
        let parts: Vec<_> = parts.collect();
        let joined = parts.into_iter().map(|part| {
            part.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(converted.into_iter().flatten().collect())
}

fn owned_key(event: &Event) -> (String, String) {
    let header = event.header();
    let (source, id) = header.key();
    (source.to_owned(), id.to_owned())
}
