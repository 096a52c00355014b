//! From deliveries to sealed batches. Pure: events and times in, segments out.
//!
//! A batch becomes one ledger entry. It is bounded in bytes and records whatever the number of
//! types and packages, lies within one hour of the archiver's clock, and knows per consumer up to
//! which tag it covers, so that one ack settles it.

use super::body::Body;
use super::properties::reduce;
use crate::layout::{self, Hour};
use crate::record::{DeliveryRef, RecordRef};
use crate::segment::{RawFrame, SealedSegment, SegmentWriter};
use annals_bus::Delivery;
use annals_core::{Header, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// Most records of a batch: ordinals are 32 bits.
const RECORDS_MAX: u32 = 1 << 24;
/// Most types of a batch: each is described in the ledger entry, which has a bound of its own.
const TYPES_MAX: usize = 4096;
/// What a record takes in memory beside its bytes: two hashes, and their share of growth.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// Stands for the undecodable bodies among the types, none of which has a control character.
const UNDECODABLE_KEY: &str = "\0";

/// One consumer's connection to the queue: tags of another generation mean nothing to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId {
    /// Which consumer.
    pub consumer: usize,
    /// How often it has begun to consume.
    pub generation: u64,
}

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of records.
    pub bytes: usize,
    /// Deliveries of one consumer: half of what it may hold unsettled, so that it never waits for
    /// a batch that waits for it. 0: no limit.
    pub per_consumer: usize,
}

/// Collects deliveries into batches.
#[derive(Debug)]
pub struct Batcher {
    limits: Limits,
    bus: String,
    open: Batch,
    full: bool,
    properties: Vec<u8>,
    scratch: Vec<u8>,
}

