//! [`Replay`]: counts what is selected, then delivers exactly that.

use crate::pace::Pace;
use crate::receipt::{Listed, Plan, Progress, Receipt, Skipped};
use crate::register::{Register, Started};
use crate::request::Described;
use crate::{Request, Target};
use annals_archive::Position;
use annals_archive::ledger::Entry;
use annals_archive::reader::{Archive, Batch, EventRef, Located, ReadOptions};
use annals_core::{Clock, Error, EventId, Random, Result, Selection, TypePattern, random};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

/// Ledger entries of listed events read at a time.
const ENTRIES_AHEAD: usize = 8;

/// One replay of one archive: has an id of its own, and is run once.
///
/// Plan and run read the same pinned history, so what the plan counts is what is delivered.
/// Damage in it ends either with an error that names the place.
#[derive(Debug)]
pub struct Replay {
    id: EventId,
    archive: Arc<Archive>,
    request: Request,
    clock: Arc<dyn Clock>,
}

impl Replay {
    /// A new replay of an archive as it is pinned.
    pub fn new(
        archive: Arc<Archive>,
        request: Request,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Self {
        Self {
            id: random::mint_id(&*clock, random),
            archive,
            request,
            clock,
        }
    }

    /// Its id: in the header `annals-replay-id` of what it delivers onto a bus.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Counts what a run would do. Changes nothing.
    pub async fn plan(&self) -> Result<Plan> {
        let selection = &self.request.selection;
        let position = self.archive.position();
        let mut types = BTreeSet::new();
        let (mut segments, mut stored_bytes) = (0, 0);
        let located = match &selection.events {
            Some(events) => Some(self.archive.locate_all(events).await?),
            None => None,
        };
        let listed = located.as_deref().map(Listed::of);
        let mut entries = self.entries(located.as_deref());
        while let Some(entry) = entries.try_next().await? {
            for segment in entry.entry.segments {
                let summaries = segment.types.into_iter().map(|summary| summary.r#type);
                let mut matching = summaries
                    .filter(|name| selection.matches_type(name))
                    .peekable();
                if matching.peek().is_some() {
                    segments += 1;
                    stored_bytes += segment.length;
                    types.extend(matching);
                }
            }
        }
        Ok(Plan {
            position,
            selected: self.archive.count(selection).await?
                + listed.as_ref().map_or(0, |listed| listed.missing),
            commands: self.count_commands(&types).await?,
            types: types.into_iter().collect(),
            segments,
            stored_bytes,
            listed,
        })
    }

    /// The ledger entries that may hold what is selected.
    fn entries(&self, located: Option<&Located>) -> BoxStream<'_, Result<Entry>> {
        let ledger = self.archive.ledger();
        let Some(located) = located else {
            return ledger.entries(Position(0), self.archive.position());
        };
        let mut positions: Vec<_> = located.locations().map(|found| found.position).collect();
        positions.dedup();
        let read = move |position| ledger.read(position);
        stream::iter(positions)
            .map(read)
            .buffered(ENTRIES_AHEAD)
            .boxed()
    }

    /// Delivers what the plan counted to a target, and writes down that it did.
    ///
    /// `progress` hears of every part delivered and may cancel: the receipt then says so. An error
    /// leaves the replay without a receipt; what was delivered stays delivered.
    pub async fn run(
        &self,
        plan: &Plan,
        target: &mut dyn Target,
        mut progress: impl FnMut(&Progress) -> ControlFlow<()> + Send,
    ) -> Result<Receipt> {
        if plan.position != self.archive.position() {
            return Err(Error::invalid(
                "the plan is of another state of the archive",
            ));
        }
        let register = Register::new(self.archive.ledger().bucket().clone());
        let started = self.started(plan, target);
        register.start(&started).await?;
        let mut run = Run {
            replay: self,
            target,
            pace: Pace::new(self.request.rate),
            left_out: HashMap::new(),
            progress: Progress {
                to_deliver: plan.to_deliver(),
                ..Progress::default()
            },
        };
        let completed = run.all(&mut progress).await?;
        let done = run.progress;
        run.target.finish().await?;
        let skipped = Skipped {
            commands: done.commands,
            unrouted: done.unrouted,
            missing: plan.missing(),
        };
        let reached = done.delivered + skipped.total();
        if completed && (reached != plan.selected || done.commands != plan.commands) {
            return Err(Error::corrupt(format!(
                "replay {}: the plan selected {} events, {} of them commands; {reached} and {} were \
                 read",
                self.id, plan.selected, plan.commands, done.commands
            )));
        }
        let receipt = Receipt {
            id: started.id,
            bus: started.bus,
            target: started.target,
            position: plan.position.0,
            selected: plan.selected,
            delivered: done.delivered,
            skipped,
            completed,
            listed: plan.listed.clone(),
            started_at: started.started_at,
            finished_at: self.clock.now().to_string(),
        };
        register.finish(&receipt).await?;
        Ok(receipt)
    }

    fn started(&self, plan: &Plan, target: &dyn Target) -> Started {
        Started {
            id: self.id.to_string(),
            bus: self.archive.ledger().bus().to_owned(),
            selection: Described::of(&self.request.selection),
            target: target.describe(),
            rate: self.request.rate.map(Into::into),
            position: plan.position.0,
            to_deliver: plan.to_deliver(),
            started_at: self.clock.now().to_string(),
        }
    }

    async fn count_commands(&self, types: &BTreeSet<String>) -> Result<u64> {
        let commands = types.iter().filter(|name| self.request.leaves_out(name));
        let patterns: Vec<_> = commands.map(TypePattern::new).collect::<Result<_>>()?;
        if patterns.is_empty() {
            return Ok(0);
        }
        if patterns.iter().all(TypePattern::is_literal) {
            let selection = Selection {
                patterns,
                ..self.request.selection.clone()
            };
            return self.archive.count(&selection).await;
        }
        // A type whose name reads as a wildcard cannot be asked for alone.
        let mut count = 0;
        let mut events = self.select().await?;
        while let Some(batch) = events.next().await? {
            for event in batch.iter() {
                count += u64::from(self.request.leaves_out(event?.header.event_type));
            }
        }
        Ok(count)
    }

    async fn select(&self) -> Result<annals_archive::reader::Events> {
        let options = ReadOptions::default();
        self.archive.select(&self.request.selection, &options).await
    }
}

struct Run<'a> {
    replay: &'a Replay,
    target: &'a mut dyn Target,
    pace: Pace,
    /// Whether a type is left out, by name.
    left_out: HashMap<String, bool>,
    progress: Progress,
}

