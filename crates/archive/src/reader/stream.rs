//! [`Events`]: the stream of batches, and the task behind it that reads ahead.
//!
//! ```text
//!  ledger ──► load (2 entries ahead) ──► decode (parallel, 4 MiB pieces) ──► merge ──► Events
//! ```
//!
//! Bounds: compressed bytes of the entries ahead, decompressed bytes of as many pieces as decode
//! in parallel, and three entries decompressed: one being put together, one waiting, one at the
//! caller's. How large an entry may be is the archiver's bound on a batch. In pieces, nothing is
//! put together, and a few pieces wait.

use super::ReadOptions;
use super::batch::Batch;
use super::damage::{Damage, OnDamage};
use super::decode::{DecodedFrame, FrameJob, Pool, Wanted};
use super::load::{Loaded, load};
use crate::index::{Index, SkipList};
use crate::ledger::{Entry, Ledger, Position};
use annals_core::{Error, ErrorKind, Result};
use futures::stream::{self, Stream, StreamExt};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Entries fetched ahead.
const ENTRIES_AHEAD: usize = 2;
/// Batches that wait for the caller.
const BATCHES_AHEAD: usize = 1;
/// Pieces that wait for the caller.
const PIECES_AHEAD: usize = 4;
/// Raw bytes decoded by one blocking task, about: hides the price of a task, keeps all cores busy.
const PIECE_RAW_BYTES: u64 = 4 << 20;
/// Damage that is reported before a reader gives up.
const DAMAGE_MAX: usize = 10_000;

/// The selected events, batch by batch, in ledger order. Dropped, it stops reading.
#[derive(Debug)]
pub struct Events {
    batches: mpsc::Receiver<Result<Batch>>,
    damage: Reported,
    task: tokio::task::JoinHandle<()>,
}

type Reported = Arc<Mutex<Vec<Damage>>>;

/// Where to read, and with whose buffers.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) ledger: Ledger,
    pub(crate) pool: Arc<Pool>,
    /// Whose skip lists apply; without one every copy is read.
    pub(crate) index: Option<Arc<Index>>,
}

impl Events {
    /// The next batch that has events; `None` after the last. After an error there are no more.
    pub async fn next(&mut self) -> Result<Option<Batch>> {
        self.batches.recv().await.transpose()
    }

    /// Takes what was found damaged and left out so far; complete once [`Events::next`] has
    /// returned `None`. Always empty under [`OnDamage::Stop`].
    pub fn damage(&self) -> Vec<Damage> {
        std::mem::take(&mut self.damage.lock())
    }

    /// Starts to read the entries `options` names, up to `until`. Must be called within a runtime.
    pub(crate) fn start(
        source: Source,
        wanted: Arc<Wanted>,
        options: &ReadOptions,
        until: Position,
        empty_too: bool,
    ) -> Self {
        let (sender, batches) = mpsc::channel(match options.in_pieces {
            true => PIECES_AHEAD,
            false => BATCHES_AHEAD,
        });
        let damage = Reported::default();
        let reading = Reading {
            source,
            wanted,
            after: Position(options.from_position.0.saturating_sub(1)),
            until: options.to_position.map_or(until, |to| to.min(until)),
            parallelism: options.parallelism.max(1),
            on_damage: options.on_damage,
            damage: damage.clone(),
            empty_too,
            in_pieces: options.in_pieces,
        };
        let task = tokio::spawn(async move {
            if let Err(error) = reading.run(&sender).await {
                // Nobody listens any more: nobody to tell.
                let _ = sender.send(Err(error)).await;
            }
        });
        Self {
            batches,
            damage,
            task,
        }
    }
}

