//! The durable log under the broker: records in segments, one fdatasync per group.
//!
//! In reading order:
//!
//! - this file — the words: [`Lsn`], [`LogConfig`], [`Entry`], [`Recovery`], [`Room`], [`LogStats`]
//! - `writer` — [`Log`]: append, seal, commit; `writer/release`: snapshots, released segments
//! - `commit` — [`Commit`]: a sealed group on its way to the disk, on whatever thread
//! - `reader`, `tail` — [`LogReader`]: payloads by position, from memory or from the disk
//! - `format` — the bytes: segment headers, group headers, records
//! - `recover`, `replay` — what a directory holds, read back at start
//! - `pool`, `snapshot`, `files` — spare segments, snapshot files, names in the directory
//!
//! The bytes and the rules of recovery: docs/formats/broker-log.md.

mod commit;
mod files;
mod format;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod fuzz;
mod pool;
mod reader;
mod recover;
mod replay;
mod snapshot;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use commit::Commit;
pub use reader::LogReader;
pub use writer::Log;

use std::fmt;

/// A position in the log: the number of the segment, then the offset in it. Ordered as written.
///
/// 0 is no position: segments are numbered from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position `offset` bytes into segment `segment`.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self((segment as u64) << 32 | offset as u64)
    }

    /// Number of the segment.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Offset in the segment.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The bounds of a log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Size of a segment file.
    pub segment_bytes: u32,
    /// Bytes of disk the log may take, snapshots included.
    pub disk_bytes_max: u64,
    /// Segments kept prepared ahead of the writer; the last of them is the reserve for acks and
    /// topology.
    pub spare_segments: u32,
    /// Longest payload of a record.
    pub message_bytes_max: u32,
    /// Recently committed bytes kept in memory for readers.
    pub tail_bytes_max: usize,
    /// Whether spare segments are prepared by a thread; otherwise where they are needed, which a
    /// simulation wants.
    pub background: bool,
    /// A random number that a *new* log salts its checksums with, so that no message can carry
    /// bytes that pass for a record. An existing log keeps its own.
    pub salt: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            disk_bytes_max: 64 << 30,
            spare_segments: 2,
            message_bytes_max: 16 << 20,
            tail_bytes_max: 32 << 20,
            background: true,
            salt: 0,
        }
    }
}

/// What [`Log::open`] replays.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// The newest valid snapshot; at most once, and first.
    Snapshot(&'a [u8]),
    /// A record after it: its position, kind and payload.
    Record(Lsn, u8, &'a [u8]),
}

/// What [`Log::open`] found.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Position of the snapshot that was used.
    pub snapshot: Option<Lsn>,
    /// Records replayed after it.
    pub records: u64,
    /// Where the log ends.
    pub end: Lsn,
    /// Whether the log had been closed in order.
    pub clean: bool,
    /// Unacknowledged bytes after the end that were not whole, and were cut.
    pub torn_bytes: u64,
    /// Stretches that were once durable and are now unreadable. Their files are kept.
    pub damaged: Vec<Damage>,
}

/// A stretch of a file that does not hold what was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Name of the file.
    pub file: String,
    /// Number of the segment; 0 for a snapshot.
    pub segment: u32,
    /// First damaged byte.
    pub offset: u32,
    /// Length of the stretch.
    pub bytes: u32,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            segment: _,
            offset,
            bytes,
            reason,
        } = self;
        write!(f, "{file} at {offset} ({bytes} bytes): {reason}")
    }
}

/// Bytes that can be appended without taking more of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For publishes.
    pub publish: u64,
    /// Beyond that, for acks and topology only.
    pub reserve: u64,
}

/// A segment that holds records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u32,
    /// Bytes written to it.
    pub bytes: u32,
    /// Whether the log has moved on to another.
    pub sealed: bool,
}

/// What a log did since it was opened, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// fdatasync calls on segments.
    pub fsyncs: u64,
    /// Groups committed.
    pub groups: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes written to segments.
    pub bytes: u64,
    /// Snapshots written.
    pub snapshots: u64,
    /// Segments recycled or removed.
    pub released: u64,
    /// Segments that hold records.
    pub segments: u32,
    /// Segments prepared ahead.
    pub spares: u32,
    /// Bytes of disk taken.
    pub disk_bytes: u64,
}
