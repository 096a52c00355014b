//! The embedded bus: AMQP 0-9-1 in one process, on one durable log.
//!
//! ```text
//!  amqp (TCP) ─┐                       ┌─ core: exchanges, queues, routing, dispatch (pure)
//!              ├─► Session ─► engine ──┤
//!  LocalBus  ──┘   (bounded)  (thread) └─ log: records, group commit, snapshots (disk)
//!                     ▲                      │
//!                     └─── SessionEvents ◄───┘ after the commit
//! ```
//!
//! - [`Broker`] — opens the log, recovers, runs the engine; [`Broker::session`] per client
//! - [`session`] — what a client asks and is told
//! - [`config`], [`stats`] — bounds and counters
//! - [`log`] — the segmented log
//!
//! Nothing is confirmed or delivered before the commit that holds it. A failed write or sync is
//! final: the engine stops, every session is closed, [`Broker::failed`] says why, and the next
//! start verifies.

pub mod amqp;
pub mod config;
pub mod log;
pub mod session;
pub mod stats;

mod command;
mod core;
mod engine;
mod message;
mod outbox;

pub use config::Config;
pub use session::{
    BindingSpec, ConsumeSpec, Delivered, Destination, ExchangeKind, ExchangeSpec, Message, Publish,
    QueueInfo, QueueSpec, Refusal, Session, SessionEvent, SessionEvents, Settle, Settlement,
};
pub use stats::{Stats, Unreadable};

use annals_core::{Clock, Disk, Error, ErrorKind, Random, Result};
use command::{Command, Commands, Opening};
use engine::Engine;
use log::LogReader;
use outbox::Outbox;
use parking_lot::Mutex;
use stats::StatsBoard;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};

/// A running broker; a handle, cheap to clone. Closed by [`Broker::close`], or when the last
/// handle is dropped.
#[derive(Debug, Clone)]
pub struct Broker {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    commands: Arc<Commands>,
    reader: LogReader,
    recovery: Recovery,
    stats: Arc<StatsBoard>,
    unreadable: Unreadable,
    failed: watch::Receiver<Option<String>>,
    sessions: AtomicU64,
    returned_bytes_max: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Messages in queues.
    pub messages: u64,
    /// Durable queues.
    pub queues: u64,
    /// Records read back; those before the newest snapshot need not be.
    pub records: u64,
    /// Messages whose bytes are gone although nothing says they were settled. Not zero: damage.
    pub lost: u64,
    /// Damaged stretches of the log, in words; the files are kept.
    pub damaged: Vec<String>,
}

impl Broker {
    /// Opens or creates the log in the config's directory, recovers what it holds, and starts the
    /// engine.
    pub fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Broker> {
        let commands = Arc::new(Commands::new(config.commands_bytes_max));
        let stats = Arc::new(StatsBoard::default());
        let (failing, failed) = watch::channel(None);
        let returned_bytes_max = config.returned_bytes_max;
        let (engine, recovery) = Engine::open(
            config,
            disk,
            clock,
            random,
            Arc::clone(&commands),
            Arc::clone(&stats),
        )?;
        let reader = engine.reader();
        let thread = std::thread::Builder::new()
            .name("annals-broker".to_owned())
            .spawn(move || engine.run(&failing))?;
        Ok(Broker {
            running: Arc::new(Running {
                commands,
                reader,
                recovery,
                stats,
                unreadable: Unreadable::default(),
                failed,
                sessions: AtomicU64::new(1),
                returned_bytes_max,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// A client's two ends.
    pub fn session(&self) -> (Session, SessionEvents) {
        let id = self.running.sessions.fetch_add(1, Ordering::Relaxed);
        let commands = &self.running.commands;
        let outbox = Arc::new(Outbox::new(self.running.returned_bytes_max));
        commands.send_now(Command::Open {
            session: id,
            outbox: Opening::new(Arc::clone(&outbox)),
        });
        let session = Session {
            id,
            commands: Arc::clone(commands),
        };
        let events = SessionEvents::new(Arc::clone(commands), outbox);
        (session, events)
    }

    /// Reads messages for [`Delivered::load`].
    pub fn reader(&self) -> LogReader {
        self.running.reader.clone()
    }

    /// What was found at the start.
    pub fn recovery(&self) -> &Recovery {
        &self.running.recovery
    }

    /// Counters and gauges, as of the last commit.
    pub fn stats(&self) -> Stats {
        Stats {
            unreadable: self.running.unreadable.get(),
            ..self.running.stats.get()
        }
    }

    /// Where readers of messages count those they cannot read.
    pub fn unreadable(&self) -> Unreadable {
        self.running.unreadable.clone()
    }

    /// Why the engine stopped, if it failed.
    pub fn failed(&self) -> Option<String> {
        self.running.failed.borrow().clone()
    }

    /// Waits until the engine has ended; why, if it failed.
    pub async fn ended(&self) -> Option<String> {
        let mut failed = self.running.failed.clone();
        // An error says that the engine dropped its end: it has ended, and nothing changes again.
        while failed.changed().await.is_ok() {}
        self.failed()
    }

    /// Commits what was sent, writes a snapshot, closes all sessions, and waits for the end.
    pub async fn close(&self) -> Result<()> {
        let (reply, done) = oneshot::channel();
        self.running
            .commands
            .send_now(Command::Close { reply: Some(reply) });
        // An error says that the engine had ended already.
        let _ = done.await;
        self.running.join();
        match self.failed() {
            None => Ok(()),
            Some(reason) => Err(Error::new(
                ErrorKind::Closed,
                format!("the broker failed: {reason}"),
            )),
        }
    }
}

impl Running {
    fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            // A panic there was reported by the panic hook; the log is left as after a crash.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.commands.send_now(Command::Close { reply: None });
        self.join();
    }
}
