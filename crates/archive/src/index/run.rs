//! [`Run`]: the index of a range of ledger entries. Rows in parts, and beside them skip lists,
//! counts, producers' numbers and conflicts.

use super::part::{PART_ROWS_MAX, PartBuilder, Row};
use super::skips::SkipList;
use super::store::{Store, checked, damaged};
use super::wire;
use crate::filter::FilterRef;
use crate::ledger::Position;
use annals_core::{Error, Result};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use std::ops::Range;
use std::sync::Arc;

/// Blocks read at once although none of them is asked for: a request costs more.
const GAP_BLOCKS: usize = 16;
/// Stretches of a part read at a time; all of them together are no longer than the part.
const READS_AT_ONCE: usize = 8;

/// A run, opened: what it says beside its rows is in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) meta: Arc<wire::Run>,
    pub(super) hash: Bytes,
}

impl Run {
    /// Reads and checks the run that a state names.
    pub(super) async fn open(store: &Store, stated: &wire::RunRef) -> Result<Self> {
        let name = store.run_name(stated.first, stated.last);
        let (message, hash) = store.read_checked(&name).await?;
        if hash != stated.hash {
            return Err(damaged(&name));
        }
        let meta = wire::Run::decode(message).map_err(|e| damaged(&name).caused_by(e))?;
        let entries = stated.last - stated.first + 1;
        if (meta.first, meta.last) != (stated.first, stated.last)
            || meta.skips.len() as u64 != entries
            || meta.parts.iter().any(|part| part.first_key.len() != 16)
        {
            return Err(damaged(&name));
        }
        Ok(Self {
            meta: Arc::new(meta),
            hash,
        })
    }

    /// Writes a run's meta object.
    pub(super) async fn create(store: &Store, meta: wire::Run) -> Result<Self> {
        let (file, hash) = checked(&meta);
        store
            .put(&store.run_name(meta.first, meta.last), file)
            .await?;
        Ok(Self {
            meta: Arc::new(meta),
            hash,
        })
    }

    /// How many entries it covers.
    pub(super) fn entries(&self) -> u64 {
        self.meta.last - self.meta.first + 1
    }

    pub(super) fn covers(&self, position: Position) -> bool {
        (self.meta.first..=self.meta.last).contains(&position.0)
    }

    /// The ledger entry of one of its rows.
    pub(super) fn position(&self, row: &Row) -> Position {
        Position(self.meta.first + u64::from(row.entry))
    }

    /// The names of its objects.
    pub(super) fn names(&self, store: &Store) -> Vec<String> {
        let (first, last) = (self.meta.first, self.meta.last);
        let parts = (0..self.meta.parts.len()).map(|part| store.part_name(first, last, part));
        parts.chain([store.run_name(first, last)]).collect()
    }

    pub(super) fn part_name(&self, store: &Store, part: usize) -> String {
        store.part_name(self.meta.first, self.meta.last, part)
    }

    /// The skip list of an entry it covers.
    pub(super) fn skips(&self, store: &Store, position: Position) -> Result<SkipList> {
        let at = (position.0 - self.meta.first) as usize;
        let name = || store.run_name(self.meta.first, self.meta.last);
        let decoded = SkipList::decode(&self.meta.skips[at]).map_err(|e| e.context(name()))?;
        Ok(decoded.0)
    }

