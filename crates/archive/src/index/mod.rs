//! The index: derived from the ledger, in its order. docs/formats/index.md.
//!
//! ```text
//!  ledger entry ──► keys of its events ──► known before? ──► skip list ─┐
//!                        └──► rows (key → place, content) ──────────────┴──► run ──► merged runs
//! ```
//!
//! - [`SkipList`] — the duplicates of an entry by (source, id), which every reader leaves out
//! - [`Index::lookup`] — where an event lies, by (source, id)
//! - [`Counts`] — distinct events per type and day
//! - [`Producers`] — the producers' numbers seen, and the gaps in them
//! - [`Conflict`] — the same (source, id) with other bytes; the first in ledger order stays
//!
//! Objects are a pure function of the ledger up to a position: made in one go, entry by entry, or
//! again, they have the same bytes. Every byte is checked before it is used; what is damaged is
//! named and made anew, never trusted. At most one process writes an index at a time.

pub(crate) mod build;
mod merge;
mod overlay;
mod part;
mod run;
mod skips;
mod store;
mod tally;
mod wire;

#[cfg(test)]
mod tests;

pub use overlay::OverlayBucket;
pub use skips::SkipList;
pub use tally::{Counts, Day, Gap, Producers};

use crate::Bucket;
use crate::ledger::{EntryHash, Ledger, Position};
use crate::reader::{Batch, Events, Location, OnDamage, ReadOptions, Source, Wanted};
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use merge::FAN_OUT;
use prost::Message;
use run::Run;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use store::{Store, checked};
use tally::Sources;

/// Entries worked off between two states, at most.
const ENTRIES_PER_STATE: u64 = 64;

/// The index of one bus. Cheap to clone; a clone goes on by itself.
#[derive(Debug, Clone)]
pub struct Index {
    store: Store,
    bus: Arc<str>,
    position: Position,
    ledger_hash: EntryHash,
    /// In ledger order, without gap from 1 to `position`.
    runs: Vec<Run>,
    /// Of the state last written; entries after it are merged apart where nothing is stored.
    stored: Position,
    /// Objects no longer named since the last state, and since the one before it.
    garbage: [Vec<String>; 2],
}

/// What [`Index::catch_up`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Position before.
    pub from: Position,
    /// Position now.
    pub to: Position,
    /// Events worked off.
    pub events: u64,
    /// How many of them are duplicates.
    pub duplicates: u64,
    /// How many of the duplicates have other bytes.
    pub conflicts: u64,
    /// Why the index was made anew from the beginning, if it was.
    pub rebuilt: Option<String>,
}

/// Two events of the same (source, id) and different bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The first in ledger order: the one that counts.
    pub first: Location,
    /// The other, which readers leave out.
    pub other: Location,
}

impl Index {
    /// Opens the index of a bus, to be kept up to date by [`Index::catch_up`]. One that does not
    /// exist is empty; one that is damaged is [`ErrorKind::Corrupt`] and names the object:
    /// [`Index::rebuild`] helps.
    pub async fn open(bucket: Arc<dyn Bucket>, bus: &str) -> Result<Self> {
        Self::empty(bucket, bus, true).load().await
    }

    /// Opens the index of a bus without ever writing to the bucket: what it catches up with stays
    /// in memory.
    pub async fn open_overlay(bucket: Arc<dyn Bucket>, bus: &str) -> Result<Self> {
        Self::empty(bucket, bus, false).load().await
    }

    /// The last ledger entry it covers.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Works off the ledger's entries up to its head. An index that is damaged, or that of another
    /// ledger, is made anew from the beginning.
    pub async fn catch_up(&mut self, ledger: &Ledger) -> Result<Progress> {
        let reason = match self
            .catch_up_to(ledger, ledger.head(), OnDamage::Stop)
            .await
        {
            Err(error) if self.is_own_damage(&error) => error.to_string(),
            done => return done,
        };
        let rebuilt = Some(reason);
        Ok(Progress {
            rebuilt,
            ..self.rebuild(ledger).await?
        })
    }

    /// Deletes the index and makes it anew from the ledger.
    pub async fn rebuild(&mut self, ledger: &Ledger) -> Result<Progress> {
        let objects = self.store.list_all().await?;
        let names: Vec<String> = objects.into_iter().map(|object| object.name).collect();
        self.store.delete(&names).await?;
        self.reset();
        self.catch_up_to(ledger, ledger.head(), OnDamage::Stop)
            .await
    }

