//! What the tests of this crate share: events, messages, and reading an archive back plainly.
#![allow(dead_code, reason = "every test file uses a part of it")]

use annals_archive::bucket::{Bucket, Created, Entry};
use annals_archive::segment::Segment;
use annals_archive::{Ledger, Position, Result, record};
use annals_bus::{Bus, MemoryBus, Message, Topology, topology};
use annals_core::envelope::CloudEvent;
use annals_core::event::CONTENT_TYPE;
use annals_core::{Error, ErrorKind, Event, EventBuilder, Properties};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use prost::Message as _;
use std::ops::Range;
use std::sync::Arc;

pub(crate) const BUS: &str = "main";
pub(crate) const TYPES: [&str; 5] = [
    "shop.v1.OrderPlaced",
    "shop.v1.OrderPaid",
    "mail.v2.Sent",
    "Lonely",
    "unknown.Thing",
];

/// The `n`-th event: types and subjects in turn, with what every envelope carries.
pub(crate) fn event(n: usize) -> Event {
    EventBuilder::new(TYPES[n % TYPES.len()], "/shop", format!("id-{n:06}"))
        .unwrap()
        .time(annals_core::Timestamp::from_second(1_700_000_000 + n as i64).unwrap())
        .subject(format!("order-{}", n % 7))
        .unwrap()
        .attribute("producerid", "p-1")
        .unwrap()
        .attribute("producerseq", (n + 1).to_string())
        .unwrap()
        .protobuf(format!("payload {n} {}", "x".repeat(n % 50)).into_bytes())
        .build()
        .unwrap()
}

/// The message a publisher makes of an event.
pub(crate) fn message(event: &Event) -> Message {
    let header = event.header();
    let properties = Properties::builder()
        .content_type(CONTENT_TYPE)
        .persistent()
        .message_id(header.id)
        .message_type(header.event_type)
        .app_id("shop");
    foreign(
        header.event_type,
        properties.build().unwrap(),
        event.bytes().clone(),
    )
}

/// Any message.
pub(crate) fn foreign(
    routing_key: &str,
    properties: Properties,
    body: impl Into<Bytes>,
) -> Message {
    Message {
        exchange: topology::bus_exchange(BUS).into(),
        routing_key: routing_key.into(),
        properties,
        body: body.into(),
        mandatory: true,
    }
}

/// A bus with its archive queue.
pub(crate) async fn bus() -> Arc<MemoryBus> {
    let bus = Arc::new(MemoryBus::new());
    bus.declare(&Topology::of_bus(BUS)).await.unwrap();
    bus
}

/// Publishes; every message must be held.
pub(crate) async fn publish(bus: &dyn Bus, messages: Vec<Message>) {
    for outcome in bus.publish(messages).await {
        outcome.into_result().unwrap();
    }
}

/// Ready and unsettled messages of the archive queue.
pub(crate) fn depth(bus: &MemoryBus) -> (usize, usize) {
    let depth = bus.depth(&topology::archive_queue(BUS)).unwrap();
    (depth.ready, depth.unsettled)
}

/// A record read back, owned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Archived {
    pub(crate) position: Position,
    pub(crate) segment: String,
    pub(crate) ordinal: u32,
    pub(crate) event: Bytes,
    pub(crate) original: Option<Bytes>,
    pub(crate) properties: Bytes,
    pub(crate) received_at_us: i64,
    pub(crate) undecodable: String,
}

