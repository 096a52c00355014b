//! [`Log`]: append, seal, commit. Snapshots and released segments: `writer/release.rs`.

mod release;

use super::commit::{Commit, Part};
use super::files::Files;
use super::format::{
    GROUP_HEADER, Group, KIND_RELEASE, PAYLOAD_MAX, SEGMENT_HEADER, encode_record, record_bytes,
};
use super::pool::{Pool, Spare};
use super::reader::Source;
use super::recover::{Recovered, recover};
use super::{Entry, LogConfig, LogReader, LogStats, Lsn, Recovery, Room, SegmentInfo};
use annals_core::disk::DiskFile;
use annals_core::{Disk, Error, ErrorKind, Result};
use release::Released;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// An open group longer than this is made of parts, so that none is copied to grow.
const PART_MAX: usize = 4 << 20;

/// Kept free at a segment's end: for the mark of a recovery and that of a log closed in order.
const MARKS: usize = 2 * GROUP_HEADER;

/// A durable sequence of records, written by one thread.
pub struct Log {
    files: Files,
    config: LogConfig,
    source: Arc<Source>,
    pool: Pool,
    /// The segment being written.
    active: Spare,
    /// Where the segment before it ends.
    base: Lsn,
    /// Where the open part starts in the active segment.
    written: u32,
    /// The open part: room for a group header, then records. Empty if there is none.
    part: Vec<u8>,
    /// Parts of the open group before it.
    parts: Vec<Part>,
    /// Files with parts that no sealed group is to sync.
    unsynced: Vec<Arc<dyn DiskFile>>,
    /// Whether a sealed group is on its way.
    is_committing: bool,
    /// Everything before this is durable.
    durable: Lsn,
    /// Where the segments before the active one end.
    sealed: BTreeMap<u32, u32>,
    released: Released,
    /// Whether a spare is ready for acks and topology, as of the last commit.
    is_reserve_whole: bool,
    damaged: BTreeSet<u32>,
    /// Oldest first: the two that are kept.
    snapshots: Vec<(Lsn, u64)>,
    stats: LogStats,
    failure: Option<String>,
    _lock: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.files.dir)
            .field("end", &self.end())
            .finish()
    }
}