    /// Opens the index and catches up; whatever is wrong with what is stored, it is made anew.
    pub async fn open_or_rebuild(ledger: &Ledger) -> Result<(Self, Progress)> {
        match Self::open(ledger.bucket().clone(), ledger.bus()).await {
            Ok(mut index) => {
                let progress = index.catch_up(ledger).await?;
                Ok((index, progress))
            }
            Err(error) if is_damage(&error) => {
                let mut index = Self::empty(ledger.bucket().clone(), ledger.bus(), true);
                let progress = index.rebuild(ledger).await?;
                let rebuilt = Some(error.to_string());
                Ok((
                    index,
                    Progress {
                        rebuilt,
                        ..progress
                    },
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// The duplicates of a ledger entry that is covered.
    pub async fn skips(&self, position: Position) -> Result<SkipList> {
        let at = self.runs.partition_point(|run| run.meta.last < position.0);
        match self.runs.get(at).filter(|run| run.covers(position)) {
            Some(run) => run.skips(&self.store, position),
            None => Err(Error::invalid(format!(
                "the index covers ledger entries up to {}, not {position}",
                self.position
            ))),
        }
    }

    /// Where the first event archived under this source and id lies.
    pub async fn lookup(&self, source: &str, id: &str) -> Result<Option<Location>> {
        let keys: Arc<[u128]> = [build::key_of(source, id, &mut Vec::new())].into();
        for run in self.runs.iter().rev() {
            if let Some(row) = run.find(&self.store, &keys).await?.first() {
                return Ok(Some(Location {
                    position: run.position(row),
                    ordinal: row.ordinal,
                }));
            }
        }
        Ok(None)
    }

    /// Where the events of these ascending keys lie that were archived up to `until`.
    pub(crate) async fn find_all(
        &self,
        keys: &Arc<[u128]>,
        until: Position,
    ) -> Result<Vec<(u128, Location)>> {
        let mut found = Vec::new();
        for run in self.runs.iter().filter(|run| run.meta.first <= until.0) {
            let rows = run.find(&self.store, keys).await?;
            found.extend(rows.iter().filter_map(|row| {
                let (position, ordinal) = (run.position(row), row.ordinal);
                (position <= until).then_some((row.key, Location { position, ordinal }))
            }));
        }
        Ok(found)
    }

    /// The sources of all events it covers; `None` where there are too many to be told of.
    pub(crate) fn sources(&self) -> Option<BTreeSet<String>> {
        let mut sources = Sources::default();
        self.runs.iter().for_each(|run| sources.add_wire(&run.meta));
        sources.known()
    }

    /// Which records of a batch that is not covered are copies of an event up to `until`, or of an
    /// earlier record of the batch.
    pub(crate) async fn copies(&self, batch: Batch, until: Position) -> Result<SkipList> {
        build::copies(&self.store, &self.runs, until, batch).await
    }

    /// Distinct events per type and day.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.runs
            .iter()
            .for_each(|run| counts.add(&run.meta.counts));
        counts
    }

    /// The producers' numbers seen, those of duplicates included.
    pub fn producers(&self) -> Producers {
        let mut producers = Producers::default();
        self.runs
            .iter()
            .for_each(|run| producers.add_wire(&run.meta.producers));
        producers
    }

    /// All conflicts, in ledger order.
    pub fn conflicts(&self) -> impl Iterator<Item = Conflict> {
        let location = |entry, ordinal| Location {
            position: Position(entry),
            ordinal,
        };
        let conflicts = self.runs.iter().flat_map(|run| &run.meta.conflicts);
        conflicts.map(move |c| Conflict {
            first: location(c.first_entry, c.first_ordinal),
            other: location(c.other_entry, c.other_ordinal),
        })
    }

    /// Checks every byte of every object that the stored states name; what is damaged, by name.
    pub async fn damage(bucket: Arc<dyn Bucket>, bus: &str) -> Result<Vec<(String, Error)>> {
        let mut found: Vec<(String, Error)> = Vec::new();
        let mut checked = HashSet::new();
        let index = Self::empty(bucket, bus, false);
        for state in index.store.list(&index.store.state_folder()).await? {
            let before = found.len();
            index
                .check_state(&state.name, &mut checked, &mut found)
                .await?;
            // Replaced meanwhile, it may have lost its runs: nothing to tell of.
            if found.len() > before && index.store.is_gone(&state.name).await? {
                found.truncate(before);
            }
        }
        Ok(found)
    }

    /// The ledger entries that the stored states stand at, by position: what each was made from
    /// last. States that cannot be read say nothing.
    pub async fn stands_at(
        bucket: Arc<dyn Bucket>,
        bus: &str,
    ) -> Result<BTreeMap<Position, EntryHash>> {
        let index = Self::empty(bucket, bus, false);
        let mut found = BTreeMap::new();
        for listed in index.store.list(&index.store.state_folder()).await? {
            let state = match index.read_state(&listed.name).await {
                Err(error) if is_damage(&error) => continue,
                read => read?,
            };
            if let Ok(hash) = state.ledger_hash[..].try_into() {
                found.insert(Position(state.position), hash);
            }
        }
        Ok(found)
    }

    async fn check_state(
        &self,
        name: &str,
        checked: &mut HashSet<Bytes>,
        found: &mut Vec<(String, Error)>,
    ) -> Result<()> {
        let state = match self.read_state(name).await {
            Err(error) if is_damage(&error) => {
                found.push((name.to_owned(), error));
                return Ok(());
            }
            read => read?,
        };
        for run in state
            .runs
            .iter()
            .filter(|run| checked.insert(run.hash.clone()))
        {
            match Run::open(&self.store, run).await {
                Err(error) if is_damage(&error) => {
                    found.push((self.store.run_name(run.first, run.last), error));
                }
                opened => opened?.check(&self.store, found).await?,
            }
        }
        Ok(())
    }

    /// Works off entries up to `until`.
    pub(crate) async fn catch_up_to(
        &mut self,
        ledger: &Ledger,
        until: Position,
        on_damage: OnDamage,
    ) -> Result<Progress> {
        self.check_ledger(ledger).await?;
        let mut progress = Progress {
            from: self.position,
            ..Progress::default()
        };
        let options = ReadOptions {
            from_position: self.position.next(),
            on_damage,
            ..ReadOptions::default()
        };
        let wanted = Wanted {
            check_headers: on_damage == OnDamage::Report,
            ..Wanted::default()
        };
        let source = Source {
            ledger: ledger.clone(),
            pool: Arc::default(),
            index: None,
        };
        let mut events = Events::start(source, Arc::new(wanted), &options, until, true);
        while let Some(batch) = events.next().await? {
            let position = batch.position();
            let (run, built) = build::build(&self.store, &self.runs, batch).await?;
            self.push(run, position).await?;
            progress.events += built.events;
            progress.duplicates += built.duplicates;
            progress.conflicts += built.conflicts;
            let since = self.position.0 - self.stored.0;
            if self.store.persist && since >= ENTRIES_PER_STATE {
                self.write_state(ledger).await?;
            }
        }
        if self.position > self.stored {
            self.write_state(ledger).await?;
        }
        if self.store.persist && progress.from == Position(0) {
            self.store.delete_old_format().await?;
        }
        progress.to = self.position;
        Ok(progress)
    }

    /// Takes the next entry's run, and joins as many as its number says: runs end at multiples of
    /// powers of [`FAN_OUT`], so that they depend on the position alone.
    async fn push(&mut self, run: Run, position: Position) -> Result<()> {
        self.runs.push(run);
        self.position = position;
        let mut size = FAN_OUT;
        while position.0.is_multiple_of(size) {
            let from = self.runs.len().saturating_sub(FAN_OUT as usize);
            let same = self.runs[from..]
                .iter()
                .all(|run| run.entries() == size / FAN_OUT);
            let whole = self.runs.len() - from == FAN_OUT as usize && same;
            if !whole || !self.may_merge(&self.runs[from..]) {
                break;
            }
            let merged = merge::merge(&self.store, &self.runs[from..]).await?;
            for replaced in self.runs.splice(from.., [merged]) {
                let names = replaced.names(&self.store);
                let stored = names.into_iter().filter(|name| !self.store.forget(name));
                self.garbage[0].extend(stored);
            }
            size *= FAN_OUT;
        }
        Ok(())
    }

    /// In memory only what was made in memory is joined: not all of a large stored index.
    fn may_merge(&self, runs: &[Run]) -> bool {
        self.store.persist || runs.iter().all(|run| run.meta.first > self.stored.0)
    }

    async fn write_state(&mut self, ledger: &Ledger) -> Result<()> {
        self.ledger_hash = ledger.read(self.position).await?.hash;
        if !self.store.persist {
            return Ok(());
        }
        self.store.flush().await?;
        let run_ref = |run: &Run| wire::RunRef {
            first: run.meta.first,
            last: run.meta.last,
            hash: run.hash.clone(),
        };
        let state = wire::State {
            bus: self.bus.to_string(),
            position: self.position.0,
            ledger_hash: Bytes::copy_from_slice(&self.ledger_hash),
            runs: self.runs.iter().map(run_ref).collect(),
        };
        self.store
            .put_state(self.position, checked(&state).0)
            .await?;
        let replaced = self.store.state_name(self.stored);
        self.stored = self.position;
        // What the state before named stays until the next one: a reader may just have opened it.
        let [since, before] = &mut self.garbage;
        self.store.delete(before).await?;
        *before = std::mem::take(since);
        // Goes first, so that a state that is there has what it names: who checks it relies on that.
        before.insert(0, replaced);
        Ok(())
    }

    fn empty(bucket: Arc<dyn Bucket>, bus: &str, persist: bool) -> Self {
        Self {
            store: Store::new(bucket, bus, persist),
            bus: bus.into(),
            position: Position(0),
            ledger_hash: EntryHash::default(),
            runs: Vec::new(),
            stored: Position(0),
            garbage: Default::default(),
        }
    }

    fn reset(&mut self) {
        self.position = Position(0);
        self.ledger_hash = EntryHash::default();
        self.runs.clear();
        self.stored = Position(0);
        self.garbage = Default::default();
    }

    /// Reads the newest state. While another process writes the next, the objects of the one read
    /// may go: then the newest is another, and is read.
    async fn load(mut self) -> Result<Self> {
        let mut last = None;
        loop {
            let states = self.store.list(&self.store.state_folder()).await?;
            let Some(newest) = states.last() else {
                return Ok(self);
            };
            match self.load_state(&newest.name).await {
                Err(error) if is_damage(&error) && last.as_ref() != Some(&newest.name) => {
                    last = Some(newest.name.clone());
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    let older = states[..states.len() - 1].iter();
                    self.garbage[1] = older.map(|state| state.name.clone()).collect();
                    return Ok(self);
                }
            }
        }
    }

    async fn load_state(&mut self, name: &str) -> Result<()> {
        let state = self.read_state(name).await?;
        let mut runs = Vec::with_capacity(state.runs.len());
        for run in &state.runs {
            runs.push(Run::open(&self.store, run).await?);
        }
        let hash = state.ledger_hash[..].try_into();
        self.ledger_hash = hash.map_err(|_| store::damaged(name))?;
        self.position = Position(state.position);
        self.stored = self.position;
        self.runs = runs;
        Ok(())
    }

    /// Reads a state and checks that its runs follow one another.
    async fn read_state(&self, name: &str) -> Result<wire::State> {
        let (message, _) = self.store.read_checked(name).await?;
        let damaged = || store::damaged(name);
        let state = wire::State::decode(message).map_err(|e| damaged().caused_by(e))?;
        let mut covered = 0;
        for run in &state.runs {
            if run.first.checked_sub(1) != Some(covered) || run.last < run.first {
                return Err(damaged());
            }
            covered = run.last;
        }
        let named = self.store.state_name(Position(covered)) == name;
        match state.bus == *self.bus && covered == state.position && named {
            true => Ok(state),
            false => Err(damaged()),
        }
    }

    /// The index must be one of this ledger: of the entry it stands at, the hash must be the same.
    async fn check_ledger(&self, ledger: &Ledger) -> Result<()> {
        if self.position == Position(0) {
            return Ok(());
        }
        if self.position <= ledger.head() {
            let entry = ledger.read(self.position).await?;
            if entry.hash == self.ledger_hash {
                return Ok(());
            }
        } else if ledger.refresh().await? >= self.position {
            return Box::pin(self.check_ledger(ledger)).await;
        }
        Err(Error::corrupt(format!(
            "{}: the index is that of another ledger",
            self.store.state_name(self.position)
        )))
    }

    fn is_own_damage(&self, error: &Error) -> bool {
        let own = error.to_string().contains(self.store.folder());
        is_damage(error) && own
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}
