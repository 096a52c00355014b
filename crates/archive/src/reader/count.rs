//! How many events are selected: exact, from statistics where those prove it, else from records.

use super::damage::{Damage, OnDamage};
use super::decode::{FrameJob, Wanted};
use super::plan::{Cover, Plan};
use super::stream::blocking;
use super::{Archive, ReadOptions};
use crate::index::{Index, SkipList};
use crate::ledger::{Entry, Position};
use crate::segment::Segment;
use crate::wire;
use annals_core::{Result, Selection};
use futures::StreamExt;
use futures::stream::{self, TryStreamExt};
use std::sync::Arc;

impl Archive {
    /// Counts what [`Archive::select`] would read with default options: every event once.
    ///
    /// Opens no frame whose statistics prove that all of it is selected and of which no record is
    /// a duplicate. Damage of what it does open is an error.
    pub async fn count(&self, selection: &Selection) -> Result<u64> {
        let index = self.index(OnDamage::Stop).await?;
        let mut plan = Plan::new(selection);
        if let Some(events) = &selection.events {
            let located = self.locate_all(events).await?;
            if plan.is_of_events_only() {
                return Ok(located.len() as u64);
            }
            plan.located = Some(located);
        }
        let wanted = Arc::new(Wanted {
            plan,
            check_headers: false,
        });
        let parallelism = ReadOptions::default().parallelism;
        let entries = wanted.plan.entries(&self.ledger, Position(0), self.pinned);
        let counted = entries.map(|entry| self.count_entry(entry, &index, &wanted));
        let total = counted
            .buffered(parallelism)
            .try_fold(0, |total, count| async move { Ok(total + count) });
        total.await
    }

    async fn count_entry(
        &self,
        entry: Result<Entry>,
        index: &Index,
        wanted: &Arc<Wanted>,
    ) -> Result<u64> {
        let entry = entry?;
        let position = entry.position;
        let skips = index.skips(position).await?;
        let mut total = 0;
        for segment in entry
            .entry
            .segments
            .iter()
            .filter(|s| wanted.plan.wants_segment(s))
        {
            let counted = self.count_segment(position, segment, &skips, wanted).await;
            total += counted.map_err(|error| {
                let segment = Some(segment.name.as_str().into());
                Damage {
                    position,
                    segment,
                    frame: None,
                    error,
                }
                .into_error()
            })?;
        }
        Ok(total)
    }

    async fn count_segment(
        &self,
        position: Position,
        segment: &wire::Segment,
        skips: &SkipList,
        wanted: &Arc<Wanted>,
    ) -> Result<u64> {
        let bucket = self.ledger.bucket().clone();
        let opened = Segment::open(bucket, &segment.name, segment.length).await?;
        super::load::check_index(opened.index(), segment)?;
        let mut total = 0;
        let mut asked = Vec::new();
        for (number, frame) in opened.index().frames.iter().enumerate() {
            match wanted.plan.cover(position, frame) {
                Cover::None => {}
                Cover::All if skips.is_empty() => total += u64::from(frame.count),
                cover => asked.push((number, cover == Cover::Some)),
            }
        }
        let ask = |(number, ask)| {
            let (opened, skips, wanted) = (opened.clone(), skips.clone(), wanted.clone());
            let pool = self.pool.clone();
            async move {
                let compressed = opened.read_compressed(number..number + 1).await?.remove(0);
                let job = FrameJob {
                    position,
                    segment: opened.name().into(),
                    index: opened.index().clone(),
                    number,
                    compressed,
                    ask,
                };
                let run = move || job.run(&wanted, &skips, &pool, &mut Vec::new());
                Ok::<_, annals_core::Error>(blocking(run).await?.slots.len() as u64)
            }
        };
        let mut counted = stream::iter(asked).map(ask).buffered(2);
        while let Some(count) = counted.try_next().await? {
            total += count;
        }
        Ok(total)
    }
}
