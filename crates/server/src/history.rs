//! What verbs and API ask of the archive: its ledger, events, statistics, verification.
//!
//! The same questions work on a running platform and on a directory that no process serves.

pub mod event_list;
mod selection;
mod stats;
mod verification;

pub use event_list::EventList;
pub use selection::SelectionText;
pub use stats::{DayCount, Stats, TypeCount};
pub use verification::{FindingRow, Verification};

use crate::exit::Result;
use crate::ingest::event_to_json;
use crate::platform::BUS;
use crate::schemas::{SchemaFiles, SchemaStore};
use annals_archive::reader::{Archive, Batch, Events, ReadOptions};
use annals_archive::{Bucket, Position};
use annals_core::schema::Catalog;
use annals_core::{Event, Selection, Timestamp, frame};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The archive, pinned at one position of its ledger.
#[derive(Debug)]
pub struct History {
    archive: Archive,
    bucket: Arc<dyn Bucket>,
}

/// One archived segment, as the ledger names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Number of the ledger entry.
    pub entry: u64,
    /// When it was written, RFC 3339.
    pub written_at: String,
    /// Package of the events' types.
    pub package: String,
    /// Events, duplicates counted.
    pub events: u64,
    /// Length of the segment.
    pub bytes: u64,
    /// Its object name in the bucket.
    pub segment: String,
    /// BLAKE3 of the segment, in hex.
    pub hash: String,
}

impl History {
    /// Of a pinned archive.
    pub fn new(archive: Archive, bucket: Arc<dyn Bucket>) -> Self {
        Self { archive, bucket }
    }

    /// Of a bucket; nothing in it is changed.
    pub async fn open(bucket: Arc<dyn Bucket>) -> Result<Self> {
        let archive = Archive::open(bucket.clone(), BUS).await?;
        Ok(Self::new(archive, bucket))
    }

    /// The archive, to be handed on.
    pub fn into_archive(self) -> Archive {
        self.archive
    }

    /// The archive.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The newest schemas.
    pub async fn schemas(&self) -> Result<SchemaFiles> {
        Ok(SchemaStore::new(self.bucket.clone()).latest().await?)
    }

    /// The ledger's segments, in order.
    pub async fn ledger_rows(&self) -> Result<Vec<LedgerRow>> {
        let ledger = self.archive.ledger();
        let mut entries = ledger.entries(Position(0), self.archive.position());
        let mut rows = Vec::new();
        while let Some(entry) = entries.next().await.transpose()? {
            let written_at = Timestamp::from_microsecond(entry.entry.written_at_us)
                .map_or_else(|_| String::new(), |time| time.to_string());
            rows.extend(entry.entry.segments.into_iter().map(|segment| {
                LedgerRow {
                    entry: entry.position.0,
                    written_at: written_at.clone(),
                    package: segment.package,
                    events: segment.count,
                    bytes: segment.length,
                    segment: segment.name,
                    hash: segment
                        .hash
                        .iter()
                        .map(|byte| format!("{byte:02x}"))
                        .collect(),
                }
            }));
        }
        Ok(rows)
    }

    /// How many events are selected; each counts once.
    pub async fn count(&self, selection: &Selection) -> Result<u64> {
        Ok(self.archive.count(selection).await?)
    }

    /// The selected events, each once, in the order of the archive.
    pub async fn select(&self, selection: &Selection) -> Result<Events> {
        Ok(self
            .archive
            .select(selection, &ReadOptions::default())
            .await?)
    }

    /// The selected events as published, each after its length as a varint.
    pub async fn delimited(
        &self,
        selection: &Selection,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let events = self.select(selection).await?;
        Ok(events.map(|batch| delimit(&batch?)))
    }

    /// The selected events in JSON, one a line.
    pub async fn json_lines(
        &self,
        selection: &Selection,
        catalog: Arc<Catalog>,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let events = self.select(selection).await?;
        Ok(events.map(move |batch| json_lines(&batch?, &catalog)))
    }
}

fn delimit(batch: &Batch) -> Result<Bytes> {
    let mut out = Vec::new();
    for event in batch.iter() {
        frame::put(event?.event, &mut out);
    }
    Ok(out.into())
}

fn json_lines(batch: &Batch, catalog: &Catalog) -> Result<Bytes> {
    let mut out = Vec::new();
    for event in batch.iter() {
        let event = Event::parse(event?.to_bytes())?;
        out.extend(event_to_json(catalog, &event)?);
        out.push(b'\n');
    }
    Ok(out.into())
}
