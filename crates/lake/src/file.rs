//! Rows to a data file: sorted by time, Parquet, named by content.
//!
//! The same rows in the same order make the same bytes, hence the same name: written again after a
//! crash, a file is the one that is there.

use crate::distinct::plain_columns;
use crate::layout::{Date, file_path};
use crate::rows::{ARCHIVED_AT, ORDINAL, POSITION, SOURCE, SUBJECT, TIME, TYPE};
use annals_core::{Error, ErrorKind, Result, Timestamp};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Most rows of a row group: what a reader skips or reads as one. Who asks for the newest rows reads
/// a group or two whole.
pub(crate) const ROW_GROUP_ROWS: usize = 32 << 10;
/// Longest text whose least and greatest value is stated whole.
const STATS_TEXT_BYTES_MAX: usize = 256;

/// A data file that is not yet part of a table.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Path within the table.
    pub path: String,
    /// Its day.
    pub date: Date,
    /// The file.
    pub bytes: Bytes,
    /// What is known of its rows.
    pub stats: FileStats,
}

/// What is known of a file's rows: Delta's per-file statistics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStats {
    /// Rows.
    pub num_records: u64,
    /// Least values by column; a column may be missing.
    #[serde(default)]
    pub min_values: Map<String, Value>,
    /// Greatest values by column.
    #[serde(default)]
    pub max_values: Map<String, Value>,
    /// Nulls by column.
    #[serde(default)]
    pub null_count: Map<String, Value>,
}

impl FileStats {
    /// Least and greatest value of a column of numbers, if stated.
    pub fn numbers(&self, column: &str) -> Option<(i64, i64)> {
        let of = |values: &Map<String, Value>| values.get(column)?.as_i64();
        Some((of(&self.min_values)?, of(&self.max_values)?))
    }

    /// Least and greatest value of a column of times, microseconds since 1970, if stated.
    pub fn times(&self, column: &str) -> Option<(i64, i64)> {
        let of = |values: &Map<String, Value>| {
            let time: Timestamp = values.get(column)?.as_str()?.parse().ok()?;
            Some(time.as_microsecond())
        };
        Some((of(&self.min_values)?, of(&self.max_values)?))
    }

    /// Least and greatest value of a column of text, if stated.
    pub fn texts(&self, column: &str) -> Option<(&str, &str)> {
        let min = self.min_values.get(column)?.as_str()?;
        Some((min, self.max_values.get(column)?.as_str()?))
    }

    /// Nulls in a column, if stated.
    pub fn nulls(&self, column: &str) -> Option<u64> {
        self.null_count.get(column)?.as_u64()
    }
}

/// Makes a data file of rows that were archived on one day.
pub fn encode(rows: RecordBatch, date: Date) -> Result<NewFile> {
    // The unsorted ones are let go before the file is made.
    let rows = sorted(rows)?;
    let options = ArrowWriterOptions::new()
        .with_properties(properties(&rows))
        // Arrow's schema in the file would say nothing that the table's does not.
        .with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, rows.schema(), options)
        .map_err(not_written)?;
    writer.write(&rows).map_err(not_written)?;
    writer.close().map_err(not_written)?;
    Ok(NewFile {
        path: file_path(date, &blake3::hash(&bytes)),
        date,
        bytes: bytes.into(),
        stats: stats_of(&rows),
    })
}

/// The rows of a data file, a batch at a time.
pub fn decode(bytes: Bytes) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let damaged = |e: &dyn std::fmt::Display| Error::corrupt(format!("a data file: {e}"));
    let rows = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|e| damaged(&e))?;
    Ok(rows.map(move |batch| batch.map_err(|e| damaged(&e))))
}

/// By event time, then in the order of the archive; rows without a time come last.
fn sorted(rows: RecordBatch) -> Result<RecordBatch> {
    let column = |name: &str| rows.column_by_name(name).expect("every table has it");
    let times = column(TIME).as_primitive::<TimestampMicrosecondType>();
    let positions = column(POSITION).as_primitive::<Int64Type>();
    let ordinals = column(ORDINAL).as_primitive::<Int32Type>();
    let count = u32::try_from(rows.num_rows())
        .map_err(|_| Error::new(ErrorKind::Internal, "too many rows for a file"))?;
    let mut order: Vec<_> = (0..count)
        .map(|row| {
            let at = row as usize;
            let time = times.is_valid(at).then(|| times.value(at));
            let place = (positions.value(at), ordinals.value(at));
            (time.is_none(), time, place, row)
        })
        .collect();
    if order.is_sorted() {
        return Ok(rows);
    }
    order.sort_unstable();
    let order: UInt32Array = order.into_iter().map(|(.., row)| row).collect();
    take_record_batch(&rows, &order)
        .map_err(|e| Error::new(ErrorKind::Internal, "rows cannot be sorted").caused_by(e))
}

fn properties(rows: &RecordBatch) -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by("annals".to_owned());
    for column in plain_columns(rows) {
        let path = ColumnPath::from(column.path);
        properties = properties.set_column_dictionary_enabled(path.clone(), false);
        if column.is_integer {
            properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    properties.build()
}

fn stats_of(rows: &RecordBatch) -> FileStats {
    let mut stats = FileStats {
        num_records: rows.num_rows() as u64,
        ..FileStats::default()
    };
    for name in [POSITION, ARCHIVED_AT, SOURCE, SUBJECT, TIME, TYPE] {
        let Some(column) = rows.column_by_name(name) else {
            continue;
        };
        let nulls = json!(column.null_count());
        stats.null_count.insert(name.to_owned(), nulls);
        if let Some((min, max)) = range_of(column) {
            stats.min_values.insert(name.to_owned(), min);
            stats.max_values.insert(name.to_owned(), max);
        }
    }
    stats
}

fn range_of(column: &ArrayRef) -> Option<(Value, Value)> {
    if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        let values = || numbers.iter().flatten();
        return Some((json!(values().min()?), json!(values().max()?)));
    }
    if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
        let values = || times.iter().flatten();
        // Delta states times in milliseconds, and readers know only that: round outwards.
        let floor = values().min()?.div_euclid(1000);
        let ceil = values().max()?.checked_add(999)?.div_euclid(1000);
        return Some((json!(millis(floor)?), json!(millis(ceil)?)));
    }
    let texts = column.as_string_opt::<i32>()?;
    let values = || texts.iter().flatten();
    let (min, max) = (values().min()?, values().max()?);
    let short = min.len() <= STATS_TEXT_BYTES_MAX && max.len() <= STATS_TEXT_BYTES_MAX;
    short.then(|| (json!(min), json!(max)))
}

fn millis(millis: i64) -> Option<String> {
    let time = Timestamp::from_millisecond(millis).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

#[cold]
fn not_written(error: parquet::errors::ParquetError) -> Error {
    Error::new(ErrorKind::Internal, "rows cannot be written as Parquet").caused_by(error)
}
