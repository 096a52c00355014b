//! Joins adjacent runs into one, streaming: memory is one stretch of each and the part being
//! written.

use super::part::{Footer, Row};
use super::run::{Run, RunWriter};
use super::store::Store;
use super::tally::{Counts, Producers, Sources};
use super::wire;
use annals_core::{Error, Result};
use std::sync::Arc;

/// Runs joined at a time, and so how many there are of each size at most.
pub(super) const FAN_OUT: u64 = 8;
/// Blocks read of a run at a time: 256 KiB.
const STRETCH_BLOCKS: usize = 64;

/// Joins runs that cover adjacent ranges, in order.
pub(super) async fn merge(store: &Store, runs: &[Run]) -> Result<Run> {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        return Err(Error::new(
            annals_core::ErrorKind::Internal,
            "no runs to merge",
        ));
    };
    let (first, last) = (first.meta.first, last.meta.last);
    let parts = merge_rows(store, runs, first, last).await?;
    let mut counts = Counts::default();
    let mut producers = Producers::default();
    let mut sources = Sources::default();
    let mut meta = wire::Run {
        first,
        last,
        parts,
        ..wire::Run::default()
    };
    for run in runs {
        counts.add(&run.meta.counts);
        producers.add_wire(&run.meta.producers);
        sources.add_wire(&run.meta);
        meta.skips.extend(run.meta.skips.iter().cloned());
        meta.conflicts.extend(run.meta.conflicts.iter().cloned());
    }
    meta.counts = counts.to_wire();
    meta.producers = producers.to_wire();
    sources.put_wire(&mut meta);
    Run::create(store, meta).await
}

async fn merge_rows(store: &Store, runs: &[Run], first: u64, last: u64) -> Result<Vec<wire::Part>> {
    let mut cursors = Vec::with_capacity(runs.len());
    for run in runs {
        let mut cursor = Cursor::new(run, (run.meta.first - first) as u32);
        cursor.fill(store).await?;
        cursors.push(cursor);
    }
    let mut writer = RunWriter::new(store, first, last);
    loop {
        // Each run has one row of a key at most, and no two runs the same: no ties.
        let heads = cursors.iter().enumerate();
        let least = heads
            .filter_map(|(at, cursor)| Some((cursor.head()?.key, at)))
            .min();
        let Some((_, at)) = least else {
            return writer.finish().await;
        };
        let cursor = &mut cursors[at];
        let row = cursor.take();
        if writer.push(&row) {
            writer.flush().await?;
        }
        if cursor.head().is_none() {
            cursor.fill(store).await?;
            tokio::task::yield_now().await;
        }
    }
}

/// Walks the rows of a run.
struct Cursor<'a> {
    run: &'a Run,
    /// What its entries are moved by in the run made.
    shift: u32,
    part: usize,
    block: usize,
    footer: Option<Arc<Footer>>,
    rows: Vec<Row>,
    next: usize,
}

impl<'a> Cursor<'a> {
    fn new(run: &'a Run, shift: u32) -> Self {
        let (part, block, next) = (0, 0, 0);
        Self {
            run,
            shift,
            part,
            block,
            footer: None,
            rows: Vec::new(),
            next,
        }
    }

    fn head(&self) -> Option<&Row> {
        self.rows.get(self.next)
    }

    fn take(&mut self) -> Row {
        let mut row = self.rows[self.next];
        row.entry += self.shift;
        self.next += 1;
        row
    }

    /// Reads the next stretch; none is left where there is no head then.
    async fn fill(&mut self, store: &Store) -> Result<()> {
        self.rows.clear();
        self.next = 0;
        while self.part < self.run.meta.parts.len() {
            let name = self.run.part_name(store, self.part);
            let footer = match &self.footer {
                Some(footer) => footer.clone(),
                None => store.footer(&name, &self.run.meta.parts[self.part]).await?,
            };
            if self.block >= footer.blocks() {
                (self.part, self.block, self.footer) = (self.part + 1, 0, None);
                continue;
            }
            let end = (self.block + STRETCH_BLOCKS).min(footer.blocks());
            let bytes = store
                .read_range(&name, footer.range(self.block..end))
                .await?;
            let read = footer.read_blocks(self.block, &bytes, &mut self.rows);
            read.map_err(|e| e.context(&name))?;
            (self.block, self.footer) = (end, Some(footer));
            return Ok(());
        }
        Ok(())
    }
}
