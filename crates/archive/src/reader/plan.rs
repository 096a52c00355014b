//! A selection, prepared for the steps down to a record: segment by what the ledger says of its
//! types, frame by what the index says, record by its header.

use super::located::{Hit, Located};
use crate::filter::{self, FilterRef};
use crate::ledger::{Entry, Ledger, Position};
use crate::segment::put_id_key;
use crate::wire::{self, TimeRange};
use annals_core::{Error, ErrorKind, EventSet, Header, Result, Selection, TimeAxis, Timestamp};
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::HashSet;
use std::sync::Arc;

/// Listed events that are looked for in every frame's id filter; of more, nearly every filter
/// would say perhaps.
const LISTED_MAX: usize = 1000;
/// Entries fetched ahead of those that hold listed events.
const ENTRIES_AHEAD: usize = 8;

/// What is left to ask of the records of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cover {
    /// Nothing in it is selected.
    None,
    /// Ask each record.
    Some,
    /// All of it is selected.
    All,
}

/// A [`Selection`] made ready.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    selection: Selection,
    /// As plain text, so that looking one up makes no newtype.
    ids: Option<HashSet<Box<str>>>,
    subject: Option<u64>,
    /// What id filters know the listed events by; only of a short list.
    listed: Option<Vec<u64>>,
    /// Where the listed events lie, if it is only the first copy of each that is wanted.
    pub(crate) located: Option<Arc<Located>>,
}

impl Plan {
    pub(crate) fn new(selection: &Selection) -> Self {
        let ids = selection.ids.as_ref();
        let subject = selection.subject.as_ref();
        Self {
            ids: ids.map(|ids| ids.iter().map(|id| id.as_str().into()).collect()),
            subject: subject.map(|subject| filter::hash(subject.as_str().as_bytes())),
            listed: selection.events.as_deref().and_then(listed),
            selection: selection.clone(),
            located: None,
        }
    }

    /// Whether nothing is asked of an event but that it is listed.
    pub(crate) fn is_of_events_only(&self) -> bool {
        let Selection {
            patterns,
            range,
            axis: _,
            subject,
            ids,
            events,
        } = &self.selection;
        let unrestricted = patterns.is_empty() && range.is_all();
        events.is_some() && unrestricted && subject.is_none() && ids.is_none()
    }

    /// The listed events that lie in a ledger entry, by ordinal; `None` where that is not known,
    /// and each record has to be asked.
    pub(crate) fn hits(&self, position: Position) -> Option<&[Hit]> {
        self.located.as_deref().map(|located| located.at(position))
    }

    /// The ledger entries after one position up to another in which something may be selected.
    pub(crate) fn entries(
        &self,
        ledger: &Ledger,
        after: Position,
        until: Position,
    ) -> BoxStream<'static, Result<Entry>> {
        let Some(located) = &self.located else {
            return ledger.entries(after, until);
        };
        let ledger = ledger.clone();
        let read = move |position| {
            let ledger = ledger.clone();
            async move {
                ledger
                    .read(position)
                    .await
                    .map_err(|e| missing(position, e))
            }
        };
        let positions = located.positions(after, until);
        stream::iter(positions)
            .map(read)
            .buffered(ENTRIES_AHEAD)
            .boxed()
    }

    /// Whether events of a type may be selected.
    pub(crate) fn wants_type(&self, event_type: &str) -> bool {
        self.selection.matches_type(event_type)
    }

    /// Whether something in a segment may be selected, by its ledger entry.
    pub(crate) fn wants_segment(&self, segment: &wire::Segment) -> bool {
        let wants = |summary: &wire::TypeSummary| {
            self.selection.matches_type(&summary.r#type)
                && self.in_time(summary.event_time, summary.received_at)
        };
        segment.types.iter().any(wants)
    }

    /// About which share of a segment's bytes is selected, between 0 and 1, by its ledger entry.
    pub(crate) fn share(&self, position: Position, segment: &wire::Segment) -> f64 {
        if self.subject.is_some() {
            return 0.0;
        }
        let wanted = segment.types.iter().filter(|summary| {
            self.selection.matches_type(&summary.r#type)
                && self.in_time(summary.event_time, summary.received_at)
        });
        let mut wanted: u64 = wanted.map(|summary| summary.count).sum();
        if let Some(hits) = self.hits(position) {
            wanted = wanted.min(hits.len() as u64);
        } else if self.listed.is_some() {
            return 0.0;
        }
        wanted as f64 / segment.count.max(1) as f64
    }

    /// How much of a frame is selected, by the segment's index.
    pub(crate) fn cover(&self, position: Position, frame: &wire::Frame) -> Cover {
        let filter = FilterRef::new(&frame.subject_filter);
        let excluded = !self.selection.matches_type(&frame.r#type)
            || !self.in_time(frame.event_time, frame.received_at)
            || self.subject.is_some_and(|hash| !filter.contains_hash(hash))
            || !self.may_hold_listed(position, frame);
        let selection = &self.selection;
        let any = selection.subject.is_none() && selection.ids.is_none();
        match excluded {
            true => Cover::None,
            false if any && selection.events.is_none() && self.all_in_time(frame) => Cover::All,
            false => Cover::Some,
        }
    }

    fn may_hold_listed(&self, position: Position, frame: &wire::Frame) -> bool {
        let filter = FilterRef::new(&frame.id_filter);
        match (self.hits(position), &self.listed) {
            (Some(hits), _) => hits.iter().any(|hit| filter.contains_hash(hit.filter_hash)),
            (None, Some(listed)) => listed.iter().any(|&hash| filter.contains_hash(hash)),
            (None, None) => true,
        }
    }

    /// Whether an event is selected whose frame's type is.
    #[inline]
    pub(crate) fn wants_event(&self, header: &Header<'_>, received_at_us: i64) -> bool {
        let range = &self.selection.range;
        let in_time = range.is_all()
            || match self.selection.axis {
                TimeAxis::Archive => range.contains(time_of(received_at_us)),
                TimeAxis::Event => header.time.is_some_and(|time| range.contains(time)),
            };
        let subject = self.selection.subject.as_ref();
        in_time
            && subject.is_none_or(|subject| header.subject == Some(subject.as_str()))
            && self.ids.as_ref().is_none_or(|ids| ids.contains(header.id))
            && self
                .selection
                .events
                .as_ref()
                .is_none_or(|events| events.contains(header.source, header.id))
    }

    fn in_time(&self, event_time: Option<TimeRange>, received_at: Option<TimeRange>) -> bool {
        let range = &self.selection.range;
        let stated = match self.selection.axis {
            TimeAxis::Event => event_time,
            TimeAxis::Archive => received_at,
        };
        // Without a range no record has the time, and so none is in a bounded range.
        range.is_all()
            || stated.is_some_and(|t| range.overlaps(time_of(t.first_us), time_of(t.last_us)))
    }

    /// Event times prove nothing here: an event without one is in the frame, not in its range.
    fn all_in_time(&self, frame: &wire::Frame) -> bool {
        let range = &self.selection.range;
        let inside = |t: TimeRange| {
            range.contains(time_of(t.first_us)) && range.contains(time_of(t.last_us))
        };
        range.is_all()
            || (self.selection.axis == TimeAxis::Archive && frame.received_at.is_some_and(inside))
    }
}

/// The filter hashes of a short list whose sources are known.
fn listed(events: &EventSet) -> Option<Vec<u64>> {
    if events.len() > LISTED_MAX || events.of_any_source() > 0 {
        return None;
    }
    let mut text = Vec::new();
    let hash = |(source, id): (Option<&str>, &str)| {
        text.clear();
        put_id_key(source?, id, &mut text);
        Some(filter::hash(&text))
    };
    events.iter().map(hash).collect()
}

#[cold]
fn missing(position: Position, error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            Error::corrupt(format!("ledger entry {position} is missing")).caused_by(error)
        }
        _ => error,
    }
}

