//! The archiver's loop: receives into the open batch while the one before it is sealed.

use super::batch::{Batcher, Limits};
use super::body::Body;
use super::consume::{Arrived, ConsumerTask, Orders};
use super::open::{Asked, OpenFrames};
use super::seal::{Sealed, Sealer};
use super::{Config, Known, Stats};
use crate::ledger::{Ledger, Position};
use annals_bus::{Bus, Delivery};
use annals_core::properties::REPLAY_ID;
use annals_core::{Clock, Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

/// Groups of deliveries that wait between the consumers and the batch.
const ARRIVED_MAX: usize = 2;
/// Who asked for the open records and waits for a batch that is being sealed.
const ASKED_MAX: usize = 64;

/// What can be asked of a running archiver.
#[derive(Debug)]
pub(super) enum Request {
    /// Seal what is there and answer when it is durable and acknowledged.
    Seal(oneshot::Sender<()>),
    /// Answer with what is in no ledger entry yet.
    OpenRecords(Asked),
    /// The same, then end.
    Stop,
}

pub(super) struct Run {
    bus_name: String,
    batch_age: Duration,
    batcher: Batcher,
    /// When the open batch is old enough, if it holds anything.
    deadline: Option<Instant>,
    /// Absent while a batch is sealed: it is with the task.
    sealer: Option<Sealer>,
    /// At most one.
    sealing: JoinSet<Result<Sealed>>,
    /// Answered when the batch that is being sealed is durable.
    asked: Vec<Asked>,
    consumers: JoinSet<Result<()>>,
    orders: Vec<watch::Sender<Orders>>,
    arrived: mpsc::Receiver<Arrived>,
    known: Arc<dyn Known>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

/// What the archiver's handle sees.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stats: Mutex<Stats>,
    pub(super) position: watch::Sender<Position>,
}

impl Run {
    pub(super) fn new(
        bus: &Arc<dyn Bus>,
        ledger: Ledger,
        known: Arc<dyn Known>,
        clock: Arc<dyn Clock>,
        config: &Config,
        shared: Arc<Shared>,
    ) -> Self {
        let (send, arrived) = mpsc::channel(ARRIVED_MAX);
        let mut consumers = JoinSet::new();
        let mut orders = Vec::new();
        for number in 0..config.consumers {
            let (sender, receiver) = watch::channel(Orders::default());
            orders.push(sender);
            let task = ConsumerTask {
                bus: Arc::clone(bus),
                queue: config.queue.clone(),
                prefetch: config.prefetch,
                number,
                arrived: send.clone(),
                orders: receiver,
            };
            consumers.spawn(task.run());
        }
        let limits = Limits {
            bytes: config.batch_bytes,
            per_consumer: (config.prefetch as usize).div_ceil(2),
        };
        Self {
            bus_name: ledger.bus().to_owned(),
            batch_age: config.batch_age,
            batcher: Batcher::new(ledger.bus(), limits),
            deadline: None,
            sealer: Some(Sealer {
                ledger,
                clock: Arc::clone(&clock),
                name: config.writer.clone(),
                writer: None,
            }),
            sealing: JoinSet::new(),
            asked: Vec::new(),
            consumers,
            orders,
            arrived,
            known,
            clock,
            shared,
        }
    }

    /// Runs until asked to stop, or until an error that trying again cannot help.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) -> Result<()> {
        loop {
            let age = self.deadline;
            tokio::select! {
                Some(sealed) = self.sealing.join_next() => self.sealed(sealed)?,
                Some(arrived) = self.arrived.recv() => self.receive(arrived).await?,
                () = until(age), if age.is_some() => self.start_sealing().await?,
                Some(ended) = self.consumers.join_next() => return Err(consumer_ended(ended)),
                request = requests.recv() => match request {
                    Some(Request::Seal(done)) => {
                        self.seal_all().await?;
                        // Whoever asked may be gone.
                        let _ = done.send(());
                    }
                    Some(Request::OpenRecords(asked)) => self.ask_open(asked).await?,
                    Some(Request::Stop) | None => return self.stop().await,
                },
            }
        }
    }

    async fn receive(&mut self, arrived: Arrived) -> Result<()> {
        let now_us = self.clock.now_us();
        let received = arrived.deliveries.len() as u64;
        for delivery in arrived.deliveries {
            if self.batcher.is_due(now_us) {
                self.start_sealing().await?;
            }
            if delivery.properties.header(REPLAY_ID).is_some() && self.is_repeat(&delivery).await {
                self.batcher.cover(arrived.from, delivery.tag);
            } else {
                self.batcher.push(arrived.from, &delivery, now_us);
            }
            if self.deadline.is_none() {
                self.deadline = Some(Instant::now() + self.batch_age);
            }
        }
        if self.batcher.is_due(now_us) {
            self.start_sealing().await?;
        }
        let mut stats = self.shared.stats.lock();
        stats.received += received;
        self.describe_open(&mut stats);
        Ok(())
    }

    /// Whether a delivery marked as replayed is one of ours and archived already. In doubt it is
    /// archived: a duplicate is found later, a loss is not.
    async fn is_repeat(&self, delivery: &Delivery) -> bool {
        let body = Body::of(delivery, &self.bus_name);
        let header = body.event.header();
        let replay = delivery
            .properties
            .header(REPLAY_ID)
            .and_then(|id| id.as_str());
        let repeat = async {
            let ours = match replay {
                Some(id) => self.known.is_our_replay(id).await?,
                None => false,
            };
            Ok::<_, Error>(ours && self.known.is_archived(header.source, header.id).await?)
        };
        let repeat = repeat.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell whether a replayed event is archived, archiving it");
            false
        });
        let mut stats = self.shared.stats.lock();
        if repeat {
            stats.replayed_discarded += 1;
        } else {
            stats.replayed_archived += 1;
            tracing::warn!(
                replay,
                id = header.id,
                "a replayed event reached the archive queue"
            );
        }
        repeat
    }

    /// Seals the open batch; waits first until the one before it is durable, so that there are
    /// never more than two.
    async fn start_sealing(&mut self) -> Result<()> {
        self.finish_sealing().await?;
        self.deadline = None;
        let batch = self.batcher.take();
        if batch.is_empty() {
            return Ok(());
        }
        let sealer = self
            .sealer
            .take()
            .expect("it comes back when sealing has finished");
        self.shared.stats.lock().sealing_oldest_us = batch.oldest_us();
        self.sealing.spawn(sealer.seal(batch));
        Ok(())
    }

    async fn finish_sealing(&mut self) -> Result<()> {
        while let Some(sealed) = self.sealing.join_next().await {
            self.sealed(sealed)?;
        }
        Ok(())
    }

    async fn seal_all(&mut self) -> Result<()> {
        self.start_sealing().await?;
        self.finish_sealing().await
    }

    async fn stop(mut self) -> Result<()> {
        self.seal_all().await?;
        for orders in &self.orders {
            orders.send_modify(|orders| orders.stop = true);
        }
        self.arrived.close();
        while let Some(ended) = self.consumers.join_next().await {
            // It is settled what was archived; a consumer that cannot say so is redelivered to.
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "an archive consumer did not end cleanly");
            }
        }
        Ok(())
    }

    /// A batch is durable: acknowledge it.
    fn sealed(&mut self, sealed: Result<Result<Sealed>, tokio::task::JoinError>) -> Result<()> {
        let sealed = sealed
            .map_err(|e| Error::new(ErrorKind::Internal, "sealing panicked").caused_by(e))??;
        for (from, tag) in sealed.covered {
            let ack = Some((from.generation, tag));
            self.orders[from.consumer].send_modify(|orders| orders.ack = ack);
        }
        let mut stats = self.shared.stats.lock();
        stats.undecodable += sealed.undecodable;
        stats.sealing_oldest_us = None;
        if let Some(entry) = sealed.entry {
            stats.position = entry.position;
            stats.entries += 1;
            stats.raw_bytes += sealed.raw_bytes;
            for segment in &entry.entry.segments {
                stats.segments += 1;
                stats.archived += segment.count;
                stats.stored_bytes += segment.length;
            }
            self.shared.position.send_replace(entry.position);
        }
        self.describe_open(&mut stats);
        drop(stats);
        self.sealer = Some(sealed.sealer);
        self.answer_asked();
        Ok(())
    }

    async fn ask_open(&mut self, asked: Asked) -> Result<()> {
        self.asked.retain(|asked| !asked.answer.is_closed());
        if self.asked.len() >= ASKED_MAX {
            self.finish_sealing().await?;
        }
        self.asked.push(asked);
        self.answer_asked();
        Ok(())
    }

    /// Answers unless a batch is being sealed: it is in no entry yet, and not in the open batch.
    fn answer_asked(&mut self) {
        let Some(sealer) = &self.sealer else { return };
        let after = sealer.ledger.head();
        for Asked { plan, answer } in self.asked.drain(..) {
            let frames = self.batcher.open().frames(|name| plan.wants_type(name));
            // Whoever asked may be gone.
            let _ = answer.send(OpenFrames { after, frames });
        }
    }

    fn describe_open(&self, stats: &mut Stats) {
        stats.open_records = self.batcher.open().records().into();
        stats.open_bytes = self.batcher.open().bytes() as u64;
        stats.open_oldest_us = self.batcher.open().oldest_us();
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn consumer_ended(ended: Result<Result<()>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Ok(())) => Error::new(ErrorKind::Internal, "a consumer stopped unasked"),
        Ok(Err(error)) => error.context("archive consumer"),
        Err(error) => Error::new(ErrorKind::Internal, "a consumer panicked").caused_by(error),
    }
}
