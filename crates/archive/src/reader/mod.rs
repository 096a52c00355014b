//! From the ledger back to events: [`Archive`].
//!
//! ```text
//!  Selection ──► ledger entries ──► segments ──► frames ──► records ──► Batch
//!               (types, times)     (index: types, times,   (header)    (in order of arrival,
//!                                   subjects)                           duplicates left out)
//! ```
//!
//! - [`batch`](Batch) — the events of one ledger entry, in place
//! - [`stream`](Events) — the batches, read ahead and decoded in parallel
//! - [`count`](Archive::count), [`get`](Archive::get) — how many, and one by (source, id)
//! - [`located`](Located) — where listed events lie, so that only what holds them is read
//! - [`damage`](Damage) — what is found damaged is named and never served
//!
//! What is not promised: order of event time. Order is that of the ledger, and within an entry
//! that of arrival; so is that of one subject, across types.

mod batch;
mod count;
mod damage;
mod decode;
mod get;
mod load;
mod located;
mod plan;
mod stream;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use batch::{Batch, EventRef, Location};
pub use damage::{Damage, OnDamage};
pub use get::Found;
pub use located::Located;
pub use stream::Events;

pub(crate) use decode::{DecodedFrame, Pool, Wanted};
pub(crate) use load::check_index;
pub(crate) use plan::{Plan, time_of};
pub(crate) use stream::{Source, blocking};

use crate::Bucket;
use crate::index::{Index, SkipList};
use crate::ledger::{Ledger, Position};
use annals_core::{Error, ErrorKind, Result, Selection};
use std::sync::Arc;

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Whether later copies of an event are read too. Without them, a lagging index is brought up
    /// to the pinned position in memory first.
    pub duplicates: bool,
    /// First ledger entry; 0 and 1 are the first there is.
    pub from_position: Position,
    /// Last ledger entry; at most the pinned one.
    pub to_position: Option<Position>,
    /// Threads that decompress.
    pub parallelism: usize,
    /// What to do about damage.
    pub on_damage: OnDamage,
    /// Whether an entry comes as it is decoded, in batches of some MiB and in no order of arrival:
    /// for callers that sort anyway.
    pub in_pieces: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            duplicates: false,
            from_position: Position(0),
            to_position: None,
            parallelism: 2,
            on_damage: OnDamage::Stop,
            in_pieces: false,
        }
    }
}

/// The archive of one bus, read-only, pinned at one position of its ledger: all that is asked of
/// it is asked of the same history, until [`Archive::refresh`].
#[derive(Debug)]
pub struct Archive {
    ledger: Ledger,
    pinned: Position,
    pool: Arc<Pool>,
    index: tokio::sync::Mutex<Option<Arc<Index>>>,
    located: tokio::sync::Mutex<Option<Arc<Located>>>,
}

impl Archive {
    /// Opens the archive of a bus and pins the last ledger entry.
    pub async fn open(bucket: Arc<dyn Bucket>, bus: &str) -> Result<Self> {
        Ok(Self::at(Ledger::open(bucket, bus).await?))
    }

    /// The archive of a ledger, pinned at its head.
    pub fn at(ledger: Ledger) -> Self {
        Self {
            pinned: ledger.head(),
            ledger,
            pool: Arc::default(),
            index: tokio::sync::Mutex::default(),
            located: tokio::sync::Mutex::default(),
        }
    }

    /// The archive of a ledger, pinned at one of its entries; 0 is before the first.
    pub async fn pinned_at(ledger: Ledger, position: Position) -> Result<Self> {
        ledger.advance_to(position).await?;
        Ok(Self {
            pinned: position,
            ..Self::at(ledger)
        })
    }

    /// The pinned position.
    pub fn position(&self) -> Position {
        self.pinned
    }

    /// Its ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Pins the last ledger entry there is now.
    pub async fn refresh(&mut self) -> Result<Position> {
        self.pinned = self.ledger.refresh().await?;
        Ok(self.pinned)
    }

    /// Reads what is selected, in ledger order.
    pub async fn select(&self, selection: &Selection, options: &ReadOptions) -> Result<Events> {
        let index = match options.duplicates {
            true => None,
            false => Some(self.index(options.on_damage).await?),
        };
        let mut plan = Plan::new(selection);
        if let Some(events) = selection.events.as_ref().filter(|_| !options.duplicates) {
            plan.located = Some(self.located(events, options.on_damage).await?);
        }
        let wanted = Wanted {
            plan,
            check_headers: options.on_damage == OnDamage::Report,
        };
        let source = self.source(index);
        Ok(Events::start(
            source,
            Arc::new(wanted),
            options,
            self.pinned,
            false,
        ))
    }

    /// The index at the pinned position: the stored one, its missing end made up in memory.
    ///
    /// A stored index that is damaged is an error that names the object: [`Index::rebuild`] makes
    /// it anew.
    pub async fn index(&self, on_damage: OnDamage) -> Result<Arc<Index>> {
        let mut kept = self.index.lock().await;
        if let Some(index) = &*kept {
            if index.position() >= self.pinned {
                return Ok(index.clone());
            }
            let mut index = Index::clone(index);
            match index
                .catch_up_to(&self.ledger, self.pinned, on_damage)
                .await
            {
                // Who writes the index went on and removed what this one named: opened anew below.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done.map(|_| kept.insert(Arc::new(index)).clone()),
            }
        }
        let mut failed_at = None;
        loop {
            let (bucket, bus) = (self.ledger.bucket().clone(), self.ledger.bus());
            let mut index = Index::open_overlay(bucket, bus).await?;
            let opened_at = index.position();
            match index
                .catch_up_to(&self.ledger, self.pinned, on_damage)
                .await
            {
                // The same, while this one caught up: again, as long as there is a newer one.
                Err(error)
                    if error.kind() == ErrorKind::NotFound
                        && failed_at.is_none_or(|before| before < opened_at) =>
                {
                    failed_at = Some(opened_at);
                }
                done => return done.map(|_| kept.insert(Arc::new(index)).clone()),
            }
        }
    }

    /// Which records of the archiver's open batch are to be left out so that every event comes
    /// once: those already archived up to the pinned position, and later copies within the batch.
    ///
    /// The archive must be pinned at the position the batch follows or later; what was archived in
    /// between is left out here. Memory: three words for each record of the batch.
    pub async fn distinct(&self, open: &Batch) -> Result<SkipList> {
        if self.pinned.next() < open.position() {
            return Err(Error::invalid(format!(
                "the open records follow ledger entry {}, the archive is pinned at {}: refresh it",
                open.position().0.saturating_sub(1),
                self.pinned
            )));
        }
        let index = self.index(OnDamage::Stop).await?;
        match index.copies(open.clone(), self.pinned).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let index = self.index_anew(OnDamage::Stop).await?;
                index.copies(open.clone(), self.pinned).await
            }
            copies => copies,
        }
    }

    /// The index, opened again: who writes it removed what the one kept here names.
    async fn index_anew(&self, on_damage: OnDamage) -> Result<Arc<Index>> {
        self.index.lock().await.take();
        self.index(on_damage).await
    }

    /// Asks the index for a place; opens it anew where its objects were replaced meanwhile.
    async fn look_up(&self, source: &str, id: &str) -> Result<Option<Location>> {
        match self.index(OnDamage::Stop).await?.lookup(source, id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let index = self.index_anew(OnDamage::Stop).await?;
                index.lookup(source, id).await
            }
            found => found,
        }
    }

    fn source(&self, index: Option<Arc<Index>>) -> Source {
        Source {
            ledger: self.ledger.clone(),
            pool: self.pool.clone(),
            index,
        }
    }
}