    /// The rows it has of these ascending keys.
    pub(super) async fn find(&self, store: &Store, keys: &Arc<[u128]>) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        for part in 0..self.meta.parts.len() {
            let keys_in_part = self.keys_in(part, keys);
            if keys_in_part.is_empty() {
                continue;
            }
            self.find_in(store, part, &keys[keys_in_part], &mut found)
                .await?;
        }
        Ok(found)
    }

    /// Reads all its parts; what is damaged, by name.
    pub(super) async fn check(
        &self,
        store: &Store,
        found: &mut Vec<(String, Error)>,
    ) -> Result<()> {
        for part in 0..self.meta.parts.len() {
            let name = self.part_name(store, part);
            match self.check_part(store, part, &name).await {
                Err(error) if super::is_damage(&error) => found.push((name, error)),
                checked => checked?,
            }
        }
        Ok(())
    }

    async fn check_part(&self, store: &Store, part: usize, name: &str) -> Result<()> {
        let footer = store.footer(name, &self.meta.parts[part]).await?;
        let mut rows = Vec::new();
        for first in (0..footer.blocks()).step_by(GAP_BLOCKS) {
            let blocks = first..(first + GAP_BLOCKS).min(footer.blocks());
            let bytes = store.read_range(name, footer.range(blocks)).await?;
            rows.clear();
            footer.read_blocks(first, &bytes, &mut rows)?;
        }
        Ok(())
    }

    async fn find_in(
        &self,
        store: &Store,
        part: usize,
        keys: &[u128],
        found: &mut Vec<Row>,
    ) -> Result<()> {
        let name = self.part_name(store, part);
        let footer = store.footer(&name, &self.meta.parts[part]).await?;
        let filter = FilterRef::new(&footer.filter);
        let maybe = keys
            .iter()
            .filter(|&&key| filter.contains_hash(Row::filter_hash(key)));
        let asked: Vec<(usize, u128)> = maybe
            .filter_map(|&key| Some((footer.block_of(key)?, key)))
            .collect();
        let near: Vec<_> = asked
            .chunk_by(|(one, _), (next, _)| next - one <= GAP_BLOCKS)
            .collect();
        let blocks = |near: &[(usize, u128)]| near[0].0..near[near.len() - 1].0 + 1;
        let ranges = near.iter().map(|near| footer.range(blocks(near)));
        let reads: Vec<_> = ranges.map(|range| store.read_range(&name, range)).collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        for near in near {
            let blocks = blocks(near);
            let Some(bytes) = reads.try_next().await? else {
                break;
            };
            let mut rows = Vec::with_capacity(bytes.len() / super::part::ROW_BYTES);
            let read = footer.read_blocks(blocks.start, &bytes, &mut rows);
            read.map_err(|e| e.context(&name))?;
            let mut rest = &rows[..];
            for (_, key) in near {
                rest = &rest[rest.partition_point(|row| row.key < *key)..];
                found.extend(rest.first().filter(|row| row.key == *key));
            }
        }
        Ok(())
    }

    /// Which of ascending keys lie in a part's range.
    fn keys_in(&self, part: usize, keys: &[u128]) -> Range<usize> {
        let start = keys.partition_point(|key| *key < self.first_key(part));
        let end = match part + 1 < self.meta.parts.len() {
            true => keys.partition_point(|key| *key < self.first_key(part + 1)),
            false => keys.len(),
        };
        start..end.max(start)
    }

    fn first_key(&self, part: usize) -> u128 {
        let key = self.meta.parts[part].first_key.first_chunk();
        u128::from_be_bytes(*key.expect("checked when the run was opened"))
    }
}

/// Writes rows in ascending order of keys as the parts of a run.
#[derive(Debug)]
pub(super) struct RunWriter<'a> {
    store: &'a Store,
    first: u64,
    last: u64,
    open: PartBuilder,
    parts: Vec<wire::Part>,
}

impl<'a> RunWriter<'a> {
    pub(super) fn new(store: &'a Store, first: u64, last: u64) -> Self {
        let (open, parts) = Default::default();
        Self {
            store,
            first,
            last,
            open,
            parts,
        }
    }

    /// Adds a row; `true` if [`RunWriter::flush`] has to be called before the next.
    #[inline]
    pub(super) fn push(&mut self, row: &Row) -> bool {
        self.open.push(row);
        self.open.rows() >= PART_ROWS_MAX
    }

    /// Writes the open part.
    pub(super) async fn flush(&mut self) -> Result<()> {
        let Some(first_key) = self.open.first() else {
            return Ok(());
        };
        let open = std::mem::take(&mut self.open);
        let rows = open.rows() as u64;
        let (bytes, footer_crc32c) = open.finish();
        let name = self
            .store
            .part_name(self.first, self.last, self.parts.len());
        self.parts.push(wire::Part {
            rows,
            length: bytes.len() as u64,
            first_key: Bytes::copy_from_slice(&first_key.to_be_bytes()),
            footer_crc32c,
        });
        self.store.put(&name, bytes).await
    }

    /// Writes the rest; returns what the run says of its parts.
    pub(super) async fn finish(mut self) -> Result<Vec<wire::Part>> {
        self.flush().await?;
        Ok(self.parts)
    }
}
