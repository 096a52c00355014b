//! Proves that the archive holds what its ledger says, byte for byte, and, against a publisher's
//! own log, what was published. docs/operations: what to do about each finding.
//!
//! ```text
//!  ledger (1, 2, 3, … no hole, chain unbroken)
//!    └──► segments (there; length, hash, index)
//!           └──► frames (checksum, statistics) ──► records (decode; ordinals) ──► --against LOG
//! ```
//!
//! Reads everything, in parallel; trusts no derived data and checks the stored index too. Deletes
//! nothing, repairs nothing. Every finding names the object it is about.

mod against;
#[cfg(test)]
mod deletion;
mod segment;
#[cfg(test)]
mod tests;

pub use against::{Outcome, PublishLog};

use crate::bucket::LIST_MAX;
use crate::index::{Index, Producers};
use crate::ledger::{self, Entry, Position};
use crate::reader::{Pool, blocking};
use crate::{Bucket, layout, wire};
use annals_core::{ErrorKind, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use segment::Checked;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

/// Findings that are listed; more are counted only.
const FINDINGS_MAX: usize = 10_000;

/// How to verify.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Segments checked at a time, each on a thread of its own.
    pub parallelism: usize,
    /// What publishers say they published.
    pub against: Option<Arc<PublishLog>>,
    /// Whether the log is complete, so that an event that is not in it is a finding.
    pub closed_world: bool,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            parallelism: 2,
            against: None,
            closed_world: false,
        }
    }
}

/// What was read, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In ledger order; at most 10,000 are listed.
    pub findings: Vec<Finding>,
    /// All findings, those not listed included.
    pub finding_count: u64,
    /// Ledger entries read.
    pub entries: u64,
    /// Segments read.
    pub segments: u64,
    /// Bytes of these segments.
    pub bytes: u64,
    /// Records read, duplicates included.
    pub records: u64,
    /// Producers seen.
    pub producers: u64,
    /// Lines of the log that were held against the archive.
    pub against: u64,
    /// Segments that no ledger entry names: uploads under way, or left by a crash before their
    /// entry was written. They are no part of the archive; their events come again.
    pub unregistered: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.finding_count == 0
    }

    fn add(&mut self, kind: FindingKind, name: impl Into<String>, detail: impl Into<String>) {
        let (name, detail) = (name.into(), detail.into());
        self.push(Finding { kind, name, detail });
    }

    fn push(&mut self, finding: Finding) {
        self.finding_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The object, the producer or the event it is about.
    pub name: String,
    /// In words.
    pub detail: String,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FindingKind {
    /// A ledger entry is not there though a later one is, or was.
    LedgerEntryMissing,
    /// A ledger entry cannot be read, or its hash does not match.
    LedgerEntryDamaged,
    /// A ledger entry does not chain to the one before it, or is not the one that the stored index
    /// was made from.
    ChainBroken,
    /// A segment that the ledger names is not there.
    SegmentMissing,
    /// A segment's length, hash or index is not what the ledger says.
    SegmentDamaged,
    /// A frame's checksum, length or count does not match, or it does not decompress.
    FrameDamaged,
    /// A record or its envelope does not decode.
    RecordDamaged,
    /// What an index or the ledger says of records is not true of them: readers would miss some.
    StatisticsWrong,
    /// Numbers of a producer are missing though later ones are there.
    ProducerGap,
    /// An event whose publish succeeded is not in the archive.
    EventMissing,
    /// An event is in the archive with other bytes than were published.
    EventAltered,
    /// An event is in the archive that was not published, or whose publish failed.
    EventUnexpected,
    /// An object of the derived index is damaged; it can be rebuilt.
    IndexDamaged,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.kind, self.name, self.detail)
    }
}

/// Verifies the archive of a bus. An error is one of reaching it, never of what it holds.
pub async fn verify(bucket: Arc<dyn Bucket>, bus: &str, options: &VerifyOptions) -> Result<Report> {
    let mut run = Run {
        bucket: bucket.clone(),
        bus: bus.into(),
        options: options.clone(),
        report: Report::default(),
        producers: Producers::default(),
        named: HashSet::new(),
        indexed: Index::stands_at(bucket, bus).await?,
    };
    // Before the ledger: what an archiver registers meanwhile is then in the ledger read.
    let uploaded = run.list(&layout::raw_folder(bus)).await?;
    run.ledger_and_segments().await?;
    run.index().await?;
    run.conclude(uploaded);
    Ok(run.report)
}

