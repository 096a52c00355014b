//! [`Engine`] answers questions, on threads of its own and within its limits.

mod answer;
mod listing;
mod run;
mod session;
mod stopping;
mod stores;

pub use answer::{Answer, Summary};

use crate::functions::Functions;
use crate::history::History;
use crate::limits::{EngineConfig, Limit};
use annals_core::schema::Catalog;
use annals_core::{Error, ErrorKind, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Stack of the engine's threads: planning recurses over what the guard let through.
const STACK_BYTES: usize = 64 << 20;

/// A question: SQL, and limits other than the engine's.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The SQL text.
    pub sql: String,
    /// Rows of the answer; 0 = all of them; `None` = as the engine says.
    pub rows_max: Option<u64>,
    /// Time for the answer; `None` = as the engine says.
    pub timeout: Option<Duration>,
    /// Memory for the answer, at most the engine's; `None` = as the engine says.
    pub memory_bytes: Option<usize>,
}

impl Question {
    /// A question within the engine's limits.
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            ..Self::default()
        }
    }
}

/// Answers questions over a [`History`].
///
/// It owns a runtime: however heavy a question, the caller's threads only wait for batches. As
/// many threads as questions at once may use stand ready, so a loop that does not yield takes
/// time from its neighbours but never their turn.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What every question uses.
#[derive(Debug)]
struct Shared {
    history: Arc<dyn History>,
    config: EngineConfig,
    functions: RwLock<Arc<Functions>>,
    runtime_env: RuntimeEnv,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Engine {
    /// An engine over `history`, with a runtime of its own.
    pub fn new(history: Arc<dyn History>, config: EngineConfig) -> Result<Self> {
        if config.threads == 0 || config.queries_at_once == 0 {
            return Err(Error::invalid(
                "the query engine needs at least one thread and one query at once",
            ));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads * config.queries_at_once + 1)
            .max_blocking_threads(config.threads * config.queries_at_once)
            .thread_stack_size(STACK_BYTES)
            .thread_name("annals-sql")
            .enable_all()
            .build()?;
        let shared = Shared {
            history,
            functions: RwLock::new(Arc::new(Functions::new(None))),
            runtime_env: runtime_env(&config)?,
            turns: Arc::new(Semaphore::new(config.queries_at_once)),
            waiting: AtomicUsize::new(0),
            config,
        };
        Ok(Self {
            shared: Arc::new(shared),
            runtime: Some(runtime),
        })
    }

    /// Replaces the schemas that `payload_json` decodes with, from the next question on.
    pub fn set_catalog(&self, catalog: Catalog) {
        *self.shared.functions.write() = Arc::new(Functions::new(Some(catalog)));
    }

    /// Asks. Returns when the question is planned; rows come as the [`Answer`] is read.
    ///
    /// Dropping the future or the answer stops the work.
    pub async fn query(&self, question: &Question) -> Result<Answer> {
        let started = Instant::now();
        let config = &self.shared.config;
        let timeout = question.timeout.unwrap_or(config.timeout);
        let deadline = started + timeout;
        let turn = self.turn(deadline, timeout).await?;
        let terms = run::Terms {
            sql: question.sql.clone(),
            rows_max: question.rows_max.unwrap_or(config.rows_max),
            memory_bytes: question
                .memory_bytes
                .map_or(config.memory_bytes, |bytes| bytes.min(config.memory_bytes)),
            timeout,
            started,
            deadline,
        };
        let runtime = self.runtime.as_ref().ok_or_else(closed)?;
        Answer::start(runtime.handle(), Arc::clone(&self.shared), terms, turn).await
    }

    /// Tasks of all questions that are still alive, for those who watch the engine.
    pub fn tasks_alive(&self) -> usize {
        self.runtime
            .as_ref()
            .map_or(0, |r| r.metrics().num_alive_tasks())
    }

    /// Waits for a turn; refused at once if too many wait already.
    async fn turn(&self, deadline: Instant, timeout: Duration) -> Result<OwnedSemaphorePermit> {
        let shared = &self.shared;
        if let Ok(turn) = Arc::clone(&shared.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let bound = shared.config.queries_waiting;
        let _waiting = Waiting::join(&shared.waiting, bound)
            .ok_or_else(|| Limit::Waiting { questions: bound }.error())?;
        let turn = Arc::clone(&shared.turns).acquire_owned();
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(turn) => turn.map_err(|_| closed()),
            Err(_) => Err(Limit::Time { timeout }.error()),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A runtime may not be waited for on another runtime's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A place in the queue, given back on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize, bound: usize) -> Option<Self> {
        let joined = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < bound).then_some(n + 1)
        });
        joined.ok().map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Caches, stores and the disk, shared by all questions; each brings its own memory pool.
fn runtime_env(config: &EngineConfig) -> Result<RuntimeEnv> {
    let disk = match &config.spill_directory {
        Some(directory) => DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![directory.clone()]))
            .with_max_temp_directory_size(config.spill_bytes),
        None => DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
    };
    RuntimeEnvBuilder::new()
        .with_object_store_registry(Arc::new(stores::Stores::default()))
        .with_disk_manager_builder(disk)
        .build()
        .map_err(crate::failure::internal)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the query engine was closed")
}
