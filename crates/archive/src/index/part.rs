//! A part of a run: sorted rows in checked blocks, then a filter over their keys and a table of
//! the blocks. docs/formats/index.md.

use crate::filter::Filter;
use annals_core::{Error, Result};
use bytes::Bytes;

/// Most rows of a part: 16 MiB, so that merging never holds more.
pub(crate) const PART_ROWS_MAX: usize = 1 << 19;
/// Rows of a block: 4 KiB.
pub(crate) const BLOCK_ROWS: usize = 128;
/// Bytes of a row.
pub(crate) const ROW_BYTES: usize = 32;
const BLOCK_BYTES: usize = BLOCK_ROWS * ROW_BYTES;
/// Bytes of a block's line in the table: its first key and its CRC-32C.
const LINE_BYTES: usize = 20;
/// `rows u32 | filter length u32 | CRC-32C of filter and table u32 | magic`, little endian.
const TRAILER_BYTES: usize = 20;
const MAGIC: [u8; 8] = *b"ANIDXPT1";

/// One distinct event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// First 16 bytes of BLAKE3 over source, NUL, id; big endian, so that order is that of bytes.
    pub(crate) key: u128,
    /// XXH64 of the event's bytes.
    pub(crate) content: u64,
    /// Its ledger entry, counted from the run's first.
    pub(crate) entry: u32,
    pub(crate) ordinal: u32,
}

impl Row {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.to_be_bytes());
        out.extend_from_slice(&self.content.to_le_bytes());
        out.extend_from_slice(&self.entry.to_le_bytes());
        out.extend_from_slice(&self.ordinal.to_le_bytes());
    }

    fn read(bytes: &[u8; ROW_BYTES]) -> Self {
        let (key, rest) = bytes.split_first_chunk().expect("a row is longer");
        let (content, rest) = rest.split_first_chunk().expect("a row is longer");
        let (entry, rest) = rest.split_first_chunk().expect("a row is longer");
        Self {
            key: u128::from_be_bytes(*key),
            content: u64::from_le_bytes(*content),
            entry: u32::from_le_bytes(*entry),
            ordinal: u32::from_le_bytes(*rest.first_chunk().expect("a row is longer")),
        }
    }

    /// What a filter knows a key by: its lower half. The upper half says which part it is in, and
    /// so would fill few blocks of a part's filter.
    #[inline]
    pub(crate) fn filter_hash(key: u128) -> u64 {
        key as u64
    }
}

/// A part being filled with rows in ascending order of their keys.
#[derive(Debug, Default)]
pub(crate) struct PartBuilder {
    bytes: Vec<u8>,
    hashes: Vec<u64>,
    firsts: Vec<u128>,
}

impl PartBuilder {
    pub(crate) fn push(&mut self, row: &Row) {
        if self.hashes.len().is_multiple_of(BLOCK_ROWS) {
            self.firsts.push(row.key);
        }
        self.hashes.push(Row::filter_hash(row.key));
        row.put(&mut self.bytes);
    }

    pub(crate) fn rows(&self) -> usize {
        self.hashes.len()
    }

    /// The first key.
    pub(crate) fn first(&self) -> Option<u128> {
        self.firsts.first().copied()
    }

    /// The object, and the checksum of its footer.
    pub(crate) fn finish(self) -> (Bytes, u32) {
        let mut bytes = self.bytes;
        let crcs: Vec<u32> = bytes.chunks(BLOCK_BYTES).map(crc32c::crc32c).collect();
        // Half again as large as for 1 %: each false positive costs a read.
        let mut filter = Filter::with_capacity(self.hashes.len() + self.hashes.len() / 2);
        self.hashes
            .iter()
            .for_each(|&hash| filter.insert_hash(hash));
        let filter = filter.to_bytes();
        let footer = bytes.len();
        bytes.extend_from_slice(&filter);
        for (first, crc) in self.firsts.iter().zip(crcs) {
            bytes.extend_from_slice(&first.to_be_bytes());
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[footer..]);
        bytes.extend_from_slice(&(self.hashes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(filter.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&MAGIC);
        (bytes.into(), crc)
    }
}

/// What follows a part's rows.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) filter: Bytes,
    blocks: Vec<(u128, u32)>,
    rows: usize,
}

impl Footer {
    /// Where the footer of a part starts.
    pub(crate) fn start(rows: u64) -> u64 {
        rows * ROW_BYTES as u64
    }

