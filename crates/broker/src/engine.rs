//! The engine: the one thread that owns all state of the broker.
//!
//! ```text
//!  drain commands ─► apply, append records ─► seal ─► commit ─► answers, confirms, deliveries ─┐
//!        ▲ ▲                 (beside the next group; a sync if anything durable is in it)      │
//!        │ └───────────────────────────────────┘                                              │
//!        └──────── release, rewrite, snapshot: keep the log short ◄────────────────────────────┘
//! ```
//! In reading order: this file (the loop), `publishing`, `group` (seal and what follows), `gather`
//! (when a group is large enough), `committer` (the thread that syncs), `upkeep`.

mod committer;
mod gather;
mod group;
mod publishing;
mod upkeep;

use crate::command::{Answer, Call, Command, Commands, Wait};
use crate::config::Config;
use crate::core::snapshot::Recovering;
use crate::core::spec::Refusal;
use crate::core::state::{Bounds, State};
use crate::log::{Log, LogReader};
use crate::outbox::Outbox;
use crate::stats::{Stats, StatsBoard};
use annals_core::{Clock, Disk, Error, ErrorKind, Random, Result};
use committer::Committer;
use gather::Gather;
use group::Group;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How often a full disk is looked at again.
const BLOCKED_POLL: Duration = Duration::from_millis(100);
/// Room that topology must find, so that it never fails half done.
const CALL_ROOM: u64 = 16 << 10;
/// Messages, or bytes, that are worth a turn while a group is on its way or gathers.
const TURN_MESSAGES: u64 = 64;
/// An open group of so many bytes takes nothing more while another is on its way.
const OPEN_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Engine {
    config: Config,
    log: Option<Log>,
    state: State,
    commands: Arc<Commands>,
    board: Arc<StatsBoard>,
    stats: Stats,
    outboxes: HashMap<u64, Arc<Outbox>>,
    group: Group,
    gather: Gather,
    committer: Committer,
    /// Messages taken from the commands.
    taken: u64,
    /// Whether another group is needed at once.
    again: bool,
    /// Why publishes are refused now.
    blocked: Option<String>,
    /// Sessions that were told so: those that publish. The others go on, above all those whose
    /// acks make room: clients send nothing at all on a blocked connection.
    told: BTreeSet<u64>,
    closing: Option<Option<oneshot::Sender<()>>>,
    upkeep: upkeep::Upkeep,
    /// Scratch.
    head: Vec<u8>,
    copies: Vec<(u32, u64)>,
}

