//! [`Tail`]: rows of what the lake has not: ledger entries not yet converted, and the open batch.

use annals_archive::Position;
use annals_archive::index::SkipList;
use annals_archive::reader::{Archive, Batch, OnDamage, ReadOptions};
use annals_columns::Shape;
use annals_core::schema::Catalog;
use annals_core::{Error, ErrorKind, Result, Selection, TypePattern};
use annals_lake::layout::Date;
use annals_lake::rows::{ARCHIVED_AT, EventRows, TypeRows};
use datafusion::arrow::array::{AsArray, Date32Array, RecordBatch};
use datafusion::arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use std::collections::BTreeSet;
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
    /// Their types.
    pub(super) types: BTreeSet<String>,
}

impl OpenEvents {
    pub(super) fn new(batch: Batch, copies: SkipList) -> Result<Self> {
        let mut types: BTreeSet<String> = BTreeSet::new();
        for event in batch.iter() {
            let event_type = event?.header.event_type;
            if !types.contains(event_type) {
                types.insert(event_type.to_owned());
            }
        }
        Ok(Self {
            batch,
            copies,
            types,
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

    /// Reads the rows. `schema` has the date as its last column.
    pub(super) async fn read(&self, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let Some(span) = &self.span else {
            return Ok(Vec::new());
        };
        let mut rows = self.rows();
        if span.from <= span.until {
            let options = ReadOptions {
                from_position: span.from,
                to_position: Some(span.until),
                on_damage: OnDamage::Report,
                ..ReadOptions::default()
            };
            let selection = self.selection()?;
            let mut events = span
                .archive
                .read()
                .await
                .select(&selection, &options)
                .await?;
            while let Some(batch) = events.next().await? {
                rows = off_thread(move || rows.with(&batch, None)).await?;
            }
        }
        if let Some(open) = span.open.clone() {
            rows = off_thread(move || rows.with(&open.batch, Some(&open.copies))).await?;
        }
        let schema = schema.clone();
        off_thread(move || rows.finish(&schema)).await
    }

    fn selection(&self) -> Result<Selection> {
        let patterns = match &self.of {
            Of::Events => Vec::new(),
            Of::Type(name, ..) => vec![TypePattern::new(name.as_str())?],
        };
        Ok(Selection {
            patterns,
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
                Self::Events(rows) => rows.push(&event)?,
                Self::Type(name, rows) if event.header.event_type == name => rows.push(&event),
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