    /// Reads all that follows the rows of a part with `rows` rows and this checksum.
    pub(crate) fn parse(bytes: &Bytes, rows: u64, crc: u32) -> Result<Self> {
        let split = bytes
            .len()
            .checked_sub(TRAILER_BYTES)
            .ok_or_else(|| damaged("footer"))?;
        let (footer, trailer) = bytes.split_at(split);
        let word = |at: usize| {
            let word = trailer[at..]
                .first_chunk()
                .expect("the trailer has three words");
            u32::from_le_bytes(*word)
        };
        let held = crc32c::crc32c(footer);
        if trailer[12..] != MAGIC || u64::from(word(0)) != rows || word(8) != crc || held != crc {
            return Err(damaged("footer"));
        }
        let rows = word(0) as usize;
        let filter_len = word(4) as usize;
        let lines = rows.div_ceil(BLOCK_ROWS) * LINE_BYTES;
        if filter_len + lines != footer.len() {
            return Err(damaged("footer"));
        }
        let (lines, _) = footer[filter_len..].as_chunks::<LINE_BYTES>();
        let line = |line: &[u8; LINE_BYTES]| {
            let (first, crc) = line.split_first_chunk().expect("a line is longer");
            let crc = crc.first_chunk().expect("a line is longer");
            (u128::from_be_bytes(*first), u32::from_le_bytes(*crc))
        };
        Ok(Self {
            filter: bytes.slice(..filter_len),
            blocks: lines.iter().map(line).collect(),
            rows,
        })
    }

    /// Bytes it holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.filter.len() + self.blocks.len() * size_of::<(u128, u32)>()
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The block a key would be in.
    pub(crate) fn block_of(&self, key: u128) -> Option<usize> {
        self.blocks
            .partition_point(|(first, _)| *first <= key)
            .checked_sub(1)
    }

    /// Where a run of blocks lies in the part.
    pub(crate) fn range(&self, blocks: std::ops::Range<usize>) -> std::ops::Range<u64> {
        let end = (blocks.end * BLOCK_ROWS).min(self.rows) * ROW_BYTES;
        (blocks.start * BLOCK_BYTES) as u64..end as u64
    }

    /// Checks a run of blocks that starts with `first` and appends its rows.
    pub(crate) fn read_blocks(
        &self,
        first: usize,
        bytes: &[u8],
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        for (block, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let stated = self.blocks.get(first + block).map(|(_, crc)| *crc);
            let (chunks, rest) = bytes.as_chunks::<ROW_BYTES>();
            if stated != Some(crc32c::crc32c(bytes)) || !rest.is_empty() {
                return Err(damaged(&format!("block {}", first + block)));
            }
            rows.extend(chunks.iter().map(Row::read));
        }
        Ok(())
    }
}

#[cold]
fn damaged(what: &str) -> Error {
    Error::corrupt(format!("a part of the index is damaged ({what})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::FilterRef;

    fn rows(count: u32) -> Vec<Row> {
        let row = |i: u32| Row {
            key: u128::from(i) << 100 | u128::from(i.wrapping_mul(2_654_435_761)),
            content: u64::from(i) * 3,
            entry: i % 7,
            ordinal: i,
        };
        (0..count).map(row).collect()
    }

    fn part(rows: &[Row]) -> (Bytes, u32) {
        let mut builder = PartBuilder::default();
        rows.iter().for_each(|row| builder.push(row));
        assert_eq!(builder.rows(), rows.len());
        builder.finish()
    }

    #[test]
    fn rows_come_back_and_are_found_by_filter_and_block() {
        for count in [1, 127, 128, 129, 1000] {
            let rows = rows(count);
            let (bytes, crc) = part(&rows);
            let start = Footer::start(count.into()) as usize;
            let footer = Footer::parse(&bytes.slice(start..), count.into(), crc).unwrap();
            let mut read = Vec::new();
            footer.read_blocks(0, &bytes[..start], &mut read).unwrap();
            assert_eq!(read, rows);
            for row in &rows {
                assert!(FilterRef::new(&footer.filter).contains_hash(Row::filter_hash(row.key)));
                let block = footer.block_of(row.key).unwrap();
                let range = footer.range(block..block + 1);
                let mut read = Vec::new();
                let bytes = &bytes[range.start as usize..range.end as usize];
                footer.read_blocks(block, bytes, &mut read).unwrap();
                assert!(read.contains(row), "{row:?} is not in block {block}");
            }
        }
    }

    #[test]
    fn any_flipped_byte_of_a_part_is_found() {
        let rows = rows(300);
        let (bytes, crc) = part(&rows);
        let start = Footer::start(300) as usize;
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x10;
            let flipped = Bytes::from(flipped);
            let read = Footer::parse(&flipped.slice(start..), 300, crc)
                .and_then(|footer| footer.read_blocks(0, &flipped[..start], &mut Vec::new()));
            assert!(read.is_err(), "byte {at}");
        }
    }
}
