//! [`Tail`]: rows of what the lake has not: ledger entries not yet converted, and the open batch.

use super::counted::RowCounts;
use super::lookup::Places;
use crate::history::ScanCounters;
use annals_archive::Position;
use annals_archive::index::SkipList;
use annals_archive::reader::{Archive, Batch, Events, OnDamage, ReadOptions};
use annals_columns::Shape;
use annals_core::schema::Catalog;
use annals_core::{Error, ErrorKind, EventSet, Result, Selection, TypePattern};
use annals_lake::layout::Date;
use annals_lake::rows::{ARCHIVED_AT, Envelope, EventRows, TypeRows};
use datafusion::arrow::array::{AsArray, Date32Array, RecordBatch};
use datafusion::arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::{self, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::RwLock;

/// Rows of a batch handed to the engine.
const BATCH_ROWS: usize = 8192;

/// The part of a table that is not in the lake. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    of: Of,
    span: Option<Span>,
}

#[derive(Debug, Clone)]
enum Of {
    Events,
    Type(String, Arc<Shape>, Arc<Catalog>),
}

#[derive(Debug, Clone)]
struct Span {
    archive: Arc<RwLock<Archive>>,
    from: Position,
    until: Position,
    open: Option<Arc<OpenEvents>>,
}

/// Events that are in no ledger entry yet.
#[derive(Debug)]
pub(super) struct OpenEvents {
    pub(super) batch: Batch,
    /// Those of them that are copies.
    pub(super) copies: SkipList,
    /// How many there are without the copies, by type and day.
    pub(super) counts: RowCounts,
}

impl OpenEvents {
    pub(super) fn new(batch: Batch, copies: SkipList) -> Result<Self> {
        let mut counts: BTreeMap<(String, i32), u64> = BTreeMap::new();
        for event in batch.iter() {
            let event = event?;
            if !copies.contains(event.location.ordinal) {
                let day = Date::of_us(event.received_at_us).0;
                let key = (event.header.event_type.to_owned(), day);
                *counts.entry(key).or_default() += 1;
            }
        }
        Ok(Self {
            batch,
            copies,
            counts: RowCounts(counts),
        })
    }
}

impl Tail {
    /// Rows of the table of all events.
    pub(super) fn of_events() -> Self {
        Self {
            of: Of::Events,
            span: None,
        }
    }

    /// Rows of a type's table.
    pub(super) fn of_type(event_type: &str, shape: Shape, catalog: Arc<Catalog>) -> Self {
        Self {
            of: Of::Type(event_type.to_owned(), Arc::new(shape), catalog),
            span: None,
        }
    }

    /// Of which ledger entries, and of which open batch.
    pub(super) fn between(
        mut self,
        archive: Arc<RwLock<Archive>>,
        from: Position,
        until: Position,
        open: Option<Arc<OpenEvents>>,
    ) -> Self {
        self.span = Some(Span {
            archive,
            from,
            until,
            open,
        });
        self
    }

    /// Where events lie that filters name by their ids.
    pub(super) async fn places(&self, filters: &[Expr]) -> Result<Option<Places>> {
        let Some(span) = &self.span else {
            return Ok(None);
        };
        let archive = span.archive.read().await;
        Places::find(filters, &archive, span.until).await
    }

    /// The rows as they are read, of listed events only if there is a list; `None` if there can be
    /// none. `schema` has the date as its last column.
    pub(super) fn stream(
        &self,
        schema: &SchemaRef,
        events: Option<&Arc<EventSet>>,
        counters: &Arc<ScanCounters>,
    ) -> Option<Arc<dyn PartitionStream>> {
        let span = self.span.as_ref()?;
        let archived = span.from <= span.until;
        (archived || span.open.is_some()).then(|| {
            Arc::new(TailStream {
                tail: self.clone(),
                schema: schema.clone(),
                events: events.cloned(),
                counters: counters.clone(),
            }) as Arc<dyn PartitionStream>
        })
    }

    fn selection(&self, events: Option<&Arc<EventSet>>) -> Result<Selection> {
        let patterns = match &self.of {
            Of::Events => Vec::new(),
            Of::Type(name, ..) => vec![TypePattern::new(name.as_str())?],
        };
        Ok(Selection {
            patterns,
            events: events.cloned(),
            ..Selection::all()
        })
    }

