//! Snapshot files: written aside, synced, renamed; two are kept.

use super::Lsn;
use super::files::Files;
use super::format::{Salt, u32_at, u64_at};
use annals_core::disk::Access;
use std::io;

const MAGIC: &[u8; 8] = b"ANNALSSN";
const VERSION: u32 = 1;
/// Magic, version, checksum of all that follows, salt, position, number of segments.
const HEADER: usize = 36;

/// What a snapshot holds.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) salt: Salt,
    /// Records before this are part of the state.
    pub(super) position: Lsn,
    /// Segments that were in use.
    pub(super) segments: Vec<u32>,
    bytes: Vec<u8>,
}

impl Snapshot {
    /// The state as the engine wrote it.
    pub(super) fn state(&self) -> &[u8] {
        &self.bytes[HEADER + 4 * self.segments.len()..]
    }

    /// Reads the snapshot at `position`; `Err` with the reason if it is not whole.
    pub(super) fn read(files: &Files, position: Lsn) -> io::Result<Result<Self, &'static str>> {
        let file = files.disk.open(&files.snapshot(position), Access::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::parse(bytes, position))
    }

    pub(super) fn parse(bytes: Vec<u8>, position: Lsn) -> Result<Self, &'static str> {
        if bytes.len() < HEADER || bytes[..8] != *MAGIC {
            return Err("not a snapshot");
        }
        if crc32c::crc32c(&bytes[16..]) != u32_at(&bytes, 12) {
            return Err("checksum of the snapshot does not match");
        }
        if u32_at(&bytes, 8) != VERSION {
            return Err("snapshot of another version");
        }
        if u64_at(&bytes, 24) != position.0 {
            return Err("snapshot under another's name");
        }
        let count = u32_at(&bytes, 32) as usize;
        let numbers = bytes[HEADER..]
            .get(..4 * count)
            .ok_or("snapshot cut short")?;
        let segments = numbers
            .chunks_exact(4)
            .map(|number| u32_at(number, 0))
            .collect();
        Ok(Self {
            salt: Salt::new(u64_at(&bytes, 16)),
            position,
            segments,
            bytes,
        })
    }
}

/// Writes a snapshot so that it is there as a whole or not at all; returns its length.
pub(super) fn write(
    files: &Files,
    salt: Salt,
    position: Lsn,
    segments: &[u32],
    state: &[u8],
) -> io::Result<u64> {
    let mut head = Vec::with_capacity(HEADER + 4 * segments.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&salt.number.to_le_bytes());
    head.extend_from_slice(&position.0.to_le_bytes());
    head.extend_from_slice(&(segments.len() as u32).to_le_bytes());
    for number in segments {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[16..]), state);
    head[12..16].copy_from_slice(&crc.to_le_bytes());

    let aside = files.dir.join("snapshot.tmp");
    match files.disk.remove(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files.disk.create(&aside)?;
    let written = file.write_all_at(&head, 0);
    let written = written.and_then(|()| file.write_all_at(state, head.len() as u64));
    // Some disks find out only now that they are full.
    let written = written.and_then(|()| file.sync_data());
    if let Err(error) = written {
        // What was written may be what fills the disk.
        let _ = files.disk.remove(&aside);
        return Err(error);
    }
    files.disk.rename(&aside, &files.snapshot(position))?;
    files.sync()?;
    Ok((head.len() + state.len()) as u64)
}
