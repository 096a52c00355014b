//! [`Commit`]: a sealed group on its way to the disk, so that the next one can be made meanwhile.

use super::Lsn;
use super::format::GROUP_HEADER;
use super::reader::Source;
use annals_core::disk::DiskFile;
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// A group as [`super::Log::seal`] leaves it: run it, on any thread, then give it back to
/// [`super::Log::committed`]. One at a time, in order.
#[derive(Debug)]
pub struct Commit {
    pub(super) source: Arc<Source>,
    pub(super) parts: Vec<Part>,
    /// Files that are to be synced after the parts are written; none if the group need not be
    /// durable.
    pub(super) syncs: Vec<Arc<dyn DiskFile>>,
    /// Everything before this is durable once the files are synced.
    pub(super) durable: Option<Lsn>,
    pub(super) result: io::Result<()>,
}

/// A stretch of one segment, written at once: a group header, then records.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) lsn: Lsn,
    /// Whether it marks a log closed in order.
    pub(super) closed: bool,
    /// Where the segment before its own ends.
    pub(super) base: Lsn,
    pub(super) bytes: Vec<u8>,
}

impl Commit {
    /// Writes the group, and syncs if it is to be durable; readers see it then. Whether all of it
    /// worked.
    pub fn run(&mut self) -> bool {
        self.result = self.write_and_sync();
        if self.result.is_ok() && !self.parts.is_empty() {
            let mut tail = self.source.tail.write();
            for mut part in self.parts.drain(..) {
                // The tail's bound counts bytes, not what they lie in.
                if part.bytes.capacity() > 2 * part.bytes.len() {
                    part.bytes.shrink_to_fit();
                }
                tail.push(part.lsn, Bytes::from(part.bytes));
            }
        }
        self.result.is_ok()
    }

    fn write_and_sync(&self) -> io::Result<()> {
        for part in &self.parts {
            debug_assert!(
                part.bytes.len() >= GROUP_HEADER,
                "a part starts with its header"
            );
            part.file
                .write_all_at(&part.bytes, part.lsn.offset().into())?;
        }
        self.syncs.iter().try_for_each(|file| file.sync_data())
    }
}
