//! Keeping the log short: segments without live messages are released, those with few are
//! rewritten forward, and a snapshot lets the log forget what came before it.

use super::{Engine, is_refusal};
use crate::core::record;
use crate::log::{Log, Lsn};
use crate::message::take_copies;
use annals_core::Result;
use annals_core::frame::put_varint;
use std::collections::{BTreeMap, BTreeSet};

/// Segments behind the active one that are left alone: their queues are likely to drain.
const RECENT: u32 = 4;
/// Settlements after which segments are looked at again.
const SETTLED_PER_LOOK: u64 = 65_536;
/// A snapshot comes after so many times its length of log, at the earliest.
const SNAPSHOT_SHARE: u64 = 4;
/// Groups before a snapshot that found no room is tried again: it costs time and may cost a spare.
const SNAPSHOT_WAIT: u32 = 16;
/// Messages rewritten in one group, and bytes after which no more are.
const REWRITES_PER_GROUP: usize = 4_096;
const REWRITE_BYTES_PER_GROUP: usize = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// The active segment at the last look.
    active: u32,
    settled: u64,
    /// Bytes of log at the last snapshot.
    snapshot_at: u64,
    /// Its length.
    snapshot_bytes: u64,
    /// Whether a segment was released that only a snapshot lets go.
    wants_snapshot: bool,
    /// Groups until a snapshot that found no room is tried again.
    snapshot_waits: u32,
    /// Settlements found no room: until a snapshot holds them, nothing is released.
    pub(super) unrecorded: bool,
    /// Live messages of sparse segments at the last look: where they did not change, nothing
    /// drains.
    sparse: BTreeMap<u32, u64>,
    /// Segments to rewrite in the next group.
    rewrite: BTreeSet<u32>,
    /// Segments with messages that cannot be read, and so not be moved.
    stuck: BTreeSet<u32>,
}

impl Upkeep {
    pub(super) fn new(log: &Log) -> Self {
        Self {
            active: active(log),
            ..Self::default()
        }
    }

    /// Segments that were sparse at the last look.
    pub(super) fn sparse(&self) -> u64 {
        self.sparse.len() as u64
    }
}

impl Engine {
    /// After a commit; whether another group is needed at once.
    pub(super) fn keep_up(&mut self) -> Result<bool> {
        let log_bytes = self.log().stats().bytes;
        let is_blocked = self.blocked.is_some();
        // Long ones come less often, so that they stay a small part of what is written.
        let every = self
            .config
            .snapshot_every_bytes
            .max(SNAPSHOT_SHARE * self.upkeep.snapshot_bytes);
        let is_due = log_bytes - self.upkeep.snapshot_at >= every;
        let is_wanted = self.upkeep.wants_snapshot || self.upkeep.unrecorded;
        self.upkeep.snapshot_waits = self.upkeep.snapshot_waits.saturating_sub(1);
        // Sooner than publishes are refused: what was released is worth more as room.
        let is_short = is_blocked || self.log().is_pressed();
        if is_due || is_wanted && is_short && self.upkeep.snapshot_waits == 0 {
            self.commit_and_snapshot(false)?;
        }
        let active = active(self.log());
        let settled = self.state.totals.settled + self.state.totals.dropped;
        let drained = settled - self.upkeep.settled;
        if active == self.upkeep.active
            && drained < SETTLED_PER_LOOK
            && !(is_blocked && drained > 0)
        {
            return Ok(false);
        }
        let is_new = active != self.upkeep.active;
        self.upkeep.active = active;
        self.upkeep.settled = settled;
        self.look(active, is_new)
    }

    /// Before publishes are refused: lets go of every segment that nothing needs, which so far may
    /// only wait for a look or a snapshot.
    pub(super) fn make_room(&mut self) -> Result<()> {
        self.wait_for_commit()?;
        let active = active(self.log());
        self.again |= self.look(active, false)?;
        if self.upkeep.wants_snapshot || self.upkeep.unrecorded {
            self.commit_and_snapshot(false)?;
        }
        Ok(())
    }

