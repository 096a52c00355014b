//! The group: what is appended between two seals, and told of once its commit is done.

use super::committer::{Done, Events, Job, Outputs};
use super::{Engine, is_refusal};
use crate::command::{Answer, Reply};
use crate::core::record;
use crate::core::spec::Refusal;
use annals_core::Result;
use std::collections::BTreeSet;
use std::time::Instant;

/// A group of fewer messages is committed by the engine itself.
const BESIDE_MIN: u64 = 32;

/// What the open group holds.
#[derive(Debug)]
pub(super) struct Group {
    /// Nothing was appended to the log.
    pub(super) is_empty: bool,
    pub(super) is_durable: bool,
    /// Something is in it that is not kept waiting for more publishes.
    pub(super) is_urgent: bool,
    /// Messages that came before it.
    pub(super) start: u64,
    /// Bytes of messages it gives back, and what it tells of others.
    pub(super) held: usize,
    /// Answers that deliveries follow, and the others, which follow what is delivered.
    pub(super) leading: Vec<(Reply, Result<Answer, Refusal>)>,
    pub(super) replies: Vec<(Reply, Result<Answer, Refusal>)>,
}

impl Group {
    pub(super) fn new(start: u64) -> Self {
        Self {
            is_empty: true,
            is_durable: false,
            is_urgent: false,
            start,
            held: 0,
            leading: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Segments of messages that basic.get took: they are read once the answer is out.
    pub(super) fn segments_answered(&self) -> BTreeSet<u32> {
        let answers = self.leading.iter().map(|(_, answer)| answer);
        let segment = |answer: &Result<Answer, Refusal>| match answer {
            Ok(Answer::Got(Some((delivered, _)))) => Some(delivered.lsn.segment()),
            _ => None,
        };
        answers.filter_map(segment).collect()
    }
}

impl Engine {
    /// Ends the group and has it committed: here if it is small, else beside the engine, which
    /// makes the next one meanwhile. Everything that anybody is told of it waits for that.
    pub(super) fn seal(&mut self) -> Result<()> {
        self.again = false;
        self.rewrite()?;
        self.state.mark_deliverable();
        self.append_topology()?;
        self.append_settled()?;
        self.again |= self.state.dispatch();
        let next = Group::new(self.taken);
        let group = std::mem::replace(&mut self.group, next);
        let outputs = Outputs {
            leading: group.leading,
            events: self.events(),
            replies: group.replies,
        };
        self.gather.sealed(self.taken);
        if group.is_empty && outputs.is_empty() {
            self.again |= self.keep_up()?;
            self.publish_stats();
            return Ok(());
        }
        let log = self.log.as_mut().expect("open until the end");
        let commit = log.seal(!group.is_empty && group.is_durable)?;
        // Before anybody is told of the group: the stats never lie behind what a client knows.
        self.publish_stats();
        let job = Job { commit, outputs };
        if self.config.log.background && self.taken - group.start >= BESIDE_MIN {
            return self.committer.commit(job);
        }
        let done = job.run(&self.commands);
        self.committed(done)
    }

    /// After a commit.
    pub(super) fn committed(&mut self, done: Done) -> Result<()> {
        // If it failed, the answers it was to give say so.
        self.group.leading.extend(done.kept.leading);
        self.group.replies.extend(done.kept.replies);
        let log = self.log.as_mut().expect("open until the end");
        log.committed(done.commit)?;
        self.gather.committed(done.came, Instant::now());
        for session in done.over {
            if let Some(outbox) = self.outboxes.remove(&session) {
                let refusal = Refusal::new(320, "the client does not take its events");
                outbox.end(Some(refusal));
            }
            self.state.close_session(session);
            self.append_topology()?;
            self.again = true;
        }
        self.again |= self.keep_up()?;
        self.publish_stats();
        Ok(())
    }

    /// Waits for the group that is on its way, if there is one.
    pub(super) fn wait_for_commit(&mut self) -> Result<()> {
        match self.committer.wait()? {
            Some(done) => self.committed(done),
            None => Ok(()),
        }
    }

    /// Collects what sessions are to be told.
    fn events(&mut self) -> Vec<Events> {
        let mut events = Vec::new();
        let outboxes = &self.outboxes;
        self.state.take_events(|session, told, taken| {
            let (told, taken) = (std::mem::take(told), std::mem::take(taken));
            if let Some(outbox) = outboxes.get(&session) {
                events.push(Events {
                    session,
                    outbox: outbox.clone(),
                    events: told,
                    taken,
                });
            }
        });
        events
    }

    /// Appends what changed in the topology; whether all of it found room.
    pub(super) fn append_topology(&mut self) -> Result<bool> {
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

    pub(super) fn append_settled(&mut self) -> Result<()> {
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
}
