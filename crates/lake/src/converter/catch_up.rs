//! [`Converter::catch_up`]: everything the ledger has and the tables have not.

use super::commit::Stored;
use super::gather::{Gathering, Takers};
use super::run::Run;
use super::{Converter, Progress};
use crate::layout::TableName;
use annals_archive::Position;
use annals_archive::reader::OnDamage;
use annals_core::{Result, Selection, TypePattern};
use std::collections::BTreeSet;

/// Types whose history is written in one go.
const BACKFILL_TYPES: usize = 256;

impl Converter {
    /// Brings the tables up to the ledger's head.
    ///
    /// After an error nothing is half done: call again, after [`Converter::forget`] where it is
    /// [`ErrorKind::Conflict`](crate::ErrorKind) or [`ErrorKind::Unknown`](crate::ErrorKind).
    pub async fn catch_up(&mut self) -> Result<Progress> {
        let mut progress = Progress::default();
        let done = self.catch_up_with(&mut progress).await;
        if done.is_err() {
            self.forget();
        }
        done.map(|()| progress)
    }

    async fn catch_up_with(&mut self, progress: &mut Progress) -> Result<()> {
        let head = self.archive.refresh().await?;
        self.open(progress).await?;
        progress.from = self.position;
        self.backfill_new(progress).await?;
        while self.position < head {
            let lost = self.convert(head, progress).await?;
            if lost.is_empty() {
                break;
            }
            // Found on the way: their history first, then the rest.
            self.backfill(&lost, progress).await?;
        }
        progress.to = self.position;
        Ok(())
    }

    /// Converts up to a position; or returns types whose tables were made anew, having stopped.
    async fn convert(&mut self, until: Position, progress: &mut Progress) -> Result<Vec<String>> {
        let from = self.position.next();
        let mut gathering = self
            .gathering(Takers::All, &Selection::all(), from, until)
            .await?;
        let mut ahead = None;
        while let Some(stored) = self.store(&mut gathering, &mut ahead, progress).await? {
            let last = stored.last();
            self.commit(stored, last, progress).await?;
        }
        progress.damage.extend(gathering.damage());
        if gathering.lost.is_empty() && self.position < until {
            // What comes last has no rows: all of it copies, or damaged. Nobody is to read it again.
            self.commit(Stored::default(), until, progress).await?;
        }
        Ok(gathering.lost)
    }

    /// Stores the next runs, as many as are committed together; `None` at the end. `ahead` is the
    /// run after them, gathered meanwhile.
    async fn store(
        &mut self,
        gathering: &mut Gathering,
        ahead: &mut Option<Run>,
        progress: &mut Progress,
    ) -> Result<Option<Stored>> {
        let mut stored = Stored::default();
        while !stored.are_many() {
            let run = match ahead.take() {
                Some(run) => Some(run),
                None => self.gather(gathering, progress).await?,
            };
            let Some(run) = run else { break };
            let prepared = self.prepare(run, progress).await?;
            // Both to their end: nothing of this converter is to go on after an error.
            let (next, done) = futures::join!(self.gather(gathering, progress), prepared.store());
            *ahead = next?;
            stored.add(done?);
        }
        Ok((!stored.is_empty()).then_some(stored))
    }

    /// Gives the types that have a schema now and had none, or that the state does not know, their
    /// history.
    async fn backfill_new(&mut self, progress: &mut Progress) -> Result<()> {
        let index = self.archive.index(OnDamage::Report).await?;
        let counts = index.counts();
        let with_events: BTreeSet<&str> = counts
            .archived
            .keys()
            .map(|(event_type, _)| event_type.as_str())
            .collect();
        let reliable = self.types.is_known();
        let types: Vec<String> = self
            .schemas
            .catalog
            .types()
            .map(|t| t.full_name().to_owned())
            .collect();
        let new: Vec<String> = types
            .into_iter()
            .filter(|name| TableName::of_type(name).is_ok() && self.types.known(name).is_none())
            .collect();
        let (history, fresh): (Vec<String>, Vec<String>) = new
            .into_iter()
            .partition(|name| with_events.contains(name.as_str()));
        if self.position > Position(0) {
            for some in history.chunks(BACKFILL_TYPES) {
                if !reliable {
                    self.reset(some, progress).await?;
                }
                self.backfill(some, progress).await?;
            }
        }
        for name in history.iter().chain(&fresh) {
            self.types.note(name);
        }
        if !history.is_empty() && self.position > Position(0) {
            self.write_state().await?;
        }
        Ok(())
    }

    /// Writes the history of types up to where the events' table has come.
    pub(super) async fn backfill(
        &mut self,
        types: &[String],
        progress: &mut Progress,
    ) -> Result<()> {
        let patterns: Result<Vec<TypePattern>> = types.iter().map(TypePattern::new).collect();
        let selection = Selection {
            patterns: patterns?,
            ..Selection::all()
        };
        let mut gathering = self
            .gathering(Takers::Types, &selection, Position(1), self.position)
            .await?;
        let mut ahead = None;
        while let Some(stored) = self.store(&mut gathering, &mut ahead, progress).await? {
            self.commit_types(stored, progress).await?;
        }
        progress.damage.extend(gathering.damage());
        for event_type in types {
            self.types.settle(event_type);
        }
        Ok(())
    }

    async fn reset(&mut self, types: &[String], progress: &mut Progress) -> Result<()> {
        for event_type in types {
            let ledger = self.archive.ledger().clone();
            let why = "the lake's state is missing or damaged";
            let name = self.types.reset(&ledger, event_type).await?;
            progress.rebuilt.push((name, why.to_owned()));
        }
        Ok(())
    }
}
