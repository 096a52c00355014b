//! [`Platform`]: everything `annals up` runs, on one directory.
//!
//! ```text
//!  <dir>/annals.lock, annals.json    one process at a time, and where it listens
//!  <dir>/broker/                     the broker's log
//!  <dir>/bucket/                     raw/, ledger/, index/, schemas/, replays/
//!  <dir>/bucket.json                 instead, where these are in an object store
//! ```
//!
//! Start: lock, ports, bucket (a store is tried first, and refused if it cannot hold an archive),
//! broker, topology, archiver, index; announced when all of it stands. Stop:
//! the other way round, with what was published archived first. A part that fails stops the whole:
//! the next start verifies and goes on from what is durable.

mod converting;
mod demo;
mod indexing;
mod parts;

pub use converting::Converting;
pub use parts::Parts;

use crate::address::{Address, DirectoryLock};
use crate::bucket::{BucketArgs, BucketPlace, StoreSettings};
use crate::exit::{Exit, Failure, Result};
use crate::questions::CurrentSchemas;
use annals_archive::archiver::{self, Archiver};
use annals_archive::{Bucket, Ledger};
use annals_broker::Broker;
use annals_broker::amqp::AmqpConfig;
use annals_bus::{Bus, LocalBus, Publisher, PublisherOptions, Topology};
use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
use annals_core::{Clock, Disk, Random};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The bus that a platform serves.
pub const BUS: &str = "main";

/// Longest event taken over HTTP or from a file, in bytes: the broker's bound on a message, less
/// what its properties may take. AMQP clients have the broker's bound.
pub const EVENT_BYTES_MAX: usize = (16 << 20) - (128 << 10);

/// How long requests under way may take to end once the platform stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a platform, and what it is built on.
#[derive(Debug, Clone)]
pub struct PlatformConfig {
    /// Directory of everything; made if it is not there.
    pub dir: PathBuf,
    /// The bucket asked for; nothing: the directory's own.
    pub bucket: BucketArgs,
    /// What an object store is reached by.
    pub store: StoreSettings,
    /// AMQP port on 127.0.0.1; 0 for any.
    pub amqp_port: u16,
    /// HTTP port on 127.0.0.1; 0 for any.
    pub http_port: u16,
    /// Events are archived at the latest this long after they arrived …
    pub seal_after: Duration,
    /// … or as soon as this many bytes have.
    pub seal_at_bytes: u64,
    /// Archived events are converted to tables this long after they were archived: SQL does not
    /// wait for it, but the sooner, the smaller are the lake's files.
    pub convert_after: Duration,
    /// Whether the sample is published in a loop, as something to look at.
    pub demo: bool,
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub random: Arc<dyn Random>,
}

impl PlatformConfig {
    /// The defaults, on a directory of this machine.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            bucket: BucketArgs::default(),
            store: StoreSettings::default(),
            amqp_port: 5672,
            http_port: 7400,
            seal_after: Duration::from_secs(10),
            seal_at_bytes: 32 << 20,
            convert_after: Duration::from_secs(60),
            demo: false,
            disk: Arc::new(SystemDisk),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        }
    }
}

/// A running platform. Dropped without [`Platform::stop`], it is as if killed.
#[derive(Debug)]
pub struct Platform {
    parts: Arc<Parts>,
    place: BucketPlace,
    tasks: TaskTracker,
    accepting: CancellationToken,
    failures: tokio::sync::mpsc::Receiver<String>,
    // Last: everything else is dropped under the lock.
    _lock: DirectoryLock,
}