impl Batcher {
    /// An empty batcher for the archive of `bus`.
    pub fn new(bus: &str, limits: Limits) -> Self {
        Self {
            limits,
            bus: bus.to_owned(),
            open: Batch::default(),
            full: false,
            properties: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Whether the open batch has to be taken before a delivery received at `now_us` is pushed:
    /// it is full, or of another hour.
    pub fn is_due(&self, now_us: i64) -> bool {
        self.full
            || self
                .open
                .hour
                .is_some_and(|hour| hour != Hour::of_us(now_us))
    }

    /// The open batch.
    pub fn open(&self) -> &Batch {
        &self.open
    }

    /// Takes the open batch and begins the next.
    pub fn take(&mut self) -> Batch {
        self.full = false;
        std::mem::take(&mut self.open)
    }

    /// Adds a delivery received at `now_us`. Call only while [`Batcher::is_due`] is false.
    pub fn push(&mut self, from: ConsumerId, delivery: &Delivery, now_us: i64) {
        match Body::canonical(delivery) {
            Some(header) => {
                reduce(&delivery.properties, &header, &mut self.properties);
                let mut record = received(delivery, &self.properties, now_us);
                record.event = &delivery.body;
                self.open
                    .push(header.event_type, &header, record, &mut self.scratch);
            }
            None => self.push_other(&Body::of(delivery, &self.bus), delivery, now_us),
        }
        self.cover(from, delivery.tag);
    }

    /// Adds what is not the canonical envelope.
    #[cold]
    fn push_other(&mut self, body: &Body, delivery: &Delivery, now_us: i64) {
        let header = body.event.header();
        let decoded = body.undecodable.is_empty();
        let (key, properties) = if decoded {
            reduce(&delivery.properties, &header, &mut self.properties);
            (header.event_type, &self.properties[..])
        } else {
            (UNDECODABLE_KEY, &delivery.properties.bytes()[..])
        };
        let mut record = received(delivery, properties, now_us);
        record.event = body.event.bytes();
        record.original = body.original.as_deref();
        record.delivery.undecodable = &body.undecodable;
        self.open.push(key, &header, record, &mut self.scratch);
    }

    /// Lets the open batch settle a delivery that is not archived.
    pub fn cover(&mut self, from: ConsumerId, tag: u64) {
        let covered = self.open.covered.entry(from).or_default();
        covered.up_to = tag;
        covered.count += 1;
        let waits = self.limits.per_consumer != 0 && covered.count >= self.limits.per_consumer;
        self.full = waits
            || self.open.bytes >= self.limits.bytes
            || self.open.records >= RECORDS_MAX
            || self.open.types.len() >= TYPES_MAX;
    }
}

/// What a record says of a delivery.
fn received<'a>(delivery: &'a Delivery, properties: &'a [u8], now_us: i64) -> RecordRef<'a> {
    RecordRef {
        delivery: DeliveryRef {
            exchange: &delivery.exchange,
            routing_key: &delivery.routing_key,
            properties,
            received_at_us: now_us,
            redelivered: delivery.redelivered,
            undecodable: "",
        },
        ..RecordRef::default()
    }
}

/// Records that become one ledger entry, and the deliveries they settle.
#[derive(Debug, Default)]
pub struct Batch {
    hour: Option<Hour>,
    oldest_us: Option<i64>,
    records: u32,
    undecodable: u64,
    bytes: usize,
    types: Vec<TypeRecords>,
    by_key: HashMap<Box<str>, usize>,
    /// Where the last record went: runs of one type are common.
    last: usize,
    covered: BTreeMap<ConsumerId, Covered>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Covered {
    up_to: u64,
    count: usize,
}

#[derive(Debug)]
struct TypeRecords {
    key: Box<str>,
    event_type: Box<str>,
    full: Vec<RawFrame>,
    open: RawFrame,
}

impl TypeRecords {
    fn folder(&self) -> String {
        if &*self.key == UNDECODABLE_KEY {
            return layout::UNKNOWN.to_owned();
        }
        layout::folder(annals_core::names::package_of(&self.event_type))
    }
}

impl Batch {
    /// Whether it neither holds a record nor settles a delivery.
    pub fn is_empty(&self) -> bool {
        self.covered.is_empty()
    }

    /// Records in it.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Records in it whose body was no event.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When its first record was received, microseconds.
    pub fn oldest_us(&self) -> Option<i64> {
        self.oldest_us
    }

    /// Per consumer, the tag up to which it settles.
    pub fn covered(&self) -> impl Iterator<Item = (ConsumerId, u64)> + '_ {
        self.covered
            .iter()
            .map(|(from, covered)| (*from, covered.up_to))
    }

    /// The encoded records of the types that are `wanted`, frame by frame; those of one type in
    /// order. Only frames that are still being filled are copied.
    pub fn frames(&self, wanted: impl Fn(&str) -> bool) -> Vec<Bytes> {
        let types = self.types.iter().filter(|t| wanted(&t.event_type));
        let frames = types.flat_map(|t| t.full.iter().chain([&t.open]));
        frames
            .filter(|frame| !frame.is_empty())
            .map(RawFrame::to_bytes)
            .collect()
    }

    /// Compresses the records into one segment per package, named for the ledger number aimed
    /// for. Packages and types come in order of their names, so that the same batch makes the same
    /// bytes. Gives memory back as it goes.
    pub fn seal(
        self,
        bus: &str,
        number: u64,
        writer: &mut SegmentWriter,
    ) -> Result<Vec<SealedSegment>> {
        let mut sealed = Vec::new();
        self.seal_each(bus, number, writer, |segment| sealed.push(segment))?;
        Ok(sealed)
    }

    /// The same, handing over each segment as soon as it is made.
    pub fn seal_each(
        self,
        bus: &str,
        number: u64,
        writer: &mut SegmentWriter,
        mut each: impl FnMut(SealedSegment),
    ) -> Result<()> {
        let Some(hour) = self.hour else {
            return Ok(());
        };
        let mut packages: BTreeMap<String, Vec<TypeRecords>> = BTreeMap::new();
        for records in self.types {
            packages.entry(records.folder()).or_default().push(records);
        }
        for (folder, mut types) in packages {
            types.sort_unstable_by(|a, b| a.event_type.cmp(&b.event_type));
            for TypeRecords {
                event_type,
                full,
                open,
                ..
            } in types
            {
                for frame in full.into_iter().chain([open]) {
                    writer.push(&event_type, frame)?;
                }
            }
            each(writer.finish(bus, &folder, hour, number));
        }
        Ok(())
    }

    /// Adds a record but for its ordinal.
    #[inline]
    fn push(
        &mut self,
        key: &str,
        header: &Header<'_>,
        mut record: RecordRef<'_>,
        scratch: &mut Vec<u8>,
    ) {
        record.ordinal = self.records;
        let received_at_us = record.delivery.received_at_us;
        let len = record.encoded_len();
        self.frame_for(key, header.event_type, len)
            .push(header, &record, scratch);
        self.hour.get_or_insert(Hour::of_us(received_at_us));
        self.oldest_us.get_or_insert(received_at_us);
        self.records += 1;
        self.undecodable += u64::from(key == UNDECODABLE_KEY);
        self.bytes += len + RECORD_OVERHEAD_BYTES;
    }

    #[inline]
    fn frame_for(&mut self, key: &str, event_type: &str, len: usize) -> &mut RawFrame {
        let at = match self.types.get(self.last) {
            Some(records) if *records.key == *key => self.last,
            _ => self.index_of(key, event_type),
        };
        self.last = at;
        let records = &mut self.types[at];
        if records.open.is_full_for(len) {
            let full = std::mem::replace(&mut records.open, RawFrame::with_full_capacity());
            records.full.push(full.close());
        }
        &mut records.open
    }

    fn index_of(&mut self, key: &str, event_type: &str) -> usize {
        if let Some(&at) = self.by_key.get(key) {
            return at;
        }
        let at = self.types.len();
        self.by_key.insert(key.into(), at);
        self.types.push(TypeRecords {
            key: key.into(),
            event_type: event_type.into(),
            full: Vec::new(),
            open: RawFrame::default(),
        });
        at
    }
}
