//! Settlement: what becomes of messages given out, by word of the client or by its end.

use super::channel::Given;
use super::spec::{Destination, Refusal, Settle, Settlement};
use super::state::State;
use crate::outbox::Taken;

impl State {
    /// Settles deliveries of a channel; an unknown tag ends the channel.
    pub(crate) fn settle(&mut self, session: u64, number: u16, batch: &[Settlement]) {
        for settlement in batch {
            let Some(place) = self.channel(session, number) else {
                return;
            };
            if !self.settle_one(place, *settlement) {
                let text = format!("unknown delivery tag {}", settlement.tag);
                self.fail_channel(session, number, Refusal::new(406, text));
                return;
            }
        }
    }

    fn settle_one(&mut self, place: u32, settlement: Settlement) -> bool {
        let Settlement { tag, multiple, how } = settlement;
        let Some(channel) = self.channels.get_mut(place) else {
            return true;
        };
        if !multiple {
            let given = channel.unsettled.take(tag);
            return given.map(|given| self.settle_given(given, how)).is_some();
        }
        if tag != 0 && !channel.unsettled.knows(tag) {
            return false;
        }
        let up_to = if tag == 0 { u64::MAX } else { tag };
        while let Some(given) = self
            .channels
            .get_mut(place)
            .and_then(|channel| channel.unsettled.take_first(up_to))
        {
            self.settle_given(given, how);
        }
        true
    }

    fn settle_given(&mut self, given: Given, how: Settle) {
        self.settle_message(given.queue, given.sequence, how);
        if let Some(consumer) = self.consumers.get_mut(given.consumer) {
            consumer.unsettled -= 1;
            let (queue, is_over) = (consumer.queue, consumer.is_over());
            if is_over {
                self.consumers.remove(given.consumer);
            } else {
                self.touch(queue);
            }
        }
    }

    /// Settles a message that was given out, whoever had it.
    fn settle_message(&mut self, place: u32, sequence: u64, how: Settle) {
        let Some(queue) = self.queues.get_mut(place) else {
            return;
        };
        queue.unsettled -= 1;
        if how == Settle::Requeue && !queue.is_dead {
            queue.index.put_back(sequence);
            self.touch(place);
            return;
        }
        self.totals.settled += 1;
        if let Some(message) = queue.index.settle(sequence) {
            self.segments.sub(message.lsn.segment());
            self.totals.messages -= 1;
            if !message.transient {
                if queue.settled.is_empty() {
                    self.settling.push(place);
                }
                queue.note_settled(sequence);
            }
        }
        if queue.is_dead && queue.unsettled == 0 {
            self.queues.remove(place);
        }
    }

    /// The session took deliveries of consumers bounded by that: they may have more.
    pub(crate) fn took(&mut self, taken: &[Taken]) {
        for taken in taken {
            if let Some(consumer) = self.consumers.get_mut(taken.consumer as u32)
                && consumer.id == taken.consumer
            {
                consumer.untaken = consumer.untaken.saturating_sub(taken.count);
                let queue = consumer.queue;
                self.touch(queue);
            }
        }
    }

    /// The session dealt with deliveries it took: those without need of settlement are settled.
    pub(crate) fn dealt(&mut self, done: &[Taken]) {
        for done in done {
            let place = done.consumer as u32;
            for _ in 0..done.count {
                let Some(consumer) = self.consumers.get_mut(place) else {
                    break;
                };
                if consumer.id != done.consumer {
                    break;
                }
                let Some(sequence) = consumer.in_flight.pop_front() else {
                    break;
                };
                let queue = consumer.queue;
                self.settle_message(queue, sequence, Settle::Ack);
            }
            if let Some(consumer) = self.consumers.get(place)
                && consumer.id == done.consumer
                && consumer.is_over()
            {
                if let Some(channel) = self.channels.get_mut(consumer.channel) {
                    channel.stopped.retain(|id| *id != done.consumer);
                }
                self.consumers.remove(place);
            }
        }
    }

