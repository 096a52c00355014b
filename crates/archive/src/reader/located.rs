//! [`Located`]: where listed events lie, found by the index in a few large steps, so that only the
//! entries, segments and frames that hold them are read.

use super::batch::Location;
use super::damage::OnDamage;
use super::decode::Wanted;
use super::plan::Plan;
use super::stream::{Events, blocking};
use super::{Archive, ReadOptions};
use crate::filter;
use crate::index::Index;
use crate::index::build::key_of;
use crate::ledger::Position;
use crate::segment::put_id_key;
use annals_core::{ErrorKind, EventSet, Result, Selection};
use std::collections::BTreeSet;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Keys looked up in one step: bounds memory at 100 bytes for each.
const KEYS_PER_STEP: usize = 1 << 20;
/// Lookups after which reading everything costs less: ids without a source are looked up under
/// every source there is.
const KEYS_MAX: usize = 1 << 26;

/// Where the events of a list lie in an archive up to one position, each once.
#[derive(Debug)]
pub struct Located {
    events: Arc<EventSet>,
    until: Position,
    /// In ledger order.
    hits: Vec<Hit>,
    found: Bits,
    several: Bits,
}

/// An archived event that is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    pub(crate) location: Location,
    /// What an id filter knows it by.
    pub(crate) filter_hash: u64,
}

impl Located {
    /// The list.
    pub fn events(&self) -> &Arc<EventSet> {
        &self.events
    }

    /// How many archived events are listed.
    pub fn len(&self) -> usize {
        self.hits.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// Where they lie, in ledger order.
    pub fn locations(&self) -> impl ExactSizeIterator<Item = Location> {
        self.hits.iter().map(|hit| hit.location)
    }

    /// What is listed and not archived, by its number in the list, ascending.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        (0..self.events.len()).filter(|&number| !self.found.contains(number))
    }

    /// How many ids that were listed without a source are those of several events.
    pub fn several(&self) -> usize {
        self.several.count()
    }

    /// Those of one ledger entry.
    pub(crate) fn at(&self, position: Position) -> &[Hit] {
        let from = self
            .hits
            .partition_point(|hit| hit.location.position < position);
        let rest = &self.hits[from..];
        &rest[..rest.partition_point(|hit| hit.location.position == position)]
    }

    /// The ledger entries after one position up to another that hold some.
    pub(crate) fn positions(&self, after: Position, until: Position) -> Vec<Position> {
        let mut positions = Vec::new();
        for Location { position, .. } in self.locations() {
            let wanted = (after.next()..=until).contains(&position);
            if wanted && positions.last() != Some(&position) {
                positions.push(position);
            }
        }
        positions
    }

    fn new(events: &Arc<EventSet>, until: Position) -> Self {
        Self {
            events: Arc::clone(events),
            until,
            hits: Vec::new(),
            found: Bits::new(events.len()),
            several: Bits::new(events.len()),
        }
    }

    fn add(&mut self, number: usize, hit: Hit) {
        if self.found.insert(number) {
            self.several.insert(number);
        }
        self.hits.push(hit);
    }

    fn finish(mut self) -> Self {
        // Listed with its source and without, an event is found twice.
        self.hits.sort_unstable();
        self.hits.dedup();
        self.hits.shrink_to_fit();
        self
    }
}

impl Archive {
    /// Where the event lies that was archived first under this source and id.
    pub async fn locate(&self, source: &str, id: &str) -> Result<Option<Location>> {
        // An index ahead of the pinned position may name a place after it.
        let found = self.look_up(source, id).await?;
        Ok(found.filter(|location| location.position <= self.pinned))
    }

    /// Where all events of an id lie, whatever their sources, in ledger order.
    ///
    /// Reads the archive where it holds events of more than a thousand sources.
    pub async fn locate_id(&self, id: &str) -> Result<Vec<Location>> {
        let mut events = EventSet::new();
        events.insert_id(id)?;
        let located = self.locate_all(&Arc::new(events)).await?;
        Ok(located.locations().collect())
    }

    /// Where listed events lie. The answer for a list is kept until the next one.
    pub async fn locate_all(&self, events: &Arc<EventSet>) -> Result<Arc<Located>> {
        self.located(events, OnDamage::Stop).await
    }

    /// Where listed events lie, as far as the index tells without reading the archive: `None` for
    /// ids without a source where there are too many sources to try.
    pub async fn look_up_all(&self, events: &Arc<EventSet>) -> Result<Option<Arc<Located>>> {
        let index = self.index(OnDamage::Report).await?;
        match sources_to_try(&index, events) {
            Some(_) => self.located(events, OnDamage::Report).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn located(
        &self,
        events: &Arc<EventSet>,
        on_damage: OnDamage,
    ) -> Result<Arc<Located>> {
        let mut kept = self.located.lock().await;
        let same =
            |kept: &&Arc<Located>| Arc::ptr_eq(&kept.events, events) && kept.until == self.pinned;
        if let Some(located) = kept.as_ref().filter(same) {
            return Ok(Arc::clone(located));
        }
        // Makes room before the next takes it.
        *kept = None;
        let index = self.index(on_damage).await?;
        let located = match self.locate_by(&index, events, on_damage).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let index = self.index_anew(on_damage).await?;
                self.locate_by(&index, events, on_damage).await?
            }
            located => located?,
        };
        Ok(Arc::clone(kept.insert(Arc::new(located))))
    }

