//! Channels with what they have unsettled, and consumers with their credit.

use super::index::Place;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Settled tags at the front that are suffered before what lives among them moves aside.
const GAPS_MAX: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    pub(crate) unsettled: Unsettled,
    /// Places of consumers by tag.
    pub(crate) consumers: HashMap<Arc<str>, u32>,
    /// Stopped consumers with deliveries in flight.
    pub(crate) stopped: Vec<u64>,
    /// Told to close: what it sends is dropped.
    pub(crate) is_dead: bool,
}

impl Channel {
    pub(crate) fn new(number: u16) -> Self {
        Self {
            number,
            unsettled: Unsettled::default(),
            consumers: HashMap::new(),
            stopped: Vec::new(),
            is_dead: false,
        }
    }
}

/// A message given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) sequence: u64,
    pub(crate) queue: u32,
    /// `u32::MAX` for one that was got.
    pub(crate) consumer: u32,
}

/// No sequence number comes near it.
const SETTLED: Given = Given {
    sequence: u64::MAX,
    queue: 0,
    consumer: 0,
};

/// What a channel has unsettled, by delivery tag: 16 bytes each.
#[derive(Debug)]
pub(crate) struct Unsettled {
    given: VecDeque<Given>,
    /// Tag of the first in `given`.
    base: u64,
    /// Few, far behind the others.
    early: BTreeMap<u64, Given>,
    count: usize,
}

impl Default for Unsettled {
    fn default() -> Self {
        Self {
            given: VecDeque::new(),
            base: 1,
            early: BTreeMap::new(),
            count: 0,
        }
    }
}

impl Unsettled {
    /// Gives the next tag to a message.
    #[inline]
    pub(crate) fn push(&mut self, given: Given) -> u64 {
        self.given.push_back(given);
        self.count += 1;
        self.base + self.given.len() as u64 - 1
    }

    /// The next tag, for a message that needs no settlement.
    pub(crate) fn skip(&mut self) -> u64 {
        let tag = self.push(SETTLED);
        self.count -= 1;
        self.trim();
        tag
    }

    /// Takes one out.
    #[inline]
    pub(crate) fn take(&mut self, tag: u64) -> Option<Given> {
        let given = match tag.checked_sub(self.base) {
            Some(at) => {
                let given = self.given.get_mut(usize::try_from(at).ok()?)?;
                Some(std::mem::replace(given, SETTLED)).filter(|given| *given != SETTLED)?
            }
            None => self.early.remove(&tag)?,
        };
        self.count -= 1;
        self.trim();
        Some(given)
    }

    /// Takes the first one out if its tag is at most this.
    #[inline]
    pub(crate) fn take_first(&mut self, up_to: u64) -> Option<Given> {
        if let Some(entry) = self.early.first_entry() {
            if *entry.key() > up_to {
                return None;
            }
            self.count -= 1;
            return Some(entry.remove());
        }
        // The first in `given` is never a settled one: see `trim`.
        if self.given.is_empty() || self.base > up_to {
            return None;
        }
        self.take(self.base)
    }

    /// Whether a tag was given out.
    pub(crate) fn knows(&self, tag: u64) -> bool {
        tag > 0 && tag < self.base + self.given.len() as u64
    }

    #[inline]
    fn trim(&mut self) {
        while let Some(first) = self.given.front() {
            if *first != SETTLED {
                if self.given.len() <= GAPS_MAX + 4 * self.count {
                    break;
                }
                self.early.insert(self.base, *first);
            }
            self.given.pop_front();
            self.base += 1;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Consumer {
    /// Its place, and which use of the place it is.
    pub(crate) id: u64,
    pub(crate) session: u64,
    /// Place of its channel.
    pub(crate) channel: u32,
    pub(crate) tag: Arc<str>,
    /// Place of its queue.
    pub(crate) queue: u32,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) prefetch: u32,
    pub(crate) unsettled: u32,
    /// Deliveries its session has not taken; counted where there is no prefetch.
    pub(crate) untaken: u32,
    /// Sequence numbers given out without need of settlement, not dealt with yet.
    pub(crate) in_flight: VecDeque<u64>,
    /// Taken from the queue in this turn of dispatch.
    pub(crate) pending: Vec<Place>,
    pub(crate) is_dead: bool,
}

impl Consumer {
    /// Whether its deliveries are bounded by what its session takes.
    #[inline]
    pub(crate) fn has_window(&self) -> bool {
        self.no_ack || self.prefetch == 0
    }

    #[inline]
    pub(crate) fn has_credit(&self, window: u32, unsettled_max: u32) -> bool {
        if self.no_ack {
            self.untaken < window
        } else if self.prefetch == 0 {
            self.untaken < window && self.unsettled < unsettled_max
        } else {
            self.unsettled < self.prefetch
        }
    }

    /// Whether nothing refers to it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_dead && self.unsettled == 0 && self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(sequence: u64) -> Given {
        Given {
            sequence,
            queue: 1,
            consumer: 1,
        }
    }

    #[test]
    fn tags_are_dense_and_settled_once() {
        let mut unsettled = Unsettled::default();
        assert!((1..=4).eq((0..4).map(|n| unsettled.push(given(n)))));
        assert_eq!(unsettled.take(2), Some(given(1)));
        assert_eq!(unsettled.take(2), None);
        assert_eq!(unsettled.take(0), None);
        assert_eq!(unsettled.take(5), None);
        assert!(unsettled.knows(2) && !unsettled.knows(5) && !unsettled.knows(0));
        let rest: Vec<_> = std::iter::from_fn(|| unsettled.take_first(3)).collect();
        assert_eq!(rest, [given(0), given(2)]);
        assert_eq!(unsettled.skip(), 5);
        assert_eq!(unsettled.take(5), None);
        assert_eq!(unsettled.push(given(9)), 6);
        let rest: Vec<_> = std::iter::from_fn(|| unsettled.take_first(u64::MAX)).collect();
        assert_eq!(rest, [given(3), given(9)]);
    }

    #[test]
    fn one_that_is_never_settled_costs_no_more_than_itself() {
        let mut unsettled = Unsettled::default();
        for n in 0..100_000 {
            let tag = unsettled.push(given(n));
            if tag != 3 {
                assert_eq!(unsettled.take(tag), Some(given(n)));
            }
        }
        assert!(unsettled.given.len() <= GAPS_MAX + 8);
        assert_eq!(unsettled.take_first(u64::MAX), Some(given(2)));
        assert_eq!(unsettled.take_first(u64::MAX), None);
    }
}
