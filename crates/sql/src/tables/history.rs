//! [`LakeHistory`]: the lake and the archive's tail, as tables at one position.

use super::counted::RowCounts;
use super::provider::HistoryTable;
use super::tail::{OpenEvents, Tail};
use crate::history::{EVENTS, History, Pinned, ScanCounters, Scanned, TableName};
use annals_archive::reader::{Archive, Batch, OnDamage};
use annals_archive::{Ledger, Position};
use annals_columns::Shape;
use annals_core::schema::Catalog;
use annals_core::{ErrorKind, Result};
use annals_lake::converter::payload_fields;
use annals_lake::rows::{EventRows, TypeRows};
use annals_lake::{Converted, Lake, TableName as LakeTable};
use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::RwLock;

/// What an archiver in this process has received and not registered yet.
#[async_trait]
pub trait OpenBatch: Debug + Send + Sync + 'static {
    /// The events, in order of arrival; copies of others may be among them.
    async fn open(&self) -> Result<Batch>;
}

/// The schemas there are now.
pub trait TypeCatalog: Debug + Send + Sync + 'static {
    /// The types.
    fn catalog(&self) -> Arc<Catalog>;
}

/// Who looks after the lake.
pub trait Mending: Debug + Send + Sync + 'static {
    /// Data files of these tables could not be read.
    fn mend(&self, tables: Vec<LakeTable>);
}

/// Tables whose data files could not be read, and the versions that have them: they are read from
/// the archive until they are made anew.
type Distrusted = Arc<Mutex<HashMap<LakeTable, u64>>>;

/// The history of a bus.
#[derive(Debug)]
pub struct LakeHistory {
    lake: Lake,
    /// Shared by all questions: its index is opened once.
    archive: Arc<RwLock<Archive>>,
    open: Option<Arc<dyn OpenBatch>>,
    schemas: Arc<dyn TypeCatalog>,
    distrusted: Distrusted,
    mending: Option<Arc<dyn Mending>>,
}

impl LakeHistory {
    /// The history that a ledger tells, and the open batch of an archiver in this process.
    pub fn new(
        ledger: Ledger,
        schemas: Arc<dyn TypeCatalog>,
        open: Option<Arc<dyn OpenBatch>>,
    ) -> Self {
        Self {
            lake: Lake::new(ledger.bucket().clone(), ledger.bus()),
            archive: Arc::new(RwLock::new(Archive::at(ledger))),
            open,
            schemas,
            distrusted: Distrusted::default(),
            mending: None,
        }
    }

    /// Tells somebody of what could not be read.
    #[must_use]
    pub fn mended_by(mut self, mending: Arc<dyn Mending>) -> Self {
        self.mending = Some(mending);
        self
    }
}

#[async_trait]
impl History for LakeHistory {
    async fn pin(&self) -> Result<Arc<dyn Pinned>> {
        // The batch first: what of it is registered meanwhile is found to be archived, and left
        // out of it; nothing is missed.
        let open = match &self.open {
            Some(open) => Some(open.open().await?),
            None => None,
        };
        let mut archive = self.archive.write().await;
        let position = archive.refresh().await?;
        let index = archive.index(OnDamage::Report).await?;
        // Who writes the index may have come further than the ledger was when it was asked.
        let exact = index.position() == position;
        let mut counts = RowCounts(index.counts().archived);
        let open = match open.filter(|batch| !batch.is_empty()) {
            Some(batch) => {
                let copies = archive.distinct(&batch).await?;
                Some(Arc::new(OpenEvents::new(batch, copies)?))
            }
            None => None,
        };
        drop(archive);
        for (key, rows) in open.iter().flat_map(|open| &open.counts.0) {
            *counts.0.entry(key.clone()).or_default() += rows;
        }
        Ok(Arc::new(AtPosition {
            position,
            lake: self.lake.clone(),
            archive: self.archive.clone(),
            open,
            catalog: self.schemas.catalog(),
            counts,
            exact,
            counters: Arc::default(),
            opened: Mutex::default(),
            distrusted: self.distrusted.clone(),
            mending: self.mending.clone(),
        }))
    }
}

/// All tables at one position.
#[derive(Debug)]
struct AtPosition {
    position: Position,
    lake: Lake,
    archive: Arc<RwLock<Archive>>,
    open: Option<Arc<OpenEvents>>,
    catalog: Arc<Catalog>,
    /// How many events there are, by type and day.
    counts: RowCounts,
    /// Whether those are the events up to the position, and no others.
    exact: bool,
    counters: Arc<ScanCounters>,
    /// The tables of the lake that were read, and their versions.
    opened: Mutex<HashMap<LakeTable, u64>>,
    distrusted: Distrusted,
    mending: Option<Arc<dyn Mending>>,
}