impl Run<'_> {
    /// Delivers everything; `false` if it was cancelled before the end.
    async fn all(
        &mut self,
        progress: &mut (impl FnMut(&Progress) -> ControlFlow<()> + Send),
    ) -> Result<bool> {
        let mut events = self.replay.select().await?;
        while let Some(batch) = events.next().await? {
            self.progress.position = batch.position();
            if self.batch(&batch, progress).await?.is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn batch(
        &mut self,
        batch: &Batch,
        progress: &mut (impl FnMut(&Progress) -> ControlFlow<()> + Send),
    ) -> Result<ControlFlow<()>> {
        let most = self.pace.part();
        let mut part: Vec<EventRef<'_>> = Vec::with_capacity(most.min(batch.len()));
        let mut rest = batch.iter();
        loop {
            part.clear();
            while part.len() < most {
                let Some(event) = rest.next() else { break };
                let event = event?;
                if self.is_left_out(event.header.event_type) {
                    self.progress.commands += 1;
                } else {
                    part.push(event);
                }
            }
            if part.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            sleep_until(self.pace.next(part.len(), Instant::now())).await;
            let delivered = self.target.deliver(&part).await?;
            self.progress.delivered += delivered.delivered;
            self.progress.unrouted += delivered.unrouted;
            if progress(&self.progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    fn is_left_out(&mut self, event_type: &str) -> bool {
        if let Some(&left_out) = self.left_out.get(event_type) {
            return left_out;
        }
        let left_out = self.replay.request.leaves_out(event_type);
        // Types are few; the bound is for an archive where they are not.
        if self.left_out.len() < 10_000 {
            self.left_out.insert(event_type.to_owned(), left_out);
        }
        left_out
    }
}
