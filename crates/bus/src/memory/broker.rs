//! The state behind all connections to one bus in memory. No waiting in here: under one lock.

use super::{Depth, QUEUE_MESSAGES_MAX};
use crate::topology::{Binding, Destination, Exchange, ExchangeKind, Queue, Topology};
use crate::{Error, ErrorKind, Message, Result, Settle};
use annals_core::pattern::topic_matches;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Broker {
    exchanges: HashMap<String, Exchange>,
    bindings: Vec<Binding>,
    queues: HashMap<String, QueueState>,
    connections: HashSet<u64>,
    consumers: HashMap<u64, ConsumerState>,
    last_id: u64,
}

#[derive(Debug)]
struct QueueState {
    durable: bool,
    /// Connection that declared it, if it is exclusive.
    owner: Option<u64>,
    /// By place in the queue.
    ready: BTreeMap<u64, Ready>,
    last_place: u64,
    arrivals: Arc<Notify>,
}

#[derive(Debug)]
struct Ready {
    message: Message,
    redelivered: bool,
}

#[derive(Debug)]
struct ConsumerState {
    connection: u64,
    queue: String,
    /// Unsettled, by place in the queue.
    held: BTreeMap<u64, Message>,
}

/// What there was for a consumer: place, message, redelivered.
pub(super) enum Taken {
    Messages(Vec<(u64, Message, bool)>),
    Ended,
}

impl Broker {
    pub(super) fn connect(&mut self) -> u64 {
        let id = self.next_id();
        self.connections.insert(id);
        id
    }

