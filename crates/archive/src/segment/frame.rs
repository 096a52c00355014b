//! A frame being filled: records of one type, and what the index will say of them.

use super::{FRAME_RAW_BYTES, PRODUCER_INTERVALS_MAX, put_id_key, widen};
use crate::filter::{self, Filter};
use crate::record::RecordRef;
use crate::wire::{self, ProducerInterval, TimeRange};
use annals_core::Header;
use bytes::Bytes;

/// Records of one type, encoded, with their statistics.
#[derive(Debug, Default)]
pub struct RawFrame {
    bytes: Vec<u8>,
    /// The records instead of `bytes`, once it is closed.
    closed: Option<Bytes>,
    count: u32,
    event_time: Option<TimeRange>,
    received_at: Option<TimeRange>,
    subjects: Vec<u64>,
    ids: Vec<u64>,
    producers: Intervals,
}

impl RawFrame {
    /// An empty frame that will be filled: takes its memory at once, and no more as it grows.
    pub fn with_full_capacity() -> Self {
        Self {
            bytes: Vec::with_capacity(FRAME_RAW_BYTES),
            ..Self::default()
        }
    }

    /// Appends a record; `header` is that of its event. `scratch` is any buffer, reused.
    ///
    /// Allocates only as the frame's own buffers grow.
    pub fn push(&mut self, header: &Header<'_>, record: &RecordRef<'_>, scratch: &mut Vec<u8>) {
        record.encode_into(&mut self.bytes);
        self.count += 1;
        let received = record.delivery.received_at_us;
        widen(&mut self.received_at, received, received);
        if let Some(time) = header.time {
            // Nanoseconds: round outwards, so that the range covers the instant.
            let nanos = time.as_nanosecond();
            let (first, last) = (nanos.div_euclid(1000), (nanos + 999).div_euclid(1000));
            widen(&mut self.event_time, first as i64, last as i64);
        }
        if let Some(subject) = header.subject {
            let hash = filter::hash(subject.as_bytes());
            // Runs of one subject are common; the rest is removed when the frame is closed.
            if self.subjects.last() != Some(&hash) {
                self.subjects.push(hash);
            }
        }
        scratch.clear();
        put_id_key(header.source, header.id, scratch);
        self.ids.push(filter::hash(scratch));
        if let (Some(producer), Some(seq)) = (header.producer_id, header.producer_seq) {
            self.producers.push(producer, seq);
        }
    }

    /// Bytes of the records so far.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a record of `len` more bytes belongs into the next frame.
    pub fn is_full_for(&self, len: usize) -> bool {
        !self.is_empty() && self.bytes.len() + len > FRAME_RAW_BYTES
    }

    /// No record is added any more: from now on the records can be had without copying them.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.closed = Some(std::mem::take(&mut self.bytes).into());
        self
    }

    /// The encoded records: copied while it is being filled, shared once it is closed.
    pub fn to_bytes(&self) -> Bytes {
        match &self.closed {
            Some(closed) => closed.clone(),
            None => Bytes::copy_from_slice(&self.bytes),
        }
    }

    /// The encoded records.
    pub(super) fn bytes(&self) -> &[u8] {
        self.closed.as_deref().unwrap_or(&self.bytes)
    }

    /// What the index says of it; the writer adds where it lies.
    pub(super) fn describe(mut self, event_type: &str) -> wire::Frame {
        wire::Frame {
            r#type: event_type.to_owned(),
            raw_length: self.len() as u64,
            count: self.count,
            event_time: self.event_time,
            received_at: self.received_at,
            subject_filter: filter_of(&mut self.subjects),
            id_filter: filter_of(&mut self.ids),
            producers: self.producers.finish(),
            ..wire::Frame::default()
        }
    }
}

fn filter_of(hashes: &mut Vec<u64>) -> Bytes {
    if hashes.is_empty() {
        // No value: a filter that is sure of it.
        return Filter::with_capacity(0).to_bytes().into();
    }
    hashes.sort_unstable();
    hashes.dedup();
    let mut filter = Filter::with_capacity(hashes.len());
    for &hash in hashes.iter() {
        filter.insert_hash(hash);
    }
    filter.to_bytes().into()
}

