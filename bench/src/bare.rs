//! The bare loops ours are held against: the least that could do the same work.

use anyhow::Result;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SEGMENT_BYTES: u64 = 64 << 20;

/// A segmented log and nothing else: length, CRC-32C, payload; one write and one fdatasync a group.
///
/// Segments are pre-zeroed before the clock starts, as a background thread would do.
#[derive(Debug)]
pub(crate) struct BareLog {
    segments: Vec<File>,
    at: u64,
    buffer: Vec<u8>,
}

impl BareLog {
    /// Makes enough zeroed segments for `bytes`.
    pub(crate) fn new(dir: &Path, bytes: u64) -> Result<Self> {
        let zeros = vec![0; 1 << 20];
        let mut segments = Vec::new();
        for n in 0..bytes.div_ceil(SEGMENT_BYTES) + 1 {
            let mut file = File::create(dir.join(format!("{n}.log")))?;
            for _ in 0..SEGMENT_BYTES >> 20 {
                file.write_all(&zeros)?;
            }
            file.sync_all()?;
            segments.push(file);
        }
        segments.reverse();
        Ok(Self {
            segments,
            at: 0,
            buffer: Vec::new(),
        })
    }

    /// Appends a group and makes it durable.
    pub(crate) fn commit<'a>(&mut self, group: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        self.buffer.clear();
        for payload in group {
            self.buffer
                .extend_from_slice(&(payload.len() as u32).to_le_bytes());
            self.buffer
                .extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
            self.buffer.extend_from_slice(payload);
        }
        if self.at + self.buffer.len() as u64 > SEGMENT_BYTES {
            self.segments.pop();
            self.at = 0;
        }
        let file = self.segments.last().expect("enough segments were made");
        file.write_all_at(&self.buffer, self.at)?;
        file.sync_data()?;
        self.at += self.buffer.len() as u64;
        Ok(())
    }
}

/// Frames events and compresses them at level 1, a mebibyte at a time; returns compressed bytes.
pub(crate) fn zstd_loop<'a>(events: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>> {
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    let mut raw = Vec::with_capacity(1 << 20);
    let mut frames = Vec::new();
    for event in events {
        annals_core::frame::put(event, &mut raw);
        if raw.len() >= 1 << 20 {
            frames.push(compressor.compress(&raw)?);
            raw.clear();
        }
    }
    if !raw.is_empty() {
        frames.push(compressor.compress(&raw)?);
    }
    Ok(frames)
}
