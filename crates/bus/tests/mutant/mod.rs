//! A bus in memory with one fault, as a decorator.

mod consumer;

use annals_bus::conformance::Backend;
use annals_bus::topology::Destination;
use annals_bus::{
    Binding, Bus, Consumer, ErrorKind, ExchangeKind, MemoryBus, Message, Outcome, Result, Settle,
    Tags, Topology,
};
use annals_core::{Error, Properties, pattern::topic_matches};
use async_trait::async_trait;
use consumer::{MutantConsumer, Seat};
use parking_lot::Mutex;
use std::sync::Arc;

/// What a mutant does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Confirms before it writes: what nobody consumed is lost when its publisher closes.
    LosesAtClose,
    /// Encodes properties anew, without the priority.
    DropsPriority,
    /// In a long batch, two messages change places.
    SwapsNeighbours,
    /// Drops the last byte of a body of 1 MiB.
    CutsBigBodies,
    /// Confirms message 5,000 and does not queue it.
    LosesOneOfThousands,
    /// A star between words matches nothing.
    StarMatchesNothing,
    /// A direct exchange is a topic exchange.
    DirectMatchesPatterns,
    /// A fanout exchange is a direct exchange.
    FanoutLooksAtKeys,
    /// The first message to the default exchange goes to the queue declared first.
    DefaultTakesTheFirstQueue,
    /// Bindings between exchanges are not made.
    IgnoresExchangeBindings,
    /// One copy per binding that matches.
    CopiesPerBinding,
    /// Says nothing of a message that was returned.
    HidesUnroutable,
    /// Every message is mandatory.
    AllMandatory,
    /// A missing exchange costs the connection.
    ClosesOnUnknownExchange,
    /// A prefetch of four is no prefetch.
    IgnoresPrefetchOfFour,
    /// Acknowledges one where all up to it were meant.
    UpToIsOne,
    /// Acknowledges all up to one where it alone was meant.
    OneIsUpTo,
    /// Puts back at the end.
    RequeuesAtTheEnd,
    /// Never says redelivered.
    HidesRedelivery,
    /// Puts back what is rejected.
    RejectRequeues,
    /// Says nothing of a wrong tag.
    TakesAnyTag,
    /// A consumer that settled nothing is cancelled with all it held.
    CancelLosesHeld,
    /// A bus is closed with all that consumers held that settled nothing.
    CloseLosesHeld,
    /// A second consumer beside one gets what that one got.
    DeliversToAll,
    /// Waits once more with deliveries in hand.
    NextLosesWhenDropped,
    /// The end of a consumer is an error.
    EndsWithAnError,
    /// Declares a queue that is consumed.
    ConsumesWhatIsMissing,
    /// Declaring a queue again empties it.
    DeclaringPurges,
    /// A binding declared again is one more: a copy for each time it was declared.
    DeclaringBindsAgain,
    /// Says nothing of a conflict.
    HidesConflict,
    /// Exclusive queues are durable ones.
    KeepsExclusiveQueues,
    /// Starts empty.
    ForgetsAtRestart,
}

/// The backend: one bus in memory, and what a fault needs to know of all its connections.
#[derive(Debug)]
pub(crate) struct Mutant {
    fault: Option<Fault>,
    memory: Mutex<MemoryBus>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    queues: Vec<String>,
    bindings: Vec<Binding>,
    published: usize,
    defaulted: bool,
    connections: usize,
    /// Consumers, with their connection.
    seats: Vec<(usize, Arc<Seat>)>,
}

impl Mutant {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            memory: Mutex::new(MemoryBus::new()),
            known: Arc::default(),
        }
    }
}

#[async_trait]
impl Backend for Mutant {
    async fn connect(&self) -> Arc<dyn Bus> {
        let mut known = self.known.lock();
        known.connections += 1;
        Arc::new(MutantBus {
            fault: self.fault,
            inner: self.memory.lock().connect(),
            known: self.known.clone(),
            connection: known.connections,
            unflushed: Mutex::new(Vec::new()),
        })
    }

