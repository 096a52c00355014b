//! Recovery: the state as a snapshot, and its rebuilding from a snapshot and the records after.
//!
//! A snapshot (docs/formats/broker-log.md): version; next queue id; exchanges; queues, each with
//! its numbers and the positions of its messages, delta-coded; bindings. Only what outlives a
//! restart is in it.

use super::arguments::Arguments;
use super::index::{Index, SEQUENCE_MAX};
use super::queue::Queue;
use super::record::{self, Input, put_binding, put_exchange, put_queue, unzigzag, zigzag};
use super::spec::{Destination, ExchangeSpec, QueueSpec};
use super::state::State;
use crate::log::{Entry, Lsn};
use crate::message::take_copies;
use annals_core::frame::put_varint;
use std::collections::HashMap;

const VERSION: u64 = 1;

impl State {
    /// Writes what outlives a restart. With `exact`, nothing is with consumers: only what was
    /// delivered counts as that after the restart.
    pub(crate) fn snapshot(&self, exact: bool, out: &mut Vec<u8>) {
        put_varint(VERSION, out);
        put_varint(self.queue_ids.into(), out);
        let exchanges = || self.exchanges.iter().filter(|(_, e)| e.durable);
        put_varint(exchanges().count() as u64, out);
        for (name, exchange) in exchanges() {
            let spec = ExchangeSpec {
                name: name.to_string(),
                kind: exchange.kind,
                durable: true,
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
                passive: false,
                arguments: exchange.arguments.clone(),
            };
            put_exchange(&spec, out);
        }
        let queues = || {
            let queues = self.queues.iter().map(|(_, queue)| queue);
            queues.filter(|queue| queue.is_recorded() && !queue.is_dead)
        };
        put_varint(queues().count() as u64, out);
        for queue in queues() {
            let spec = QueueSpec {
                name: queue.name.to_string(),
                durable: true,
                exclusive: false,
                auto_delete: queue.auto_delete,
                passive: false,
                arguments: queue.table.clone(),
            };
            put_queue(queue.id, &spec, out);
            let delivered = if exact {
                queue.index.delivered()
            } else {
                queue.delivered
            };
            put_varint(delivered, out);
            put_index(&queue.index, out);
        }
        let bindings = || {
            let all = exchanges().flat_map(|(n, e)| e.bindings().iter().map(|b| b.spec(n)));
            all.filter(|binding| match &binding.destination {
                Destination::Exchange(name) => self.exchanges.get(name).is_some_and(|e| e.durable),
                Destination::Queue(name) => {
                    let place = self.queue_names.get(name.as_str());
                    place
                        .and_then(|place| self.queues.get(*place))
                        .is_some_and(Queue::is_recorded)
                }
            })
        };
        put_varint(bindings().count() as u64, out);
        for binding in bindings() {
            put_binding(&binding, out);
        }
    }
}

/// Rebuilds a [`State`] from what the log replays.
#[derive(Debug)]
pub(crate) struct Recovering {
    state: State,
    /// Places of queues by id.
    places: HashMap<u32, u32>,
    /// Entries that say nothing that can be read.
    pub(crate) malformed: u64,
}

