//! What the index sums up: events per type and day, and the producers' numbers seen.

use super::wire;
use std::collections::{BTreeMap, BTreeSet};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01, UTC.
pub type Day = i32;

/// Distinct events per type and day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By the day the archiver received the first copy.
    pub archived: BTreeMap<(String, Day), u64>,
    /// By the day of the event's own time; `None` for events without one.
    pub happened: BTreeMap<(String, Option<Day>), u64>,
}

impl Counts {
    /// Distinct events.
    pub fn total(&self) -> u64 {
        self.archived.values().sum()
    }

    /// Distinct events of one type.
    pub fn of_type(&self, event_type: &str) -> u64 {
        let from = (event_type.to_owned(), Day::MIN);
        let days = self.archived.range(from..);
        days.take_while(|((t, _), _)| t == event_type)
            .map(|(_, count)| count)
            .sum()
    }

    pub(crate) fn add(&mut self, other: &[wire::Count]) {
        for count in other {
            let event_type = count.r#type.clone();
            match (count.archived, count.untimed) {
                (true, _) => {
                    *self.archived.entry((event_type, count.day)).or_default() += count.count;
                }
                (false, untimed) => {
                    let day = (!untimed).then_some(count.day);
                    *self.happened.entry((event_type, day)).or_default() += count.count;
                }
            }
        }
    }

    pub(crate) fn to_wire(&self) -> Vec<wire::Count> {
        let archived = self
            .archived
            .iter()
            .map(|((event_type, day), count)| wire::Count {
                r#type: event_type.clone(),
                archived: true,
                day: *day,
                untimed: false,
                count: *count,
            });
        let happened = self
            .happened
            .iter()
            .map(|((event_type, day), count)| wire::Count {
                r#type: event_type.clone(),
                archived: false,
                day: day.unwrap_or_default(),
                untimed: day.is_none(),
                count: *count,
            });
        archived
            .chain(happened)
            .filter(|count| count.count > 0)
            .collect()
    }
}

/// The day an instant lies in, microseconds since 1970.
pub(crate) fn day_of_us(micros: i64) -> Day {
    micros.div_euclid(MICROS_PER_DAY) as Day
}

/// Most sources that are told of.
const SOURCES_MAX: usize = 1024;

/// The sources of events, as long as they are few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    names: BTreeSet<String>,
    many: bool,
}

impl Sources {
    /// All of them, unless they are too many to be told of.
    pub(crate) fn known(self) -> Option<BTreeSet<String>> {
        (!self.many).then_some(self.names)
    }

    pub(crate) fn add(&mut self, source: &str) {
        if self.many || self.names.contains(source) {
            return;
        }
        self.names.insert(source.to_owned());
        self.many = self.names.len() > SOURCES_MAX;
        if self.many {
            self.names.clear();
        }
    }

    /// Adds what a run says. The same whatever runs the same events are in.
    pub(crate) fn add_wire(&mut self, run: &wire::Run) {
        self.many |= run.many_sources;
        match self.many {
            true => self.names.clear(),
            false => run.sources.iter().for_each(|source| self.add(source)),
        }
    }

    pub(crate) fn put_wire(self, run: &mut wire::Run) {
        run.many_sources = self.many;
        run.sources = self.names.into_iter().collect();
    }
}

/// Which numbers of each producer incarnation the archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    /// By producer: disjoint intervals, both ends included, ascending, never adjacent.
    intervals: BTreeMap<String, Vec<(u64, u64)>>,
}

/// Numbers of a producer that are not in the archive though later ones are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The producer's incarnation.
    pub producer: String,
    /// First missing number.
    pub first: u64,
    /// Last missing number.
    pub last: u64,
}