/// Everything in an archive, in the order of arrival; every hash, length and count checked.
pub(crate) async fn read_all(bucket: &Arc<dyn Bucket>, bus: &str) -> Result<Vec<Archived>> {
    let ledger = Ledger::open(Arc::clone(bucket), bus).await?;
    let entries: Vec<_> = ledger
        .entries(Position(0), ledger.head())
        .try_collect()
        .await?;
    assert_eq!(entries.len() as u64, ledger.head().0);
    let mut all = Vec::new();
    for entry in entries {
        let mut records = Vec::new();
        for listed in &entry.entry.segments {
            let whole = bucket.get(&listed.name).await?;
            assert_eq!(whole.len() as u64, listed.length, "{}", listed.name);
            assert_eq!(
                blake3::hash(&whole).as_bytes()[..],
                listed.hash[..],
                "{}",
                listed.name
            );
            let segment = Segment::open(Arc::clone(bucket), &listed.name, listed.length).await?;
            let index = Arc::clone(segment.index());
            assert_eq!((index.count, &*index.bus), (listed.count, bus));
            for (number, frame) in index.frames.iter().enumerate() {
                let raw = segment.read_frame(number).await?;
                let before = records.len();
                for record in record::iter(&raw) {
                    let record = record?;
                    records.push(Archived {
                        position: entry.position,
                        segment: listed.name.clone(),
                        ordinal: record.ordinal,
                        event: Bytes::copy_from_slice(record.event),
                        original: record.original.map(Bytes::copy_from_slice),
                        properties: Bytes::copy_from_slice(record.delivery.properties),
                        received_at_us: record.delivery.received_at_us,
                        undecodable: record.delivery.undecodable.to_owned(),
                    });
                    assert_eq!(
                        annals_core::Header::scan(record.event)?.event_type,
                        frame.r#type
                    );
                }
                assert_eq!(records.len() - before, frame.count as usize);
            }
        }
        records.sort_by_key(|record| record.ordinal);
        for (ordinal, record) in records.iter().enumerate() {
            assert_eq!(
                record.ordinal as usize, ordinal,
                "ordinals are dense in {}",
                entry.position
            );
        }
        all.extend(records);
    }
    Ok(all)
}

/// Event ids, in order.
pub(crate) fn ids(archived: &[Archived]) -> Vec<String> {
    archived
        .iter()
        .map(|record| CloudEvent::decode(&record.event[..]).unwrap().id)
        .collect()
}

/// What a [`FaultyBucket`] does with a `create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing happens, and an error is the answer.
    Before,
    /// It takes effect, and an error is the answer.
    After,
}

/// A bucket whose creates below a folder fail in a given sequence.
#[derive(Debug)]
pub(crate) struct FaultyBucket {
    pub(crate) inner: Arc<dyn Bucket>,
    /// Faults to come, for names that start with this.
    pub(crate) faults: Mutex<Vec<(&'static str, Fault)>>,
    /// While true every create fails.
    pub(crate) down: Mutex<bool>,
    pub(crate) creates: Mutex<Vec<String>>,
}

impl FaultyBucket {
    pub(crate) fn new(inner: Arc<dyn Bucket>, faults: Vec<(&'static str, Fault)>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::new(faults),
            down: Mutex::new(false),
            creates: Mutex::default(),
        })
    }

    fn fault(&self, name: &str) -> Option<Fault> {
        self.creates.lock().push(name.to_owned());
        if *self.down.lock() {
            return Some(Fault::Before);
        }
        let mut faults = self.faults.lock();
        let at = faults
            .iter()
            .position(|(prefix, _)| name.starts_with(prefix))?;
        Some(faults.remove(at).1)
    }
}

#[async_trait]
impl Bucket for FaultyBucket {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let fault = self.fault(name);
        if fault == Some(Fault::Before) {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        let created = self.inner.create(name, bytes).await?;
        match fault {
            Some(_) => Err(Error::new(
                ErrorKind::Unknown,
                "told to fail after the effect",
            )),
            None => Ok(created),
        }
    }
    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &str) -> Result<Bytes> {
        self.inner.get(name).await
    }
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(name, range).await
    }
    async fn head(&self, name: &str) -> Result<Option<u64>> {
        self.inner.head(name).await
    }
    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>> {
        self.inner.list(folder, after).await
    }
    async fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name).await
    }
}
