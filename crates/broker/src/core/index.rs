//! [`Index`]: what a queue holds, as positions in the log: 8 bytes a message, 16 with the slack
//! of a growing buffer.
//!
//! ```text
//!   early        base                    next_ready              end
//!   │ few,       │ delivered: a position, │ ready, in order       │
//!   │ far behind │ or 0 where settled     │                       │
//! ```
//! Every message has a sequence number for life. Before `next_ready`, a message is either with a
//! consumer or in `returned`, ready again at its old place.

use crate::log::Lsn;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Set in a slot: the message may have been delivered before.
const REDELIVERED: u64 = 1 << 63;
/// Set in a slot: the message does not outlive a restart, nothing of it is recorded.
const TRANSIENT: u64 = 1 << 62;
const FLAGS: u64 = REDELIVERED | TRANSIENT;
/// Settled slots at the front that are suffered before what lives among them moves to `early`.
const GAPS_MAX: usize = 4_096;

/// The largest sequence number there is. One a log could never have given out is no number: what
/// comes after it must be counted too.
pub(crate) const SEQUENCE_MAX: u64 = 1 << 62;
/// Slots whose memory is kept however few are in use.
const CAPACITY_KEPT: usize = 1 << 16;

/// A message taken out for delivery, or looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) lsn: Lsn,
    pub(crate) redelivered: bool,
    pub(crate) transient: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: VecDeque<u64>,
    /// Sequence number of the first slot.
    base: u64,
    next_ready: u64,
    early: BTreeMap<u64, u64>,
    returned: BTreeSet<u64>,
    ready: u64,
    live: u64,
    /// Messages below this number were given out before a restart.
    delivered: u64,
}

impl Index {
    /// The sequence number of the next message.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// Messages that wait for delivery.
    pub(crate) fn ready(&self) -> u64 {
        self.ready
    }

    /// Messages held, those with consumers included.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// The first sequence number never taken since the start.
    pub(crate) fn next_ready(&self) -> u64 {
        self.next_ready
    }

    /// The number below which messages may have been given out, now or before a restart.
    pub(crate) fn delivered(&self) -> u64 {
        self.next_ready.max(self.delivered)
    }

    /// Adds a message at the end.
    #[inline]
    pub(crate) fn push(&mut self, lsn: Lsn, transient: bool) {
        let flag = if transient { TRANSIENT } else { 0 };
        self.slots.push_back(lsn.0 | flag);
        self.ready += 1;
        self.live += 1;
    }

