//! [`Selection`]: which part of history. What readers, replay and tail all take.

use crate::range::{Range, TimeAxis};
use crate::{EventId, Header, Subject, Timestamp, TypePattern};
use std::collections::HashSet;
use std::sync::Arc;

mod event_set;

pub use event_set::EventSet;

/// Which events: all conditions must hold; an empty one does not restrict.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// Types, any of them; empty: every type.
    pub patterns: Vec<TypePattern>,
    /// Half-open range of time.
    pub range: Range,
    /// Which time [`Selection::range`] is about.
    pub axis: TimeAxis,
    /// One entity.
    pub subject: Option<Subject>,
    /// These ids, whatever their source.
    pub ids: Option<HashSet<EventId>>,
    /// These events. Shared, for there may be millions.
    pub events: Option<Arc<EventSet>>,
}

impl Selection {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether a type can be in the selection.
    pub fn matches_type(&self, event_type: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|p| p.matches(event_type))
    }

    /// Whether an event is in the selection; `archived_at` is the archiver's time of it.
    ///
    /// An event without a time is in no bounded range of event time.
    pub fn matches(&self, header: &Header<'_>, archived_at: Timestamp) -> bool {
        self.matches_time(header.time, archived_at)
            && self
                .subject
                .as_ref()
                .is_none_or(|s| header.subject == Some(s.as_str()))
            && self.matches_type(header.event_type)
            && self.matches_id(header.id)
            && self
                .events
                .as_ref()
                .is_none_or(|events| events.contains(header.source, header.id))
    }

    fn matches_time(&self, time: Option<Timestamp>, archived_at: Timestamp) -> bool {
        match self.axis {
            TimeAxis::Archive => self.range.contains(archived_at),
            TimeAxis::Event => match time {
                Some(time) => self.range.contains(time),
                None => self.range.is_all(),
            },
        }
    }

    fn matches_id(&self, id: &str) -> bool {
        // Ids are compared as text; the set is small, and hashing needs no newtype per event.
        self.ids
            .as_ref()
            .is_none_or(|ids| EventId::new(id).is_ok_and(|id| ids.contains(&id)))
    }
}
