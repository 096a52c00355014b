//! Checks one segment: the object against the ledger, frames against the index, records against
//! what is said of them. Blocking work.

use super::against::PublishLog;
use super::{Finding, FindingKind};
use crate::filter::FilterRef;
use crate::index::Producers;
use crate::ledger::Position;
use crate::reader::{Pool, check_index};
use crate::record::RecordRef;
use crate::segment::{parse_index, put_id_key};
use crate::wire::{self, TimeRange};
use annals_core::{Header, frame};
use bytes::Bytes;

/// What was found in a segment.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) findings: Vec<Finding>,
    pub(super) bytes: u64,
    /// Of all records read.
    pub(super) ordinals: Vec<u32>,
    pub(super) producers: Producers,
    /// Whether every record was read.
    pub(super) complete: bool,
}

impl Checked {
    pub(super) fn missing(stated: &wire::Segment, position: Position) -> Self {
        let detail = format!("ledger entry {position} names it, it is not there");
        let mut checked = Self::default();
        checked.add(FindingKind::SegmentMissing, &stated.name, detail);
        checked
    }

    fn add(&mut self, kind: FindingKind, name: &str, detail: String) {
        self.complete &= kind == FindingKind::StatisticsWrong;
        self.findings.push(Finding {
            kind,
            name: name.to_owned(),
            detail,
        });
    }
}

