//! The bare loop that conversion is held against: segments decoded, columns built, Parquet written.

use annals_archive::record;
use annals_core::Header;
use annals_sql::datafusion::arrow::array::{
    ArrayRef, Decimal128Builder, Int32Array, Int64Array, RecordBatch, StringBuilder,
    TimestampMicrosecondArray,
};
use annals_sql::datafusion::parquet::arrow::ArrowWriter;
use annals_sql::datafusion::parquet::basic::{Compression, ZstdLevel};
use annals_sql::datafusion::parquet::file::properties::WriterProperties;
use annals_sql::datafusion::parquet::schema::types::ColumnPath;
use anyhow::{Context as _, Result, ensure};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Rows a thread gathers before it writes them: two threads then hold what a run of ours does.
const ROWS: usize = 1 << 18;
const ROW_GROUP_ROWS: usize = 128 << 10;
/// Texts of a payload.
const PAYLOAD_TEXTS: usize = 6;

/// Writes all events to files in a directory: their envelopes, and by type with their payloads.
pub(crate) fn convert(segments: &[PathBuf], dir: &Path, expected: u64) -> Result<u64> {
    let (next, count) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut tables = Tables::default();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = segments.get(at) else { break };
                let raw = zstd::decode_all(&std::fs::read(path)?[..])?;
                for record in record::iter(&raw) {
                    tables.push(at as i64, &record?)?;
                }
                if tables.events.rows.len() >= ROWS {
                    count.fetch_add(tables.write(dir, at)?, Ordering::Relaxed);
                }
            }
            let last = segments.len() + next.fetch_add(1, Ordering::Relaxed);
            count.fetch_add(tables.write(dir, last)?, Ordering::Relaxed);
            Ok(())
        };
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads
            .into_iter()
            .try_for_each(|t| t.join().expect("no panic"))
    })?;
    let count = count.into_inner();
    ensure!(count == expected, "{count} of {expected} events");
    Ok(count)
}

#[derive(Debug, Default)]
struct Tables {
    events: Table,
    types: HashMap<String, Table>,
}

/// Where and when, by row.
#[derive(Debug, Default)]
struct Place {
    position: i64,
    ordinal: i32,
    archived_at: i64,
    time: Option<i64>,
}

/// The columns of a table; what an envelope and a payload have is a text or the number.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<Place>,
    id: StringBuilder,
    source: StringBuilder,
    subject: StringBuilder,
    number: Decimal128Builder,
    texts: Vec<StringBuilder>,
}

impl Tables {
    fn push(&mut self, position: i64, record: &record::RecordRef<'_>) -> Result<()> {
        let header = Header::scan(record.event)?;
        let events = &mut self.events;
        events.push_envelope(position, record, &header);
        events
            .number
            .append_option(header.producer_seq.map(i128::from));
        events.push_text(0, header.event_type);
        events.push_text(1, header.producer_id.unwrap_or_default());
        if !self.types.contains_key(header.event_type) {
            self.types
                .insert(header.event_type.to_owned(), Table::default());
        }
        let table = self.types.get_mut(header.event_type).expect("it is there");
        table.push_envelope(position, record, &header);
        table
            .push_payload(header.data.bytes())
            .context("a payload ends too early")
    }

    /// Writes what there is; returns its events.
    fn write(&mut self, dir: &Path, number: usize) -> Result<u64> {
        let rows = self.events.rows.len() as u64;
        self.events.write(&dir.join(format!("events-{number}")))?;
        for (name, table) in &mut self.types {
            table.write(&dir.join(format!("{name}-{number}")))?;
        }
        Ok(rows)
    }
}

impl Table {
    fn push_envelope(
        &mut self,
        position: i64,
        record: &record::RecordRef<'_>,
        header: &Header<'_>,
    ) {
        self.rows.push(Place {
            position,
            ordinal: record.ordinal as i32,
            archived_at: record.delivery.received_at_us,
            time: header.time.map(|time| time.as_microsecond()),
        });
        self.id.append_value(header.id);
        self.source.append_value(header.source);
        self.subject.append_option(header.subject);
    }

    fn push_text(&mut self, at: usize, text: &str) {
        if self.texts.len() <= at {
            self.texts.resize_with(at + 1, StringBuilder::new);
        }
        self.texts[at].append_value(text);
    }

    /// What the generator writes: two texts, a number, four texts, in order.
    fn push_payload(&mut self, mut payload: &[u8]) -> Option<()> {
        for at in 0..PAYLOAD_TEXTS {
            if at == 2 {
                let (number, rest) = payload.get(1..)?.split_first_chunk()?;
                self.number.append_value(u64::from_le_bytes(*number).into());
                payload = rest;
            }
            let len = usize::from(*payload.get(1)?);
            let (text, rest) = payload.get(2..)?.split_at_checked(len)?;
            self.push_text(at, std::str::from_utf8(text).ok()?);
            payload = rest;
        }
        Some(())
    }

    fn write(&mut self, path: &Path) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let number = self.number.finish().with_precision_and_scale(20, 0)?;
        let times = |of: fn(&Place) -> Option<i64>| {
            let times: TimestampMicrosecondArray = rows.iter().map(of).collect();
            Arc::new(times.with_timezone("UTC")) as ArrayRef
        };
        let positions: Int64Array = rows.iter().map(|row| Some(row.position)).collect();
        let ordinals: Int32Array = rows.iter().map(|row| Some(row.ordinal)).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("position".into(), Arc::new(positions)),
            ("ordinal".into(), Arc::new(ordinals)),
            ("archived_at".into(), times(|row| Some(row.archived_at))),
            ("time".into(), times(|row| row.time)),
            ("id".into(), Arc::new(self.id.finish())),
            ("source".into(), Arc::new(self.source.finish())),
            ("subject".into(), Arc::new(self.subject.finish())),
            ("number".into(), Arc::new(number)),
        ];
        for (at, text) in self.texts.iter_mut().enumerate() {
            columns.push((format!("text{at}"), Arc::new(text.finish())));
        }
        let batch = RecordBatch::try_from_iter(columns)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_column_dictionary_enabled(ColumnPath::from("id"), false)
            .build();
        let mut writer =
            ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(())
    }
}