    /// Takes the first ready message.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Place> {
        if self.ready == 0 {
            return None;
        }
        if let Some(sequence) = self.returned.pop_first() {
            self.ready -= 1;
            return self.get(sequence);
        }
        while self.next_ready < self.end() {
            let slot = self.slots[(self.next_ready - self.base) as usize];
            self.next_ready += 1;
            if slot != 0 {
                self.ready -= 1;
                return Some(place(self.next_ready - 1, slot));
            }
        }
        None
    }

    /// Where a message lies.
    pub(crate) fn get(&self, sequence: u64) -> Option<Place> {
        self.slot(sequence)
            .filter(|slot| *slot != 0)
            .map(|slot| place(sequence, slot))
    }

    /// Whether a message that is held waits for delivery.
    pub(crate) fn is_ready(&self, sequence: u64) -> bool {
        sequence >= self.next_ready || self.returned.contains(&sequence)
    }

    /// Forgets a message that was taken; what it was.
    #[inline]
    pub(crate) fn settle(&mut self, sequence: u64) -> Option<Place> {
        let slot = self.clear(sequence)?;
        self.live -= 1;
        self.trim();
        Some(place(sequence, slot))
    }

    /// Puts a message that was taken back into its place.
    pub(crate) fn put_back(&mut self, sequence: u64) {
        let Some(slot) = self.slot_mut(sequence).filter(|slot| **slot != 0) else {
            return;
        };
        *slot |= REDELIVERED;
        if self.returned.insert(sequence) {
            self.ready += 1;
        }
    }

    /// Notes that a message moved in the log.
    pub(crate) fn relocate(&mut self, sequence: u64, lsn: Lsn) {
        if let Some(slot) = self.slot_mut(sequence).filter(|slot| **slot != 0) {
            *slot = lsn.0 | *slot & FLAGS;
        }
    }

    /// All messages, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Place> {
        let early = self.early.iter().map(|(sequence, slot)| (*sequence, *slot));
        let slots = (self.base..).zip(self.slots.iter().copied());
        early
            .chain(slots)
            .filter(|(_, slot)| *slot != 0)
            .map(|(sequence, slot)| place(sequence, slot))
    }

    /// Drops all ready messages, telling each.
    pub(crate) fn purge(&mut self, mut each: impl FnMut(Place)) -> u64 {
        let mut count = 0;
        while let Some(place) = self.take() {
            each(place);
            self.settle(place.sequence);
            count += 1;
        }
        count
    }

    /// On recovery: a message of a known sequence number, at the end or where it was before.
    pub(crate) fn restore(&mut self, sequence: u64, lsn: Lsn) {
        if self.slots.is_empty() && self.early.is_empty() && self.live == 0 {
            self.base = self.base.max(sequence);
            self.next_ready = self.base;
        }
        if sequence < self.end() {
            self.relocate(sequence, lsn);
            return;
        }
        // Sequence numbers in between belonged to messages that are not kept.
        if sequence - self.end() > GAPS_MAX as u64 {
            self.set_aside(self.end());
            self.base = sequence;
            self.next_ready = sequence;
        }
        while self.end() < sequence {
            self.slots.push_back(0);
        }
        self.push(lsn, false);
    }

    /// On recovery: a message was settled.
    pub(crate) fn restore_settled(&mut self, sequence: u64) {
        if self.clear(sequence).is_some() {
            self.live -= 1;
            self.ready -= 1;
            self.returned.remove(&sequence);
            while self.slots.front() == Some(&0) {
                self.slots.pop_front();
                self.base += 1;
            }
            if self.slots.len() > GAPS_MAX + 4 * self.live as usize {
                self.set_aside(self.base + self.slots.len() as u64 / 2);
            }
            self.next_ready = self.base;
        }
    }

    /// On recovery: messages from one number to another were settled. Looks at what is held, never
    /// at numbers that no message has.
    pub(crate) fn restore_settled_range(&mut self, first: u64, last: u64) {
        let early: Vec<u64> = match first <= last {
            true => self.early.range(first..=last).map(|(&s, _)| s).collect(),
            false => Vec::new(),
        };
        for sequence in early {
            self.restore_settled(sequence);
        }
        for sequence in first.max(self.base)..last.saturating_add(1).min(self.end()) {
            self.restore_settled(sequence);
        }
    }

    /// On recovery: room for this many more.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.slots.reserve(count);
    }

    /// On recovery, at its end: messages below `delivered` may have been delivered before.
    pub(crate) fn restored(&mut self, delivered: u64) {
        // The mark runs ahead of the deliveries: what comes now is new.
        self.delivered = delivered.min(self.end());
        if self.live == 0 {
            // Numbers go on from there, so that what comes now does not count as delivered.
            self.slots.clear();
            self.base = self.base.max(delivered);
            self.next_ready = self.base;
        }
        for (_, slot) in self.early.range_mut(..delivered) {
            *slot |= REDELIVERED;
        }
        let known = delivered.saturating_sub(self.base);
        for slot in self.slots.iter_mut().take(known as usize) {
            if *slot != 0 {
                *slot |= REDELIVERED;
            }
        }
    }

    /// Moves what lives before `sequence` aside, ready.
    fn set_aside(&mut self, sequence: u64) {
        while self.base < sequence {
            if let Some(slot @ 1..) = self.slots.pop_front() {
                self.early.insert(self.base, slot);
                self.returned.insert(self.base);
            }
            self.base += 1;
        }
    }

    fn slot(&self, sequence: u64) -> Option<u64> {
        match sequence.checked_sub(self.base) {
            Some(at) => self.slots.get(at as usize).copied(),
            None => self.early.get(&sequence).copied(),
        }
    }

    fn slot_mut(&mut self, sequence: u64) -> Option<&mut u64> {
        match sequence.checked_sub(self.base) {
            Some(at) => self.slots.get_mut(at as usize),
            None => self.early.get_mut(&sequence),
        }
    }

    #[inline]
    fn clear(&mut self, sequence: u64) -> Option<u64> {
        match sequence.checked_sub(self.base) {
            Some(at) => match self.slots.get_mut(at as usize) {
                Some(slot) if *slot != 0 => Some(std::mem::take(slot)),
                _ => None,
            },
            None => self.early.remove(&sequence),
        }
    }

    /// Lets go of settled slots at the front; where too many lie behind a few that live, those few
    /// move aside.
    #[inline]
    fn trim(&mut self) {
        loop {
            match self.slots.front() {
                Some(0) => {}
                Some(&slot)
                    if self.base < self.next_ready
                        && self.slots.len() > GAPS_MAX + 4 * self.live as usize =>
                {
                    self.early.insert(self.base, slot);
                }
                _ => break,
            }
            self.slots.pop_front();
            self.base += 1;
        }
        // Never taken ones among the trimmed can only be gaps.
        self.next_ready = self.next_ready.max(self.base);
        let capacity = self.slots.capacity();
        if capacity > CAPACITY_KEPT && self.slots.len() < capacity / 4 {
            self.slots.shrink_to(capacity / 2);
        }
    }
}

