//! [`Gathering`]: a selection of the archive, cut into runs of one day and a bounded size.

use super::run::{Pushed, Run, date_of, off_thread, types_of};
use super::{Converter, Progress};
use crate::layout::{Date, TableName};
use annals_archive::Position;
use annals_archive::reader::{Batch, Events, OnDamage, ReadOptions};
use annals_core::{Result, Selection};
use std::sync::Arc;

/// Which tables take rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Takers {
    /// That of all events, and those of types.
    All,
    /// Those of types.
    Types,
    /// One, whatever it has already.
    Only(TableName),
}

/// A selection that is being read.
pub(super) struct Gathering {
    events: Events,
    takers: Takers,
    /// What was read and belongs to the next run.
    ahead: Option<Batch>,
    /// Types whose tables were found damaged on the way and made anew: it ends early.
    pub(super) lost: Vec<String>,
}

impl Gathering {
    /// Tells what could not be read, at the end.
    pub(super) fn damage(&self) -> impl Iterator<Item = String> {
        let damage = self.events.damage().into_iter();
        damage.map(|damage| damage.into_error().to_string())
    }
}

impl Converter {
    /// Begins to read ledger entries from one up to another.
    pub(super) async fn gathering(
        &self,
        takers: Takers,
        selection: &Selection,
        from: Position,
        until: Position,
    ) -> Result<Gathering> {
        let options = ReadOptions {
            from_position: from,
            to_position: Some(until),
            // What is damaged is told of and left out: the rest of history is not to wait for it.
            on_damage: OnDamage::Report,
            // Files are sorted by time, whatever the order here.
            in_pieces: true,
            ..ReadOptions::default()
        };
        Ok(Gathering {
            events: self.archive.select(selection, &options).await?,
            takers,
            ahead: None,
            lost: Vec::new(),
        })
    }

    /// The next run; `None` at the end.
    pub(super) async fn gather(
        &mut self,
        from: &mut Gathering,
        progress: &mut Progress,
    ) -> Result<Option<Run>> {
        if !from.lost.is_empty() {
            return Ok(None);
        }
        let mut run: Option<Run> = None;
        loop {
            let batch = match from.ahead.take() {
                Some(batch) => Some(batch),
                None => from.events.next().await?,
            };
            let Some(batch) = batch else {
                return Ok(run);
            };
            let Some(date) = date_of(&batch)? else {
                continue;
            };
            let mut open = match run.take() {
                // Only between entries: a table has all of one or nothing.
                Some(run)
                    if run.last != batch.position() && (run.date != date || self.is_full(&run)) =>
                {
                    from.ahead = Some(batch);
                    return Ok(Some(run));
                }
                Some(run) => run,
                None => self.run_of(&from.takers, date),
            };
            let batch = Arc::new(batch);
            let mut at = 0;
            loop {
                let (part, pushed) = push(open, batch.clone(), at).await?;
                open = part;
                let Pushed::Until(unknown) = pushed else {
                    break;
                };
                at = unknown;
                let lost = self.learn(&mut open, &batch, &from.takers, progress);
                let lost = lost.await?;
                if from.takers == Takers::All && !lost.is_empty() {
                    from.lost = lost;
                    return Ok(None);
                }
            }
            run = Some(open);
        }
    }

    /// An empty run of a day.
    pub(super) fn run_of(&self, takers: &Takers, date: Date) -> Run {
        let events = matches!(takers, Takers::All | Takers::Only(TableName::Events));
        Run::new(date, events, self.schemas.catalog.clone())
    }

    fn is_full(&self, run: &Run) -> bool {
        run.rows() >= self.config.run_rows || run.bytes() >= self.config.run_bytes
    }

    /// Tells a run what to do with the types of a batch; returns those whose tables were just made
    /// anew.
    async fn learn(
        &mut self,
        run: &mut Run,
        batch: &Batch,
        takers: &Takers,
        progress: &mut Progress,
    ) -> Result<Vec<String>> {
        let ledger = self.archive.ledger().clone();
        let mut lost = Vec::new();
        for event_type in types_of(batch)? {
            if run.knows(&event_type) {
                continue;
            }
            let shape = match takers {
                Takers::Only(table) if table.as_str() != event_type => None,
                _ => {
                    let shape = self.types.shape(&ledger, &event_type, &self.schemas);
                    shape.await?
                }
            };
            let Some(shape) = shape else {
                run.learn(&event_type, None);
                continue;
            };
            if matches!(takers, Takers::Only(_)) {
                run.learn(&event_type, Some((Position(0), &shape)));
                continue;
            }
            let table = self.types.open(&ledger, &event_type).await?;
            if let Some(why) = table.reset.take() {
                progress.rebuilt.push((table.table.name().clone(), why));
                lost.push(event_type.clone());
            }
            run.learn(&event_type, Some((table.position, &shape)));
        }
        Ok(lost)
    }
}

/// Adds a batch's events to a run, off the runtime's threads.
async fn push(mut run: Run, batch: Arc<Batch>, from: usize) -> Result<(Run, Pushed)> {
    off_thread(move || {
        let pushed = run.push(&batch, from)?;
        Ok((run, pushed))
    })
    .await
}