/// Checks a segment's bytes. `log`, and whether it is complete.
pub(super) fn check(
    stated: &wire::Segment,
    bytes: &Bytes,
    bus: &str,
    position: Position,
    pool: &Pool,
    log: Option<(&PublishLog, bool)>,
) -> Checked {
    let mut checked = Checked {
        complete: true,
        bytes: bytes.len() as u64,
        ..Checked::default()
    };
    let name = &stated.name;
    let damaged = FindingKind::SegmentDamaged;
    if bytes.len() as u64 != stated.length {
        let (held, said) = (bytes.len(), stated.length);
        let detail = format!("it is {held} bytes long, ledger entry {position} says {said}");
        checked.add(damaged, name, detail);
    } else if blake3::hash(bytes).as_bytes()[..] != stated.hash[..] {
        let detail = format!("its hash is not the one in ledger entry {position}");
        checked.add(damaged, name, detail);
    }
    let index = match parse_index(bytes, bytes.len() as u64) {
        Ok(index) => index,
        Err(error) => {
            checked.add(damaged, name, error.to_string());
            return checked;
        }
    };
    if let Err(error) = check_index(&index, stated) {
        checked.add(damaged, name, error.to_string());
    }
    if index.bus != bus {
        checked.add(
            damaged,
            name,
            format!("its index is that of bus {}", index.bus),
        );
    }
    let summaries = index.frames.iter().fold(Vec::new(), summarise);
    let said = stated
        .types
        .iter()
        .map(|t| (&t.r#type, t.count, t.event_time, t.received_at));
    if !said.eq(summaries
        .iter()
        .map(|t| (&t.r#type, t.count, t.event_time, t.received_at)))
    {
        let detail = format!("ledger entry {position} says other things of its types");
        checked.add(FindingKind::StatisticsWrong, name, detail);
    }
    for (number, described) in index.frames.iter().enumerate() {
        let range = described.offset as usize..(described.offset + described.length) as usize;
        let frame = Frame {
            name,
            number,
            described,
            bytes: Bytes::new(),
        };
        match pool.decompress(described, &bytes[range]) {
            Ok(bytes) => Frame { bytes, ..frame }.check(&mut checked, log),
            Err(error) => frame.damaged(&mut checked, error.to_string()),
        }
    }
    checked
}

/// What the ledger says of types, from frames.
fn summarise(mut types: Vec<wire::TypeSummary>, frame: &wire::Frame) -> Vec<wire::TypeSummary> {
    if types.last().is_none_or(|last| last.r#type != frame.r#type) {
        let r#type = frame.r#type.clone();
        types.push(wire::TypeSummary {
            r#type,
            ..wire::TypeSummary::default()
        });
    }
    let last = types.last_mut().expect("one was pushed");
    last.count += u64::from(frame.count);
    widen(&mut last.event_time, frame.event_time);
    widen(&mut last.received_at, frame.received_at);
    types
}

fn widen(range: &mut Option<TimeRange>, by: Option<TimeRange>) {
    let Some(by) = by else { return };
    let range = range.get_or_insert(by);
    range.first_us = range.first_us.min(by.first_us);
    range.last_us = range.last_us.max(by.last_us);
}

struct Frame<'a> {
    name: &'a str,
    number: usize,
    described: &'a wire::Frame,
    bytes: Bytes,
}

/// What is true of a frame's records, and the first thing said of them that is not.
#[derive(Default)]
struct Truth {
    count: u32,
    event_time: Option<TimeRange>,
    received_at: Option<TimeRange>,
    wrong: Option<&'static str>,
}

impl Frame<'_> {
    fn damaged(&self, checked: &mut Checked, detail: String) {
        let detail = format!("frame {}: {detail}", self.number);
        checked.add(FindingKind::FrameDamaged, self.name, detail);
    }

    fn check(&self, checked: &mut Checked, log: Option<(&PublishLog, bool)>) {
        let mut truth = Truth::default();
        let mut key = Vec::new();
        for (at, record) in frame::iter(&self.bytes).enumerate() {
            let scanned = record.and_then(|record| {
                let record = RecordRef::scan(record)?;
                let header = Header::scan(record.event)?;
                annals_core::event::validate(&header)?;
                Ok((record, header))
            });
            truth.count += 1;
            let (record, header) = match scanned {
                Ok(scanned) => scanned,
                Err(error) => {
                    let detail = format!("frame {} record {at}: {error}", self.number);
                    checked.add(FindingKind::RecordDamaged, self.name, detail);
                    continue;
                }
            };
            checked.ordinals.push(record.ordinal);
            if let (Some(producer), Some(number)) = (header.producer_id, header.producer_seq) {
                checked.producers.add(producer, number, number);
            }
            key.clear();
            put_id_key(header.source, header.id, &mut key);
            truth.take(self.described, &header, &record, &key);
            if let Some((log, closed_world)) = log {
                checked
                    .findings
                    .extend(log.hold(&header, record.event, closed_world));
            }
        }
        if truth.count != self.described.count {
            let (held, said) = (truth.count, self.described.count);
            return self.damaged(checked, format!("{held} records, its index says {said}"));
        }
        if let Some(wrong) = truth.wrong(self.described).filter(|_| checked.complete) {
            let detail = format!("frame {}: {wrong}", self.number);
            checked.add(FindingKind::StatisticsWrong, self.name, detail);
        }
    }
}

impl Truth {
    fn take(
        &mut self,
        said: &wire::Frame,
        header: &Header<'_>,
        record: &RecordRef<'_>,
        key: &[u8],
    ) {
        let received = record.delivery.received_at_us;
        widen(
            &mut self.received_at,
            Some(TimeRange {
                first_us: received,
                last_us: received,
            }),
        );
        if let Some(time) = header.time {
            let nanos = time.as_nanosecond();
            let first_us = nanos.div_euclid(1000) as i64;
            let last_us = (nanos + 999).div_euclid(1000) as i64;
            widen(&mut self.event_time, Some(TimeRange { first_us, last_us }));
        }
        let subject = header.subject.map(str::as_bytes);
        let wrong = if header.event_type != said.r#type {
            "a record is of another type"
        } else if !FilterRef::new(&said.id_filter).contains(key) {
            "its id filter excludes an id in it"
        } else if subject.is_some_and(|s| !FilterRef::new(&said.subject_filter).contains(s)) {
            "its subject filter excludes a subject in it"
        } else if !producer_is_said(said, header) {
            "its producer intervals exclude a number in it"
        } else {
            return;
        };
        self.wrong.get_or_insert(wrong);
    }

    fn wrong(&self, said: &wire::Frame) -> Option<&'static str> {
        let ranges = self.event_time == said.event_time && self.received_at == said.received_at;
        self.wrong
            .or((!ranges).then_some("its time ranges are not those of its records"))
    }
}

/// No intervals at all state nothing.
fn producer_is_said(said: &wire::Frame, header: &Header<'_>) -> bool {
    let (Some(producer), Some(number)) = (header.producer_id, header.producer_seq) else {
        return true;
    };
    let holds = |interval: &wire::ProducerInterval| {
        interval.producer == producer && (interval.first..=interval.last).contains(&number)
    };
    said.producers.is_empty() || said.producers.iter().any(holds)
}
