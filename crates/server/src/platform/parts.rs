//! [`Parts`]: what a running platform is made of, as its HTTP API sees it.

use super::{BUS, Converting, PlatformConfig};
use crate::address::Address;
use crate::exit::Result;
use crate::http::broken::BrokenAnswers;
use crate::http::sql::Summaries;
use crate::ingest::Ingest;
use crate::questions::{self, CurrentSchemas, SharedArchiver};
use crate::schemas::{SchemaFiles, SchemaStore};
use annals_archive::archiver::Archiver;
use annals_archive::reader::Archive;
use annals_archive::{Bucket, Ledger};
use annals_broker::{Broker, QueueSpec};
use annals_bus::{Publisher, topology};
use annals_core::{Error, ErrorKind, Timestamp};
use annals_lake::converter::Schemas;
use annals_sql::{Engine, EngineConfig};
use futures::FutureExt;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Between two questions whether the archiver still runs.
const ARCHIVER_LOOK_DELAY: Duration = Duration::from_millis(200);
/// Looks at an unchanged archiver and an empty queue before nothing more is taken to come.
const STABLE_LOOKS: u32 = 5;
/// Between two looks.
const LOOK_DELAY: Duration = Duration::from_millis(5);

/// What a running platform is made of.
#[derive(Debug)]
pub struct Parts {
    config: PlatformConfig,
    address: Address,
    started_at: Timestamp,
    broker: Broker,
    bucket: Arc<dyn Bucket>,
    ledger: Ledger,
    /// Absent once stopped.
    archiver: SharedArchiver,
    publisher: Publisher,
    /// Replaced whole by a schema push.
    ingest: RwLock<Ingest>,
    schemas: Arc<CurrentSchemas>,
    converting: Converting,
    engine: Engine,
    broken_answers: BrokenAnswers,
    summaries: Summaries,
}

/// What the lake is made with.
#[derive(Debug)]
pub(super) struct OfLake {
    pub(super) schemas: Arc<CurrentSchemas>,
    pub(super) converting: Converting,
}

impl Parts {
    pub(super) fn new(
        config: PlatformConfig,
        address: Address,
        broker: Broker,
        ledger: Ledger,
        archiver: Archiver,
        publisher: Publisher,
        OfLake {
            schemas,
            converting,
        }: OfLake,
    ) -> Result<Self> {
        let ingest = Ingest::new(schemas.get().catalog, config.clock.clone());
        let archiver: SharedArchiver = Arc::new(tokio::sync::RwLock::new(Some(archiver)));
        let engine = questions::engine(
            ledger.clone(),
            schemas.clone(),
            Some(archiver.clone()),
            Some(Arc::new(converting.clone())),
            EngineConfig::default(),
        )?;
        Ok(Self {
            started_at: config.clock.now(),
            config,
            address,
            broker,
            bucket: ledger.bucket().clone(),
            ledger,
            archiver,
            publisher,
            ingest: RwLock::new(ingest),
            schemas,
            converting,
            engine,
            broken_answers: BrokenAnswers::default(),
            summaries: Summaries::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// When it was started.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What answers questions in SQL.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What keeps the lake up with the ledger.
    pub fn converting(&self) -> &Converting {
        &self.converting
    }

    /// The schemas there are now.
    pub fn current_schemas(&self) -> &CurrentSchemas {
        &self.schemas
    }

    /// What answers to questions cost.
    pub fn summaries(&self) -> &Summaries {
        &self.summaries
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// What it is built on.
    pub fn config(&self) -> &PlatformConfig {
        &self.config
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The bucket.
    pub fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }

    /// Publishes to the main bus.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The archive as it is now, pinned.
    pub async fn archive(&self) -> Result<Archive> {
        self.ledger.refresh().await?;
        Ok(Archive::at(self.ledger.clone()))
    }

    /// Why streamed answers broke off.
    pub fn broken_answers(&self) -> &BrokenAnswers {
        &self.broken_answers
    }

    /// Turns JSON into events, with the newest schemas.
    pub fn ingest(&self) -> Ingest {
        self.ingest.read().clone()
    }

    /// The schemas.
    pub fn schemas(&self) -> SchemaStore {
        SchemaStore::new(self.bucket.clone())
    }

    /// Stores schema files, and converts with them from now on.
    pub async fn push_schemas(&self, files: BTreeMap<String, String>) -> Result<SchemaFiles> {
        let stored = self.schemas().push(files).await?;
        let catalog = Arc::new(stored.compile()?);
        *self.ingest.write() = Ingest::new(catalog.clone(), self.config.clock.clone());
        self.engine.set_catalog((*catalog).clone());
        let schemas = Schemas {
            revision: stored.revision,
            catalog,
        };
        self.schemas.set(schemas.clone());
        self.converting.set_schemas(schemas).await;
        Ok(stored)
    }

    /// What the archiver has done and has in hand.
    pub async fn archiver_stats(&self) -> annals_archive::archiver::Stats {
        match &*self.archiver.read().await {
            Some(archiver) => archiver.stats(),
            None => Default::default(),
        }
    }

    /// Messages in the archive queue that no archiver has yet.
    pub async fn archive_queue_ready(&self) -> Result<u32> {
        let (session, _events) = self.broker.session();
        let spec = QueueSpec {
            name: topology::archive_queue(BUS),
            durable: true,
            exclusive: false,
            auto_delete: false,
            passive: true,
            arguments: bytes::Bytes::new(),
        };
        let info = session.declare_queue(spec).await;
        let info = info.map_err(|e| Error::new(ErrorKind::Unavailable, e.to_string()))?;
        Ok(info.messages)
    }

    /// Archives everything the bus holds now; returns the ledger's last entry.
    pub async fn seal(&self) -> Result<u64> {
        let archiver = self.archiver.read().await;
        let Some(archiver) = &*archiver else {
            return Err(Error::new(ErrorKind::Closed, "the archiver has stopped").into());
        };
        let before = archiver.stats();
        // No more than this can still be on its way, whatever other queues hold.
        let enough = before.received + self.broker.stats().messages;
        let (mut stable, mut last) = (0, before.received);
        loop {
            archiver.seal().await?;
            let stats = archiver.stats();
            if self.broker.stats().messages == 0
                || stats.archived + stats.replayed_discarded >= enough
            {
                return Ok(stats.position.0);
            }
            let idle = self.archive_queue_ready().await? == 0 && stats.received == last;
            stable = if idle { stable + 1 } else { 0 };
            if stable == STABLE_LOOKS {
                return Ok(stats.position.0);
            }
            last = stats.received;
            tokio::time::sleep(LOOK_DELAY).await;
        }
    }

    /// Waits until broker or archiver fails; says which, and why.
    pub(super) async fn failed(&self) -> String {
        tokio::select! {
            reason = self.broker.ended() => {
                format!("broker: {}", reason.unwrap_or_else(|| "ended unasked".to_owned()))
            }
            error = self.archiver_ended() => format!("archiver: {error}"),
        }
    }

    async fn archiver_ended(&self) -> Error {
        // The archiver tells its end only to who holds it alone: asked for now and then, and
        // never in the way of others.
        loop {
            if let Ok(mut held) = self.archiver.try_write()
                && let Some(archiver) = &mut *held
                && let Some(error) = archiver.ended().now_or_never()
            {
                return error;
            }
            tokio::time::sleep(ARCHIVER_LOOK_DELAY).await;
        }
    }

    pub(super) async fn stop_archiver(&self) -> Result<()> {
        match self.archiver.write().await.take() {
            Some(archiver) => Ok(archiver.stop().await?),
            None => Ok(()),
        }
    }
}