    async fn restart(&self) -> bool {
        if self.fault == Some(Fault::ForgetsAtRestart) {
            *self.memory.lock() = MemoryBus::new();
        }
        true
    }
}

#[derive(Debug)]
struct MutantBus {
    fault: Option<Fault>,
    inner: MemoryBus,
    known: Arc<Mutex<Known>>,
    connection: usize,
    /// Queues published to by name since this connection last consumed.
    unflushed: Mutex<Vec<String>>,
}

impl MutantBus {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    async fn purge(&self, queue: &str) {
        let connection = self.inner.connect();
        let Ok(mut consumer) = connection.consume(queue, 0).await else {
            return;
        };
        if self.inner.depth(queue).is_some_and(|depth| depth.ready > 0) {
            let got = consumer.next().await.expect("works").expect("goes on");
            let last = Tags::UpTo(got.last().expect("one or more").tag);
            consumer.settle(Settle::Ack, last).await.expect("settles");
        }
    }

    fn change_topology(&self, topology: &mut Topology) {
        match self.fault {
            Some(Fault::StarMatchesNothing) => {
                topology.bindings.retain(|b| !b.key.contains(".*."));
            }
            Some(Fault::IgnoresExchangeBindings) => topology
                .bindings
                .retain(|b| matches!(b.destination, Destination::Queue(_))),
            Some(Fault::DirectMatchesPatterns) => {
                swap_kind(topology, ExchangeKind::Direct, ExchangeKind::Topic);
            }
            Some(Fault::FanoutLooksAtKeys) => {
                swap_kind(topology, ExchangeKind::Fanout, ExchangeKind::Direct);
            }
            Some(Fault::KeepsExclusiveQueues) => {
                topology.queues.iter_mut().for_each(|q| q.durable = true);
            }
            _ => {}
        }
    }

    /// How often a message is published instead of once.
    fn change_message(&self, message: &mut Message) -> usize {
        let mut known = self.known.lock();
        known.published += 1;
        match self.fault {
            Some(Fault::AllMandatory) => message.mandatory = true,
            Some(Fault::CutsBigBodies) if message.body.len() >= 1 << 20 => {
                message.body.truncate(message.body.len() - 1);
            }
            Some(Fault::DropsPriority) if message.properties.priority().is_some() => {
                message.properties = without_priority(&message.properties);
            }
            Some(Fault::LosesOneOfThousands) if known.published == 5_000 => return 0,
            Some(Fault::DefaultTakesTheFirstQueue)
                if message.exchange.is_empty()
                    && known.queues.iter().any(|q| **q == *message.routing_key)
                    && !std::mem::replace(&mut known.defaulted, true) =>
            {
                message.routing_key = known.queues[0].as_str().into();
            }
            Some(Fault::CopiesPerBinding) => return known.copies(message, Count::Bindings),
            Some(Fault::DeclaringBindsAgain) => return known.copies(message, Count::Times),
            _ => {}
        }
        1
    }

    async fn publish_one(&self, mut message: Message) -> Outcome {
        if self.has(Fault::LosesAtClose) && message.exchange.is_empty() {
            self.unflushed.lock().push(message.routing_key.to_string());
        }
        let times = self.change_message(&mut message);
        let mut outcome = Outcome::Bus;
        for _ in 0..times {
            let mut outcomes = self.inner.publish(vec![message.clone()]).await;
            outcome = outcomes.remove(0);
        }
        if let Outcome::Failed(error) = &outcome
            && error.kind() == ErrorKind::NotFound
        {
            let unroutable = error.to_string().contains("no queue is bound");
            if self.has(Fault::HidesUnroutable) && unroutable {
                return Outcome::Bus;
            }
            if self.has(Fault::ClosesOnUnknownExchange) && !unroutable {
                self.inner.close().await.expect("closes");
            }
        }
        outcome
    }
}

/// What makes copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Bindings that match, however often each was declared.
    Bindings,
    /// Declarations of one binding that matches.
    Times,
}

