//! Archives for tests: made through the segment writer and the ledger, remembered as a plain list;
//! and a bucket that changes while it is read.

use crate::bucket::{self, Created, StoreBucket};
use crate::layout::{self, Hour};
use crate::ledger::{Ledger, Position};
use crate::record::{DeliveryRef, RecordRef};
use crate::segment::{RawFrame, SegmentWriter};
use crate::{Bucket, wire};
use annals_core::{EventBuilder, Header, Result, Selection, Timestamp, names};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Hour the first event of a test arrives in, microseconds since 1970.
pub(crate) const START_US: i64 = 1_700_000_000_000_000;

/// An archive and what is in it.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) bucket: Arc<dyn Bucket>,
    pub(crate) ledger: Ledger,
    pub(crate) all: Vec<Archived>,
    frame_records: usize,
}

/// One archived copy of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archived {
    pub(crate) position: Position,
    pub(crate) ordinal: u32,
    pub(crate) event: Bytes,
    pub(crate) received_at_us: i64,
}

impl Archived {
    pub(crate) fn header(&self) -> Header<'_> {
        Header::scan(&self.event).unwrap()
    }
}

impl Fixture {
    /// In memory; frames of at most `frame_records` records.
    pub(crate) async fn new(frame_records: usize) -> Self {
        Self::on(Arc::new(StoreBucket::memory()), frame_records).await
    }

    pub(crate) async fn on(bucket: Arc<dyn Bucket>, frame_records: usize) -> Self {
        let ledger = Ledger::open(bucket.clone(), "main").await.unwrap();
        Self {
            bucket,
            ledger,
            all: Vec::new(),
            frame_records,
        }
    }

    /// Archives events as one ledger entry: arrival in the order given.
    pub(crate) async fn seal(&mut self, events: &[(Bytes, i64)]) {
        let position = self.ledger.head().next();
        let mut packages: BTreeMap<String, BTreeMap<String, Vec<RawFrame>>> = BTreeMap::new();
        let mut scratch = Vec::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (ordinal, (event, received_at_us)) in events.iter().enumerate() {
            let header = Header::scan(event).unwrap();
            let event_type = header.event_type.to_owned();
            let folder = layout::folder(names::package_of(&event_type));
            let frames = packages
                .entry(folder)
                .or_default()
                .entry(event_type.clone())
                .or_default();
            let count = counts.entry(event_type).or_default();
            if count.is_multiple_of(self.frame_records) {
                frames.push(RawFrame::default());
            }
            *count += 1;
            let record = RecordRef {
                event,
                delivery: DeliveryRef {
                    exchange: "annals",
                    routing_key: header.event_type,
                    received_at_us: *received_at_us,
                    ..DeliveryRef::default()
                },
                original: None,
                ordinal: ordinal as u32,
            };
            frames
                .last_mut()
                .unwrap()
                .push(&header, &record, &mut scratch);
            self.all.push(Archived {
                position,
                ordinal: ordinal as u32,
                event: event.clone(),
                received_at_us: *received_at_us,
            });
        }
        let hour = Hour::of_us(events.first().map_or(START_US, |(_, at)| *at));
        let segments = self.upload(packages, hour, position).await;
        self.ledger
            .append(segments, START_US, "test")
            .await
            .unwrap();
    }

    async fn upload(
        &self,
        packages: BTreeMap<String, BTreeMap<String, Vec<RawFrame>>>,
        hour: Hour,
        position: Position,
    ) -> Vec<wire::Segment> {
        let mut writer = SegmentWriter::new().unwrap();
        let mut segments = Vec::new();
        for (folder, types) in packages {
            for (event_type, frames) in types {
                for frame in frames {
                    writer.push(&event_type, frame).unwrap();
                }
            }
            let sealed = writer.finish("main", &folder, hour, position.0);
            self.bucket
                .create(&sealed.segment.name, sealed.bytes)
                .await
                .unwrap();
            segments.push(sealed.segment);
        }
        segments
    }

