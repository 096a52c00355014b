//! A small archive to replay from: messages on a bus in memory, archived as in production.

#![allow(dead_code, reason = "each test file uses its part")]

use annals_archive::archiver::{Archiver, Config, Known, NothingKnown};
use annals_archive::bucket::StoreBucket;
use annals_archive::reader::Archive;
use annals_archive::{Bucket, Ledger};
use annals_bus::topology::Destination;
use annals_bus::topology::{archive_queue, bus_exchange};
use annals_bus::{Binding, Bus, Delivery, MemoryBus, Message, Queue, Settle, Tags, Topology};
use annals_core::sim::{SimClock, SimRandom};
use annals_core::{Event, EventBuilder, Properties, Selection, event};
use annals_replay::{Replay, Request};
use bytes::Bytes;
use std::sync::Arc;

pub(crate) const BUS: &str = "main";

/// A bus with an archive behind it.
pub(crate) struct World {
    pub bus: Arc<MemoryBus>,
    pub bucket: Arc<dyn Bucket>,
    pub clock: Arc<SimClock>,
    archiver: Archiver,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_known(|_| Arc::new(NothingKnown)).await
    }

    pub(crate) async fn with_known(known: impl FnOnce(Ledger) -> Arc<dyn Known>) -> Self {
        let bus = Arc::new(MemoryBus::new());
        bus.declare(&Topology::of_bus(BUS)).await.unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(StoreBucket::memory());
        let clock = Arc::new(SimClock::default());
        let ledger = Ledger::open(bucket.clone(), BUS).await.unwrap();
        let archiver = Archiver::start(
            bus.clone(),
            ledger.clone(),
            known(ledger),
            clock.clone(),
            Config::of_bus(BUS),
        );
        Self {
            bus,
            bucket,
            clock,
            archiver: archiver.unwrap(),
        }
    }

    /// Publishes, and waits until the archive queue is empty: one ledger entry or more.
    pub(crate) async fn archive(&self, messages: Vec<Message>) {
        for outcome in self.bus.publish(messages).await {
            outcome.into_result().unwrap();
        }
        loop {
            self.archiver.seal().await.unwrap();
            let depth = self.bus.depth(&archive_queue(BUS)).unwrap();
            if depth.ready == 0 && depth.unsettled == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn archiver_stats(&self) -> annals_archive::archiver::Stats {
        self.archiver.stats()
    }

    pub(crate) async fn open(&self) -> Arc<Archive> {
        Arc::new(Archive::open(self.bucket.clone(), BUS).await.unwrap())
    }

    pub(crate) async fn replay(&self, request: Request) -> Replay {
        // Each replay of a test has an id of its own.
        let random = SimRandom::new(self.open().await.position().0 ^ fresh());
        Replay::new(self.open().await, request, self.clock.clone(), &random)
    }

    /// A durable queue bound to the bus's own exchange: a service in production.
    pub(crate) async fn live_queue(&self, name: &str) {
        let topology = Topology {
            queues: vec![Queue::durable(name)],
            bindings: vec![Binding {
                source: bus_exchange(BUS),
                destination: Destination::Queue(name.to_owned()),
                key: "#".to_owned(),
            }],
            ..Topology::default()
        };
        self.bus.declare(&topology).await.unwrap();
    }

    /// Takes all that a queue holds.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<Delivery> {
        let mut consumer = self.bus.consume(queue, 0).await.unwrap();
        let mut all = Vec::new();
        while self.bus.depth(queue).unwrap().ready > 0 {
            let deliveries = consumer.next().await.unwrap().unwrap();
            let last = deliveries.last().unwrap().tag;
            consumer
                .settle(Settle::Ack, Tags::UpTo(last))
                .await
                .unwrap();
            all.extend(deliveries);
        }
        consumer.cancel().await.unwrap();
        all
    }
}

fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1 << 32, Ordering::Relaxed)
}

/// The `number`th event of a type.
pub(crate) fn event(event_type: &str, number: usize) -> Event {
    let second = 1_767_225_600 + number as i64;
    EventBuilder::new(event_type, "/shop", format!("e-{number}"))
        .unwrap()
        .time(annals_core::Timestamp::from_second(second).unwrap())
        .subject(format!("o-{}", number % 3))
        .unwrap()
        .json(format!("{{\"number\":\n{number}}}"))
        .build()
        .unwrap()
}

/// A canonical event as a service publishes it.
pub(crate) fn message(event: &Event) -> Message {
    let header = event.header();
    let properties = Properties::builder()
        .content_type(event::CONTENT_TYPE)
        .persistent()
        .message_id(header.id)
        .message_type(header.event_type)
        .app_id("shop");
    raw(
        header.event_type,
        properties.build().unwrap(),
        event.bytes().clone(),
    )
}

/// Any message to the bus.
pub(crate) fn raw(routing_key: &str, properties: Properties, body: impl Into<Bytes>) -> Message {
    Message {
        exchange: bus_exchange(BUS).into(),
        routing_key: routing_key.into(),
        properties,
        body: body.into(),
        mandatory: true,
    }
}

/// Everything of these types.
pub(crate) fn types(patterns: &[&str]) -> Request {
    let mut selection = Selection::all();
    for pattern in patterns {
        selection.patterns.push(pattern.parse().unwrap());
    }
    Request::new(selection)
}