impl Log {
    /// Locks `dir` and replays what it holds, in order, to `visit`.
    ///
    /// Fails with `Conflict` if another has the log open, `Corrupt` if nothing of it can be read.
    /// A torn end is cut; what is damaged before it is reported and kept.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        visit: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(Self, Recovery)> {
        config.check()?;
        let files = Files {
            disk,
            dir: dir.to_owned(),
        };
        let lock = files.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let message = format!("log {} is open in another process", dir.display());
                Error::new(ErrorKind::Conflict, message)
            }
            _ => Error::from(error).context(format!("log {}", dir.display())),
        })?;
        let mut found = recover(&files, &config, visit)
            .map_err(|error| error.context(format!("log {}", dir.display())))?;
        let recovery = std::mem::take(&mut found.recovery);
        let mut log = Self::resume(files, config, found, recovery.end, lock)?;
        log.pool.start()?;
        Ok((log, recovery))
    }

    fn resume(
        files: Files,
        config: LogConfig,
        found: Recovered,
        end: Lsn,
        lock: Box<dyn Send + Sync>,
    ) -> Result<Self> {
        let used = found.sealed.len() + usize::from(found.last.is_some());
        let pool = Pool::new(
            files.clone(),
            found.salt,
            &config,
            found.spares,
            used,
            found.next,
        );
        pool.set_snapshot_bytes(found.snapshots.iter().map(|(_, bytes)| bytes).sum());
        let (active, base, written) = match found.last {
            Some((last, base)) => (last, base, end.offset()),
            None => (pool.take().ok_or_else(no_room)?, end, SEGMENT_HEADER),
        };
        let source = Arc::new(Source::new(
            files.clone(),
            found.salt,
            config.tail_bytes_max,
        ));
        source.segments.write().extend(found.sealed.keys().copied());
        source.segments.write().insert(active.number);
        pool.top_up();
        Ok(Self {
            is_reserve_whole: pool.supply().ready > 0,
            durable: Lsn::new(active.number, written),
            files,
            config,
            source,
            pool,
            active,
            base,
            written,
            part: Vec::new(),
            parts: Vec::new(),
            unsynced: Vec::new(),
            is_committing: false,
            sealed: found.sealed,
            released: Released::default(),
            damaged: found.damaged,
            snapshots: found.snapshots,
            stats: LogStats::default(),
            failure: None,
            _lock: lock,
        })
    }

    /// Adds a record to the open group and returns where it will lie. `kind` is 1 to 255; the
    /// payload is `parts`, one after the other.
    ///
    /// Fails with `Unavailable` if there is no room, and adds nothing.
    pub fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Lsn> {
        if kind == KIND_RELEASE {
            return Err(Error::invalid("log record of kind 0"));
        }
        self.add(kind, parts)
    }

    /// Whether a record of so many payload bytes can be appended and leaves the reserve whole;
    /// waits for a spare that is being prepared.
    #[inline]
    pub fn has_room(&self, len: usize) -> bool {
        if self.is_reserve_whole && self.fits(record_bytes(len)) {
            return true;
        }
        self.pool.has(2)
    }

    /// Whether there is a spare beyond the reserve: after a full disk, the sign to go on. Sooner it
    /// would be full again at once.
    pub fn has_spare(&self) -> bool {
        self.pool.top_up();
        self.pool.supply().ready > 1
    }

    /// Whether spares are missing that nothing is there to make of.
    pub fn is_pressed(&self) -> bool {
        let supply = self.pool.supply();
        supply.ready + supply.coming < self.config.spare_segments as usize
    }

    /// Bytes that can be appended now, without taking more of the disk.
    pub fn room(&self) -> Room {
        self.pool.top_up();
        let ready = self.pool.supply().ready as u64;
        let each =
            u64::from(self.config.segment_bytes - SEGMENT_HEADER) - (GROUP_HEADER + MARKS) as u64;
        let used = self.written as usize + self.part.len().max(GROUP_HEADER) + MARKS;
        let left = u64::from(self.config.segment_bytes).saturating_sub(used as u64);
        match ready {
            // The reserve has been broken into.
            0 => Room {
                publish: 0,
                reserve: left,
            },
            _ => Room {
                publish: left + (ready - 1) * each,
                reserve: each,
            },
        }
    }

    /// Writes the open group and, if `durable`, makes it and all before it durable, with one sync
    /// (two where the group crosses into the next segment). An error is final: what was not
    /// committed may or may not be there at the next start, and every later call fails.
    pub fn commit(&mut self, durable: bool) -> Result<()> {
        let mut commit = self.seal(durable)?;
        commit.run();
        self.committed(commit)
    }

    /// Ends the open group, for [`Commit::run`] to do the slow part of a commit while the next group
    /// is appended. It comes back to [`Log::committed`], before anything else is sealed, released
    /// or written as a snapshot.
    pub fn seal(&mut self, durable: bool) -> Result<Commit> {
        self.check()?;
        assert!(!self.is_committing, "one group at a time is on its way");
        self.end_part(false);
        self.is_committing = true;
        let mut parts = std::mem::take(&mut self.parts);
        for part in &mut parts {
            let group = Group {
                len: part.bytes.len() as u32,
                closed: part.closed,
                // What is known now: where parts wait, more may be than when they were begun.
                durable: self.durable,
                base: part.base,
            };
            part.bytes[..GROUP_HEADER].copy_from_slice(&group.encode(self.source.salt, part.lsn));
            self.stats.bytes += part.bytes.len() as u64;
        }
        self.stats.groups += u64::from(!parts.is_empty());
        let mut syncs = Vec::new();
        if durable {
            syncs = std::mem::take(&mut self.unsynced);
            self.stats.fsyncs += syncs.len() as u64;
            self.released.sealed = std::mem::take(&mut self.released.appended);
        }
        Ok(Commit {
            source: self.source.clone(),
            parts,
            syncs,
            durable: durable.then_some(Lsn::new(self.active.number, self.written)),
            result: Ok(()),
        })
    }

    /// Takes note of how a sealed group's commit went. An error is final, as with [`Log::commit`].
    pub fn committed(&mut self, commit: Commit) -> Result<()> {
        self.is_committing = false;
        commit.result.map_err(|error| self.fail(error))?;
        if let Some(durable) = commit.durable {
            self.durable = durable;
            self.released.durable.extend(self.released.sealed.drain(..));
            self.recycle()?;
        }
        self.pool.top_up();
        self.is_reserve_whole = self.pool.supply().ready > 0;
        Ok(())
    }

    /// Bytes of the open group.
    pub fn open_bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.bytes.len());
        self.part.len() + parts.sum::<usize>()
    }

    /// A reader of what was committed.
    pub fn reader(&self) -> LogReader {
        LogReader {
            source: self.source.clone(),
        }
    }

    /// The segments that hold records, in order, without those released.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> {
        let sealed = self
            .sealed
            .iter()
            .filter(|(number, _)| !self.released.contains(**number));
        let sealed = sealed.map(|(&number, &bytes)| SegmentInfo {
            number,
            bytes,
            sealed: true,
        });
        let active = SegmentInfo {
            number: self.active.number,
            bytes: self.written + self.part.len() as u32,
            sealed: false,
        };
        sealed.chain([active])
    }

    /// What was done since the log was opened, and what it holds.
    pub fn stats(&self) -> LogStats {
        let supply = self.pool.supply();
        LogStats {
            segments: self.sealed.len() as u32 + 1,
            spares: supply.ready as u32,
            disk_bytes: supply.disk_bytes,
            ..self.stats
        }
    }

    /// Commits what is open and marks the log as closed in order, so that the next start knows
    /// that all of it was durable.
    pub fn close(mut self) -> Result<()> {
        self.commit(true)?;
        if self.written as usize + GROUP_HEADER <= self.config.segment_bytes as usize {
            self.part.resize(GROUP_HEADER, 0);
            self.end_part(true);
            self.commit(true)?;
        }
        Ok(())
    }

    /// Whether the active segment has room for so many bytes more.
    #[inline]
    fn fits(&self, bytes: usize) -> bool {
        let used = self.written as usize + self.part.len().max(GROUP_HEADER);
        used + bytes + MARKS <= self.config.segment_bytes as usize
    }

    fn end(&self) -> Lsn {
        Lsn::new(self.active.number, self.written + self.part.len() as u32)
    }

    fn check(&self) -> Result<()> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => {
                let message = format!("log stopped after a disk error: {failure}");
                Err(Error::new(ErrorKind::Closed, message))
            }
        }
    }

    /// Stops the log for good.
    fn fail(&mut self, error: io::Error) -> Error {
        tracing::error!(%error, "log stopped");
        self.failure = Some(error.to_string());
        Error::from(error).context("log")
    }

    fn add(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Lsn> {
        self.check()?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > self.config.message_bytes_max as usize {
            let max = self.config.message_bytes_max;
            return Err(Error::invalid(format!(
                "log record of {len} bytes; at most {max}"
            )));
        }
        let bytes = record_bytes(len);
        if self.part.len() + bytes > PART_MAX {
            self.end_part(false);
        }
        if !self.fits(bytes) {
            self.roll()?;
        }
        if self.part.is_empty() {
            self.part.resize(GROUP_HEADER, 0);
        }
        let lsn = self.end();
        encode_record(&mut self.part, self.source.salt, lsn, kind, parts);
        self.stats.records += 1;
        Ok(lsn)
    }

    /// Goes on in the next segment.
    fn roll(&mut self) -> Result<()> {
        let next = self.pool.take().ok_or_else(no_room)?;
        self.is_reserve_whole = self.pool.supply().ready > 0;
        self.end_part(false);
        self.base = Lsn::new(self.active.number, self.written);
        self.sealed.insert(self.active.number, self.written);
        self.source.segments.write().insert(next.number);
        self.active = next;
        self.written = SEGMENT_HEADER;
        Ok(())
    }

    /// Ends the open part, if there is one.
    fn end_part(&mut self, closed: bool) {
        if self.part.is_empty() {
            return;
        }
        let like_this = self.part.len().clamp(4096, PART_MAX);
        let bytes = std::mem::replace(&mut self.part, Vec::with_capacity(like_this));
        let len = bytes.len() as u32;
        let file = &self.active.file;
        if !self.unsynced.last().is_some_and(|f| Arc::ptr_eq(f, file)) {
            self.unsynced.push(file.clone());
        }
        self.parts.push(Part {
            file: file.clone(),
            lsn: Lsn::new(self.active.number, self.written),
            closed,
            base: self.base,
            bytes,
        });
        self.written += len;
    }
}

impl LogConfig {
    fn check(&self) -> Result<()> {
        let overhead = SEGMENT_HEADER as usize + GROUP_HEADER + record_bytes(0) + MARKS;
        let least = overhead + record_bytes(self.message_bytes_max as usize);
        if self.message_bytes_max >= PAYLOAD_MAX || (self.segment_bytes as usize) < least {
            let (segment, message) = (self.segment_bytes, self.message_bytes_max);
            return Err(Error::invalid(format!(
                "log segments of {segment} bytes cannot hold messages of {message}"
            )));
        }
        // Beside the active one, one that it takes to go on, for what is full to be released.
        let segments = u64::from(self.spare_segments) + 2;
        // One for publishes to go on in, and the reserve.
        if self.spare_segments < 2 || self.disk_bytes_max < segments * u64::from(self.segment_bytes)
        {
            return Err(Error::invalid(format!(
                "log of at most {} bytes cannot hold {segments} segments",
                self.disk_bytes_max
            )));
        }
        Ok(())
    }
}

fn no_room() -> Error {
    Error::new(ErrorKind::Unavailable, "no room on the disk for the log")
}
