//! Dispatch: ready messages go to consumers with credit, in turn. After the commit.

use super::channel::Given;
use super::record;
use super::state::State;
use crate::message::Delivered;
use crate::outbox::Taken;
use crate::session::SessionEvent;

/// How far ahead of its deliveries a queue's mark is put into the log. After a crash, up to so
/// many messages that no consumer saw are flagged redelivered.
const MARK_AHEAD: u64 = 16_384;

impl State {
    /// Before the commit: records, for queues about to deliver, how far they may.
    pub(crate) fn mark_deliverable(&mut self) {
        for at in 0..self.dirty.len() {
            let place = self.dirty[at];
            let Some(queue) = self.queues.get(place) else {
                continue;
            };
            if queue.consumers.is_empty() || queue.index.ready() == 0 {
                continue;
            }
            self.raise_mark(place);
        }
    }

    /// Raises a queue's mark if its next delivery nears it.
    pub(super) fn raise_mark(&mut self, place: u32) {
        let Some(queue) = self.queues.get_mut(place) else {
            return;
        };
        let next = queue.index.next_ready();
        if !queue.is_recorded() || next + MARK_AHEAD / 2 < queue.delivered {
            return;
        }
        queue.delivered = next + MARK_AHEAD;
        let record = record::delivered(queue.id, queue.delivered);
        self.records.push(record);
    }

    /// After the commit: gives messages out. Whether some wait for a mark, so that another group
    /// is needed.
    pub(crate) fn dispatch(&mut self) -> bool {
        let mut waiting = Vec::new();
        for place in std::mem::take(&mut self.dirty) {
            if let Some(queue) = self.queues.get_mut(place) {
                queue.is_dirty = false;
                if self.dispatch_queue(place) {
                    waiting.push(place);
                }
            }
        }
        for place in &waiting {
            self.touch(*place);
        }
        !waiting.is_empty()
    }

    fn dispatch_queue(&mut self, place: u32) -> bool {
        let (window, unsettled_max) = (self.bounds.window, self.bounds.unsettled_max);
        let Some(queue) = self.queues.get_mut(place) else {
            return false;
        };
        let count = queue.consumers.len();
        let mut without_credit = 0;
        let mut waits = false;
        while without_credit < count && queue.index.ready() > 0 {
            if !queue.may_deliver() {
                waits = true;
                break;
            }
            queue.turn = if queue.turn + 1 >= count {
                0
            } else {
                queue.turn + 1
            };
            let Some(consumer) = self.consumers.get_mut(queue.consumers[queue.turn]) else {
                without_credit += 1;
                continue;
            };
            if !consumer.has_credit(window, unsettled_max) {
                without_credit += 1;
                continue;
            }
            without_credit = 0;
            let Some(message) = queue.index.take() else {
                break;
            };
            queue.unsettled += 1;
            if !consumer.no_ack {
                consumer.unsettled += 1;
            }
            if consumer.has_window() {
                consumer.untaken += 1;
            }
            consumer.pending.push(message);
        }
        // Credit left unused by one without messages is looked at again when something changes.
        for at in 0..count {
            let Some(queue) = self.queues.get(place) else {
                break;
            };
            let consumer = queue.consumers[at];
            self.hand_over(place, consumer);
        }
        waits
    }

    /// Gives tags to what a consumer was dealt, and tells its session.
    fn hand_over(&mut self, queue: u32, place: u32) {
        let Some(consumer) = self.consumers.get_mut(place) else {
            return;
        };
        if consumer.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut consumer.pending);
        let Some(channel) = self.channels.get_mut(consumer.channel) else {
            return;
        };
        let number = channel.number;
        let mut deliveries = Vec::with_capacity(pending.len());
        for message in &pending {
            let tag = if consumer.no_ack {
                consumer.in_flight.push_back(message.sequence);
                channel.unsettled.skip()
            } else {
                channel.unsettled.push(Given {
                    sequence: message.sequence,
                    queue,
                    consumer: place,
                })
            };
            deliveries.push(Delivered {
                tag,
                redelivered: message.redelivered,
                lsn: message.lsn,
            });
        }
        self.totals.delivered += deliveries.len() as u64;
        let taken = consumer.has_window().then_some(Taken {
            consumer: consumer.id,
            count: deliveries.len() as u32,
        });
        let (session, consumer_tag) = (consumer.session, consumer.tag.clone());
        self.tell(
            session,
            SessionEvent::Deliveries {
                channel: number,
                consumer_tag,
                deliveries,
            },
        );
        if let Some(client) = self.sessions.get_mut(&session) {
            client.taken.extend(taken);
        }
    }
}