impl Recovering {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state,
            places: HashMap::new(),
            malformed: 0,
        }
    }

    /// One entry of the log.
    pub(crate) fn visit(&mut self, entry: Entry<'_>) {
        let read = match entry {
            Entry::Snapshot(bytes) => self.restore(bytes),
            Entry::Record(lsn, kind, payload) => self.replay(lsn, kind, payload),
        };
        if read.is_none() {
            self.malformed += 1;
        }
    }

    /// The state as of the log's end. Messages that lie in none of the segments are lost; how
    /// many those are.
    pub(crate) fn finish(mut self, segments: impl Fn(u32) -> bool) -> (State, u64) {
        let mut lost = 0;
        for &place in self.places.values() {
            let Some(queue) = self.state.queues.get_mut(place) else {
                continue;
            };
            let gone: Vec<u64> = queue
                .index
                .iter()
                .filter(|message| !segments(message.lsn.segment()))
                .map(|message| message.sequence)
                .collect();
            lost += gone.len() as u64;
            for sequence in gone {
                queue.index.restore_settled(sequence);
            }
            queue.index.restored(queue.delivered);
            for message in queue.index.iter() {
                self.state.segments.add(message.lsn.segment(), 1);
            }
            self.state.totals.messages += queue.index.live();
        }
        self.state.exchanges.changed();
        (self.state, lost)
    }

    fn restore(&mut self, bytes: &[u8]) -> Option<()> {
        let mut input = Input(bytes);
        if input.long()? != VERSION {
            return None;
        }
        self.state.queue_ids = input.number()?;
        for _ in 0..input.long()? {
            self.insert_exchange(input.exchange()?);
        }
        for _ in 0..input.long()? {
            let (id, spec) = input.queue()?;
            let place = self.insert_queue(id, spec)?;
            let queue = self.state.queues.get_mut(place)?;
            queue.delivered = take_sequence(&mut input)?;
            take_index(&mut input, &mut queue.index)?;
        }
        for _ in 0..input.long()? {
            self.state.exchanges.bind(&input.binding()?).ok()?;
        }
        Some(())
    }

    fn replay(&mut self, lsn: Lsn, kind: u8, payload: &[u8]) -> Option<()> {
        let mut input = Input(payload);
        match kind {
            record::PUBLISH => {
                let (state, places) = (&mut self.state, &self.places);
                let mut sound = true;
                take_copies(payload, |id, sequence| {
                    let place = places.get(&id);
                    if sequence > SEQUENCE_MAX {
                        sound = false;
                    } else if let Some(queue) = place.and_then(|p| state.queues.get_mut(*p)) {
                        queue.index.restore(sequence, lsn);
                    }
                })?;
                return sound.then_some(());
            }
            record::SETTLED => {
                let (state, places) = (&mut self.state, &self.places);
                record::take_settled(payload, |id, first, last| {
                    let place = places.get(&id);
                    if let Some(queue) = place.and_then(|place| state.queues.get_mut(*place)) {
                        queue.index.restore_settled_range(first, last);
                    }
                })?;
            }
            record::EXCHANGE => self.insert_exchange(input.exchange()?),
            record::EXCHANGE_GONE => drop(self.state.exchanges.remove(&input.text()?)),
            record::QUEUE => {
                let (id, spec) = input.queue()?;
                self.insert_queue(id, spec)?;
            }
            record::QUEUE_GONE => {
                let place = self.places.remove(&input.number()?)?;
                let queue = self.state.queues.remove(place)?;
                self.state.queue_names.remove(&queue.name);
                let destination = Destination::Queue(queue.name.to_string());
                self.state.exchanges.unbind_destination(&destination);
            }
            record::BOUND => drop(self.state.exchanges.bind(&input.binding()?).ok()?),
            record::UNBOUND => {
                self.state.exchanges.unbind(&input.binding()?);
            }
            record::DELIVERED => {
                let place = *self.places.get(&input.number()?)?;
                self.state.queues.get_mut(place)?.delivered = take_sequence(&mut input)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn insert_exchange(&mut self, spec: ExchangeSpec) {
        if self.state.exchanges.get(&spec.name).is_none() {
            self.state.exchanges.insert(&spec);
        }
    }

    fn insert_queue(&mut self, id: u32, spec: QueueSpec) -> Option<u32> {
        // A second of the id or the name would leave the first without a way to it.
        let names = &self.state.queue_names;
        if self.places.contains_key(&id) || names.contains_key(spec.name.as_str()) {
            return None;
        }
        let arguments = Arguments::parse(&spec.arguments).ok()?;
        let queue = Queue::new(id, &spec, arguments, None);
        self.state.queue_ids = self.state.queue_ids.max(id);
        self.state.insert_queue(queue);
        let place = *self.state.queue_names.get(spec.name.as_str())?;
        self.places.insert(id, place);
        Some(place)
    }
}

/// Messages of an index that outlive a restart: count; then for each how far its number lies
/// behind the one before, and its position: bytes further in the same segment, or else the
/// distance in segments and the offset there.
fn put_index(index: &Index, out: &mut Vec<u8>) {
    let kept = || index.iter().filter(|message| !message.transient);
    put_varint(kept().count() as u64, out);
    let (mut sequence, mut lsn) = (0, Lsn::new(0, 0));
    for message in kept() {
        put_varint(message.sequence - sequence, out);
        let (segment, offset) = (message.lsn.segment(), message.lsn.offset());
        if segment == lsn.segment() {
            let step = i64::from(offset) - i64::from(lsn.offset());
            put_varint(zigzag(step) << 1, out);
        } else {
            let step = i64::from(segment) - i64::from(lsn.segment());
            put_varint(zigzag(step) << 1 | 1, out);
            put_varint(offset.into(), out);
        }
        (sequence, lsn) = (message.sequence, message.lsn);
    }
}

fn take_sequence(input: &mut Input<'_>) -> Option<u64> {
    input.long().filter(|sequence| *sequence <= SEQUENCE_MAX)
}

fn take_index(input: &mut Input<'_>, index: &mut Index) -> Option<()> {
    let count = input.long()?;
    // A message takes two bytes at least: a count that lies reserves no more than that.
    index.reserve((count as usize).min(input.0.len() / 2));
    let (mut sequence, mut segment, mut offset) = (0_u64, 0_i64, 0_i64);
    for _ in 0..count {
        sequence = sequence.checked_add(take_sequence(input)?)?;
        if sequence > SEQUENCE_MAX {
            return None;
        }
        let code = input.long()?;
        let step = unzigzag(code >> 1);
        if code & 1 == 0 {
            offset = offset.checked_add(step)?;
        } else {
            segment = segment.checked_add(step)?;
            offset = input.number()?.into();
        }
        // Segments are numbered from 1, and the index keeps its flags above their numbers.
        if !(1..1 << 30).contains(&segment) {
            return None;
        }
        let lsn = Lsn::new(segment.try_into().ok()?, offset.try_into().ok()?);
        index.restore(sequence, lsn);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::state::Bounds;
    use crate::message::put_head;
    use annals_core::sim::SimRandom;
    use std::sync::Arc;

    /// Recovery of a queue of id 1.
    fn of_one_queue() -> Recovering {
        let bounds = Bounds {
            window: 1,
            unsettled_max: 1,
        };
        let mut recovering = Recovering::new(State::new(bounds, Arc::new(SimRandom::new(1))));
        let spec = QueueSpec {
            name: "q".to_owned(),
            durable: true,
            exclusive: false,
            auto_delete: false,
            passive: false,
            arguments: bytes::Bytes::new(),
        };
        let (kind, payload) = record::queue(1, &spec);
        recovering.visit(Entry::Record(Lsn::new(1, 64), kind, &payload));
        assert_eq!(recovering.malformed, 0);
        recovering
    }

    fn publish(recovering: &mut Recovering, offset: u32, sequence: u64) {
        let mut payload = Vec::new();
        put_head(&[(1, sequence)], "", "q", 0, &mut payload);
        recovering.visit(Entry::Record(
            Lsn::new(1, offset),
            record::PUBLISH,
            &payload,
        ));
    }

    fn settled(recovering: &mut Recovering, first: u64, last: u64) {
        let mut payload = Vec::new();
        record::put_settled(1, &[(first, last)], &mut payload);
        recovering.visit(Entry::Record(Lsn::new(1, 800), record::SETTLED, &payload));
    }

    /// What is left: sequence numbers, and that of the next message.
    fn left(recovering: Recovering) -> (Vec<u64>, u64) {
        let (state, lost) = recovering.finish(|_| true);
        assert_eq!(lost, 0);
        let (_, queue) = state.queues.iter().next().unwrap();
        let sequences = queue.index.iter().map(|message| message.sequence);
        (sequences.collect(), queue.index.end())
    }

    #[test]
    fn a_number_that_leaves_none_for_the_next_message_is_malformed() {
        for number in [u64::MAX, u64::MAX - 1, SEQUENCE_MAX + 1] {
            let mut recovering = of_one_queue();
            publish(&mut recovering, 100, 7);
            publish(&mut recovering, 200, number);
            publish(&mut recovering, 300, 8);
            let (kind, payload) = record::delivered(1, number);
            recovering.visit(Entry::Record(Lsn::new(1, 400), kind, &payload));
            assert_eq!(recovering.malformed, 2, "{number}");
            assert_eq!(left(recovering), (vec![7, 8], 9), "{number}");
        }
        let mut recovering = of_one_queue();
        publish(&mut recovering, 100, SEQUENCE_MAX);
        assert_eq!(recovering.malformed, 0);
        assert_eq!(left(recovering), (vec![SEQUENCE_MAX], SEQUENCE_MAX + 1));
    }

    #[test]
    fn a_snapshot_with_such_a_number_is_malformed() {
        for (delivered, sequence) in [(0, u64::MAX), (u64::MAX, 7)] {
            let mut sound = of_one_queue();
            publish(&mut sound, 100, 7);
            let (mut state, _) = sound.finish(|_| true);
            let place = *state.queue_names.get("q").unwrap();
            let queue = state.queues.get_mut(place).unwrap();
            queue.delivered = delivered;
            let mut bytes = Vec::new();
            state.snapshot(false, &mut bytes);
            // The message's number is the one byte before its position: 7, then a step of one
            // segment to number 1 (code 5) at offset 100.
            let at = bytes.windows(3).position(|w| w == [7, 5, 100]).unwrap();
            let mut number = Vec::new();
            put_varint(sequence, &mut number);
            bytes.splice(at..=at, number);
            let bounds = Bounds {
                window: 1,
                unsettled_max: 1,
            };
            let mut recovering = Recovering::new(State::new(bounds, Arc::new(SimRandom::new(1))));
            recovering.visit(Entry::Snapshot(&bytes));
            assert_eq!(recovering.malformed, 1, "{delivered} {sequence}");
            // What it was made of is not left half-way.
            recovering.finish(|_| true);
        }
    }

    #[test]
    fn settled_numbers_cost_what_is_there_and_not_their_range() {
        let mut recovering = of_one_queue();
        for (offset, sequence) in [(100, 3), (200, 1 << 40), (300, SEQUENCE_MAX)] {
            publish(&mut recovering, offset, sequence);
        }
        settled(&mut recovering, 0, SEQUENCE_MAX - 1);
        assert_eq!(recovering.malformed, 0);
        assert_eq!(left(recovering), (vec![SEQUENCE_MAX], SEQUENCE_MAX + 1));
    }
}