    pub(super) fn declare(&mut self, connection: u64, topology: &Topology) -> Result<()> {
        self.check_open(connection)?;
        for exchange in &topology.exchanges {
            self.declare_exchange(exchange)?;
        }
        for queue in &topology.queues {
            self.declare_queue(connection, queue)?;
        }
        for binding in &topology.bindings {
            self.bind(binding)?;
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, connection: u64, message: Message) -> Result<()> {
        self.check_open(connection)?;
        let queues = self.route(&message.exchange, &message.routing_key)?;
        if queues.is_empty() && message.mandatory {
            return Err(no_queue(&message));
        }
        if let Some(full) = queues.iter().find(|name| self.is_full(name)) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("queue {full} holds {QUEUE_MESSAGES_MAX} messages"),
            ));
        }
        for name in queues {
            let queue = self.queues.get_mut(&name).expect("routed to a queue");
            queue.last_place += 1;
            let ready = Ready {
                message: message.clone(),
                redelivered: false,
            };
            queue.ready.insert(queue.last_place, ready);
            queue.arrivals.notify_waiters();
        }
        Ok(())
    }

    pub(super) fn consume(&mut self, connection: u64, queue: &str) -> Result<u64> {
        self.check_open(connection)?;
        self.reachable(connection, queue)?;
        let id = self.next_id();
        let consumer = ConsumerState {
            connection,
            queue: queue.to_owned(),
            held: BTreeMap::new(),
        };
        self.consumers.insert(id, consumer);
        Ok(id)
    }

    pub(super) fn is_consuming(&self, consumer: u64) -> bool {
        self.consumers.contains_key(&consumer)
    }

    /// What wakes the consumers of a queue; `None` when this one has ended.
    pub(super) fn arrivals(&self, queue: &str, consumer: u64) -> Option<Arc<Notify>> {
        self.consumers.get(&consumer)?;
        Some(self.queues.get(queue)?.arrivals.clone())
    }

    pub(super) fn take(&mut self, queue: &str, consumer: u64, room: usize) -> Taken {
        let (Some(queue), Some(consumer)) = (
            self.queues.get_mut(queue),
            self.consumers.get_mut(&consumer),
        ) else {
            return Taken::Ended;
        };
        let mut messages = Vec::new();
        while messages.len() < room
            && let Some((place, ready)) = queue.ready.pop_first()
        {
            consumer.held.insert(place, ready.message.clone());
            messages.push((place, ready.message, ready.redelivered));
        }
        Taken::Messages(messages)
    }

    pub(super) fn settle(&mut self, queue: &str, consumer: u64, settle: Settle, places: &[u64]) {
        let (Some(queue), Some(consumer)) = (
            self.queues.get_mut(queue),
            self.consumers.get_mut(&consumer),
        ) else {
            return;
        };
        for place in places {
            if let Some(message) = consumer.held.remove(place)
                && settle == Settle::Requeue
            {
                queue.put_back(*place, message);
            }
        }
        // A consumer at its prefetch waits for its own settlements, too.
        queue.arrivals.notify_waiters();
    }

    /// Ends a consumer; its unsettled deliveries go back.
    pub(super) fn cancel(&mut self, consumer: u64) {
        let Some(consumer) = self.consumers.remove(&consumer) else {
            return;
        };
        if let Some(queue) = self.queues.get_mut(&consumer.queue) {
            for (place, message) in consumer.held {
                queue.put_back(place, message);
            }
            queue.arrivals.notify_waiters();
        }
    }

    /// Ends a connection, its consumers and its exclusive queues.
    pub(super) fn close(&mut self, connection: u64) {
        self.connections.remove(&connection);
        let of_connection = |(id, c): (&u64, &ConsumerState)| {
            let ours = c.connection == connection;
            ours.then_some(*id)
        };
        let consumers: Vec<u64> = self.consumers.iter().filter_map(of_connection).collect();
        for consumer in consumers {
            self.cancel(consumer);
        }
        self.queues.retain(|_, q| q.owner != Some(connection));
        let queues = &self.queues;
        self.bindings.retain(|b| match &b.destination {
            Destination::Queue(name) => queues.contains_key(name),
            Destination::Exchange(_) => true,
        });
    }

    pub(super) fn depth(&self, queue: &str) -> Option<Depth> {
        let ready = self.queues.get(queue)?.ready.len();
        let of_queue = self.consumers.values().filter(|c| c.queue == queue);
        let unsettled = of_queue.map(|c| c.held.len()).sum();
        Some(Depth { ready, unsettled })
    }

    /// The queues a message reaches, each once, through bindings between exchanges too.
    fn route(&self, exchange: &str, key: &str) -> Result<BTreeSet<String>> {
        if exchange.is_empty() {
            let queue = self.queues.contains_key(key).then(|| key.to_owned());
            return Ok(queue.into_iter().collect());
        }
        self.exchange(exchange)?;
        let mut queues = BTreeSet::new();
        let mut seen = HashSet::from([exchange]);
        let mut open = vec![exchange];
        while let Some(source) = open.pop() {
            let kind = self.exchange(source)?.kind;
            for binding in self.bindings.iter().filter(|b| b.source == source) {
                match &binding.destination {
                    _ if !matches(kind, &binding.key, key) => {}
                    Destination::Queue(name) => drop(queues.insert(name.clone())),
                    Destination::Exchange(name) if seen.insert(name) => open.push(name),
                    Destination::Exchange(_) => {}
                }
            }
        }
        Ok(queues)
    }

    fn declare_exchange(&mut self, exchange: &Exchange) -> Result<()> {
        match self.exchanges.get(&exchange.name) {
            None => drop(
                self.exchanges
                    .insert(exchange.name.clone(), exchange.clone()),
            ),
            Some(there) if there == exchange => {}
            Some(there) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("exchange {} exists as {there:?}", exchange.name),
                ));
            }
        }
        Ok(())
    }

    fn declare_queue(&mut self, connection: u64, queue: &Queue) -> Result<()> {
        if !self.queues.contains_key(&queue.name) {
            let state = QueueState {
                durable: queue.durable,
                owner: (!queue.durable).then_some(connection),
                ready: BTreeMap::new(),
                last_place: 0,
                arrivals: Arc::default(),
            };
            self.queues.insert(queue.name.clone(), state);
            return Ok(());
        }
        let there = self.reachable(connection, &queue.name)?;
        if there.durable == queue.durable {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!("queue {} exists with durable {}", queue.name, there.durable),
        ))
    }

    fn bind(&mut self, binding: &Binding) -> Result<()> {
        self.exchange(&binding.source)?;
        match &binding.destination {
            Destination::Exchange(name) => drop(self.exchange(name)?),
            Destination::Queue(name) => drop(self.queue(name)?),
        }
        if !self.bindings.contains(binding) {
            self.bindings.push(binding.clone());
        }
        Ok(())
    }

    fn exchange(&self, name: &str) -> Result<&Exchange> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no exchange {name}"));
        self.exchanges.get(name).ok_or_else(missing)
    }

    fn queue(&self, name: &str) -> Result<&QueueState> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no queue {name}"));
        self.queues.get(name).ok_or_else(missing)
    }

    fn reachable(&self, connection: u64, name: &str) -> Result<&QueueState> {
        let queue = self.queue(name)?;
        match queue.owner {
            Some(owner) if owner != connection => Err(Error::new(
                ErrorKind::NotAllowed,
                format!("queue {name} is exclusive to another connection"),
            )),
            _ => Ok(queue),
        }
    }

    fn is_full(&self, queue: &str) -> bool {
        self.queues[queue].ready.len() >= QUEUE_MESSAGES_MAX
    }

    fn check_open(&self, connection: u64) -> Result<()> {
        if self.connections.contains(&connection) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Closed, "the bus is closed"))
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl QueueState {
    fn put_back(&mut self, place: u64, message: Message) {
        let ready = Ready {
            message,
            redelivered: true,
        };
        self.ready.insert(place, ready);
    }
}

fn matches(kind: ExchangeKind, binding_key: &str, routing_key: &str) -> bool {
    match kind {
        ExchangeKind::Direct => binding_key == routing_key,
        ExchangeKind::Topic => topic_matches(binding_key, routing_key),
        ExchangeKind::Fanout => true,
    }
}

fn no_queue(message: &Message) -> Error {
    crate::message::no_queue(&message.exchange, &message.routing_key)
}