    fn look(&mut self, active: u32, is_new: bool) -> Result<bool> {
        // What is settled in the open group counts here: it must not be in the log after a release.
        self.append_settled()?;
        let answered = self.group.segments_answered();
        let sealed: Vec<u32> = self
            .log()
            .segments()
            .filter(|segment| segment.sealed)
            .map(|segment| segment.number)
            .collect();
        let mut released = false;
        let mut sparse = BTreeMap::new();
        for &number in &sealed {
            let count = self.state.segments.get(number);
            if count.live == 0 && !self.upkeep.unrecorded && !answered.contains(&number) {
                let log = self.log.as_mut().expect("open until the end");
                match log.release(number) {
                    Ok(()) => released = true,
                    Err(error) if is_refusal(&error) => {}
                    Err(error) => return Err(error),
                }
            } else if number + RECENT < active
                && count.live * 100 < count.ever * u64::from(self.config.rewrite_below_percent)
                && !self.upkeep.stuck.contains(&number)
            {
                sparse.insert(number, count.live);
                if is_new && self.upkeep.sparse.get(&number) == Some(&count.live) {
                    self.upkeep.rewrite.insert(number);
                }
            }
        }
        if is_new {
            self.upkeep.sparse = sparse;
        }
        if let Some(first) = sealed.first() {
            self.state.segments.forget_before((*first).min(active));
        }
        if released {
            self.upkeep.wants_snapshot = true;
            // The release counts once it is durable.
            self.commit_open()?;
        }
        Ok(!self.upkeep.rewrite.is_empty())
    }

    /// Before a commit: moves messages out of sparse segments, to the end of the log.
    pub(super) fn rewrite(&mut self) -> Result<()> {
        let segments = std::mem::take(&mut self.upkeep.rewrite);
        if segments.is_empty() || self.blocked.is_some() {
            return Ok(());
        }
        let messages = self.state.messages_in(|number| segments.contains(&number));
        let mut rewritten = 0;
        for copies in messages.chunk_by(|a, b| a.0 == b.0) {
            let is_full = self.log().open_bytes() >= REWRITE_BYTES_PER_GROUP;
            if is_full || rewritten >= REWRITES_PER_GROUP || !self.rewrite_one(copies)? {
                break;
            }
            rewritten += copies.len();
        }
        self.stats.rewritten += rewritten as u64;
        Ok(())
    }

    /// Moves one record, named by those of its copies that are left; `false` if there is no room.
    fn rewrite_one(&mut self, messages: &[(Lsn, u32, u64)]) -> Result<bool> {
        let from = messages[0].0;
        let payload = match self.log().reader().read(from) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(%error, position = %from, "a message cannot be moved");
                self.upkeep.stuck.insert(from.segment());
                return Ok(true);
            }
        };
        let Some(message) = take_copies(&payload, |_, _| {}) else {
            self.upkeep.stuck.insert(from.segment());
            return Ok(true);
        };
        if !self.log().has_room(payload.len()) {
            return Ok(false);
        }
        self.copies.clear();
        self.state.recorded_copies(messages, &mut self.copies);
        self.head.clear();
        put_varint(self.copies.len() as u64, &mut self.head);
        for &(queue, sequence) in &self.copies {
            put_varint(queue.into(), &mut self.head);
            put_varint(sequence, &mut self.head);
        }
        let log = self.log.as_mut().expect("open until the end");
        let to = log.append(record::PUBLISH, &[&self.head, message])?;
        self.group.is_empty = false;
        self.state.relocate(messages, to);
        Ok(true)
    }

    /// Commits what was appended to the open group, which may go on.
    fn commit_open(&mut self) -> Result<()> {
        self.group.is_empty = true;
        self.group.is_durable = false;
        self.log.as_mut().expect("open until the end").commit(true)
    }

    /// Commits what was appended, and writes the state as a snapshot.
    pub(super) fn commit_and_snapshot(&mut self, exact: bool) -> Result<()> {
        self.append_topology()?;
        self.append_settled()?;
        self.commit_open()?;
        let mut bytes = Vec::new();
        self.state.snapshot(exact, &mut bytes);
        let log = self.log.as_mut().expect("open until the end");
        let written = log.write_snapshot(&bytes);
        self.upkeep.snapshot_at = log.stats().bytes;
        self.upkeep.snapshot_bytes = bytes.len() as u64;
        match written {
            Ok(()) => {
                self.upkeep.wants_snapshot = false;
                self.upkeep.unrecorded = false;
                Ok(())
            }
            Err(error) if is_refusal(&error) => {
                tracing::warn!(%error, "the state is not written as a snapshot");
                self.upkeep.snapshot_waits = SNAPSHOT_WAIT;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn active(log: &Log) -> u32 {
    log.segments().last().map_or(0, |segment| segment.number)
}