    fn rows(&self) -> Rows {
        match &self.of {
            Of::Events => Rows::Events(Box::default()),
            Of::Type(name, shape, catalog) => {
                let rows = TypeRows::new(name, shape, catalog.clone());
                Rows::Type(name.clone(), Box::new(rows))
            }
        }
    }
}

/// The rows of a tail, made as they are asked for: memory for those of some MiB of the archive.
#[derive(Debug)]
struct TailStream {
    tail: Tail,
    schema: SchemaRef,
    events: Option<Arc<EventSet>>,
    counters: Arc<ScanCounters>,
}

impl PartitionStream for TailStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reading = Reading {
            tail: self.tail.clone(),
            schema: self.schema.clone(),
            events: self.events.clone(),
            next: Next::Archive,
        };
        let counters = self.counters.clone();
        let rows = stream::try_unfold(reading, Reading::next)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
            .inspect_ok(move |batch| counters.add_tail_rows(batch.num_rows() as u64))
            .map_err(|e: Error| DataFusionError::External(Box::new(e)));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

struct Reading {
    tail: Tail,
    schema: SchemaRef,
    events: Option<Arc<EventSet>>,
    next: Next,
}

/// What is read next.
enum Next {
    /// The ledger entries, to be opened.
    Archive,
    Entries(Box<Events>),
    Open,
    End,
}

impl Reading {
    /// The rows of the next batch of events.
    async fn next(mut self) -> Result<Option<(Vec<RecordBatch>, Self)>> {
        let Some(span) = self.tail.span.clone() else {
            return Ok(None);
        };
        loop {
            match self.next {
                Next::Archive if span.from > span.until => self.next = Next::Open,
                Next::Archive => {
                    let options = ReadOptions {
                        from_position: span.from,
                        to_position: Some(span.until),
                        on_damage: OnDamage::Report,
                        in_pieces: true,
                        ..ReadOptions::default()
                    };
                    let selection = self.tail.selection(self.events.as_ref())?;
                    let archive = span.archive.read().await;
                    let events = archive.select(&selection, &options).await?;
                    self.next = Next::Entries(Box::new(events));
                }
                Next::Entries(ref mut events) => match events.next().await? {
                    Some(batch) => return self.give(batch, None).await.map(Some),
                    None => self.next = Next::Open,
                },
                Next::Open => {
                    self.next = Next::End;
                    if let Some(open) = span.open {
                        let batch = open.batch.clone();
                        return self.give(batch, Some(open)).await.map(Some);
                    }
                }
                Next::End => return Ok(None),
            }
        }
    }

    async fn give(
        self,
        batch: Batch,
        open: Option<Arc<OpenEvents>>,
    ) -> Result<(Vec<RecordBatch>, Self)> {
        let (rows, schema) = (self.tail.rows(), self.schema.clone());
        let made = off_thread(move || {
            let copies = open.as_ref().map(|open| &open.copies);
            rows.with(&batch, copies)?.finish(&schema)
        });
        Ok((made.await?, self))
    }
}

enum Rows {
    Events(Box<EventRows>),
    Type(String, Box<TypeRows>),
}

impl Rows {
    fn with(mut self, batch: &Batch, copies: Option<&SkipList>) -> Result<Self> {
        for event in batch.iter() {
            let event = event?;
            if copies.is_some_and(|copies| copies.contains(event.location.ordinal)) {
                continue;
            }
            match &mut self {
                Self::Events(rows) => rows.push(&Envelope::of(&event))?,
                Self::Type(name, rows) if event.header.event_type == name => {
                    rows.push(&Envelope::of(&event))?;
                }
                Self::Type(..) => {}
            }
        }
        Ok(self)
    }

    fn finish(self, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let rows = match self {
            Self::Events(mut rows) => rows.finish(),
            Self::Type(_, mut rows) => rows.finish(),
        };
        let archived = rows
            .column_by_name(ARCHIVED_AT)
            .expect("every table has it")
            .as_primitive::<TimestampMicrosecondType>();
        let dates: Date32Array = archived.iter().map(|at| Some(Date::of_us(at?).0)).collect();
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(dates));
        let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|e| {
            Error::new(
                ErrorKind::Internal,
                "the tail's columns are not the table's",
            )
            .caused_by(e)
        })?;
        let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
        Ok(starts
            .map(|at| rows.slice(at, BATCH_ROWS.min(rows.num_rows() - at)))
            .collect())
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::new(ErrorKind::Internal, "reading the tail panicked").caused_by(e))?
}
