//! Reads a segment: the index by a range from the end, then single frames, each checked before it
//! is decompressed and bounded while it is.

use super::{
    FRAME_RAW_BYTES_MAX, INDEX_BYTES_MAX, SKIPPABLE_HEADER_BYTES, SKIPPABLE_MAGIC, TRAILER_BYTES,
    TRAILER_MAGIC,
};
use crate::Bucket;
use crate::wire;
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use prost::Message;
use std::ops::Range;
use std::sync::Arc;

/// Read from the end at first: holds the index of a usual segment.
const TAIL_BYTES: u64 = 256 << 10;

/// A segment opened for reading: its index, checked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Segment {
    bucket: Arc<dyn Bucket>,
    name: Arc<str>,
    index: Arc<wire::SegmentIndex>,
}

impl Segment {
    /// Opens a segment by its name and length, both as the ledger states them.
    pub async fn open(bucket: Arc<dyn Bucket>, name: &str, length: u64) -> Result<Self> {
        let start = length.saturating_sub(TAIL_BYTES);
        let mut tail = bucket.get_range(name, start..length).await?;
        let wanted = index_frame_len(&tail).map_err(|e| e.context(name))?;
        if wanted > length {
            return Err(damaged("its index is longer than it").context(name));
        }
        if wanted > tail.len() as u64 {
            tail = bucket.get_range(name, length - wanted..length).await?;
        }
        let index = parse_index(&tail, length).map_err(|e| e.context(name))?;
        Ok(Self {
            bucket,
            name: name.into(),
            index: Arc::new(index),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index.
    pub fn index(&self) -> &Arc<wire::SegmentIndex> {
        &self.index
    }

    /// Where the compressed frames of a run lie within the segment.
    pub fn range_of(&self, frames: Range<usize>) -> Range<u64> {
        let frames = &self.index.frames[frames];
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return 0..0;
        };
        first.offset..last.offset + last.length
    }

    /// Reads the compressed frames of a run with one request; not checked yet: decode each by
    /// [`FrameDecoder::decode`].
    pub async fn read_compressed(&self, frames: Range<usize>) -> Result<Vec<Bytes>> {
        let range = self.range_of(frames.clone());
        let bytes = self.bucket.get_range(&self.name, range.clone()).await?;
        let cut = |frame: &wire::Frame| {
            let start = (frame.offset - range.start) as usize;
            bytes.slice(start..start + frame.length as usize)
        };
        Ok(self.index.frames[frames].iter().map(cut).collect())
    }

    /// Reads one frame: checked, decompressed. [`crate::record::iter`] walks its records.
    pub async fn read_frame(&self, frame: usize) -> Result<Bytes> {
        let compressed = self.read_compressed(frame..frame + 1).await?;
        FrameDecoder::new()?
            .decode(&self.index.frames[frame], &compressed[0])
            .map_err(|e| e.context(format!("{} frame {frame}", self.name)))
    }
}

/// Decompresses frames, reusing its context. One per thread.
pub struct FrameDecoder {
    context: zstd::bulk::Decompressor<'static>,
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameDecoder").finish_non_exhaustive()
    }
}

impl FrameDecoder {
    /// A decoder.
    pub fn new() -> Result<Self> {
        let context = zstd::bulk::Decompressor::new()
            .map_err(|e| Error::new(ErrorKind::Internal, "zstd").caused_by(e))?;
        Ok(Self { context })
    }

    /// Checks a compressed frame against what the index says of it and decompresses it.
    ///
    /// Takes no more memory than the index states, and no more than [`FRAME_RAW_BYTES_MAX`].
    pub fn decode(&mut self, frame: &wire::Frame, compressed: &[u8]) -> Result<Bytes> {
        let mut raw = Vec::new();
        self.decode_into(frame, compressed, &mut raw)?;
        Ok(raw.into())
    }

    /// [`FrameDecoder::decode`] into a buffer that is used again; what it held is dropped.
    pub fn decode_into(
        &mut self,
        frame: &wire::Frame,
        compressed: &[u8],
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        if compressed.len() as u64 != frame.length || crc32c::crc32c(compressed) != frame.crc32c {
            return Err(damaged("the checksum of a frame does not match"));
        }
        // The compressor states the length in the frame: a lie of the index takes no memory.
        let stated = zstd::zstd_safe::get_frame_content_size(compressed);
        if stated.ok().flatten() != Some(frame.raw_length) || frame.raw_length > FRAME_RAW_BYTES_MAX
        {
            return Err(damaged("the length of a frame is not what its index says"));
        }
        raw.clear();
        raw.reserve_exact(frame.raw_length as usize);
        self.context
            .decompress_to_buffer(compressed, raw)
            .map_err(|e| damaged("a frame does not decompress").caused_by(e))?;
        if raw.len() as u64 != frame.raw_length {
            return Err(damaged("a frame decompresses to another length"));
        }
        Ok(())
    }
}

/// Takes the index off the end of a segment of `length` bytes and checks that its frames fill the
/// segment without gap. `tail` is any stretch up to the end that holds the whole index.
pub fn parse_index(tail: &[u8], length: u64) -> Result<wire::SegmentIndex> {
    let frame_len = index_frame_len(tail)?;
    let cut = || damaged("its index is cut");
    let start = usize::try_from(frame_len)
        .ok()
        .and_then(|frame_len| tail.len().checked_sub(frame_len))
        .ok_or_else(cut)?;
    let frames_end = length.checked_sub(frame_len).ok_or_else(cut)?;
    let (header, payload) = tail[start..].split_at(SKIPPABLE_HEADER_BYTES);
    let stated = payload.len() as u32;
    if header[..4] != SKIPPABLE_MAGIC || header[4..] != stated.to_le_bytes() {
        return Err(damaged("no skippable frame starts where its index should"));
    }
    let (encoded, trailer) = payload.split_at(payload.len() - TRAILER_BYTES);
    if crc32c::crc32c(encoded).to_le_bytes() != trailer[4..8] {
        return Err(damaged("the checksum of its index does not match"));
    }
    let index = wire::SegmentIndex::decode(encoded)
        .map_err(|e| damaged("its index does not decode").caused_by(e))?;
    check_frames(&index, frames_end)?;
    Ok(index)
}

/// Length of the skippable frame that holds the index, from the trailer that ends `tail`.
fn index_frame_len(tail: &[u8]) -> Result<u64> {
    let trailer: &[u8; TRAILER_BYTES] = tail.last_chunk().ok_or_else(|| damaged("it is cut"))?;
    if trailer[8..] != TRAILER_MAGIC {
        return Err(damaged("it does not end with an index"));
    }
    let index_len = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
    if index_len > INDEX_BYTES_MAX {
        return Err(damaged("its index is longer than any"));
    }
    Ok(u64::from(index_len) + (SKIPPABLE_HEADER_BYTES + TRAILER_BYTES) as u64)
}

fn check_frames(index: &wire::SegmentIndex, frames_end: u64) -> Result<()> {
    let mut at = 0u64;
    let mut count = 0u64;
    for frame in &index.frames {
        if frame.offset != at || frame.length == 0 || frame.count == 0 {
            return Err(damaged("its frames do not follow each other"));
        }
        at = at
            .checked_add(frame.length)
            .ok_or_else(|| damaged("its frames overflow"))?;
        count += u64::from(frame.count);
    }
    if at != frames_end || count != index.count {
        return Err(damaged("its frames are not what its index says"));
    }
    Ok(())
}

#[cold]
fn damaged(what: &str) -> Error {
    Error::corrupt(format!("a segment is damaged ({what})"))
}
