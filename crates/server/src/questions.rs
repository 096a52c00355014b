//! What is asked in SQL, and of what: an engine over the lake and the archive, with the open batch
//! of an archiver in this process.

use crate::exit::Result;
use crate::platform::BUS;
use crate::schemas::SchemaStore;
use annals_archive::archiver::Archiver;
use annals_archive::reader::Batch;
use annals_archive::{Bucket, Error, ErrorKind, Ledger};
use annals_core::Selection;
use annals_core::schema::Catalog;
use annals_lake::converter::Schemas;
use annals_sql::tables::{LakeHistory, Mending, OpenBatch, TypeCatalog};
use annals_sql::{Engine, EngineConfig, Summary};
use async_trait::async_trait;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The archiver of this process, until it has stopped.
pub type SharedArchiver = Arc<tokio::sync::RwLock<Option<Archiver>>>;

/// The schemas there are now; replaced whole by a push.
#[derive(Debug)]
pub struct CurrentSchemas(RwLock<Schemas>);

impl CurrentSchemas {
    /// The newest there are in a bucket.
    pub async fn of_bucket(bucket: &Arc<dyn Bucket>) -> Result<Self> {
        let files = SchemaStore::new(bucket.clone()).latest().await?;
        let schemas = Schemas {
            revision: files.revision,
            catalog: Arc::new(files.compile()?),
        };
        Ok(Self(RwLock::new(schemas)))
    }

    /// The schemas.
    pub fn get(&self) -> Schemas {
        self.0.read().clone()
    }

    /// Replaces them.
    pub fn set(&self, schemas: Schemas) {
        *self.0.write() = schemas;
    }
}

impl TypeCatalog for CurrentSchemas {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.read().catalog.clone()
    }
}

/// An engine over all of a ledger's history.
pub fn engine(
    ledger: Ledger,
    schemas: Arc<CurrentSchemas>,
    archiver: Option<SharedArchiver>,
    mending: Option<Arc<dyn Mending>>,
    config: EngineConfig,
) -> Result<Engine> {
    let open = archiver.map(|archiver| Arc::new(OfArchiver(archiver)) as Arc<dyn OpenBatch>);
    let catalog = Catalog::clone(&schemas.catalog());
    let mut history = LakeHistory::new(ledger, schemas, open);
    if let Some(mending) = mending {
        history = history.mended_by(mending);
    }
    let engine = Engine::new(Arc::new(history), config)?;
    engine.set_catalog(catalog);
    Ok(engine)
}

/// An engine over the history in a bucket, where no server runs.
pub async fn engine_of_bucket(bucket: Arc<dyn Bucket>, config: EngineConfig) -> Result<Engine> {
    let schemas = Arc::new(CurrentSchemas::of_bucket(&bucket).await?);
    let ledger = Ledger::open(bucket, BUS).await?;
    engine(ledger, schemas, None, None, config)
}

#[derive(Debug)]
struct OfArchiver(SharedArchiver);

#[async_trait]
impl OpenBatch for OfArchiver {
    async fn open(&self) -> annals_core::Result<Batch> {
        match &*self.0.read().await {
            Some(archiver) => {
                let open = archiver.open_records(&Selection::all()).await?;
                Ok(open.into_batch())
            }
            None => Err(Error::new(ErrorKind::Closed, "the archiver has stopped")),
        }
    }
}

/// What an answer cost, in words for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Rows given.
    pub rows: u64,
    /// Whether there were more.
    pub truncated: bool,
    /// Lake files opened.
    pub files: u64,
    /// Bytes read from them.
    pub bytes: u64,
    /// Rows read from the archive, as the lake has not got them yet.
    pub tail_rows: u64,
    /// The ledger entry the answer is complete to.
    pub position: u64,
    /// How long it took, milliseconds.
    pub elapsed_ms: f64,
}

impl From<Summary> for SummaryRow {
    fn from(summary: Summary) -> Self {
        Self {
            rows: summary.rows,
            truncated: summary.truncated,
            files: summary.scanned.files,
            bytes: summary.scanned.bytes,
            tail_rows: summary.scanned.tail_rows,
            position: summary.position,
            elapsed_ms: summary.elapsed.as_secs_f64() * 1000.0,
        }
    }
}

impl std::fmt::Display for SummaryRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rows,
            files,
            bytes,
            tail_rows,
            position,
            elapsed_ms,
            ..
        } = self;
        let s = if *rows == 1 { "" } else { "s" };
        write!(f, "{rows} row{s}")?;
        if self.truncated {
            write!(f, ", and more (--rows takes more, 0 all)")?;
        }
        write!(
            f,
            "; scanned {files} files, {bytes} bytes, {tail_rows} rows not yet in the lake; \
             complete to position {position}; {elapsed_ms:.0} ms"
        )
    }
}
