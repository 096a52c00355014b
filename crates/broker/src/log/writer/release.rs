//! Keeping a log short: snapshots, released segments, and what may be recycled when.

use super::super::format::KIND_RELEASE;
use super::super::{Lsn, snapshot};
use super::{Log, no_room};
use annals_core::{Error, Result};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Released segments on their way out.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// Their release is in the open group.
    pub(super) appended: Vec<u32>,
    /// Their release is in the group on its way.
    pub(super) sealed: Vec<u32>,
    /// Their release is durable.
    pub(super) durable: BTreeSet<u32>,
}

impl Released {
    pub(super) fn contains(&self, number: u32) -> bool {
        self.appended.contains(&number)
            || self.sealed.contains(&number)
            || self.durable.contains(&number)
    }
}

impl Log {
    /// Stores the state as of the last commit; records before it are not replayed again.
    ///
    /// On a full disk the older snapshot makes way for it, and a spare, if segments wait for
    /// nothing but a snapshot. Fails with `Unavailable`, and changes nothing else, if the disk has
    /// no room even so.
    pub fn write_snapshot(&mut self, state: &[u8]) -> Result<()> {
        self.check()?;
        let position = self.sync()?;
        let used: Vec<u32> = self.segments().map(|segment| segment.number).collect();
        let (files, salt) = (self.files.clone(), self.source.salt);
        let write = || snapshot::write(&files, salt, position, &used, state);
        let mut written = write();
        if is_refused(&written) && self.snapshots.len() > 1 {
            self.forget_oldest_snapshot()?;
            written = write();
        }
        if is_refused(&written) {
            let waiting = self.released.durable.range(..position.segment());
            let give_up = waiting
                .copied()
                .any(|number| !self.damaged.contains(&number));
            written = self.pool.with_space(give_up, write);
            self.is_reserve_whole = self.pool.supply().ready > 0;
        }
        match written {
            Ok(bytes) => {
                // At the place of the newest it has replaced that.
                self.snapshots.retain(|(at, _)| *at != position);
                self.snapshots.push((position, bytes));
            }
            Err(error) if is_full(&error) => return Err(no_room().caused_by(error)),
            Err(error) => return Err(self.fail(error)),
        }
        while self.snapshots.len() > 2 {
            self.forget_oldest_snapshot()?;
        }
        self.count_snapshots();
        self.stats.snapshots += 1;
        self.recycle()
    }

    /// Tells that no record of `segment` is needed any more. It is recycled once that is durable
    /// and it lies before the kept snapshots; before the newest only, where the disk is short of
    /// room. A damaged segment is kept. Doing so twice is no error.
    pub fn release(&mut self, segment: u32) -> Result<()> {
        self.check()?;
        if segment >= self.active.number {
            return Err(Error::invalid(format!(
                "log segment {segment} is not sealed"
            )));
        }
        if self.sealed.contains_key(&segment) && !self.released.contains(segment) {
            self.add(KIND_RELEASE, &[&segment.to_le_bytes()])?;
            self.released.appended.push(segment);
        }
        Ok(())
    }

    /// Makes all that was committed durable; where it ends.
    fn sync(&mut self) -> Result<Lsn> {
        assert!(!self.is_committing, "its group is on its way");
        let end = match self.parts.first() {
            Some(part) => part.lsn,
            None => Lsn::new(self.active.number, self.written),
        };
        for file in &self.unsynced {
            if let Err(error) = file.sync_data() {
                return Err(self.fail(error));
            }
            self.stats.fsyncs += 1;
        }
        let open = &self.parts;
        self.unsynced
            .retain(|file| open.iter().any(|part| Arc::ptr_eq(&part.file, file)));
        self.durable = end;
        Ok(end)
    }

    fn forget_oldest_snapshot(&mut self) -> Result<()> {
        let (oldest, _) = self.snapshots.remove(0);
        let removed = self.files.disk.remove(&self.files.snapshot(oldest));
        self.count_snapshots();
        removed.map_err(|error| self.fail(error))
    }

    fn count_snapshots(&self) {
        let bytes = self.snapshots.iter().map(|(_, bytes)| bytes).sum();
        self.pool.set_snapshot_bytes(bytes);
    }

    /// Gives released segments back that no kept snapshot needs to be followed by.
    pub(super) fn recycle(&mut self) -> Result<()> {
        let Some((newest, _)) = self.snapshots.last() else {
            return Ok(());
        };
        let older = self
            .snapshots
            .iter()
            .rev()
            .nth(1)
            .map_or(0, |(older, _)| older.segment());
        let horizon = match self.is_pressed() {
            true => newest.segment(),
            false => older,
        };
        self.damaged.extend(self.source.damaged.lock().iter());
        let gone = |number: &&u32| !self.damaged.contains(number);
        let gone: Vec<u32> = self
            .released
            .durable
            .range(..horizon)
            .filter(gone)
            .copied()
            .collect();
        for number in gone {
            self.released.durable.remove(&number);
            self.sealed.remove(&number);
            self.source.forget(number);
            self.stats.released += 1;
            self.pool
                .recycle(number)
                .map_err(|error| self.fail(error))?;
        }
        Ok(())
    }
}

fn is_refused<T>(written: &io::Result<T>) -> bool {
    written.as_ref().is_err_and(is_full)
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as Io;
    matches!(
        error.kind(),
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge
    )
}