impl Known {
    fn copies(&self, message: &Message, count: Count) -> usize {
        let matching: Vec<&Binding> = self
            .bindings
            .iter()
            .filter(|b| {
                *b.source == *message.exchange && topic_matches(&b.key, &message.routing_key)
            })
            .collect();
        let counted = |binding: &Binding| {
            let alike = matching
                .iter()
                .enumerate()
                .filter(|(at, other)| match count {
                    Count::Bindings => {
                        other.destination == binding.destination && !matching[..*at].contains(other)
                    }
                    Count::Times => **other == binding,
                });
            alike.count()
        };
        let to_queues = matching.iter().copied();
        let to_queues = to_queues.filter(|b| matches!(b.destination, Destination::Queue(_)));
        to_queues.map(counted).max().unwrap_or(1)
    }
}

#[async_trait]
impl Bus for MutantBus {
    async fn declare(&self, topology: &Topology) -> Result<()> {
        let mut topology = topology.clone();
        self.change_topology(&mut topology);
        for queue in &topology.queues {
            let again = self.known.lock().queues.contains(&queue.name);
            if again && self.has(Fault::DeclaringPurges) {
                self.purge(&queue.name).await;
            }
        }
        {
            let mut known = self.known.lock();
            let names = topology.queues.iter().map(|q| q.name.clone());
            known.queues.extend(names);
            known.bindings.extend(topology.bindings.iter().cloned());
        }
        match self.inner.declare(&topology).await {
            Err(error) if self.has(Fault::HidesConflict) && error.kind() == ErrorKind::Conflict => {
                Ok(())
            }
            declared => declared,
        }
    }

    async fn publish(&self, mut batch: Vec<Message>) -> Vec<Outcome> {
        if self.has(Fault::SwapsNeighbours) && batch.len() >= 40 {
            batch.swap(20, 21);
        }
        let mut outcomes = Vec::new();
        for message in batch {
            outcomes.push(self.publish_one(message).await);
        }
        outcomes
    }

    async fn consume(&self, queue: &str, prefetch: u32) -> Result<Box<dyn Consumer>> {
        self.unflushed.lock().clear();
        let never_declared = !self.known.lock().queues.iter().any(|q| q == queue);
        if self.has(Fault::ConsumesWhatIsMissing) && never_declared {
            let topology = Topology {
                queues: vec![annals_bus::Queue::durable(queue)],
                ..Topology::default()
            };
            self.inner.declare(&topology).await?;
        }
        let prefetch = match prefetch {
            4 if self.has(Fault::IgnoresPrefetchOfFour) => 0,
            prefetch => prefetch,
        };
        let inner = self.inner.consume(queue, prefetch).await?;
        let seat = Arc::new(Seat::new(inner));
        let mut known = self.known.lock();
        let mut others = known.seats.iter().filter(|(c, _)| *c != self.connection);
        let beside = others.next_back().map(|(_, seat)| seat.clone());
        known.seats.push((self.connection, seat.clone()));
        Ok(Box::new(MutantConsumer {
            fault: self.fault,
            bus: self.inner.connect(),
            queue: queue.into(),
            seat,
            beside,
        }))
    }

    async fn close(&self) -> Result<()> {
        if self.has(Fault::CloseLosesHeld) {
            let seats = self.known.lock().seats.clone();
            for (_, seat) in seats.iter().filter(|(c, _)| *c == self.connection) {
                seat.lose_held().await;
            }
        }
        let connection = self.connection;
        self.known.lock().seats.retain(|(c, _)| *c != connection);
        self.inner.close().await?;
        let unflushed = std::mem::take(&mut *self.unflushed.lock());
        for queue in unflushed {
            self.purge(&queue).await;
        }
        Ok(())
    }
}

fn swap_kind(topology: &mut Topology, from: ExchangeKind, to: ExchangeKind) {
    for exchange in topology.exchanges.iter_mut().filter(|e| e.kind == from) {
        exchange.kind = to;
    }
}

fn without_priority(properties: &Properties) -> Properties {
    let rest = Properties::builder().header_fields(properties.header_table());
    let rest = rest.message_id(properties.message_id().unwrap_or_default());
    rest.build().expect("valid properties")
}

/// An error like another.
pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::Closed, "ended")
}
