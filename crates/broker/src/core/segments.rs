//! [`Segments`]: how many messages keep each segment of the log alive.

use std::collections::VecDeque;

/// Copies of messages by the segment their record lies in.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    first: u32,
    counts: VecDeque<Count>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Copies not settled.
    pub(crate) live: u64,
    /// All there ever were, as far as known.
    pub(crate) ever: u64,
}

impl Segments {
    #[inline]
    pub(crate) fn add(&mut self, segment: u32, copies: u64) {
        let count = self.at(segment);
        count.live += copies;
        count.ever += copies;
    }

    #[inline]
    pub(crate) fn sub(&mut self, segment: u32) {
        let count = self.at(segment);
        debug_assert!(count.live > 0, "segment {segment} has no live message");
        count.live = count.live.saturating_sub(1);
    }

    pub(crate) fn get(&self, segment: u32) -> Count {
        segment
            .checked_sub(self.first)
            .and_then(|at| self.counts.get(at as usize))
            .copied()
            .unwrap_or_default()
    }

    /// Forgets the segments before this one.
    pub(crate) fn forget_before(&mut self, segment: u32) {
        while self.first < segment && self.counts.pop_front().is_some() {
            self.first += 1;
        }
    }

    #[inline]
    fn at(&mut self, segment: u32) -> &mut Count {
        if self.counts.is_empty() {
            self.first = segment;
        }
        while segment < self.first {
            self.counts.push_front(Count::default());
            self.first -= 1;
        }
        let at = (segment - self.first) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, Count::default());
        }
        &mut self.counts[at]
    }
}