impl Engine {
    pub(crate) fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        // Nothing here depends on the time yet; time to live will.
        _clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        commands: Arc<Commands>,
        board: Arc<StatsBoard>,
    ) -> Result<(Self, crate::Recovery)> {
        let bounds = Bounds {
            window: config.window,
            unsettled_max: config.unsettled_max,
        };
        let mut settings = config.log.clone();
        settings.salt = random.next_u64();
        let mut recovering = Recovering::new(State::new(bounds, random));
        let (log, found) = Log::open(disk, &config.directory, settings, &mut |entry| {
            recovering.visit(entry);
        })?;
        let malformed = recovering.malformed;
        let segments: BTreeMap<u32, ()> = log.segments().map(|s| (s.number, ())).collect();
        let (state, lost) = recovering.finish(|segment| segments.contains_key(&segment));
        let mut damaged: Vec<String> = found.damaged.iter().map(ToString::to_string).collect();
        if malformed > 0 {
            damaged.push(format!("{malformed} records say nothing that can be read"));
        }
        let recovery = crate::Recovery {
            messages: state.totals.messages,
            queues: state.queue_count() as u64,
            records: found.records,
            lost,
            damaged,
        };
        let committer = Committer::start(Arc::clone(&commands))?;
        let engine = Self {
            upkeep: upkeep::Upkeep::new(&log),
            config,
            log: Some(log),
            state,
            commands,
            board,
            stats: Stats::default(),
            outboxes: HashMap::new(),
            group: Group::new(0),
            gather: Gather::new(Instant::now()),
            committer,
            taken: 0,
            again: false,
            blocked: None,
            told: BTreeSet::new(),
            closing: None,
            head: Vec::new(),
            copies: Vec::new(),
        };
        engine.publish_stats();
        Ok((engine, recovery))
    }

    pub(crate) fn reader(&self) -> LogReader {
        self.log().reader()
    }

    /// Works until told to close, or until the log fails.
    pub(crate) fn run(mut self, failing: &watch::Sender<Option<String>>) {
        // A panic is a bug; sessions must hear of it all the same.
        let worked = std::panic::catch_unwind(AssertUnwindSafe(|| self.work()));
        let failure = match worked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the engine panicked".to_owned()),
        };
        if let Some(failure) = &failure {
            tracing::error!(%failure, "the broker stops");
        }
        let refusal = match &failure {
            None => Refusal::closed(),
            Some(failure) => Refusal::new(541, format!("the broker failed: {failure}")),
        };
        // Who is told of what is on its way is told before the end.
        if let Ok(Some(done)) = self.committer.wait() {
            self.group.replies.extend(done.kept.leading);
            self.group.replies.extend(done.kept.replies);
        }
        failing.send_replace(failure);
        self.commands.end();
        for outbox in self.outboxes.values() {
            outbox.end(Some(refusal.clone()));
        }
        let group = &mut self.group;
        for (reply, _) in group.leading.drain(..).chain(group.replies.drain(..)) {
            // One that nobody waits for is no loss.
            let _ = reply.send(Err(refusal.clone()));
        }
        if let Some(Some(reply)) = self.closing.take() {
            let _ = reply.send(());
        }
    }

    fn work(&mut self) -> Result<()> {
        let mut commands = Vec::new();
        while self.closing.is_none() {
            let wait = self.wait();
            self.commands.drain(&mut commands, wait);
            self.unblock();
            for command in commands.drain(..) {
                self.apply(command)?;
                // What waits for it goes on meanwhile.
                if self.taken - self.group.start >= gather::MESSAGES_MAX {
                    self.commit()?;
                }
            }
            self.commit()?;
        }
        self.close()
    }

    /// Takes note of a commit that is done, and begins the next if the group is gathered.
    fn commit(&mut self) -> Result<()> {
        if let Some(done) = self.committer.done()? {
            self.committed(done)?;
        }
        if !self.committer.is_busy() && self.is_gathered() {
            self.seal()?;
        }
        Ok(())
    }

    /// What there is to wait for.
    fn wait(&mut self) -> Wait {
        let turn = self.taken + TURN_MESSAGES;
        if self.committer.is_busy() {
            return match self.log().open_bytes() + self.group.held {
                ..OPEN_BYTES_MAX => Wait::Commit { or: turn },
                _ => Wait::CommitAlone,
            };
        }
        if self.again {
            return Wait::Nothing;
        }
        match self.gather.wait(self.commands.came(), Instant::now()) {
            Some((goal, until)) => Wait::Messages {
                goal: goal.min(turn),
                until,
            },
            None if self.taken > self.group.start => Wait::Nothing,
            None => Wait::Command(self.blocked.is_some().then_some(BLOCKED_POLL)),
        }
    }

    /// Whether the open group waits for nothing more.
    fn is_gathered(&self) -> bool {
        // Blocked, it looks for room each time.
        self.again
            || self.blocked.is_some()
            || self.group.is_urgent
            || self.taken > self.group.start
                && (self.gather.is_reached(self.taken)
                    || self.log().open_bytes() >= gather::BYTES_MAX)
    }

    fn apply(&mut self, command: Command) -> Result<()> {
        self.group.is_urgent |= !matches!(command, Command::Publish { .. });
        match command {
            Command::Publish {
                session,
                channel,
                batch,
            } => {
                self.taken += batch.len() as u64;
                self.publish(session, channel, batch)
            }
            Command::Settle {
                session,
                channel,
                batch,
            } => {
                self.state.settle(session, channel, &batch);
                Ok(())
            }
            Command::Taken { taken, done } => {
                self.state.took(&taken);
                self.state.dealt(&done);
                Ok(())
            }
            Command::Call {
                session,
                call,
                reply,
            } => {
                let leads = matches!(call, Call::Consume(_) | Call::Get { .. });
                let answer = self.call(session, call)?;
                let replies = match leads {
                    true => &mut self.group.leading,
                    false => &mut self.group.replies,
                };
                replies.push((reply, answer));
                Ok(())
            }
            Command::Open { session, outbox } => {
                self.state.open_session(session);
                self.outboxes.insert(session, outbox.take());
                Ok(())
            }
            Command::Gone { session } => {
                if let Some(outbox) = self.outboxes.remove(&session) {
                    outbox.end(None);
                }
                self.told.remove(&session);
                self.state.close_session(session);
                self.append_topology().map(drop)
            }
            Command::Close { reply } => {
                self.closing = Some(reply);
                Ok(())
            }
        }
    }

    fn call(&mut self, session: u64, call: Call) -> Result<Result<Answer, Refusal>> {
        let room = self.log().room();
        let is_topology = !matches!(
            call,
            Call::Cancel { .. } | Call::CloseChannel { .. } | Call::Get { .. } | Call::Consume(_)
        );
        if is_topology && room.publish + room.reserve < CALL_ROOM {
            return Ok(Err(Refusal::new(506, "no room on the disk for topology")));
        }
        let answer = self.state.call(session, call);
        if !self.append_topology()? {
            return Ok(Err(Refusal::new(506, "no room on the disk for topology")));
        }
        Ok(answer)
    }

    fn close(&mut self) -> Result<()> {
        self.wait_for_commit()?;
        self.seal()?;
        self.wait_for_commit()?;
        for session in self.outboxes.keys() {
            self.state.close_session(*session);
        }
        self.append_topology()?;
        self.append_settled()?;
        self.commit_and_snapshot(true)?;
        let log = self.log.take().expect("open until here");
        log.close()
    }

    fn publish_stats(&self) {
        let log = self.log().stats();
        self.board.set(Stats {
            delivered: self.state.totals.delivered,
            settled: self.state.totals.settled,
            commits: log.groups,
            syncs: log.fsyncs,
            log_bytes: log.bytes,
            segments: log.segments.into(),
            snapshots: log.snapshots,
            messages: self.state.totals.messages,
            queues: self.state.queue_count() as u64,
            consumers: self.state.consumer_count() as u64,
            sessions: self.state.session_count() as u64,
            sparse_segments: self.upkeep.sparse(),
            blocked: self.blocked.is_some(),
            ..self.stats
        });
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("open until the end")
    }
}

/// Whether the log refused one record and goes on: no room, or too long.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid)
}
