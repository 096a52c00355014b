//! From the archive queue to the ledger, then the ack.
//!
//! ```text
//!  consumer ─┐             ┌► batch ──► compress ──► upload segments ──► ledger entry ─┐
//!  consumer ─┼─► normalise ┤                                                           │
//!  consumer ─┘             └► next batch, received meanwhile           ack up to ◄─────┘
//! ```
//!
//! - [`body`] — what a message's body is
//! - [`batch`] — [`Batcher`]: bounded batches, sealed whole
//!
//! - [`open`] — [`OpenRecords`]: what was received and is in no ledger entry yet
//!
//! An ack is sent only when the ledger entry that registers the message's segment is durable.
//! Nothing is refused: a body that is no event is archived as it is.

pub mod batch;
pub mod body;
mod consume;
pub mod open;
mod properties;
mod run;
mod seal;

pub use batch::{Batch, Batcher, ConsumerId, Limits};
pub use open::OpenRecords;

use crate::ledger::{Ledger, Position};
use crate::reader::Plan;
use annals_bus::{Bus, topology};
use annals_core::{Clock, Error, ErrorKind, Result, Selection};
use async_trait::async_trait;
use open::Asked;
use parking_lot::Mutex;
use run::{Request, Run, Shared};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How an archiver works. Memory: about twice [`Config::batch_bytes`], and what the consumers
/// hold ([`Config::consumers`] × [`Config::prefetch`] messages).
#[derive(Debug, Clone)]
pub struct Config {
    /// The archive queue.
    pub queue: String,
    /// A batch is sealed at this many bytes of records …
    pub batch_bytes: usize,
    /// … or when its first record is this old, or when the hour changes.
    pub batch_age: Duration,
    /// Consumers of the queue.
    pub consumers: usize,
    /// Deliveries each may hold unsettled; a batch is also sealed at half of it. 0: no limit.
    /// AMQP takes at most 65,535.
    pub prefetch: u32,
    /// Which archiver this is: stated in ledger entries.
    pub writer: String,
}

impl Config {
    /// The archiver of a bus's archive queue.
    pub fn of_bus(bus: &str) -> Self {
        Self {
            queue: topology::archive_queue(bus),
            batch_bytes: 64 << 20,
            batch_age: Duration::from_secs(60),
            consumers: 2,
            prefetch: 65_535,
            writer: "archiver".to_owned(),
        }
    }

    fn check(&self) -> Result<()> {
        if self.consumers == 0 || self.batch_bytes == 0 {
            return Err(Error::invalid(
                "an archiver needs a consumer and room for a batch",
            ));
        }
        Ok(())
    }
}

/// What is known of replays and of the archive: decides whether a delivery that is marked as
/// replayed is discarded.
#[async_trait]
pub trait Known: Debug + Send + Sync + 'static {
    /// Whether a replay of this id was started by us.
    async fn is_our_replay(&self, id: &str) -> Result<bool>;
    /// Whether the event is in the archive.
    async fn is_archived(&self, source: &str, id: &str) -> Result<bool>;
}

/// Knows nothing: every delivery is archived.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingKnown;

#[async_trait]
impl Known for NothingKnown {
    async fn is_our_replay(&self, _id: &str) -> Result<bool> {
        Ok(false)
    }
    async fn is_archived(&self, _source: &str, _id: &str) -> Result<bool> {
        Ok(false)
    }
}

/// What an archiver has done since it started, and what it has in hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Deliveries received.
    pub received: u64,
    /// Records in ledger entries.
    pub archived: u64,
    /// Of them, bodies that were no event.
    pub undecodable: u64,
    /// Replayed deliveries that were archived already, and so are not archived again.
    pub replayed_discarded: u64,
    /// Replayed deliveries that were archived: not ours, or not in the archive.
    pub replayed_archived: u64,
    /// Bytes of archived records before compression.
    pub raw_bytes: u64,
    /// Bytes of segments.
    pub stored_bytes: u64,
    /// Segments uploaded.
    pub segments: u64,
    /// Ledger entries made.
    pub entries: u64,
    /// The last of them.
    pub position: Position,
    /// Records in the open batch.
    pub open_records: u64,
    /// Bytes in the open batch.
    pub open_bytes: u64,
    /// When the first record of the open batch was received, microseconds.
    pub open_oldest_us: Option<i64>,
    /// The same for the batch that is being sealed.
    pub sealing_oldest_us: Option<i64>,
}

