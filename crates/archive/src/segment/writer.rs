//! Makes a segment: compresses frames, then appends the index.

use super::frame::{RawFrame, merge};
use super::{SKIPPABLE_MAGIC, TRAILER_BYTES, TRAILER_MAGIC, widen};
use crate::layout::{Hour, SegmentName};
use crate::wire;
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use prost::Message;

/// Level of compression: 8 % larger than level 3 for 60 % of the work.
const LEVEL: i32 = 1;

/// A segment being written, in memory. The compression context serves one segment after another.
pub struct SegmentWriter {
    context: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
    out: Vec<u8>,
    index: wire::SegmentIndex,
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("bytes", &self.out.len())
            .finish_non_exhaustive()
    }
}

/// A finished segment: its bytes, and what the ledger says of it but for its name.
#[derive(Debug, Clone)]
pub struct SealedSegment {
    /// The whole object.
    pub bytes: Bytes,
    /// Its description.
    pub segment: wire::Segment,
}

impl SegmentWriter {
    /// A writer of nothing yet.
    pub fn new() -> Result<Self> {
        let context = zstd::bulk::Compressor::new(LEVEL)
            .map_err(|e| Error::new(ErrorKind::Internal, "zstd").caused_by(e))?;
        Ok(Self {
            context,
            compressed: Vec::new(),
            out: Vec::new(),
            index: wire::SegmentIndex::default(),
        })
    }

    /// Compresses a frame onto the segment.
    pub fn push(&mut self, event_type: &str, frame: RawFrame) -> Result<()> {
        self.compressed.clear();
        self.compressed
            .reserve(zstd::zstd_safe::compress_bound(frame.len()));
        self.context
            .compress_to_buffer(frame.bytes(), &mut self.compressed)
            .map_err(|e| Error::new(ErrorKind::Internal, "zstd").caused_by(e))?;
        let mut described = frame.describe(event_type);
        described.offset = self.out.len() as u64;
        described.length = self.compressed.len() as u64;
        described.crc32c = crc32c::crc32c(&self.compressed);
        self.index.count += u64::from(described.count);
        self.index.frames.push(described);
        self.out.extend_from_slice(&self.compressed);
        Ok(())
    }

    /// Ends the segment of a bus and a package's folder, named for `hour` and the ledger number
    /// aimed for. The writer is then ready for the next.
    pub fn finish(&mut self, bus: &str, folder: &str, hour: Hour, number: u64) -> SealedSegment {
        let mut index = std::mem::take(&mut self.index);
        bus.clone_into(&mut index.bus);
        folder.clone_into(&mut index.package);
        put_index(&index, &mut self.out);
        let bytes = Bytes::from(std::mem::take(&mut self.out));
        let hash = blake3::hash(&bytes);
        let name = SegmentName {
            bus: crate::layout::encode(bus),
            folder: folder.to_owned(),
            hour,
            number,
            count: index.count,
            hash: *hash.as_bytes().first_chunk().expect("a hash has 32 bytes"),
        };
        let segment = wire::Segment {
            name: name.to_string(),
            hash: Bytes::copy_from_slice(hash.as_bytes()),
            length: bytes.len() as u64,
            package: index.package,
            count: index.count,
            types: summarise(index.frames),
        };
        SealedSegment { bytes, segment }
    }
}

/// Appends the index as a skippable frame.
fn put_index(index: &wire::SegmentIndex, out: &mut Vec<u8>) {
    let index = index.encode_to_vec();
    let payload = (index.len() + TRAILER_BYTES) as u32;
    out.extend_from_slice(&SKIPPABLE_MAGIC);
    out.extend_from_slice(&payload.to_le_bytes());
    out.extend_from_slice(&index);
    out.extend_from_slice(&(index.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
    out.extend_from_slice(&TRAILER_MAGIC);
}

/// One summary per type, in order of the types' first frames; a type's frames lie together.
fn summarise(frames: Vec<wire::Frame>) -> Vec<wire::TypeSummary> {
    let mut summaries: Vec<wire::TypeSummary> = Vec::new();
    let mut stated = true;
    for frame in frames {
        if summaries
            .last()
            .is_none_or(|last| last.r#type != frame.r#type)
        {
            stated = true;
            summaries.push(wire::TypeSummary {
                r#type: frame.r#type,
                ..Default::default()
            });
        }
        let summary = summaries.last_mut().expect("one was pushed");
        summary.count += u64::from(frame.count);
        if let Some(range) = frame.event_time {
            widen(&mut summary.event_time, range.first_us, range.last_us);
        }
        if let Some(range) = frame.received_at {
            widen(&mut summary.received_at, range.first_us, range.last_us);
        }
        // A frame that states none for more events than it has intervals speaks for the type.
        stated &= !frame.producers.is_empty();
        summary.producers.extend(frame.producers);
        summary.producers = if stated {
            merge(std::mem::take(&mut summary.producers))
        } else {
            Vec::new()
        };
        stated &= !summary.producers.is_empty();
    }
    summaries
}