impl Stream for Events {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reading {
    source: Source,
    wanted: Arc<Wanted>,
    after: Position,
    until: Position,
    parallelism: usize,
    on_damage: OnDamage,
    damage: Reported,
    /// Also entries without selected events, so that the caller sees every position.
    empty_too: bool,
    in_pieces: bool,
}

impl Reading {
    async fn run(&self, batches: &mpsc::Sender<Result<Batch>>) -> Result<()> {
        if self.until <= self.after {
            return Ok(());
        }
        let plan = &self.wanted.plan;
        let entries = plan.entries(&self.source.ledger, self.after, self.until);
        let loaded = entries
            .map(|entry| self.load(entry))
            .buffered(ENTRIES_AHEAD);
        let pieces = loaded.flat_map(|loaded| stream::iter(into_pieces(loaded)));
        let mut decoded = pieces
            .map(|piece| self.decode(piece))
            .buffered(self.parallelism);
        let mut frames = Vec::new();
        while let Some(piece) = decoded.next().await {
            let piece = piece?;
            for damage in piece.damage {
                self.report(damage)?;
            }
            if self.in_pieces {
                let batch = Batch::piece(piece.position, piece.frames);
                if !batch.is_empty() && batches.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            frames.extend(piece.frames);
            if !piece.ends_entry {
                continue;
            }
            let batch = self
                .merge(piece.position, std::mem::take(&mut frames))
                .await?;
            if (self.empty_too || !batch.is_empty()) && batches.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn load(&self, entry: Result<Entry>) -> Result<(Loaded, SkipList)> {
        let entry = entry?;
        let skips = match &self.source.index {
            Some(index) => index.skips(entry.position).await?,
            None => SkipList::default(),
        };
        let loaded = load(self.source.ledger.bucket(), &self.wanted.plan, entry).await?;
        Ok((loaded, skips))
    }

    async fn decode(&self, piece: Result<Piece>) -> Result<DecodedPiece> {
        let piece = piece?;
        if piece.frames.is_empty() {
            return Ok(piece.run(&Wanted::default(), &Pool::default()));
        }
        let (wanted, pool) = (self.wanted.clone(), self.source.pool.clone());
        blocking(move || Ok(piece.run(&wanted, &pool))).await
    }

    async fn merge(&self, position: Position, frames: Vec<DecodedFrame>) -> Result<Batch> {
        let merged = match frames.len() {
            0 | 1 => Batch::merge(position, frames),
            _ => blocking(move || Batch::merge(position, frames)).await,
        };
        merged.or_else(|error| {
            let (segment, frame) = (None, None);
            self.report(Damage {
                position,
                segment,
                frame,
                error,
            })?;
            Batch::merge(position, Vec::new())
        })
    }

    fn report(&self, damage: Damage) -> Result<()> {
        let mut reported = self.damage.lock();
        if self.on_damage == OnDamage::Stop || reported.len() >= DAMAGE_MAX {
            return Err(damage.into_error());
        }
        reported.push(damage);
        Ok(())
    }
}

/// Some frames of an entry, decoded by one blocking task.
struct Piece {
    position: Position,
    frames: Vec<FrameJob>,
    skips: SkipList,
    damage: Vec<Damage>,
    ends_entry: bool,
}

struct DecodedPiece {
    position: Position,
    frames: Vec<DecodedFrame>,
    damage: Vec<Damage>,
    ends_entry: bool,
}

impl Piece {
    fn run(self, wanted: &Wanted, pool: &Pool) -> DecodedPiece {
        let mut damage = self.damage;
        let mut frames = Vec::with_capacity(self.frames.len());
        for job in &self.frames {
            match job.run(wanted, &self.skips, pool, &mut damage) {
                Ok(frame) => frames.push(frame),
                Err(error) => damage.push(job.damage(error)),
            }
        }
        let (position, ends_entry) = (self.position, self.ends_entry);
        DecodedPiece {
            position,
            frames,
            damage,
            ends_entry,
        }
    }
}

fn into_pieces(loaded: Result<(Loaded, SkipList)>) -> Vec<Result<Piece>> {
    let (loaded, skips) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return vec![Err(error)],
    };
    let piece = |damage| Piece {
        position: loaded.position,
        frames: Vec::new(),
        skips: skips.clone(),
        damage,
        ends_entry: false,
    };
    let mut pieces = Vec::new();
    let mut open = piece(loaded.damage);
    let mut raw_bytes = 0;
    for job in loaded.frames {
        raw_bytes += job.index.frames[job.number].raw_length;
        open.frames.push(job);
        if raw_bytes >= PIECE_RAW_BYTES {
            pieces.push(Ok(std::mem::replace(&mut open, piece(Vec::new()))));
            raw_bytes = 0;
        }
    }
    open.ends_entry = true;
    pieces.push(Ok(open));
    pieces
}

/// Runs work that blocks or computes for long off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a blocking task panicked").caused_by(e))?
}
