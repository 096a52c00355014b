//! Half-open ranges of time, and the one grammar they are written in.

use crate::Timestamp;

/// `from` included, `until` excluded; an absent end is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// First instant in the range.
    pub from: Option<Timestamp>,
    /// First instant after the range.
    pub until: Option<Timestamp>,
}

/// Which of an event's times a range is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeAxis {
    /// The `time` attribute: when it happened.
    #[default]
    Event,
    /// When the archiver received it.
    Archive,
}

impl Range {
    /// All of time.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether neither end is bounded.
    pub fn is_all(&self) -> bool {
        self.from.is_none() && self.until.is_none()
    }

    /// Whether an instant lies in it.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.until.is_none_or(|until| time < until)
    }

    /// Whether it shares an instant with `first..=last`.
    pub fn overlaps(&self, first: Timestamp, last: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= last) && self.until.is_none_or(|until| first < until)
    }
}
