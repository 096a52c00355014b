//! [`State`]: all the broker knows, and what a group of commands leaves to be written and told.

use super::channel::{Channel, Consumer};
use super::exchange::{Exchanges, Route};
use super::queue::Queue;
use super::segments::Segments;
use super::slab::Slab;
use super::spec::Refusal;
use crate::log::Lsn;
use crate::outbox::Taken;
use crate::session::SessionEvent;
use annals_core::Random;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bounds the state keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) window: u32,
    pub(crate) unsettled_max: u32,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(super) bounds: Bounds,
    pub(super) random: Arc<dyn Random>,
    pub(super) exchanges: Exchanges,
    pub(super) queues: Slab<Queue>,
    pub(super) queue_names: HashMap<Arc<str>, u32>,
    pub(super) queue_ids: u32,
    pub(super) channels: Slab<Channel>,
    pub(super) consumers: Slab<Consumer>,
    pub(super) consumer_ids: u64,
    pub(super) sessions: BTreeMap<u64, Client>,
    pub(crate) segments: Segments,
    pub(crate) totals: Totals,
    /// Topology of this group, to be recorded: kind, payload.
    pub(crate) records: Vec<(u8, Vec<u8>)>,
    /// Queues with something settled in this group.
    pub(super) settling: Vec<u32>,
    /// Queues dispatch is to look at.
    pub(super) dirty: Vec<u32>,
    /// Sessions with events.
    pub(super) touched: Vec<u64>,
    /// The last way found: neighbours mostly share it.
    last_route: Option<(Arc<str>, Arc<str>, u64, Route)>,
}

/// What a session has.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Places of channels by number.
    pub(super) channels: HashMap<u16, u32>,
    pub(super) events: Vec<SessionEvent>,
    pub(super) taken: Vec<Taken>,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) delivered: u64,
    pub(crate) settled: u64,
    /// Purged, or gone with their queue.
    pub(crate) dropped: u64,
    pub(crate) messages: u64,
}

impl State {
    pub(crate) fn new(bounds: Bounds, random: Arc<dyn Random>) -> Self {
        Self {
            bounds,
            random,
            exchanges: Exchanges::predeclared(),
            queues: Slab::default(),
            queue_names: HashMap::new(),
            queue_ids: 0,
            channels: Slab::default(),
            consumers: Slab::default(),
            consumer_ids: 0,
            sessions: BTreeMap::new(),
            segments: Segments::default(),
            totals: Totals::default(),
            records: Vec::new(),
            settling: Vec::new(),
            dirty: Vec::new(),
            touched: Vec::new(),
            last_route: None,
        }
    }

    pub(crate) fn open_session(&mut self, session: u64) {
        self.sessions.insert(session, Client::default());
    }

    /// Where a message goes.
    #[inline]
    pub(crate) fn route(&mut self, exchange: &Arc<str>, key: &Arc<str>) -> Result<Route, Refusal> {
        let version = self.exchanges.version();
        if let Some((last_exchange, last_key, at, route)) = &self.last_route
            && *at == version
            && last_key == key
            && last_exchange == exchange
        {
            return Ok(Arc::clone(route));
        }
        let names = &self.queue_names;
        let route = self
            .exchanges
            .route(exchange, key, |name| names.get(name).copied())?;
        self.last_route = Some((
            Arc::clone(exchange),
            Arc::clone(key),
            version,
            Arc::clone(&route),
        ));
        Ok(route)
    }

    /// The copies of a message that outlive a restart: queue id, sequence number.
    #[inline]
    pub(crate) fn copies(&self, route: &[u32], copies: &mut Vec<(u32, u64)>) {
        for &place in route {
            if let Some(queue) = self.queues.get(place).filter(|queue| queue.is_recorded()) {
                copies.push((queue.id, queue.index.end()));
            }
        }
    }

    /// Adds a message to the queues of its route.
    #[inline]
    pub(crate) fn enqueue(&mut self, route: &[u32], lsn: Lsn, persistent: bool) {
        for &place in route {
            let Some(queue) = self.queues.get_mut(place) else {
                continue;
            };
            let transient = !persistent || !queue.is_recorded();
            queue.index.push(lsn, transient);
            if !queue.is_dirty {
                queue.is_dirty = true;
                self.dirty.push(place);
            }
        }
        self.segments.add(lsn.segment(), route.len() as u64);
        self.totals.messages += route.len() as u64;
    }

