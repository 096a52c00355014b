//! The engine's inbox: commands, and the bounded queue they wait in.

use crate::core::spec::{
    BindingSpec, ConsumeSpec, ExchangeSpec, QueueInfo, QueueSpec, Refusal, Settlement,
};
use crate::message::{Delivered, Publish};
use crate::outbox::{Outbox, Taken};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Bytes that are worth a turn of the engine while it waits for something else.
const TURN_BYTES: usize = 64 << 10;

/// What the engine is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Open {
        session: u64,
        outbox: Opening,
    },
    Gone {
        session: u64,
    },
    Publish {
        session: u64,
        channel: u16,
        batch: Vec<Publish>,
    },
    Settle {
        session: u64,
        channel: u16,
        batch: Vec<Settlement>,
    },
    Taken {
        taken: Vec<Taken>,
        done: Vec<Taken>,
    },
    Call {
        session: u64,
        call: Call,
        reply: Reply,
    },
    Close {
        reply: Option<oneshot::Sender<()>>,
    },
}

/// The outbox of a session to be opened; ended if the engine never opens it, so that nobody waits
/// for events that cannot come.
#[derive(Debug)]
pub(crate) struct Opening(Option<Arc<Outbox>>);

impl Opening {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self(Some(outbox))
    }

    pub(crate) fn take(mut self) -> Arc<Outbox> {
        self.0.take().expect("taken once: it is taken by value")
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(outbox) = self.0.take() {
            outbox.end(Some(Refusal::closed()));
        }
    }
}

pub(crate) type Reply = oneshot::Sender<Result<Answer, Refusal>>;

/// A request that has an answer.
#[derive(Debug)]
pub(crate) enum Call {
    DeclareExchange(ExchangeSpec),
    DeleteExchange {
        name: String,
        if_unused: bool,
    },
    Bind(BindingSpec),
    Unbind(BindingSpec),
    DeclareQueue(QueueSpec),
    DeleteQueue {
        name: String,
        if_unused: bool,
        if_empty: bool,
    },
    PurgeQueue {
        name: String,
    },
    Consume(ConsumeSpec),
    Cancel {
        channel: u16,
        consumer_tag: String,
    },
    Get {
        channel: u16,
        queue: String,
        no_ack: bool,
    },
    CloseChannel {
        channel: u16,
    },
}

/// The answer to a [`Call`].
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Queue(QueueInfo),
    Count(u32),
    Got(Option<(Delivered, u32)>),
}

/// The bounded queue between sessions and the engine.
#[derive(Debug)]
pub(crate) struct Commands {
    state: Mutex<Waiting>,
    wake: Condvar,
    /// One permit per byte.
    room: Semaphore,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: Vec<Command>,
    bytes: usize,
    /// Messages sent in all.
    came: u64,
    /// Whether there is anything else among them than publishes.
    others: bool,
    wait: Wait,
    /// Whether a commit has ended.
    woken: bool,
    ended: bool,
}

/// What the engine waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Wait {
    /// Nothing: it takes what is there.
    #[default]
    Nothing,
    /// Any command; at most so long.
    Command(Option<Duration>),
    /// Messages, counted from the start, or any other command; until a time.
    Messages { goal: u64, until: Instant },
    /// The end of a commit, or messages meanwhile, counted from the start.
    Commit { or: u64 },
    /// The end of a commit; nothing is taken before.
    CommitAlone,
}

impl Waiting {
    /// Whether what the engine waits for is there.
    fn is_there(&self) -> bool {
        match self.wait {
            Wait::Nothing => true,
            Wait::Command(_) => !self.commands.is_empty(),
            Wait::Messages { goal, .. } => {
                self.others || self.came >= goal || self.bytes >= TURN_BYTES
            }
            Wait::Commit { or } => self.woken || self.came >= or || self.bytes >= TURN_BYTES,
            Wait::CommitAlone => self.woken,
        }
    }
}

impl Commands {
    pub(crate) fn new(bytes_max: u32) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            room: Semaphore::new(bytes_max as usize),
            bytes_max: bytes_max as usize,
        }
    }

    /// Waits for room, then sends. After the engine's end the command is dropped, and with it its
    /// reply.
    pub(crate) async fn send(&self, cost: usize, command: Command) {
        // A command larger than the whole queue takes all of it.
        let cost = (cost + 64).min(self.bytes_max);
        // Closed with the engine: then nobody drains, and nothing waits.
        let Ok(permit) = self.room.acquire_many(cost as u32).await else {
            return;
        };
        permit.forget();
        self.push(cost, command);
    }

    /// Sends past the bound: for the few commands that free more than they take.
    pub(crate) fn send_now(&self, command: Command) {
        self.push(0, command);
    }

    /// Takes all that waits, into `commands`, once what is waited for is there or the time is out.
    pub(crate) fn drain(&self, commands: &mut Vec<Command>, wait: Wait) {
        let mut state = self.state.lock();
        state.wait = wait;
        while !state.is_there() {
            let late = match wait {
                Wait::Command(Some(timeout)) => self.wake.wait_for(&mut state, timeout).timed_out(),
                Wait::Messages { until, .. } => self.wake.wait_until(&mut state, until).timed_out(),
                _ => {
                    self.wake.wait(&mut state);
                    false
                }
            };
            if late {
                break;
            }
        }
        state.wait = Wait::Nothing;
        state.woken = false;
        if matches!(wait, Wait::CommitAlone) {
            return;
        }
        std::mem::swap(&mut state.commands, commands);
        state.others = false;
        let bytes = std::mem::take(&mut state.bytes);
        drop(state);
        self.room.add_permits(bytes);
    }

    /// Messages sent from the start.
    pub(crate) fn came(&self) -> u64 {
        self.state.lock().came
    }

    /// A commit has ended.
    pub(crate) fn wake(&self) {
        self.state.lock().woken = true;
        self.wake.notify_one();
    }

    /// The engine has ended: whatever waits or comes is dropped.
    pub(crate) fn end(&self) {
        self.room.close();
        let mut state = self.state.lock();
        state.ended = true;
        let dropped = std::mem::take(&mut state.commands);
        drop(state);
        drop(dropped);
    }

    fn push(&self, cost: usize, command: Command) {
        let mut state = self.state.lock();
        if state.ended {
            drop(state);
            return;
        }
        let was_there = state.is_there();
        state.bytes += cost;
        match &command {
            Command::Publish { batch, .. } => state.came += batch.len() as u64,
            _ => state.others = true,
        }
        state.commands.push(command);
        let wake = !was_there && state.is_there();
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }
}