struct Run {
    bucket: Arc<dyn Bucket>,
    bus: Arc<str>,
    options: VerifyOptions,
    report: Report,
    producers: Producers,
    /// Segments that the ledger names.
    named: HashSet<String>,
    /// Hashes of the entries that the stored index was made from, where it says so.
    indexed: BTreeMap<Position, ledger::EntryHash>,
}

impl Run {
    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        loop {
            let more = self
                .bucket
                .list(folder, found.last().map(String::as_str))
                .await?;
            let complete = more.len() < LIST_MAX;
            found.extend(more.into_iter().map(|entry| entry.name));
            if complete {
                return Ok(found);
            }
        }
    }

    async fn ledger_and_segments(&mut self) -> Result<()> {
        let folder = layout::ledger_folder(&self.bus);
        let names = self.list(&folder).await?;
        let mut numbers: BTreeSet<u64> = names
            .iter()
            .filter_map(|name| layout::ledger_number(&self.bus, name))
            .collect();
        self.add_unlisted(&mut numbers).await?;
        let last = numbers.last().copied().unwrap_or(0);
        let mut previous = Some(ledger::EntryHash::default());
        let mut expected = 1;
        for number in numbers {
            for missing in (expected..number).take(FINDINGS_MAX) {
                self.missing_entry(missing, "a later entry is there");
            }
            if expected < number {
                previous = None;
            }
            // The last number there is has none after it.
            expected = number.saturating_add(1);
            previous = match self.read_entry(number).await? {
                Some(entry) => {
                    self.check_chain(&entry, previous);
                    let hash = entry.hash;
                    self.check_entry(entry).await?;
                    Some(hash)
                }
                None => None,
            };
        }
        self.check_head(last).await
    }

    /// A listing made while entries are appended may show a later one without one before it.
    async fn add_unlisted(&self, numbers: &mut BTreeSet<u64>) -> Result<()> {
        let mut unlisted = Vec::new();
        let mut expected = 1;
        for &number in &*numbers {
            for missing in (expected..number).take(FINDINGS_MAX) {
                if self.is_there(missing).await? {
                    unlisted.push(missing);
                }
            }
            expected = number.saturating_add(1);
        }
        numbers.extend(unlisted);
        Ok(())
    }

    async fn is_there(&self, number: u64) -> Result<bool> {
        let name = layout::ledger_name(&self.bus, number);
        Ok(self.bucket.head(&name).await?.is_some())
    }

    /// That the last entries are gone shows only in what was derived from them.
    async fn check_head(&mut self, last: u64) -> Result<()> {
        let states = self
            .list(&format!("{}state/", layout::index_folder(&self.bus)))
            .await?;
        let numbered = states.last().and_then(|name| {
            let digits = name.rsplit('/').next()?.strip_suffix(".binpb")?;
            digits.parse().ok()
        });
        for before in (last..numbered.unwrap_or(0)).take(FINDINGS_MAX) {
            // It may have been appended, and the index made from it, since the ledger was listed.
            if !self.is_there(before + 1).await? {
                self.missing_entry(before + 1, "the index was made from it");
            }
        }
        Ok(())
    }

    fn missing_entry(&mut self, number: u64, why: &str) {
        let name = layout::ledger_name(&self.bus, number);
        let detail = format!("ledger entry {number} is missing: {why}");
        self.report
            .add(FindingKind::LedgerEntryMissing, name, detail);
    }

    async fn read_entry(&mut self, number: u64) -> Result<Option<Entry>> {
        let name = layout::ledger_name(&self.bus, number);
        let read = match self.bucket.get(&name).await {
            Ok(bytes) => ledger::decode(&bytes, &self.bus, Position(number)),
            Err(error) => Err(error),
        };
        let kind = match read {
            Ok(entry) => {
                self.report.entries += 1;
                return Ok(Some(entry));
            }
            Err(error) => match error.kind() {
                ErrorKind::NotFound => (FindingKind::LedgerEntryMissing, error),
                ErrorKind::Corrupt => (FindingKind::LedgerEntryDamaged, error),
                _ => return Err(error),
            },
        };
        self.report.add(kind.0, name, kind.1.to_string());
        Ok(None)
    }

    fn check_chain(&mut self, entry: &Entry, previous: Option<ledger::EntryHash>) {
        // Nothing to hold it against where the entry before is missing or damaged.
        if previous.is_some_and(|previous| entry.entry.previous[..] != previous) {
            let name = layout::ledger_name(&self.bus, entry.position.0);
            let before = entry.position.0 - 1;
            let detail = format!("it does not chain to entry {before}: one of both was changed");
            self.report.add(FindingKind::ChainBroken, name, detail);
        }
        // The last entry has none after it that would tell.
        let indexed = self.indexed.get(&entry.position);
        if indexed.is_some_and(|hash| entry.hash != *hash) {
            let name = layout::ledger_name(&self.bus, entry.position.0);
            let detail =
                "it was changed since the index was made from it, or the index is another ledger's";
            self.report.add(FindingKind::ChainBroken, name, detail);
        }
    }

    /// Checks the segments of an entry, and their records' ordinals together.
    async fn check_entry(&mut self, entry: Entry) -> Result<()> {
        let pool = Arc::new(Pool::default());
        let checks: Vec<_> = entry
            .entry
            .segments
            .into_iter()
            .map(|stated| self.check_segment(stated, entry.position, pool.clone()))
            .collect();
        let checks = stream::iter(checks).buffered(self.options.parallelism.max(1));
        let checked: Vec<Result<(wire::Segment, Checked)>> = checks.collect().await;
        let mut ordinals = Vec::new();
        let mut complete = true;
        for checked in checked {
            let (stated, checked) = checked?;
            self.report.segments += 1;
            self.report.bytes += checked.bytes;
            self.report.records += checked.ordinals.len() as u64;
            complete &= checked.complete;
            ordinals.extend(checked.ordinals);
            self.producers.add_all(&checked.producers);
            checked
                .findings
                .into_iter()
                .for_each(|finding| self.report.push(finding));
            self.named.insert(stated.name);
        }
        ordinals.sort_unstable();
        let dense = ordinals
            .iter()
            .enumerate()
            .all(|(at, &ordinal)| at as u32 == ordinal);
        if complete && !dense {
            let name = layout::ledger_name(&self.bus, entry.position.0);
            let detail = "the ordinals of its records are not 0, 1, 2, …";
            self.report.add(FindingKind::RecordDamaged, name, detail);
        }
        Ok(())
    }

    fn check_segment(
        &self,
        stated: wire::Segment,
        position: Position,
        pool: Arc<Pool>,
    ) -> impl Future<Output = Result<(wire::Segment, Checked)>> + use<> {
        let bucket = self.bucket.clone();
        let bus = self.bus.clone();
        let log = self.options.against.clone();
        let closed_world = self.options.closed_world;
        async move {
            let bytes: Bytes = match bucket.get(&stated.name).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let checked = Checked::missing(&stated, position);
                    return Ok((stated, checked));
                }
                Err(error) => return Err(error),
            };
            let check = move || {
                let log = log.as_deref().map(|log| (log, closed_world));
                let checked = segment::check(&stated, &bytes, &bus, position, &pool, log);
                Ok((stated, checked))
            };
            blocking(check).await
        }
    }

    async fn index(&mut self) -> Result<()> {
        for (name, error) in Index::damage(self.bucket.clone(), &self.bus).await? {
            self.report
                .add(FindingKind::IndexDamaged, name, error.to_string());
        }
        Ok(())
    }

    fn conclude(&mut self, uploaded: Vec<String>) {
        self.report.producers = self.producers.iter().count() as u64;
        for gap in self.producers.gaps() {
            let detail = format!("numbers {}..={} are missing", gap.first, gap.last);
            self.report
                .add(FindingKind::ProducerGap, gap.producer, detail);
        }
        if let Some(log) = self.options.against.clone() {
            self.report.against = log.lines();
            log.missing(|finding| self.report.push(finding));
        }
        let unregistered = uploaded
            .into_iter()
            .filter(|name| !self.named.contains(name));
        self.report.unregistered = unregistered.take(FINDINGS_MAX).collect();
    }
}
