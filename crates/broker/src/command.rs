//! The engine's inbox: commands, and the bounded queue they wait in.

use crate::core::spec::{
    BindingSpec, ConsumeSpec, ExchangeSpec, QueueInfo, QueueSpec, Refusal, Settlement,
};
use crate::message::{Delivered, Publish};
use crate::outbox::{Outbox, Taken};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Messages, and bytes, that are a group worth a sync of its own: no more are waited for.
const GROUP_MESSAGES: usize = 512;
const GROUP_BYTES: usize = 1 << 20;
/// Fewer messages are not waited for.
const GROUP_MESSAGES_MIN: usize = 8;
/// Longest wait for a group to gather.
const GATHER_MAX: Duration = Duration::from_millis(10);
/// It ends sooner when in one step of it no more than so many messages come, and the group after it
/// is not waited for: at such rates, some 6,000 a second, a sync of their own costs little, and
/// waiting would show.
const GATHER_STEP: Duration = Duration::from_millis(2);
const GATHER_STEP_MESSAGES: usize = 12;

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
    /// Messages in the publishes among the commands.
    messages: usize,
    /// Whether there is anything else among them: it is never kept waiting.
    others: bool,
    /// Messages the engine waits for; 0: it waits for any command.
    wanted: usize,
    ended: bool,
}

impl Waiting {
    fn is_enough(&self) -> bool {
        self.others || self.messages >= self.wanted.max(1) || self.bytes >= GROUP_BYTES
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

    /// Takes all that waits, into `commands`, or waits for something, at most `timeout`. With
    /// `!wait` it takes what is there. Returns how many messages the next call is to be told of.
    ///
    /// `confirmed` messages were just confirmed. Publishers that keep so many under way replace
    /// them at once: those are waited for, in bounds, so that a group becomes as large as what is
    /// under way. Else confirms in small groups bring publishes in small groups, for ever.
    pub(crate) fn drain(
        &self,
        commands: &mut Vec<Command>,
        wait: bool,
        timeout: Option<Duration>,
        confirmed: usize,
    ) -> usize {
        let mut state = self.state.lock();
        let mut came = true;
        if wait {
            let under_way = (state.messages + confirmed).min(GROUP_MESSAGES);
            let idle = Instant::now();
            while state.commands.is_empty() {
                match timeout {
                    Some(timeout) => {
                        self.wake.wait_for(&mut state, timeout);
                        break;
                    }
                    None => self.wake.wait(&mut state),
                }
            }
            if under_way >= GROUP_MESSAGES_MIN && idle.elapsed() < GATHER_MAX {
                came = self.gather(&mut state, under_way);
            }
        }
        std::mem::swap(&mut state.commands, commands);
        state.others = false;
        let messages = std::mem::take(&mut state.messages);
        let bytes = std::mem::take(&mut state.bytes);
        drop(state);
        self.room.add_permits(bytes);
        if came { messages } else { 0 }
    }

    /// Waits for so many messages, while they come; whether they did.
    fn gather(&self, state: &mut MutexGuard<'_, Waiting>, wanted: usize) -> bool {
        let start = Instant::now();
        let mut came = true;
        state.wanted = wanted;
        while !state.is_enough() && start.elapsed() < GATHER_MAX {
            let before = state.messages;
            let late = self.wake.wait_for(state, GATHER_STEP).timed_out();
            came = !late || state.messages - before > GATHER_STEP_MESSAGES;
            if !came {
                break;
            }
        }
        state.wanted = 0;
        came
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
        state.bytes += cost;
        match &command {
            Command::Publish { batch, .. } => state.messages += batch.len(),
            _ => state.others = true,
        }
        state.commands.push(command);
        let is_enough = match state.wanted {
            0 => state.commands.len() == 1,
            _ => state.is_enough(),
        };
        drop(state);
        if is_enough {
            self.wake.notify_one();
        }
    }
}