    /// The place of a session's channel, which opens with its first use; `None` if it is told to
    /// close, or the session is gone.
    pub(crate) fn channel(&mut self, session: u64, number: u16) -> Option<u32> {
        let client = self.sessions.get_mut(&session)?;
        let channels = &mut self.channels;
        let place = *client
            .channels
            .entry(number)
            .or_insert_with(|| channels.insert(Channel::new(number)));
        let is_dead = self.channels.get(place)?.is_dead;
        (!is_dead).then_some(place)
    }

    /// Tells a session something after the commit.
    pub(crate) fn tell(&mut self, session: u64, event: SessionEvent) {
        if let Some(client) = self.sessions.get_mut(&session) {
            if client.events.is_empty() {
                self.touched.push(session);
            }
            client.events.push(event);
        }
    }

    /// A refusal without an answer of its own: the channel is to close.
    pub(crate) fn fail_channel(&mut self, session: u64, number: u16, refusal: Refusal) {
        let Some(place) = self.channel(session, number) else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(place) {
            channel.is_dead = true;
        }
        self.tell(
            session,
            SessionEvent::ChannelError {
                channel: number,
                refusal,
            },
        );
    }

    /// Hands on what sessions are to be told.
    pub(crate) fn take_events(
        &mut self,
        mut each: impl FnMut(u64, &mut Vec<SessionEvent>, &mut Vec<Taken>),
    ) {
        for session in std::mem::take(&mut self.touched) {
            if let Some(client) = self.sessions.get_mut(&session) {
                each(session, &mut client.events, &mut client.taken);
            }
        }
    }

    pub(crate) fn queue_count(&self) -> usize {
        self.queue_names.len()
    }

    pub(crate) fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The messages whose record lies in one of these segments, and which no consumer has: their
    /// position, queue's place and sequence number; in log order.
    pub(crate) fn messages_in(&self, segment: impl Fn(u32) -> bool) -> Vec<(Lsn, u32, u64)> {
        let mut found = Vec::new();
        for (place, queue) in self.queues.iter().filter(|(_, queue)| !queue.is_dead) {
            let messages = queue.index.iter().filter(|m| segment(m.lsn.segment()));
            let waiting = messages.filter(|m| queue.index.is_ready(m.sequence));
            found.extend(waiting.map(|m| (m.lsn, place, m.sequence)));
        }
        found.sort_unstable();
        found
    }

    /// The copies among these that outlive a restart, as they are recorded.
    pub(crate) fn recorded_copies(
        &self,
        messages: &[(Lsn, u32, u64)],
        copies: &mut Vec<(u32, u64)>,
    ) {
        for &(_, place, sequence) in messages {
            let Some(queue) = self.queues.get(place).filter(|queue| queue.is_recorded()) else {
                continue;
            };
            if queue.index.get(sequence).is_some_and(|m| !m.transient) {
                copies.push((queue.id, sequence));
            }
        }
    }

    /// Notes that messages of one record lie elsewhere now.
    pub(crate) fn relocate(&mut self, messages: &[(Lsn, u32, u64)], to: Lsn) {
        for &(from, place, sequence) in messages {
            if let Some(queue) = self.queues.get_mut(place) {
                queue.index.relocate(sequence, to);
                self.segments.sub(from.segment());
                self.segments.add(to.segment(), 1);
            }
        }
    }

    /// All records of what was settled in this group: queue id and ranges.
    pub(crate) fn take_settled(&mut self, mut each: impl FnMut(u32, &[(u64, u64)])) {
        for place in std::mem::take(&mut self.settling) {
            if let Some(queue) = self.queues.get_mut(place) {
                if !queue.settled.is_empty() && !queue.is_dead {
                    each(queue.id, &queue.settled);
                }
                queue.settled.clear();
            }
        }
    }

    /// Marks a queue for dispatch.
    pub(super) fn touch(&mut self, place: u32) {
        if let Some(queue) = self.queues.get_mut(place)
            && !queue.is_dirty
        {
            queue.is_dirty = true;
            self.dirty.push(place);
        }
    }
}