impl Stats {
    /// Age of the oldest event in hand that is not archived yet.
    pub fn lag(&self, now_us: i64) -> Duration {
        let oldest = self.sealing_oldest_us.or(self.open_oldest_us);
        let micros = oldest.map_or(0, |oldest| now_us.saturating_sub(oldest));
        Duration::from_micros(micros.try_into().unwrap_or(0))
    }
}

/// A running archiver. Dropped, it stops at once: what is not acknowledged is delivered again.
#[derive(Debug)]
pub struct Archiver {
    task: JoinSet<Result<()>>,
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

impl Archiver {
    /// Starts to archive a bus's queue, which must exist, into a ledger. Its head is the
    /// archiver's alone: clones see what it appends by [`Ledger::refresh`].
    pub fn start(
        bus: Arc<dyn Bus>,
        ledger: Ledger,
        known: Arc<dyn Known>,
        clock: Arc<dyn Clock>,
        config: Config,
    ) -> Result<Self> {
        config.check()?;
        let (requests, receiver) = mpsc::channel(1);
        let position = ledger.head();
        let stats = Stats {
            position,
            ..Stats::default()
        };
        let (position, _) = watch::channel(position);
        let shared = Arc::new(Shared {
            stats: Mutex::new(stats),
            position,
        });
        let run = Run::new(&bus, ledger, known, clock, &config, Arc::clone(&shared));
        let mut task = JoinSet::new();
        task.spawn(run.run(receiver));
        Ok(Self {
            task,
            requests,
            shared,
        })
    }

    /// What it has done.
    pub fn stats(&self) -> Stats {
        self.shared.stats.lock().clone()
    }

    /// The last ledger entry it made; changes with every one.
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.shared.position.subscribe()
    }

    /// Seals what was received so far without waiting for its age; returns when it is durable.
    pub async fn seal(&self) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.ask(Request::Seal(done), wait).await
    }

    /// What was received and is in no ledger entry up to [`OpenRecords::after`] yet, as far as it
    /// is selected. Nothing is sealed for it; a batch that is being sealed is waited for, so that
    /// every record is either in an entry up to there or in the answer.
    ///
    /// Takes memory for what is being filled, at most that of the open batch.
    pub async fn open_records(&self, selection: &Selection) -> Result<OpenRecords> {
        let plan = Arc::new(Plan::new(selection));
        let (answer, wait) = oneshot::channel();
        let asked = Asked {
            plan: Arc::clone(&plan),
            answer,
        };
        let open = self.ask(Request::OpenRecords(asked), wait).await?;
        open.select(plan).await
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<T>) -> Result<T> {
        let ended = || Error::new(ErrorKind::Closed, "the archiver has ended");
        let sent = self.requests.send(request).await;
        sent.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    /// Waits until it ends by itself, which it does only with an error: one that trying again
    /// cannot help. Can be dropped and called again.
    pub async fn ended(&mut self) -> Error {
        match self.task.join_next().await {
            Some(ended) => flatten(ended)
                .err()
                .unwrap_or_else(|| Error::new(ErrorKind::Internal, "the archiver stopped unasked")),
            None => Error::new(ErrorKind::Closed, "the archiver has ended"),
        }
    }

    /// Seals and acknowledges what was received, then ends. Waits for the bucket for as long as
    /// it takes; drop the future to give up.
    pub async fn stop(mut self) -> Result<()> {
        // It may have ended by itself; then the task says why.
        let _ = self.requests.send(Request::Stop).await;
        self.task.join_next().await.map_or(Ok(()), flatten)
    }
}

fn flatten(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.map_err(|e| Error::new(ErrorKind::Internal, "the archiver panicked").caused_by(e))?
}
