//! The engine: the one thread that owns all state of the broker.
//!
//! ```text
//!  drain commands ─► apply, append records ─► one commit ─► answers, confirms, deliveries ─┐
//!        ▲                                   (sync if anything durable is in it)           │
//!        └──────── release, rewrite, snapshot: keep the log short ◄────────────────────────┘
//! ```
//! While it commits, commands gather: the group is as large as the load, and one alone is
//! committed at once.

mod upkeep;

use crate::command::{Answer, Call, Command, Commands, Reply};
use crate::config::Config;
use crate::core::record;
use crate::core::snapshot::Recovering;
use crate::core::spec::Refusal;
use crate::core::state::{Bounds, State};
use crate::log::{Log, LogReader};
use crate::message::{Publish, put_head};
use crate::outbox::Outbox;
use crate::session::SessionEvent;
use crate::stats::{Stats, StatsBoard};
use annals_core::{Clock, Disk, Error, ErrorKind, Random, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How often a full disk is looked at again.
const BLOCKED_POLL: Duration = Duration::from_millis(100);
/// Room that topology must find, so that it never fails half done.
const CALL_ROOM: u64 = 16 << 10;

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

/// What the open group holds.
#[derive(Debug)]
struct Group {
    is_empty: bool,
    is_durable: bool,
    replies: Vec<(Reply, Result<Answer, Refusal>)>,
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
        let engine = Self {
            upkeep: upkeep::Upkeep::new(&log),
            config,
            log: Some(log),
            state,
            commands,
            board,
            stats: Stats::default(),
            outboxes: HashMap::new(),
            group: Group {
                is_empty: true,
                is_durable: false,
                replies: Vec::new(),
            },
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
        failing.send_replace(failure);
        self.commands.end();
        for outbox in self.outboxes.values() {
            outbox.end(Some(refusal.clone()));
        }
        for (reply, _) in self.group.replies.drain(..) {
            // One that nobody waits for is no loss.
            let _ = reply.send(Err(refusal.clone()));
        }
        if let Some(Some(reply)) = self.closing.take() {
            let _ = reply.send(());
        }
    }

    fn work(&mut self) -> Result<()> {
        let mut commands = Vec::new();
        let mut again = false;
        let mut published = 0;
        loop {
            let timeout = self.blocked.is_some().then_some(BLOCKED_POLL);
            let commanded = &self.commands;
            published = commanded.drain(&mut commands, !again, timeout, published);
            self.open_group();
            for command in commands.drain(..) {
                self.apply(command)?;
            }
            again = self.finish_group()?;
            if self.closing.is_some() {
                return self.close();
            }
        }
    }

    fn open_group(&mut self) {
        if self.blocked.is_some() && self.log().has_spare() {
            let reason = self.blocked.take();
            tracing::info!(?reason, "publishes are taken again");
            for session in std::mem::take(&mut self.told) {
                self.state.tell(session, SessionEvent::Unblocked);
            }
        }
    }

    fn apply(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Publish {
                session,
                channel,
                batch,
            } => self.publish(session, channel, batch),
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
                let answer = self.call(session, call)?;
                self.group.replies.push((reply, answer));
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

    fn publish(&mut self, session: u64, number: u16, batch: Vec<Publish>) -> Result<()> {
        if self.state.channel(session, number).is_none() {
            return Ok(());
        }
        let mut confirmed = 0;
        for publish in batch {
            let confirm = publish.confirm;
            let taken = match self.take(session, number, publish) {
                Ok(taken) => taken?,
                Err(refusal) => {
                    self.confirm(session, number, &mut confirmed);
                    self.state.fail_channel(session, number, refusal);
                    return Ok(());
                }
            };
            if taken {
                confirmed = confirm.max(confirmed);
            } else {
                self.confirm(session, number, &mut confirmed);
                self.refuse(session, number, confirm);
            }
        }
        self.confirm(session, number, &mut confirmed);
        Ok(())
    }

    /// Takes one message: `false` if there is no room for it.
    #[inline]
    fn take(
        &mut self,
        session: u64,
        number: u16,
        publish: Publish,
    ) -> Result<Result<bool>, Refusal> {
        let route = self.state.route(&publish.exchange, &publish.routing_key)?;
        if route.is_empty() {
            self.stats.unroutable += 1;
            if publish.mandatory {
                let event = SessionEvent::Returned {
                    channel: number,
                    code: 312,
                    text: "NO_ROUTE",
                    publish: Box::new(publish),
                };
                self.state.tell(session, event);
            }
            return Ok(Ok(true));
        }
        let properties = publish.properties.bytes();
        let persistent = publish.properties.is_persistent();
        self.copies.clear();
        if persistent {
            self.state.copies(&route, &mut self.copies);
        }
        self.head.clear();
        put_head(
            &self.copies,
            &publish.exchange,
            &publish.routing_key,
            properties.len(),
            &mut self.head,
        );
        let bytes = self.head.len() + properties.len() + publish.body.len();
        let bytes_max = self.config.log.message_bytes_max as usize;
        if bytes > bytes_max {
            let text = format!("message size {bytes} is larger than max size {bytes_max}");
            return Err(Refusal::new(406, text));
        }
        let log = self.log.as_mut().expect("open until the end");
        if self.blocked.is_some() || !log.has_room(bytes) {
            self.block();
            return Ok(Ok(false));
        }
        let parts = [self.head.as_slice(), properties, &publish.body];
        let lsn = match log.append(record::PUBLISH, &parts) {
            Ok(lsn) => lsn,
            Err(error) if is_refusal(&error) => {
                self.block();
                return Ok(Ok(false));
            }
            Err(error) => return Ok(Err(error)),
        };
        self.group.is_empty = false;
        self.group.is_durable |= !self.copies.is_empty();
        self.state.enqueue(&route, lsn, persistent);
        self.stats.published += 1;
        Ok(Ok(true))
    }

    fn confirm(&mut self, session: u64, channel: u16, up_to: &mut u64) {
        let up_to = std::mem::take(up_to);
        if up_to > 0 {
            let event = SessionEvent::Confirmed { channel, up_to };
            self.state.tell(session, event);
        }
    }

    fn refuse(&mut self, session: u64, channel: u16, confirm: u64) {
        self.stats.refused += 1;
        if let Some(reason) = &self.blocked
            && self.told.insert(session)
        {
            let event = SessionEvent::Blocked(reason.clone());
            self.state.tell(session, event);
        }
        if confirm > 0 {
            let event = SessionEvent::Nacked {
                channel,
                from: confirm,
                up_to: confirm,
            };
            self.state.tell(session, event);
        }
    }

    fn block(&mut self) {
        if self.blocked.is_none() {
            let reason = "low on disk";
            tracing::warn!("publishes are refused: {reason}");
            self.blocked = Some(reason.to_owned());
        }
    }

    /// Appends what changed in the topology; whether all of it found room.
    fn append_topology(&mut self) -> Result<bool> {
        let log = self.log.as_mut().expect("open until the end");
        let mut recorded = true;
        for (kind, payload) in self.state.records.drain(..) {
            match log.append(kind, &[&payload]) {
                Ok(_) => {
                    self.group.is_empty = false;
                    self.group.is_durable = true;
                }
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(%error, "a change of topology is not recorded");
                    recorded = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(recorded)
    }

    /// Commits the group and tells of it; whether another is needed at once.
    fn finish_group(&mut self) -> Result<bool> {
        self.rewrite()?;
        self.state.mark_deliverable();
        self.append_topology()?;
        self.append_settled()?;
        let log = self.log.as_mut().expect("open until the end");
        if !self.group.is_empty {
            log.commit(self.group.is_durable)?;
            self.group.is_empty = true;
            self.group.is_durable = false;
        }
        let again = self.state.dispatch();
        // Before anybody is told of the group: the stats never lie behind what a client knows.
        self.publish_stats();
        for (reply, answer) in self.group.replies.drain(..) {
            // A client that is gone hears nothing.
            let _ = reply.send(answer);
        }
        let again = self.send_events()? || again;
        let again = self.keep_up()? || again;
        self.publish_stats();
        Ok(again)
    }

    fn append_settled(&mut self) -> Result<()> {
        let log = self.log.as_mut().expect("open until the end");
        let (head, group, upkeep) = (&mut self.head, &mut self.group, &mut self.upkeep);
        let mut failure = None;
        self.state.take_settled(|id, ranges| {
            // Far below the longest record, whatever the numbers.
            for ranges in ranges.chunks(4_096) {
                head.clear();
                record::put_settled(id, ranges, head);
                match log.append(record::SETTLED, &[head]) {
                    Ok(_) => group.is_empty = false,
                    // Unless a snapshot comes first, they come again after a restart.
                    Err(error) if is_refusal(&error) => upkeep.unrecorded = true,
                    Err(error) => failure = Some(error),
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// Hands out what there is to tell; whether a session was closed, which leaves more to do.
    fn send_events(&mut self) -> Result<bool> {
        let mut over = Vec::new();
        let outboxes = &self.outboxes;
        self.state.take_events(|session, events, taken| {
            if let Some(outbox) = outboxes.get(&session)
                && !outbox.push(events, taken)
            {
                over.push(session);
            }
        });
        let closed = !over.is_empty();
        for session in over {
            if let Some(outbox) = self.outboxes.remove(&session) {
                let refusal = Refusal::new(320, "the client does not take its events");
                outbox.end(Some(refusal));
            }
            self.state.close_session(session);
            self.append_topology()?;
        }
        Ok(closed)
    }

    fn close(&mut self) -> Result<()> {
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