#[async_trait]
impl Pinned for AtPosition {
    fn position(&self) -> u64 {
        self.position.0
    }

    fn tables(&self) -> Vec<TableName> {
        let seen = self.counts.0.keys().map(|(name, _)| name.as_str());
        let defined = self.catalog.types();
        let defined: Vec<String> = defined.map(|t| t.full_name().to_owned()).collect();
        let mut names: Vec<&str> = seen.chain(defined.iter().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        [EVENTS]
            .into_iter()
            .chain(names)
            .map(TableName::new)
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == EVENTS {
            return Ok(Some(self.events().await?));
        }
        if let Some(descriptor) = self.catalog.get(name) {
            let lake_name = LakeTable::of_type(name)?;
            let converted = self.converted(&lake_name).await?;
            let existing = converted.as_ref().map(|c| payload_fields(&c.table));
            let (shape, _) = Shape::merge(&existing.unwrap_or_default(), &descriptor)?;
            let schema = TypeRows::schema_of(&shape);
            let tail = self.tail(&converted, Tail::of_type(name, shape, self.catalog.clone()));
            let counts = self.counts.of_type(name);
            return Ok(Some(self.table_of(converted, schema, tail, counts)));
        }
        match self.counts.0.keys().any(|(seen, _)| seen == name) {
            true => Ok(Some(self.events_of(name).await?)),
            false => Ok(None),
        }
    }

    fn scanned(&self) -> Scanned {
        self.counters.now()
    }

    fn distrust(&self) -> bool {
        let opened = std::mem::take(&mut *self.opened.lock());
        let tables: Vec<LakeTable> = opened.keys().cloned().collect();
        if tables.is_empty() {
            return false;
        }
        self.distrusted.lock().extend(opened);
        if let Some(mending) = &self.mending {
            mending.mend(tables);
        }
        true
    }
}

impl AtPosition {
    async fn events(&self) -> Result<Arc<dyn TableProvider>> {
        let converted = self.converted(&LakeTable::Events).await?;
        let tail = self.tail(&converted, Tail::of_events());
        let schema = EventRows::schema();
        Ok(self.table_of(converted, schema, tail, self.counts.clone()))
    }

    fn table_of(
        &self,
        converted: Option<Converted>,
        schema: SchemaRef,
        tail: Tail,
        counts: RowCounts,
    ) -> Arc<dyn TableProvider> {
        let counts = Some(counts).filter(|_| self.exact);
        Arc::new(HistoryTable::new(
            converted,
            schema,
            tail,
            self.position,
            counts,
            &self.counters,
        ))
    }

    /// A type without a schema has no table: its events, as those of all types.
    async fn events_of(&self, event_type: &str) -> Result<Arc<dyn TableProvider>> {
        let events = provider_as_source(self.events().await?);
        let plan = LogicalPlanBuilder::scan(EVENTS, events, None)
            .and_then(|plan| plan.filter(col("type").eq(lit(event_type))))
            .and_then(LogicalPlanBuilder::build)
            .map_err(|e| {
                annals_core::Error::new(ErrorKind::Internal, "no view of a type").caused_by(e)
            })?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }

    /// A table of the lake; `None` where it is damaged: all of it is read from the archive then,
    /// until the converter has made it anew.
    async fn converted(&self, name: &LakeTable) -> Result<Option<Converted>> {
        let converted = match self.lake.table(name).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(table = %name, %error, "reading from the archive instead");
                if let Some(mending) = &self.mending {
                    mending.mend(vec![name.clone()]);
                }
                return Ok(None);
            }
            opened => opened?,
        };
        if let Some(version) = converted.table.version() {
            let mut distrusted = self.distrusted.lock();
            match distrusted.get(name) {
                Some(damaged) if *damaged == version => {
                    let why = "its files could not be read before";
                    tracing::warn!(table = %name, why, "reading from the archive instead");
                    return Ok(None);
                }
                Some(_) => _ = distrusted.remove(name),
                None => {}
            }
            self.opened.lock().insert(name.clone(), version);
        }
        Ok(Some(converted))
    }

    fn tail(&self, converted: &Option<Converted>, tail: Tail) -> Tail {
        let from = converted.as_ref().map_or(Position(0), |c| c.position);
        tail.between(
            self.archive.clone(),
            from.next(),
            self.position,
            self.open.clone(),
        )
    }
}