impl Producers {
    /// Every producer and its numbers: disjoint intervals, both ends included, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[(u64, u64)])> {
        self.intervals
            .iter()
            .map(|(producer, i)| (producer.as_str(), i.as_slice()))
    }

    /// The numbers missing between 1 and a producer's last.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for (producer, intervals) in self.iter() {
            let mut next = 1;
            for &(first, last) in intervals {
                if first > next {
                    let producer = producer.to_owned();
                    gaps.push(Gap {
                        producer,
                        first: next,
                        last: first - 1,
                    });
                }
                next = last.saturating_add(1);
            }
        }
        gaps
    }

    pub(crate) fn add(&mut self, producer: &str, first: u64, last: u64) {
        let Some(intervals) = self.intervals.get_mut(producer) else {
            self.intervals
                .insert(producer.to_owned(), vec![(first, last)]);
            return;
        };
        // Nearly always the number after the last one.
        if let Some(newest) = intervals.last_mut()
            && first >= newest.0
            && first <= newest.1.saturating_add(1)
        {
            newest.1 = newest.1.max(last);
            return;
        }
        insert(intervals, first, last);
    }

    pub(crate) fn add_all(&mut self, other: &Producers) {
        for (producer, intervals) in other.iter() {
            intervals
                .iter()
                .for_each(|&(first, last)| self.add(producer, first, last));
        }
    }

    pub(crate) fn add_wire(&mut self, other: &[wire::Producer]) {
        for producer in other {
            for ends in producer.ends.as_chunks::<2>().0 {
                self.add(&producer.producer, ends[0], ends[1]);
            }
        }
    }

    pub(crate) fn to_wire(&self) -> Vec<wire::Producer> {
        let wire = self.iter().map(|(producer, intervals)| wire::Producer {
            producer: producer.to_owned(),
            ends: intervals
                .iter()
                .flat_map(|&(first, last)| [first, last])
                .collect(),
        });
        wire.collect()
    }
}

fn insert(intervals: &mut Vec<(u64, u64)>, mut first: u64, mut last: u64) {
    // All that touch the new one melt into it.
    let from = intervals.partition_point(|i| i.1.saturating_add(1) < first);
    let until = intervals.partition_point(|i| i.0 <= last.saturating_add(1));
    if let Some(touched) = intervals
        .get(from..until)
        .filter(|touched| !touched.is_empty())
    {
        first = first.min(touched[0].0);
        last = last.max(touched[touched.len() - 1].1);
    }
    intervals.splice(from..until.max(from), [(first, last)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn intervals_hold_exactly_the_numbers_added(
            added in prop::collection::vec((1u64..60, 0u64..6), 0..40),
        ) {
            let mut producers = Producers::default();
            let mut numbers = BTreeSet::new();
            for (first, more) in added {
                producers.add("p", first, first + more);
                numbers.extend(first..=first + more);
            }
            let held = producers.iter().flat_map(|(_, i)| i.to_vec()).collect::<Vec<_>>();
            let all: Vec<u64> = held.iter().flat_map(|&(first, last)| first..=last).collect();
            prop_assert_eq!(&all, &numbers.iter().copied().collect::<Vec<_>>());
            prop_assert!(held.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}", held);
            let gaps = producers.gaps();
            let missing: Vec<u64> = gaps.iter().flat_map(|g| g.first..=g.last).collect();
            let last = numbers.last().copied().unwrap_or(0);
            let expected: Vec<u64> = (1..=last).filter(|n| !numbers.contains(n)).collect();
            prop_assert_eq!(missing, expected);
        }
    }

    #[test]
    fn sources_are_told_of_while_they_are_few_however_runs_are_joined() {
        let run = |numbers: std::ops::Range<usize>| {
            let mut sources = Sources::default();
            numbers.for_each(|n| sources.add(&format!("/s-{n:04}")));
            let mut run = wire::Run::default();
            sources.put_wire(&mut run);
            run
        };
        let joined = |runs: &[wire::Run]| {
            let mut sources = Sources::default();
            runs.iter().for_each(|run| sources.add_wire(run));
            sources
        };
        let few = joined(&[run(0..600), run(500..1024)]);
        assert_eq!(few.known().unwrap().len(), 1024);
        for many in [
            &[run(0..600), run(500..1025)][..],
            &[run(0..1), run(0..1025), run(1..2)],
        ] {
            assert_eq!(joined(many), joined(&[run(0..1025)]));
            assert_eq!(joined(many).known(), None);
        }
    }

    #[test]
    fn the_last_number_there_is_overflows_nothing() {
        let mut producers = Producers::default();
        for number in [u64::MAX, u64::MAX - 1, 1, u64::MAX] {
            producers.add("p", number, number);
        }
        let gap = Gap {
            producer: "p".into(),
            first: 2,
            last: u64::MAX - 2,
        };
        assert_eq!(producers.gaps(), [gap]);
    }
}
