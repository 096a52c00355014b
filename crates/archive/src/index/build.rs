//! From the events of one ledger entry to its run: keys sorted, looked up in the runs before,
//! duplicates written as a skip list.

use super::part::Row;
use super::run::{Run, RunWriter};
use super::skips::SkipList;
use super::store::Store;
use super::tally::{Counts, Day, Producers, Sources, day_of_us};
use super::wire;
use crate::ledger::Position;
use crate::reader::{Batch, blocking};
use annals_core::{Header, Result};
use std::collections::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh64::xxh64;

/// What became of an entry's events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Built {
    pub(super) events: u64,
    pub(super) duplicates: u64,
    pub(super) conflicts: u64,
}

/// Makes the run of one entry, given the runs of all entries before it.
pub(super) async fn build(store: &Store, before: &[Run], batch: Batch) -> Result<(Run, Built)> {
    let position = batch.position();
    let scan = move || Ok((Scanned::new(&batch)?, batch));
    let (mut found, batch) = blocking(scan).await?;
    let keys: Arc<[u128]> = found.rows.iter().map(|row| row.key).collect();
    for run in before {
        for known in run.find(store, &keys).await? {
            found.known(run.meta.first, &known);
        }
    }
    found.drop_known();
    let built = Built {
        events: batch.len() as u64,
        duplicates: found.skips.len() as u64,
        conflicts: found.conflicts.len() as u64,
    };
    let mut writer = RunWriter::new(store, position.0, position.0);
    for row in &found.rows {
        if writer.push(row) {
            writer.flush().await?;
        }
    }
    let parts = writer.finish().await?;
    let meta = blocking(move || found.into_meta(&batch, parts)).await?;
    Ok((Run::create(store, meta).await?, built))
}

/// The records of a batch that is in no run: which are copies of an event that the runs have up to
/// a position, or of an earlier record of the batch.
pub(super) async fn copies(
    store: &Store,
    runs: &[Run],
    until: Position,
    batch: Batch,
) -> Result<SkipList> {
    let mut found = blocking(move || Scanned::new(&batch)).await?;
    let keys: Arc<[u128]> = found.rows.iter().map(|row| row.key).collect();
    for run in runs.iter().filter(|run| run.meta.first <= until.0) {
        for known in run.find(store, &keys).await? {
            if run.position(&known) <= until {
                found.known(run.meta.first, &known);
            }
        }
    }
    found.drop_known();
    Ok(SkipList::new(found.skips))
}

/// The events of an entry, ready to be looked up.
struct Scanned {
    position: u64,
    /// By key, one each.
    rows: Vec<Row>,
    /// Rows that are known from an entry before, by their place in `rows`.
    known: Vec<usize>,
    skips: Vec<u32>,
    conflicts: Vec<wire::Conflict>,
    producers: Producers,
    sources: Sources,
}

impl Scanned {
    fn new(batch: &Batch) -> Result<Self> {
        let mut scanned = Self {
            position: batch.position().0,
            rows: Vec::with_capacity(batch.len()),
            known: Vec::new(),
            skips: Vec::new(),
            conflicts: Vec::new(),
            producers: Producers::default(),
            sources: Sources::default(),
        };
        let mut text = Vec::new();
        for event in batch.iter() {
            let event = event?;
            let Header {
                source,
                id,
                producer_id,
                producer_seq,
                ..
            } = event.header;
            scanned.sources.add(source);
            scanned.rows.push(Row {
                key: key_of(source, id, &mut text),
                content: xxh64(event.event, 0),
                entry: 0,
                ordinal: event.location.ordinal,
            });
            if let (Some(producer), Some(number)) = (producer_id, producer_seq) {
                scanned.producers.add(producer, number, number);
            }
        }
        // The first copy first: it wins.
        scanned
            .rows
            .sort_unstable_by_key(|row| (row.key, row.ordinal));
        let mut rows = std::mem::take(&mut scanned.rows);
        rows.dedup_by(|later, first| {
            let twice = later.key == first.key;
            if twice {
                scanned.duplicate(scanned.position, first, later);
            }
            twice
        });
        scanned.rows = rows;
        Ok(scanned)
    }

    /// Takes note of a row that a run which starts at `first` has already.
    fn known(&mut self, first: u64, known: &Row) {
        let Ok(at) = self.rows.binary_search_by_key(&known.key, |row| row.key) else {
            return;
        };
        let ours = self.rows[at];
        self.known.push(at);
        self.duplicate(first + u64::from(known.entry), known, &ours);
    }

    fn duplicate(&mut self, first_entry: u64, first: &Row, other: &Row) {
        self.skips.push(other.ordinal);
        if first.content != other.content {
            self.conflicts.push(wire::Conflict {
                first_entry,
                first_ordinal: first.ordinal,
                other_entry: self.position,
                other_ordinal: other.ordinal,
            });
        }
    }

    fn drop_known(&mut self) {
        self.known.sort_unstable();
        let mut known = self.known.iter().peekable();
        let mut at = 0;
        self.rows.retain(|_| {
            let is_known = known.next_if(|&&k| k == at).is_some();
            at += 1;
            !is_known
        });
        self.skips.sort_unstable();
        self.conflicts
            .sort_unstable_by_key(|conflict| conflict.other_ordinal);
    }

    fn into_meta(self, batch: &Batch, parts: Vec<wire::Part>) -> Result<wire::Run> {
        let skips = SkipList::new(self.skips);
        let counts = count(batch, &skips)?;
        let mut encoded = Vec::new();
        skips.encode_into(&mut encoded);
        let mut meta = wire::Run {
            first: self.position,
            last: self.position,
            parts,
            skips: vec![encoded.into()],
            counts: counts.to_wire(),
            producers: self.producers.to_wire(),
            conflicts: self.conflicts,
            ..wire::Run::default()
        };
        self.sources.put_wire(&mut meta);
        Ok(meta)
    }
}

/// Counts the distinct events per type and day.
fn count(batch: &Batch, skips: &SkipList) -> Result<Counts> {
    let mut skips = skips.cursor();
    let mut counted: HashMap<(&str, Day, Option<Day>), u64> = HashMap::new();
    for event in batch.iter() {
        let event = event?;
        if skips.contains(event.location.ordinal) {
            continue;
        }
        let archived = day_of_us(event.received_at_us);
        let happened = event
            .header
            .time
            .map(|time| day_of_us(time.as_microsecond()));
        *counted
            .entry((event.header.event_type, archived, happened))
            .or_default() += 1;
    }
    let mut counts = Counts::default();
    for ((event_type, archived, happened), count) in counted {
        *counts
            .archived
            .entry((event_type.to_owned(), archived))
            .or_default() += count;
        *counts
            .happened
            .entry((event_type.to_owned(), happened))
            .or_default() += count;
    }
    Ok(counts)
}

/// The key of (source, id); `text` is any buffer, used again.
pub(crate) fn key_of(source: &str, id: &str, text: &mut Vec<u8>) -> u128 {
    text.clear();
    crate::segment::put_id_key(source, id, text);
    let hash = blake3::hash(text);
    let first = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    u128::from_be_bytes(*first)
}
