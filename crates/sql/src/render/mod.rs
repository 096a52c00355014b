//! An answer as bytes: JSON lines, a JSON array, CSV, Arrow IPC, or a table for a terminal.
//!
//! Rows are written as they come: memory is bounded by a batch, whatever the answer's length.

mod table;
mod value;

use crate::engine::Answer;
use annals_core::{Error, ErrorKind, Result};
use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::Stream;
use std::fmt;
use std::str::FromStr;
use table::Table;

/// Rows written before the buffer is looked at.
const ROWS_AT_ONCE: usize = 256;
/// Bytes gathered before they are given on.
const CHUNK_BYTES: usize = 64 << 10;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object per line.
    JsonLines,
    /// One JSON array of objects.
    Json,
    /// RFC 4180, with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// Aligned columns for people; control characters are escaped, wide values cut.
    Table,
}

impl Format {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Table => "text/plain; charset=utf-8",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "jsonl" | "ndjson" => Self::JsonLines,
            "json" => Self::Json,
            "csv" => Self::Csv,
            "arrow" => Self::Arrow,
            "table" => Self::Table,
            other => {
                return Err(Error::invalid(format!(
                    "the format {other:?} is none of jsonl, json, csv, arrow, table"
                )));
            }
        })
    }
}

/// The bytes of an answer, in pieces. An error is the last piece.
pub fn stream(answer: Answer, format: Format) -> impl Stream<Item = Result<Bytes>> + Send {
    let renderer = Renderer::new(format, answer.schema());
    let start = Some(State { answer, renderer });
    futures::stream::unfold(start, |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(state))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

struct State {
    answer: Answer,
    renderer: Result<Renderer>,
}

impl State {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Ok(renderer) = &mut self.renderer else {
            let failed = Err(Error::new(ErrorKind::Closed, "the answer has ended"));
            return std::mem::replace(&mut self.renderer, failed).map(|_| None);
        };
        let mut out = Vec::new();
        loop {
            if renderer.write_pending(&mut out)? {
                return Ok(Some(out.into()));
            }
            if renderer.finished {
                return Ok((!out.is_empty()).then(|| out.into()));
            }
            match self.answer.next().await {
                Some(batch) => renderer.push(batch?),
                None => renderer.finish(&mut out)?,
            }
        }
    }
}

/// Writes batches in one format: [`Renderer::batch`] for each, then [`Renderer::finish`].
#[derive(Debug)]
pub struct Renderer {
    schema: SchemaRef,
    writer: Writer,
    /// The part of a batch that is not written yet.
    pending: Option<RecordBatch>,
    rows: u64,
    finished: bool,
}

enum Writer {
    JsonLines(Vec<Vec<u8>>),
    Json(Vec<Vec<u8>>),
    Csv,
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Table(Table),
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonLines(_) => "JsonLines",
            Self::Json(_) => "Json",
            Self::Csv => "Csv",
            Self::Arrow(_) => "Arrow",
            Self::Table(_) => "Table",
        })
    }
}

impl Renderer {
    /// A renderer for batches of this schema.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self> {
        let keys = || {
            schema
                .fields()
                .iter()
                .map(|f| value::key(f.name()))
                .collect()
        };
        let writer = match format {
            Format::JsonLines => Writer::JsonLines(keys()),
            Format::Json => Writer::Json(keys()),
            Format::Csv => Writer::Csv,
            Format::Arrow => {
                let writer = StreamWriter::try_new(Vec::new(), schema).map_err(failed)?;
                Writer::Arrow(Box::new(writer))
            }
            Format::Table => Writer::Table(Table::new(schema)),
        };
        Ok(Self {
            schema: SchemaRef::clone(schema),
            writer,
            pending: None,
            rows: 0,
            finished: false,
        })
    }

    /// Writes all rows of a batch to `out`.
    pub fn batch(&mut self, batch: RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.push(batch);
        while self.write_pending(out)? {}
        Ok(())
    }

    /// Writes what comes after the last row. Without any row, what comes before it too.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.finished = true;
        if self.rows == 0 {
            self.begin(out);
        }
        match &mut self.writer {
            Writer::JsonLines(_) | Writer::Csv => {}
            Writer::Json(_) => out.extend_from_slice(b"]\n"),
            Writer::Arrow(writer) => {
                writer.finish().map_err(failed)?;
                out.append(writer.get_mut());
            }
            Writer::Table(table) => table.finish(self.rows, out),
        }
        Ok(())
    }

    fn push(&mut self, batch: RecordBatch) {
        self.pending = (batch.num_rows() > 0).then_some(batch);
    }

    /// Writes rows of the pending batch until there are bytes enough; whether there are.
    fn write_pending(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        while let Some(batch) = self.pending.take() {
            let rows = match self.writer {
                // A batch is the unit of Arrow's stream: cut, it would be copied for nothing.
                Writer::Arrow(_) => batch.num_rows(),
                _ => batch.num_rows().min(ROWS_AT_ONCE),
            };
            self.write(&batch.slice(0, rows), out)?;
            let left = batch.num_rows() - rows;
            self.pending = (left > 0).then(|| batch.slice(rows, left));
            if out.len() >= CHUNK_BYTES {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        if self.rows == 0 {
            self.begin(out);
        }
        let mut first = self.rows == 0;
        match &mut self.writer {
            Writer::JsonLines(keys) => {
                for row in 0..batch.num_rows() {
                    value::object(keys, batch.columns(), row, out)?;
                    out.push(b'\n');
                }
            }
            Writer::Json(keys) => {
                for row in 0..batch.num_rows() {
                    if !std::mem::take(&mut first) {
                        out.extend_from_slice(b",\n");
                    }
                    value::object(keys, batch.columns(), row, out)?;
                }
            }
            Writer::Csv => {
                for row in 0..batch.num_rows() {
                    value::csv_row(batch.columns(), row, out)?;
                }
            }
            Writer::Arrow(writer) => {
                writer.write(batch).map_err(failed)?;
                out.append(writer.get_mut());
            }
            Writer::Table(table) => table.rows(batch, out)?,
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        match &mut self.writer {
            Writer::JsonLines(_) | Writer::Table(_) => {}
            Writer::Json(_) => out.push(b'['),
            Writer::Csv => value::csv_header(&self.schema, out),
            Writer::Arrow(writer) => out.append(writer.get_mut()),
        }
    }
}

fn failed(error: datafusion::arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "the answer cannot be written").caused_by(error)
}

#[cfg(test)]
mod tests;