/// Producer numbers as intervals, in a bound: past it they are given up, which a reader takes as
/// "not stated".
#[derive(Debug, Default)]
struct Intervals {
    found: Vec<ProducerInterval>,
    given_up: bool,
}

/// Longest producer id that is stated, in bytes.
const PRODUCER_BYTES_MAX: usize = 255;
/// Open intervals kept before they are merged at the end: arrival mixes producers and consumers.
const OPEN_MAX: usize = 4 * PRODUCER_INTERVALS_MAX;

impl Intervals {
    fn push(&mut self, producer: &str, seq: u64) {
        if self.given_up || producer.len() > PRODUCER_BYTES_MAX {
            // A name as long as this is no producer of ours, and would swell the ledger.
            self.given_up = true;
            self.found = Vec::new();
            return;
        }
        let next = |i: &&mut ProducerInterval| i.last.checked_add(1) == Some(seq);
        let mut newest_first = self.found.iter_mut().rev();
        if let Some(interval) = newest_first.find(|i| next(i) && i.producer == producer) {
            interval.last = seq;
        } else if self.found.len() < OPEN_MAX {
            let producer = producer.to_owned();
            self.found.push(ProducerInterval {
                producer,
                first: seq,
                last: seq,
            });
        } else {
            self.given_up = true;
            self.found = Vec::new();
        }
    }

    fn finish(self) -> Vec<ProducerInterval> {
        if self.given_up {
            Vec::new()
        } else {
            merge(self.found)
        }
    }
}

/// Sorts intervals and joins adjacent ones; none at all if more than the bound are left.
///
/// Overlaps are not joined, so that the numbers in the intervals are as many as the events: only
/// then do intervals prove that a stretch is dense and free of duplicates.
pub(super) fn merge(mut intervals: Vec<ProducerInterval>) -> Vec<ProducerInterval> {
    intervals.sort_unstable_by(|a, b| {
        (&a.producer, a.first, a.last).cmp(&(&b.producer, b.first, b.last))
    });
    intervals.dedup_by(|next, kept| {
        let adjacent =
            kept.producer == next.producer && kept.last.checked_add(1) == Some(next.first);
        if adjacent {
            kept.last = next.last;
        }
        adjacent
    });
    if intervals.len() > PRODUCER_INTERVALS_MAX {
        return Vec::new();
    }
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(found: &[(&str, u64)]) -> Vec<(String, u64, u64)> {
        let mut intervals = Intervals::default();
        for (producer, seq) in found {
            intervals.push(producer, *seq);
        }
        let merged = intervals.finish().into_iter();
        merged.map(|i| (i.producer, i.first, i.last)).collect()
    }

    #[test]
    fn numbers_of_interleaved_producers_join_into_intervals() {
        let found = [
            ("a", 1),
            ("b", 7),
            ("a", 2),
            ("b", 8),
            ("a", 4),
            ("a", 3),
            ("b", u64::MAX),
        ];
        let expected = [("a", 1, 4), ("b", 7, 8), ("b", u64::MAX, u64::MAX)];
        assert_eq!(
            intervals(&found),
            expected.map(|(p, f, l)| (p.to_owned(), f, l))
        );
    }

    #[test]
    fn a_duplicate_number_leaves_more_numbers_than_the_span() {
        let found = intervals(&[("a", 1), ("a", 2), ("a", 1), ("a", 2)]);
        let numbers: u64 = found.iter().map(|(_, first, last)| last - first + 1).sum();
        assert_eq!(numbers, 4, "{found:?}");
    }

    #[test]
    fn too_many_intervals_are_not_stated_at_all() {
        let sparse: Vec<_> = (0..33).map(|i| ("a", i * 2)).collect();
        assert_eq!(intervals(&sparse[..32]).len(), 32);
        assert_eq!(intervals(&sparse), []);
        let hopeless: Vec<_> = (0..10_000).map(|i| ("a", i * 2)).collect();
        assert_eq!(intervals(&hopeless), []);
    }
}
