//! `GET /v1/events/tail`: events as they are published, after history if that is asked for.
//!
//! JSON lines: events, and between them notes of the stream itself, which have `note` instead of
//! `specversion`. A reader slower than the bus is told how many events it missed; the archive has
//! them.

use super::broken;
use super::events::NDJSON;
use super::problem::Problem;
use crate::exit::{self, Exit, Failure};
use crate::history::SelectionText;
use crate::ingest::event_to_json;
use crate::platform::{BUS, Parts};
use annals_archive::archiver::body::Body as MessageBody;
use annals_archive::reader::ReadOptions;
use annals_bus::topology::{Destination, bus_exchange};
use annals_bus::{Binding, Bus, Consumer, LocalBus, Queue, Settle, Tags, Topology};
use annals_core::schema::Catalog;
use annals_core::{Event, Range, Result, Selection, Timestamp, random};
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Lines that wait for a slow reader; then live events are skipped.
const LINES_AHEAD: usize = 4_096;
/// Deliveries the bus hands ahead.
const PREFETCH: u32 = 1_000;
/// An event archived this long before the live stream began cannot come in it.
const OVERLAP_US: i64 = 60_000_000;

/// What the stream says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "lowercase")]
pub enum Note {
    /// History has ended: from here on it is live.
    Live,
    /// The reader was too slow for this many live events.
    Skipped {
        /// How many.
        count: u64,
    },
}

/// Starts a stream.
pub async fn get(
    State(parts): State<Arc<Parts>>,
    Query(mut pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let at_end = pairs
        .iter()
        .any(|(name, value)| name == "stop_at_end" && value == "true");
    let history = pairs.iter().any(|(name, _)| name == "range");
    pairs.retain(|(name, _)| name != "stop_at_end");
    let selection = SelectionText::from_pairs(&pairs)?.parse(parts.now())?;
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let tail = Tail {
        catalog: parts.ingest().catalog().clone(),
        live: Selection {
            range: Range::all(),
            ..selection.clone()
        },
        selection,
        sender,
        skipped: 0,
        seen: HashSet::new(),
    };
    // The queue exists before history is read, so that nothing falls between the two.
    let (bus, consumer) = subscribe(&parts, &tail.selection).await?;
    let running = {
        let parts = parts.clone();
        tokio::spawn(async move { tail.run(&parts, bus, consumer, history, at_end).await })
    };
    let lines = futures::stream::try_unfold((receiver, Some(running)), next_line);
    Ok(broken::streamed(&parts, NDJSON, lines))
}

type Running = (mpsc::Receiver<Bytes>, Option<JoinHandle<Result<()>>>);

/// A line; after the last, whether the tail ended as it should: if not, the answer breaks off.
async fn next_line((mut lines, running): Running) -> exit::Result<Option<(Bytes, Running)>> {
    if let Some(line) = lines.recv().await {
        return Ok(Some((line, (lines, running))));
    }
    let Some(running) = running else {
        return Ok(None);
    };
    match running.await {
        Ok(ended) => Ok(ended.map(|()| None)?),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!("the tail ended: {error}"),
        )),
    }
}

async fn subscribe(parts: &Parts, selection: &Selection) -> Result<(LocalBus, Box<dyn Consumer>)> {
    let id = random::mint_id(&*parts.config().clock, &*parts.config().random);
    let queue = format!("annals.{BUS}.tail.{}", id.as_str());
    let bus = LocalBus::new(parts.broker());
    let keys: Vec<String> = match selection.patterns.as_slice() {
        [] => vec!["#".to_owned()],
        patterns => patterns.iter().map(|p| p.as_str().to_owned()).collect(),
    };
    let bindings = keys.into_iter().map(|key| Binding {
        source: bus_exchange(BUS),
        destination: Destination::Queue(queue.clone()),
        key,
    });
    bus.declare(&Topology {
        exchanges: Vec::new(),
        queues: vec![Queue {
            name: queue.clone(),
            durable: false,
        }],
        bindings: bindings.collect(),
    })
    .await?;
    let consumer = bus.consume(&queue, PREFETCH).await?;
    Ok((bus, consumer))
}

struct Tail {
    catalog: Arc<Catalog>,
    /// Of history.
    selection: Selection,
    /// Of what comes live: the same, whatever its time.
    live: Selection,
    sender: mpsc::Sender<Bytes>,
    skipped: u64,
    /// Events of history that may come again live.
    seen: HashSet<(String, String)>,
}

impl Tail {
    async fn run(
        mut self,
        parts: &Parts,
        bus: LocalBus,
        mut consumer: Box<dyn Consumer>,
        history: bool,
        at_end: bool,
    ) -> Result<()> {
        if history {
            self.history(parts).await?;
            if at_end || self.note(&Note::Live).await.is_none() {
                return bus.close().await;
            }
        }
        while let Some(deliveries) = self.next(&mut *consumer).await? {
            let Some(last) = deliveries.last().map(|d| d.tag) else {
                continue;
            };
            for delivery in &deliveries {
                self.live(&MessageBody::of(delivery, BUS).event)?;
            }
            consumer.settle(Settle::Ack, Tags::UpTo(last)).await?;
            if self.skipped > 0 && self.sender.capacity() > LINES_AHEAD / 2 {
                let count = std::mem::take(&mut self.skipped);
                let _ = self.note(&Note::Skipped { count }).await;
            }
        }
        bus.close().await
    }

    /// The next deliveries; `None` when either end has gone.
    async fn next(&self, consumer: &mut dyn Consumer) -> Result<Option<Vec<annals_bus::Delivery>>> {
        tokio::select! {
            deliveries = consumer.next() => deliveries,
            () = self.sender.closed() => Ok(None),
        }
    }

    async fn history(&mut self, parts: &Parts) -> Result<()> {
        let overlap = parts.now().as_microsecond() - OVERLAP_US;
        parts.seal().await.map_err(unavailable)?;
        let archive = parts.archive().await.map_err(unavailable)?;
        let mut events = archive
            .select(&self.selection, &ReadOptions::default())
            .await?;
        while let Some(batch) = events.next().await? {
            for event in batch.iter() {
                let event = event?;
                if event.received_at_us >= overlap {
                    let (source, id) = event.header.key();
                    self.seen.insert((source.to_owned(), id.to_owned()));
                }
                let line = self.line(&Event::parse(event.to_bytes())?)?;
                if self.sender.send(line).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn live(&mut self, event: &Event) -> Result<()> {
        let header = event.header();
        let (source, id) = header.key();
        if !self.live.matches(&header, Timestamp::MIN)
            || self.seen.remove(&(source.to_owned(), id.to_owned()))
        {
            return Ok(());
        }
        if self.sender.try_send(self.line(event)?).is_err() {
            self.skipped += 1;
        }
        Ok(())
    }

    async fn note(&self, note: &Note) -> Option<()> {
        let mut line = serde_json::to_vec(note).expect("a note is plain data");
        line.push(b'\n');
        self.sender.send(line.into()).await.ok()
    }

    fn line(&self, event: &Event) -> Result<Bytes> {
        let mut line = event_to_json(&self.catalog, event)?;
        line.push(b'\n');
        Ok(line.into())
    }
}

fn unavailable(failure: crate::exit::Failure) -> annals_core::Error {
    annals_core::Error::new(annals_core::ErrorKind::Unavailable, failure.message)
}