fn place(sequence: u64, slot: u64) -> Place {
    Place {
        sequence,
        lsn: Lsn(slot & !FLAGS),
        redelivered: slot & REDELIVERED != 0,
        transient: slot & TRANSIENT != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Index {
        let mut index = Index::default();
        for n in 0..count {
            index.push(Lsn(100 + n), n % 2 == 1);
        }
        index
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut index = filled(3);
        let all: Vec<_> = std::iter::from_fn(|| index.take()).collect();
        assert_eq!(
            all.iter().map(|p| p.lsn.0).collect::<Vec<_>>(),
            [100, 101, 102]
        );
        assert_eq!(
            all.iter().map(|p| p.transient).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert_eq!((index.ready(), index.live()), (0, 3));
    }

    #[test]
    fn a_queued_message_takes_sixteen_bytes_at_most_and_gives_them_back() {
        let mut index = Index::default();
        let taken = |index: &Index| index.slots.capacity() * size_of::<u64>();
        // Capacities double: the worst is one message over a power of two.
        let counts = [1_000, 65_537, 1_000_000, (1 << 20) + 1, 3_000_000];
        for count in counts {
            while index.live() < count {
                index.push(Lsn(1 + index.end()), false);
            }
            assert!(taken(&index) as u64 <= 16 * count, "{count} messages");
        }
        while index.live() > 10 {
            let place = index.take().unwrap();
            index.settle(place.sequence);
            // Half of what is in use is given back at a time.
            let most = (32 * index.live() as usize).max(8 * CAPACITY_KEPT);
            assert!(taken(&index) <= most, "{} left", index.live());
        }
        assert!(index.early.is_empty() && index.returned.is_empty());
    }

    #[test]
    fn what_is_put_back_comes_out_at_its_old_place_and_flagged() {
        let mut index = filled(4);
        for _ in 0..3 {
            index.take();
        }
        index.put_back(2);
        index.put_back(0);
        index.settle(1);
        let again: Vec<_> = std::iter::from_fn(|| index.take())
            .map(|p| (p.sequence, p.redelivered))
            .collect();
        assert_eq!(again, [(0, true), (2, true), (3, false)]);
    }

    #[test]
    fn settled_slots_are_let_go_even_behind_one_that_is_stuck() {
        let mut index = Index::default();
        for n in 0..100_000_u64 {
            index.push(Lsn(100 + n), false);
            let place = index.take().unwrap();
            if place.sequence != 7 {
                index.settle(place.sequence);
            }
        }
        assert!(index.slots.len() <= GAPS_MAX + 8, "{}", index.slots.len());
        assert_eq!(index.get(7).unwrap().lsn, Lsn(107));
        index.put_back(7);
        assert_eq!(index.take().unwrap().sequence, 7);
        index.settle(7);
        assert_eq!(index.live(), 0);
    }

    #[test]
    fn recovery_rebuilds_order_and_takes_no_memory_for_gaps() {
        let mut index = Index::default();
        for sequence in [3, 4, 10, 5_000_000, 5_000_001] {
            index.restore(sequence, Lsn(sequence + 1));
        }
        index.restore(10, Lsn(77));
        index.restore_settled(4);
        index.restored(11);
        assert!(index.slots.len() < 100);
        assert_eq!((index.end(), index.ready()), (5_000_002, 4));
        let all: Vec<_> = std::iter::from_fn(|| index.take())
            .map(|p| (p.sequence, p.lsn.0, p.redelivered))
            .collect();
        assert_eq!(
            all,
            [
                (3, 4, true),
                (10, 77, true),
                (5_000_000, 5_000_001, false),
                (5_000_001, 5_000_002, false)
            ]
        );
        for sequence in [3, 10, 5_000_000, 5_000_001] {
            index.settle(sequence);
        }
        assert_eq!(
            (index.live(), index.slots.len(), index.early.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn what_was_delivered_before_one_restart_counts_as_that_at_the_next() {
        let mut index = Index::default();
        index.restore(0, Lsn(1));
        index.restore(1, Lsn(2));
        index.restored(2);
        index.push(Lsn(3), false);
        assert_eq!((index.next_ready(), index.delivered()), (0, 2));
        index.take();
        assert_eq!(index.delivered(), 2);
        index.take();
        index.take();
        assert_eq!(index.delivered(), 3);
    }

    #[test]
    fn a_purge_leaves_what_consumers_hold() {
        let mut index = filled(5);
        index.take();
        let mut purged = Vec::new();
        assert_eq!(index.purge(|p| purged.push(p.sequence)), 4);
        assert_eq!(purged, [1, 2, 3, 4]);
        assert_eq!((index.ready(), index.live()), (0, 1));
        index.put_back(0);
        assert_eq!(index.take().unwrap().sequence, 0);
    }
}