    async fn locate_by(
        &self,
        index: &Arc<Index>,
        events: &Arc<EventSet>,
        on_damage: OnDamage,
    ) -> Result<Located> {
        match sources_to_try(index, events) {
            Some(sources) => self.locate_by_keys(index, events, sources).await,
            None => self.locate_by_reading(index, events, on_damage).await,
        }
    }

    async fn locate_by_keys(
        &self,
        index: &Index,
        events: &Arc<EventSet>,
        sources: BTreeSet<String>,
    ) -> Result<Located> {
        let mut located = Located::new(events, self.pinned);
        let sources: Arc<[String]> = sources.into_iter().collect();
        let mut next = (0, 0);
        while next.0 < events.len() {
            let (events, sources) = (Arc::clone(events), Arc::clone(&sources));
            let step =
                blocking(move || Ok(Step::take(&events, &sources, next, KEYS_PER_STEP))).await?;
            next = step.next;
            for (key, location) in index.find_all(&step.distinct, self.pinned).await? {
                step.add_to(&mut located, key, location);
            }
        }
        blocking(move || Ok(located.finish())).await
    }

    /// Reads every event once.
    async fn locate_by_reading(
        &self,
        index: &Arc<Index>,
        events: &Arc<EventSet>,
        on_damage: OnDamage,
    ) -> Result<Located> {
        let mut located = Located::new(events, self.pinned);
        let selection = Selection {
            events: Some(Arc::clone(events)),
            ..Selection::all()
        };
        let wanted = Wanted {
            plan: Plan::new(&selection),
            check_headers: on_damage == OnDamage::Report,
        };
        let options = ReadOptions {
            on_damage,
            ..ReadOptions::default()
        };
        let source = self.source(Some(Arc::clone(index)));
        let mut read = Events::start(source, Arc::new(wanted), &options, self.pinned, false);
        let mut text = Vec::new();
        while let Some(batch) = read.next().await? {
            for event in batch.iter() {
                let event = event?;
                let (source, id) = event.header.key();
                text.clear();
                put_id_key(source, id, &mut text);
                let hit = Hit {
                    location: event.location,
                    filter_hash: filter::hash(&text),
                };
                for number in [events.find(Some(source), id), events.find(None, id)] {
                    number.into_iter().for_each(|n| located.add(n, hit));
                }
            }
        }
        Ok(located.finish())
    }
}

/// The sources under which ids without one are looked up; `None` if reading everything costs less.
fn sources_to_try(index: &Index, events: &EventSet) -> Option<BTreeSet<String>> {
    let alone = events.of_any_source();
    if alone == 0 {
        return Some(BTreeSet::new());
    }
    let sources = index.sources()?;
    (alone.saturating_mul(sources.len()) <= KEYS_MAX).then_some(sources)
}

/// Some of a list, as keys of the index.
struct Step {
    keys: Vec<Key>,
    distinct: Arc<[u128]>,
    /// The number in the list, and under which source, that comes after.
    next: (usize, usize),
}

struct Key {
    key: u128,
    filter_hash: u64,
    number: u32,
}

impl Step {
    /// At most so many, from a number on, and under a source on where it has none.
    fn take(events: &EventSet, sources: &[String], from: (usize, usize), most: usize) -> Self {
        let mut keys = Vec::new();
        let mut text = Vec::new();
        let (mut number, mut under) = from;
        while number < events.len() && keys.len() < most {
            let (source, id) = events.get(number);
            let asked = source.or_else(|| sources.get(under).map(String::as_str));
            if let Some(asked) = asked {
                keys.push(Key {
                    key: key_of(asked, id, &mut text),
                    // The key was made of the same text.
                    filter_hash: filter::hash(&text),
                    number: number as u32,
                });
                under += 1;
            }
            if source.is_some() || under >= sources.len() {
                (number, under) = (number + 1, 0);
            }
        }
        keys.sort_unstable_by_key(|key| key.key);
        let mut distinct: Vec<u128> = keys.iter().map(|key| key.key).collect();
        distinct.dedup();
        Self {
            keys,
            distinct: distinct.into(),
            next: (number, under),
        }
    }

    fn add_to(&self, located: &mut Located, key: u128, location: Location) {
        let from = self.keys.partition_point(|known| known.key < key);
        for known in self.keys[from..]
            .iter()
            .take_while(|known| known.key == key)
        {
            let filter_hash = known.filter_hash;
            located.add(
                known.number as usize,
                Hit {
                    location,
                    filter_hash,
                },
            );
        }
    }
}

/// A set of small numbers.
#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn contains(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    /// Whether it was there already.
    fn insert(&mut self, number: usize) -> bool {
        let was = self.contains(number);
        self.0[number / 64] |= 1 << (number % 64);
        was
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}
