//! A broker on a disk of memory, and a client that remembers what it was told.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use annals_broker::log::LogConfig;
use annals_broker::{
    BindingSpec, Broker, Config, ConsumeSpec, Delivered, Destination, ExchangeKind, ExchangeSpec,
    Message, Publish, QueueSpec, Session, SessionEvent, SessionEvents, Settle, Settlement,
};
use annals_core::sim::{SimClock, SimDisk, SimRandom};
use annals_core::{Disk, Properties};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

pub fn config() -> Config {
    Config {
        log: LogConfig {
            segment_bytes: 64 << 10,
            disk_bytes_max: 64 << 20,
            message_bytes_max: 8 << 10,
            background: false,
            ..LogConfig::default()
        },
        snapshot_every_bytes: 256 << 10,
        ..Config::new("/broker")
    }
}

pub fn open(disk: &SimDisk) -> Broker {
    open_with(config(), Arc::new(disk.clone()))
}

pub fn open_with(config: Config, disk: Arc<dyn Disk>) -> Broker {
    Broker::open(
        config,
        disk,
        Arc::new(SimClock::default()),
        Arc::new(SimRandom::new(1)),
    )
    .expect("the broker opens")
}

/// A client with one channel's confirm counter.
pub struct Client {
    pub session: Session,
    pub events: SessionEvents,
    pub broker: Broker,
    confirm: u64,
    seen: VecDeque<SessionEvent>,
}

pub fn client(broker: &Broker) -> Client {
    let (session, events) = broker.session();
    Client {
        session,
        events,
        broker: broker.clone(),
        confirm: 0,
        seen: VecDeque::new(),
    }
}

pub fn exchange(name: &str, kind: ExchangeKind) -> ExchangeSpec {
    ExchangeSpec {
        name: name.to_owned(),
        kind,
        durable: true,
        auto_delete: false,
        internal: false,
        passive: false,
        arguments: Bytes::new(),
    }
}

pub fn queue(name: &str) -> QueueSpec {
    QueueSpec {
        name: name.to_owned(),
        durable: true,
        exclusive: false,
        auto_delete: false,
        passive: false,
        arguments: Bytes::new(),
    }
}

pub fn binding(source: &str, queue: &str, key: &str) -> BindingSpec {
    BindingSpec {
        source: source.to_owned(),
        destination: Destination::Queue(queue.to_owned()),
        key: key.to_owned(),
        arguments: Bytes::new(),
    }
}

pub fn consumer(queue: &str, tag: &str, prefetch: u32) -> ConsumeSpec {
    ConsumeSpec {
        channel: 1,
        queue: queue.to_owned(),
        consumer_tag: tag.to_owned(),
        no_ack: false,
        exclusive: false,
        prefetch,
        arguments: Bytes::new(),
    }
}

/// To the default exchange, persistent, mandatory.
pub fn message(queue: &str, body: impl Into<Bytes>) -> Publish {
    Publish {
        exchange: "".into(),
        routing_key: queue.into(),
        properties: Properties::builder().persistent().build().unwrap(),
        body: body.into(),
        mandatory: true,
        confirm: 0,
    }
}

pub fn ack(tag: u64) -> Settlement {
    settlement(tag, false, Settle::Ack)
}

pub fn settlement(tag: u64, multiple: bool, how: Settle) -> Settlement {
    Settlement { tag, multiple, how }
}

impl Client {
    /// The next event of any kind.
    pub async fn event(&mut self) -> Option<SessionEvent> {
        while self.seen.is_empty() {
            self.seen.extend(self.events.next().await?);
        }
        self.seen.pop_front()
    }

    /// Publishes on channel 1 with confirms; how many of them were confirmed.
    pub async fn publish(&mut self, mut batch: Vec<Publish>) -> usize {
        let count = batch.len();
        let first = self.confirm + 1;
        for publish in &mut batch {
            self.confirm += 1;
            publish.confirm = self.confirm;
        }
        self.session.publish(1, batch).await;
        let mut answered = first - 1;
        let mut refused = 0;
        let mut kept = VecDeque::new();
        while answered < self.confirm {
            match self.event().await.expect("the session goes on") {
                SessionEvent::Confirmed { channel: 1, up_to } => answered = up_to,
                SessionEvent::Nacked { from, up_to, .. } => {
                    assert_eq!(from, answered + 1);
                    refused += (up_to - from + 1) as usize;
                    answered = up_to;
                }
                SessionEvent::ChannelError { refusal, .. } => panic!("{refusal}"),
                other => kept.push_back(other),
            }
        }
        kept.append(&mut self.seen);
        self.seen = kept;
        count - refused
    }

    /// Waits for this many deliveries.
    pub async fn deliveries(&mut self, count: usize) -> Vec<(Delivered, Message)> {
        let reader = self.broker.reader();
        let mut out = Vec::new();
        while out.len() < count {
            match self.event().await.expect("the session goes on") {
                SessionEvent::Deliveries { deliveries, .. } => {
                    let messages = Delivered::load_all(&deliveries, &reader).unwrap();
                    out.extend(deliveries.into_iter().zip(messages));
                }
                SessionEvent::ChannelError { refusal, .. } => panic!("{refusal}"),
                _ => {}
            }
        }
        assert_eq!(out.len(), count);
        out
    }

    /// Bodies and redelivered flags of this many deliveries.
    pub async fn bodies(&mut self, count: usize) -> Vec<(String, bool)> {
        let deliveries = self.deliveries(count).await;
        deliveries
            .into_iter()
            .map(|(delivered, message)| (text(&message.body), delivered.redelivered))
            .collect()
    }

    /// Everything ready in a queue, got and left unsettled.
    pub async fn drain(&self, queue: &str) -> Vec<(Delivered, String)> {
        let reader = self.broker.reader();
        let mut out = Vec::new();
        while let Some((delivered, _)) = self.session.get(9, queue, false).await.unwrap() {
            out.push((delivered, text(&delivered.load(&reader).unwrap().body)));
        }
        out
    }

    /// Messages ready in a queue.
    pub async fn ready(&self, name: &str) -> u32 {
        let spec = QueueSpec {
            passive: true,
            ..queue(name)
        };
        self.session.declare_queue(spec).await.unwrap().messages
    }
}

pub fn text(body: &Bytes) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}
