//! A small archive, and tables read back as text.

#![allow(unreachable_pub, reason = "part of two tests")]

use annals_archive::archiver::{Batcher, batch::ConsumerId, batch::Limits};
use annals_archive::bucket::{LIST_MAX, StoreBucket};
use annals_archive::segment::SegmentWriter;
use annals_archive::{Bucket, Ledger};
use annals_bus::Delivery;
use annals_core::event::CONTENT_TYPE;
use annals_core::schema::Catalog;
use annals_core::{Event, EventBuilder, Properties, Timestamp};
use annals_lake::converter::{Config, Progress, Schemas};
use annals_lake::{Converter, Lake, Result, Table, TableName};
use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const BUS: &str = "main";
/// 2026-11-21, 22:00 UTC.
pub const START_US: i64 = 1_795_298_400_000_000;
pub const HOUR_US: i64 = 3_600_000_000;

pub const ORDERS_V1: &str = r#"syntax = "proto3"; package shop.v1;
message Order { string order_id = 1; int64 cents = 2; }
message Refund { string order_id = 1; }"#;
pub const ORDERS_V2: &str = r#"syntax = "proto3"; package shop.v1;
message Order { string order_id = 1; int64 cents = 2; Address ship_to = 3; }
message Address { string country = 1; }
message Refund { string order_id = 1; }"#;

pub const ORDER: &str = "shop.v1.Order";

/// An archive that grows.
pub struct World {
    pub bucket: Arc<dyn Bucket>,
    pub ledger: Ledger,
    now_us: i64,
}

impl World {
    pub async fn new() -> Self {
        Self::on(Arc::new(StoreBucket::memory())).await
    }

    pub async fn on(bucket: Arc<dyn Bucket>) -> Self {
        Self {
            ledger: Ledger::open(bucket.clone(), BUS).await.unwrap(),
            bucket,
            now_us: START_US,
        }
    }

    /// The same once more, to be changed by itself.
    pub async fn copy(&self) -> Self {
        let bucket: Arc<dyn Bucket> = Arc::new(StoreBucket::memory());
        let mut after = None;
        loop {
            let page = self.bucket.list("", after.as_deref()).await.unwrap();
            for entry in &page {
                let bytes = self.bucket.get(&entry.name).await.unwrap();
                bucket.create(&entry.name, bytes).await.unwrap();
            }
            after = page.last().map(|entry| entry.name.clone());
            if page.len() < LIST_MAX {
                break;
            }
        }
        Self {
            now_us: self.now_us,
            ..Self::on(bucket).await
        }
    }

    /// Lets time go by.
    pub fn wait_us(&mut self, micros: i64) {
        self.now_us += micros;
    }

    /// Archives events as one ledger entry.
    pub async fn archive(&mut self, events: &[Event]) {
        let limits = Limits {
            bytes: usize::MAX,
            per_consumer: 0,
        };
        let mut batcher = Batcher::new(BUS, limits);
        let from = ConsumerId {
            consumer: 0,
            generation: 0,
        };
        let properties = Properties::builder().content_type(CONTENT_TYPE);
        let properties = properties.build().unwrap();
        for (tag, event) in (1..).zip(events) {
            let delivery = Delivery {
                tag,
                redelivered: false,
                exchange: "main".into(),
                routing_key: event.header().event_type.into(),
                properties: properties.clone(),
                body: event.bytes().clone(),
            };
            batcher.push(from, &delivery, self.now_us);
        }
        let number = self.ledger.head().next().0;
        let mut writer = SegmentWriter::new().unwrap();
        let sealed = batcher.take().seal(BUS, number, &mut writer).unwrap();
        let mut segments = Vec::new();
        for segment in sealed {
            let name = &segment.segment.name;
            self.bucket.create(name, segment.bytes).await.unwrap();
            segments.push(segment.segment);
        }
        self.ledger
            .append(segments, self.now_us, "test")
            .await
            .unwrap();
    }

    pub fn converter(&self, schemas: Schemas) -> Converter {
        Converter::new(self.ledger.clone(), schemas, Config::default())
    }

    /// A new converter, brought up to the head.
    pub async fn convert(&self, proto: &str) -> Progress {
        self.converter(schemas(1, proto)).catch_up().await.unwrap()
    }

    pub async fn table(&self, name: &TableName) -> Result<Table> {
        let lake = Lake::new(self.bucket.clone(), BUS);
        Ok(lake.table(name).await?.table)
    }

    /// The rows of a table as text, sorted: one line each, the columns asked for.
    pub async fn rows(&self, name: &TableName, columns: &[&str]) -> Vec<String> {
        let table = self.table(name).await.unwrap();
        let mut lines = Vec::new();
        for batch in self.batches(&table).await {
            lines.extend(lines_of(&batch, columns));
        }
        lines.sort();
        lines
    }

    /// How many rows each table has.
    pub async fn counts(&self, types: &[&str]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let types = types.iter().map(|t| TableName::of_type(t).unwrap());
        for name in [TableName::Events].into_iter().chain(types) {
            counts.insert(name.to_string(), self.rows(&name, &["id"]).await.len());
        }
        counts
    }

    pub async fn batches(&self, table: &Table) -> Vec<RecordBatch> {
        let mut batches = Vec::new();
        for file in table.files().unwrap().iter() {
            let name = format!("{}/{}", table.folder(), file.path);
            let bytes = self.bucket.get(&name).await.unwrap();
            assert_eq!(bytes.len() as u64, file.len);
            let hash = blake3::hash(&bytes).to_hex();
            assert!(file.path.ends_with(&format!("/{}.parquet", &hash[..32])));
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            batches.extend(reader.build().unwrap().map(Result::unwrap));
        }
        batches
    }
}

fn lines_of(batch: &RecordBatch, columns: &[&str]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<_> = columns
        .iter()
        .map(|name| {
            batch
                .column_by_name(name)
                .unwrap_or_else(|| panic!("no column {name}"))
        })
        .collect();
    let formatters: Vec<_> = columns
        .iter()
        .map(|column| ArrayFormatter::try_new(*column, &options).unwrap())
        .collect();
    let line = |row| {
        let values = formatters.iter().map(|f| f.value(row).to_string());
        values.collect::<Vec<_>>().join(" | ")
    };
    (0..batch.num_rows()).map(line).collect()
}

pub fn schemas(revision: u64, proto: &str) -> Schemas {
    let catalog = Catalog::from_files([("shop.proto", proto)]).unwrap();
    Schemas {
        revision,
        catalog: Arc::new(catalog),
    }
}

pub fn builder(event_type: &str, id: &str) -> EventBuilder {
    EventBuilder::new(event_type, "/service/shop", id).unwrap()
}

/// An order that happened so many seconds after 1970.
pub fn order(id: &str, seconds: i64, cents: u64) -> Event {
    let schemas = schemas(1, ORDERS_V1);
    let json = format!(r#"{{"order_id":"{id}","cents":"{cents}"}}"#);
    let payload = schemas.catalog.json_to_protobuf(ORDER, json.as_bytes());
    builder(ORDER, id)
        .time(Timestamp::from_second(seconds).unwrap())
        .subject(format!("o-{}", cents % 3))
        .and_then(|b| b.protobuf(payload?).build())
        .unwrap()
}