    /// What a naive reader gives: all copies selected, or the first of each (source, id).
    pub(crate) fn selected(&self, selection: &Selection, duplicates: bool) -> Vec<Archived> {
        let mut seen = HashSet::new();
        let wanted = self.all.iter().filter(|archived| {
            let header = archived.header();
            let (source, id) = header.key();
            let first = seen.insert((source.to_owned(), id.to_owned()));
            let at = Timestamp::from_microsecond(archived.received_at_us).unwrap();
            (duplicates || first) && selection.matches(&header, at)
        });
        wanted.cloned().collect()
    }
}

/// An event; `time_us` and `subject` where given.
pub(crate) fn event(
    event_type: &str,
    id: &str,
    time_us: Option<i64>,
    subject: Option<&str>,
    payload: &str,
) -> Bytes {
    let mut builder = EventBuilder::new(event_type, "/shop", id).unwrap();
    if let Some(time) = time_us {
        builder = builder.time(Timestamp::from_microsecond(time).unwrap());
    }
    if let Some(subject) = subject {
        builder = builder.subject(subject).unwrap();
    }
    let bytes = builder.json(payload.as_bytes()).build().unwrap();
    bytes.bytes().clone()
}

/// An event that a producer numbered.
pub(crate) fn numbered(event_type: &str, producer: &str, number: u64) -> Bytes {
    let id = format!("{producer}-{number}");
    let builder = EventBuilder::new(event_type, "/shop", id).unwrap();
    let builder = builder.attribute("producerid", producer).unwrap();
    let builder = builder
        .attribute("producerseq", number.to_string())
        .unwrap();
    builder.json(b"{}").build().unwrap().bytes().clone()
}

/// A bucket on which something happens before the first segment is read, or the first listing is
/// made; which then leaves out a name.
pub(crate) struct Meanwhile {
    inner: Arc<dyn Bucket>,
    happens: tokio::sync::Mutex<Option<BoxFuture<'static, ()>>>,
    unlisted: Option<String>,
}

impl Meanwhile {
    /// It happens before the first segment is read.
    pub(crate) fn at_a_segment(inner: Arc<dyn Bucket>, happens: BoxFuture<'static, ()>) -> Self {
        Self {
            inner,
            happens: tokio::sync::Mutex::new(Some(happens)),
            unlisted: None,
        }
    }

    /// It happens before the first listing, which leaves out the ledger entry of that number.
    pub(crate) fn at_a_listing(
        inner: Arc<dyn Bucket>,
        happens: BoxFuture<'static, ()>,
        unlisted: u64,
    ) -> Self {
        Self {
            inner,
            happens: tokio::sync::Mutex::new(Some(happens)),
            unlisted: Some(layout::ledger_name("main", unlisted)),
        }
    }

    async fn read(&self, name: &str) {
        let is_segment = !name.starts_with("index/") && !name.starts_with("ledger/");
        if is_segment && self.unlisted.is_none() {
            self.happens().await;
        }
    }

    async fn happens(&self) {
        if let Some(happens) = self.happens.lock().await.take() {
            happens.await;
        }
    }
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meanwhile").field(&self.inner).finish()
    }
}

#[async_trait]
impl Bucket for Meanwhile {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        self.inner.create(name, bytes).await
    }
    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &str) -> Result<Bytes> {
        self.read(name).await;
        self.inner.get(name).await
    }
    async fn get_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.read(name).await;
        self.inner.get_range(name, range).await
    }
    async fn head(&self, name: &str) -> Result<Option<u64>> {
        self.inner.head(name).await
    }
    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<bucket::Entry>> {
        if self.unlisted.is_some() {
            self.happens().await;
        }
        let mut listed = self.inner.list(folder, after).await?;
        listed.retain(|entry| Some(&entry.name) != self.unlisted.as_ref());
        Ok(listed)
    }
    async fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name).await
    }
}
