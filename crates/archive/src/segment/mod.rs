//! Segments: records of one package in compressed frames, with an index at the end.
//! docs/formats/segment.md.
//!
//! ```text
//! | zstd frame: records of type A | zstd frame: A | zstd frame: B | … | skippable frame: index |
//! ```
//!
//! `zstd -d` of the whole object gives all records; a reader of one type fetches the index by a
//! range read from the end, then the frames it wants.

mod frame;
mod reader;
mod writer;

pub use frame::RawFrame;
pub use reader::{FrameDecoder, Segment, parse_index};
pub use writer::{SealedSegment, SegmentWriter};

use crate::wire::TimeRange;

/// A frame is closed before its records exceed this, in bytes; a larger record has one to itself.
pub const FRAME_RAW_BYTES: usize = 1 << 20;
/// Longest frame a reader decompresses, in bytes: no message is larger.
pub const FRAME_RAW_BYTES_MAX: u64 = 256 << 20;
/// Longest index a reader takes, in bytes.
pub const INDEX_BYTES_MAX: u32 = 64 << 20;
/// Most producer intervals that a frame or a summary states; above, it states none.
pub const PRODUCER_INTERVALS_MAX: usize = 32;

/// What ends a segment: `index length u32 LE | CRC-32C of the index u32 LE | magic`.
const TRAILER_BYTES: usize = 16;
const TRAILER_MAGIC: [u8; 8] = *b"ANSEGIX1";
/// zstd's magic number of a skippable frame (the first of sixteen), then `length u32 LE`.
const SKIPPABLE_MAGIC: [u8; 4] = 0x184d_2a50_u32.to_le_bytes();
const SKIPPABLE_HEADER_BYTES: usize = 8;

/// The value an id filter knows an event by: `source`, one NUL byte, `id`.
pub fn put_id_key(source: &str, id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(source.as_bytes());
    out.push(0);
    out.extend_from_slice(id.as_bytes());
}

/// The smallest range that covers both.
fn widen(range: &mut Option<TimeRange>, first_us: i64, last_us: i64) {
    let range = range.get_or_insert(TimeRange { first_us, last_us });
    range.first_us = range.first_us.min(first_us);
    range.last_us = range.last_us.max(last_us);
}