impl Platform {
    /// Starts everything; returns when clients can connect.
    pub async fn start(config: PlatformConfig) -> Result<Self> {
        let lock = DirectoryLock::take(&*config.disk, &config.dir)?;
        // Ports first: a busy one is the likeliest error, and costs nothing to find.
        let amqp = listen(config.amqp_port, "AMQP", "--amqp-port").await?;
        let http = listen(config.http_port, "HTTP", "--port").await?;
        let address = Address {
            pid: std::process::id(),
            amqp_port: amqp.local_addr()?.port(),
            http_port: http.local_addr()?.port(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (place, bucket) = open_bucket(&config).await?;
        let broker = open_broker(&config)?;
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new(&broker));
        bus.declare(&Topology::of_bus(BUS)).await?;
        let ledger = Ledger::open(bucket.clone(), BUS).await?;
        let archiver = start_archiver(&config, &broker, &ledger)?;
        let mut options = PublisherOptions::of_bus(BUS, "annals");
        options.event_bytes_max = EVENT_BYTES_MAX;
        let publisher = Publisher::new(bus, options, config.clock.clone(), config.random.clone());
        let positions = archiver.positions();
        let schemas = Arc::new(CurrentSchemas::of_bucket(&bucket).await?);
        let accepting = CancellationToken::new();
        let (converting, converter) = converting::converting(
            ledger.clone(),
            schemas.get(),
            positions.clone(),
            config.convert_after,
            accepting.clone(),
        );
        let parts = Parts::new(
            config,
            address.clone(),
            broker.clone(),
            ledger.clone(),
            archiver,
            publisher,
            parts::OfLake {
                schemas,
                converting,
            },
        )?;
        let parts = Arc::new(parts);
        let tasks = TaskTracker::new();
        let (report, failures) = tokio::sync::mpsc::channel(4);
        tasks.spawn(indexing::run(ledger, positions, accepting.clone()));
        tasks.spawn(converter);
        tasks.spawn(serve_amqp(broker, amqp, accepting.clone(), report.clone()));
        tasks.spawn(serve_http(parts.clone(), http, accepting.clone(), report));
        if parts.config().demo {
            tasks.spawn(demo::run(parts.clone(), accepting.clone()));
        }
        lock.announce(&address)?;
        Ok(Self {
            parts,
            place,
            tasks,
            accepting,
            failures,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        self.parts.address()
    }

    /// Where its bucket lies.
    pub fn bucket_place(&self) -> &BucketPlace {
        &self.place
    }

    /// What it is made of.
    pub fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Waits until a part fails; says which, and why. Can be dropped and called again.
    pub async fn failed(&mut self) -> String {
        tokio::select! {
            reason = self.parts.failed() => reason,
            Some(reason) = self.failures.recv() => reason,
        }
    }

    /// Stops accepting, archives what was published, acknowledges it, writes the broker's
    /// snapshot, and ends.
    pub async fn stop(self) -> Result<()> {
        let sealed = self.parts.seal().await;
        self.accepting.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("requests under way were cut off");
        }
        // Events that came while the first seal ran are archived by the archiver's own stop.
        let archived = self.parts.stop_archiver().await;
        let closed = self.parts.broker().close().await;
        sealed.map(drop)?;
        archived?;
        Ok(closed?)
    }
}

/// A directory remembers its bucket before anything is entrusted to either.
async fn open_bucket(config: &PlatformConfig) -> Result<(BucketPlace, Arc<dyn Bucket>)> {
    let place = config
        .bucket
        .place_for_platform(&config.dir, &config.store)?;
    let bucket = place
        .open_checked(config.disk.clone(), &*config.random, &config.store)
        .await?;
    place.remember(&*config.disk, &config.dir)?;
    Ok((place, bucket))
}

fn open_broker(config: &PlatformConfig) -> Result<Broker> {
    let broker = Broker::open(
        annals_broker::Config::new(config.dir.join("broker")),
        config.disk.clone(),
        config.clock.clone(),
        config.random.clone(),
    )?;
    let recovery = broker.recovery();
    for damage in &recovery.damaged {
        tracing::error!(damage, "the broker's log is damaged; the file is kept");
    }
    if recovery.lost > 0 {
        tracing::error!(
            messages = recovery.lost,
            "confirmed messages are lost to damage"
        );
    }
    Ok(broker)
}

fn start_archiver(config: &PlatformConfig, broker: &Broker, ledger: &Ledger) -> Result<Archiver> {
    let settings = archiver::Config {
        batch_bytes: usize::try_from(config.seal_at_bytes).unwrap_or(usize::MAX),
        batch_age: config.seal_after,
        // One consumer, so that the order of the archive is the order of the queue.
        consumers: 1,
        prefetch: 1 << 18,
        writer: format!("annals-{}", std::process::id()),
        ..archiver::Config::of_bus(BUS)
    };
    let known = Arc::new(annals_replay::KnownReplays::new(ledger.clone()));
    // Its own session: what the archiver has in hand never waits behind another's publishes.
    let bus = Arc::new(LocalBus::new(broker));
    Ok(Archiver::start(
        bus,
        ledger.clone(),
        known,
        config.clock.clone(),
        settings,
    )?)
}

async fn listen(port: u16, what: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|e| {
        let exit = match e.kind() {
            std::io::ErrorKind::AddrInUse => Exit::Conflict,
            std::io::ErrorKind::PermissionDenied => Exit::NotAllowed,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("no {what} on 127.0.0.1:{port}: {e}")).next(format!(
            "choose another port with {flag}, or {flag} 0 for any"
        ))
    })
}

async fn serve_amqp(
    broker: Broker,
    listener: TcpListener,
    accepting: CancellationToken,
    report: tokio::sync::mpsc::Sender<String>,
) {
    let stop = accepting.clone().cancelled_owned();
    let ended = annals_broker::amqp::serve(listener, broker, AmqpConfig::default(), stop).await;
    if let Err(error) = ended
        && !accepting.is_cancelled()
    {
        let _ = report.send(format!("AMQP listener: {error}")).await;
    }
}

async fn serve_http(
    parts: Arc<Parts>,
    listener: TcpListener,
    accepting: CancellationToken,
    report: tokio::sync::mpsc::Sender<String>,
) {
    let stop = accepting.clone().cancelled_owned();
    let served = axum::serve(listener, crate::http::router(parts))
        .with_graceful_shutdown(stop)
        .await;
    if let Err(error) = served {
        let _ = report.send(format!("HTTP listener: {error}")).await;
    }
}