/// Microseconds since 1970 as an instant; what is out of its range is at the range's end.
pub(crate) fn time_of(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(match micros < 0 {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_core::{Range, Subject, TypePattern};

    fn frame(event: Option<(i64, i64)>, received: (i64, i64)) -> wire::Frame {
        let range = |(first_us, last_us)| TimeRange { first_us, last_us };
        let mut subjects = filter::Filter::with_capacity(1);
        subjects.insert(b"order-1");
        wire::Frame {
            r#type: "shop.v1.Placed".into(),
            event_time: event.map(range),
            received_at: Some(range(received)),
            subject_filter: subjects.to_bytes().into(),
            ..wire::Frame::default()
        }
    }

    fn between(from: i64, until: i64, axis: TimeAxis) -> Selection {
        Selection {
            range: Range {
                from: Some(time_of(from)),
                until: Some(time_of(until)),
            },
            axis,
            ..Selection::all()
        }
    }

    #[test]
    fn a_frame_is_covered_as_far_as_its_statistics_prove() {
        #[track_caller]
        fn check(selection: &Selection, frame: &wire::Frame, expected: Cover) {
            assert_eq!(
                Plan::new(selection).cover(Position(1), frame),
                expected,
                "{selection:?}"
            );
        }
        let timed = frame(Some((10, 20)), (100, 200));
        let untimed = frame(None, (100, 200));
        check(&Selection::all(), &untimed, Cover::All);
        check(&between(0, 20, TimeAxis::Event), &timed, Cover::Some);
        check(&between(0, 21, TimeAxis::Event), &timed, Cover::Some);
        check(&between(21, 99, TimeAxis::Event), &timed, Cover::None);
        check(&between(0, 10, TimeAxis::Event), &timed, Cover::None);
        check(&between(0, 99, TimeAxis::Event), &untimed, Cover::None);
        check(&between(100, 201, TimeAxis::Archive), &untimed, Cover::All);
        check(&between(100, 200, TimeAxis::Archive), &untimed, Cover::Some);
        check(&between(201, 300, TimeAxis::Archive), &untimed, Cover::None);
        let by_type = |text: &str| Selection {
            patterns: vec![TypePattern::new(text).unwrap()],
            ..Selection::all()
        };
        check(&by_type("shop.#"), &timed, Cover::All);
        check(&by_type("mail.#"), &timed, Cover::None);
        let by_subject = |text: &str| Selection {
            subject: Some(Subject::new(text).unwrap()),
            ..Selection::all()
        };
        check(&by_subject("order-1"), &timed, Cover::Some);
        check(&by_subject("order-2"), &timed, Cover::None);
    }
}