    /// Ends a channel: its consumers stop, what it has unsettled goes back.
    pub(crate) fn close_channel(&mut self, session: u64, number: u16) {
        let Some(client) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(place) = client.channels.remove(&number) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(place) else {
            return;
        };
        let consumers: Vec<u32> = channel.consumers.drain().map(|(_, place)| place).collect();
        let queues: Vec<u32> = consumers
            .iter()
            .filter_map(|place| self.stop_consumer(*place))
            .collect();
        while let Some(given) = self
            .channels
            .get_mut(place)
            .and_then(|channel| channel.unsettled.take_first(u64::MAX))
        {
            self.settle_given(given, Settle::Requeue);
        }
        let stopped = self.channels.remove(place).map(|channel| channel.stopped);
        for id in stopped.into_iter().flatten() {
            self.return_in_flight(id);
        }
        for queue in queues {
            self.delete_if_abandoned(queue);
        }
    }

    /// Ends a session: its channels, then the queues that are its alone.
    pub(crate) fn close_session(&mut self, session: u64) {
        let Some(client) = self.sessions.get(&session) else {
            return;
        };
        let mut numbers: Vec<u16> = client.channels.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.close_channel(session, number);
        }
        let owned: Vec<u32> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.owner == Some(session) && !queue.is_dead)
            .map(|(place, _)| place)
            .collect();
        for place in owned {
            self.remove_queue(place);
        }
        self.sessions.remove(&session);
    }

    /// Takes a consumer off its queue; the queue's place.
    pub(super) fn stop_consumer(&mut self, place: u32) -> Option<u32> {
        let consumer = self.consumers.get_mut(place)?;
        consumer.is_dead = true;
        let (queue_place, exclusive, is_over) =
            (consumer.queue, consumer.exclusive, consumer.is_over());
        if !consumer.in_flight.is_empty()
            && let Some(channel) = self.channels.get_mut(consumer.channel)
        {
            channel.stopped.push(consumer.id);
        }
        if is_over {
            self.consumers.remove(place);
        }
        if let Some(queue) = self.queues.get_mut(queue_place) {
            queue.consumers.retain(|consumer| *consumer != place);
            queue.turn = 0;
            if exclusive {
                queue.has_exclusive_consumer = false;
            }
        }
        Some(queue_place)
    }

    /// Deletes an auto-delete queue that has lost its last consumer.
    pub(super) fn delete_if_abandoned(&mut self, place: u32) {
        let Some(queue) = self.queues.get(place) else {
            return;
        };
        if queue.auto_delete && queue.consumers.is_empty() && !queue.is_dead {
            self.remove_queue(place);
        }
    }

    /// Deletes a queue, the bindings to it and its ready messages, and tells its consumers; how
    /// many messages those were.
    pub(super) fn remove_queue(&mut self, place: u32) -> u64 {
        let Some(queue) = self.queues.get_mut(place) else {
            return 0;
        };
        let (segments, totals) = (&mut self.segments, &mut self.totals);
        let count = queue.index.purge(|message| {
            segments.sub(message.lsn.segment());
            totals.messages -= 1;
            totals.dropped += 1;
        });
        queue.is_dead = true;
        let name = queue.name.clone();
        let consumers = std::mem::take(&mut queue.consumers);
        let (id, is_recorded, is_free) = (queue.id, queue.is_recorded(), queue.unsettled == 0);
        if is_recorded {
            self.record_queue_gone(id);
        }
        self.queue_names.remove(&name);
        if is_free {
            self.queues.remove(place);
        }
        for consumer in consumers {
            self.cancel_by_broker(consumer);
        }
        let gone = self
            .exchanges
            .unbind_destination(&Destination::Queue(name.to_string()));
        self.delete_idle(gone.idle);
        count
    }

    fn return_in_flight(&mut self, id: u64) {
        let place = id as u32;
        while let Some(consumer) = self.consumers.get_mut(place).filter(|c| c.id == id) {
            let queue = consumer.queue;
            match consumer.in_flight.pop_front() {
                Some(sequence) => self.settle_message(queue, sequence, Settle::Requeue),
                None if consumer.is_over() => drop(self.consumers.remove(place)),
                None => return,
            }
        }
    }
}
