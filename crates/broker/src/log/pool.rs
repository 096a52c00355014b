//! Spare segments: prepared ahead of the writer, from released ones or new.
//!
//! A segment gets its name `NNNNNNNNNN.seg` only when its bytes are there, its header is written
//! and both are synced; so a segment with a bad header is a damaged one, never an unfinished one.

use super::LogConfig;
use super::files::Files;
use super::format::{SEGMENT_HEADER, Salt, segment_header};
use annals_core::disk::{Access, DiskFile};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Zeros are written and synced in steps, so that a group's sync never waits for a whole segment.
const ZEROS: usize = 1 << 20;
const SYNC_EVERY: usize = 8 << 20;
/// How long the preparing thread waits before it asks a full disk again: longer each time, since
/// asking fills the disk for a moment.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(4);

/// A segment ready to be written.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) number: u32,
    pub(super) file: Arc<dyn DiskFile>,
}

/// The spares of a log, and who prepares them.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    salt: Salt,
    segment_bytes: u32,
    /// Spares wanted.
    target: usize,
    disk_bytes_max: u64,
    background: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Spare>,
    /// Files that can be recycled.
    free: Vec<PathBuf>,
    /// Number of the next spare.
    next: u32,
    /// Bytes of disk taken by segments, in use or not.
    segment_bytes: u64,
    /// Bytes of disk taken by snapshots.
    snapshot_bytes: u64,
    /// Whether a spare is being prepared.
    busy: bool,
    /// Why the last preparation failed, until one succeeds.
    failure: Option<String>,
    /// Nothing is prepared for now: another needs the space.
    paused: bool,
    stopping: bool,
}

/// What the pool can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Supply {
    /// Spares that are ready.
    pub(super) ready: usize,
    /// Spares that will be, if the disk holds what it promises.
    pub(super) coming: usize,
    /// Bytes of disk taken, snapshots included.
    pub(super) disk_bytes: u64,
}

impl Pool {
    /// A pool of the segments in `free`; `used` segments hold records. The next spare is `next`.
    pub(super) fn new(
        files: Files,
        salt: Salt,
        config: &LogConfig,
        (ready, free): (Vec<Spare>, Vec<PathBuf>),
        used: usize,
        next: u32,
    ) -> Self {
        let segments = (used + ready.len() + free.len()) as u64;
        let state = State {
            ready: ready.into(),
            free,
            next,
            segment_bytes: segments * u64::from(config.segment_bytes),
            snapshot_bytes: 0,
            busy: false,
            failure: None,
            paused: false,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            files,
            salt,
            segment_bytes: config.segment_bytes,
            target: config.spare_segments as usize,
            disk_bytes_max: config.disk_bytes_max,
            background: config.background,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        Self {
            shared,
            thread: None,
        }
    }

    /// Starts preparing in the background, if the log is to do so.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.shared.background {
            let shared = self.shared.clone();
            let named = std::thread::Builder::new().name("annals-log-spares".into());
            self.thread = Some(named.spawn(move || shared.run())?);
        }
        Ok(())
    }

    /// The next spare; waits for it if it is being prepared. `None` if the disk has no room.
    pub(super) fn take(&self) -> Option<Spare> {
        let mut state = self.shared.state.lock();
        if !self.wait_for(&mut state, 1) {
            return None;
        }
        let spare = state.ready.pop_front();
        self.shared.changed.notify_all();
        spare
    }

    /// Whether so many spares are ready; waits for those that are being prepared.
    pub(super) fn has(&self, count: usize) -> bool {
        self.wait_for(&mut self.shared.state.lock(), count)
    }

    fn wait_for(&self, state: &mut MutexGuard<'_, State>, count: usize) -> bool {
        while state.ready.len() < count {
            if self.thread.is_none() {
                if !self.shared.wanted(state) || !self.shared.prepare(state) {
                    return false;
                }
            } else if state.failure.is_some() || (!state.busy && !self.shared.wanted(state)) {
                return false;
            } else {
                self.shared.changed.wait(state);
            }
        }
        true
    }

    /// Runs `work` while nothing is prepared; if `give_up`, a spare is removed first, so that the
    /// disk has its space.
    pub(super) fn with_space<T>(
        &self,
        give_up: bool,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.shared.state.lock();
        state.paused = true;
        while state.busy {
            self.shared.changed.wait(&mut state);
        }
        let freed = if give_up {
            self.shared.give_up(&mut state)
        } else {
            Ok(())
        };
        drop(state);
        let worked = freed.and_then(|()| work());
        self.shared.state.lock().paused = false;
        self.shared.changed.notify_all();
        worked
    }

    /// Prepares spares now, if no thread does.
    pub(super) fn top_up(&self) {
        if !self.shared.background {
            let mut state = self.shared.state.lock();
            while self.shared.wanted(&state) && self.shared.prepare(&mut state) {}
        }
    }

    /// Gives back a segment that holds nothing of use.
    pub(super) fn recycle(&self, number: u32) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        // There is something to make a spare of now: who asks waits for it.
        state.failure = None;
        if state.free.len() < self.shared.target {
            state.free.push(self.shared.files.segment(number));
            self.shared.changed.notify_all();
            return Ok(());
        }
        // More than the writer needs soon: the disk gets it back.
        self.shared
            .files
            .disk
            .remove(&self.shared.files.segment(number))?;
        state.segment_bytes -= u64::from(self.shared.segment_bytes);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Tells how much of the disk the snapshots take.
    pub(super) fn set_snapshot_bytes(&self, bytes: u64) {
        self.shared.state.lock().snapshot_bytes = bytes;
    }

    pub(super) fn supply(&self) -> Supply {
        let state = self.shared.state.lock();
        let missing = self.shared.target.saturating_sub(state.ready.len());
        let possible = (self.shared.allowance(&state) / u64::from(self.shared.segment_bytes))
            as usize
            + state.free.len()
            + usize::from(state.busy);
        let coming = if state.failure.is_some() {
            0
        } else {
            missing.min(possible)
        };
        let disk_bytes = state.segment_bytes + state.snapshot_bytes;
        Supply {
            ready: state.ready.len(),
            coming,
            disk_bytes,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        let mut retry = RETRY_MIN;
        while !state.stopping {
            if !self.wanted(&state) {
                self.changed.wait(&mut state);
            } else if self.prepare_unlocked(&mut state) {
                retry = RETRY_MIN;
            } else if !state.stopping {
                self.changed.wait_for(&mut state, retry);
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }

    /// Whether a spare is missing and there is something to make it of.
    fn wanted(&self, state: &State) -> bool {
        let possible =
            !state.free.is_empty() || self.allowance(state) >= u64::from(self.segment_bytes);
        state.ready.len() < self.target && possible && !state.paused
    }

    /// Removes a file that holds nothing of use, if there is one.
    fn give_up(&self, state: &mut State) -> io::Result<()> {
        let path = match (state.free.pop(), &mut state.ready) {
            (Some(path), _) => path,
            (None, ready) => match ready.pop_back() {
                Some(spare) => self.files.segment(spare.number),
                None => return Ok(()),
            },
        };
        self.files.disk.remove(&path)?;
        state.segment_bytes -= u64::from(self.segment_bytes);
        Ok(())
    }

    /// Bytes of disk that may still be taken.
    fn allowance(&self, state: &State) -> u64 {
        self.disk_bytes_max
            .saturating_sub(state.segment_bytes + state.snapshot_bytes)
    }

    fn prepare(&self, state: &mut State) -> bool {
        let (number, from) = self.plan(state);
        let made = self.make(number, from.as_deref());
        self.finish(state, number, made)
    }

    /// The same, while others may use the state.
    fn prepare_unlocked(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let (number, from) = self.plan(state);
        let made = MutexGuard::unlocked(state, || self.make(number, from.as_deref()));
        self.finish(state, number, made)
    }

    fn plan(&self, state: &mut State) -> (u32, Option<PathBuf>) {
        let number = state.next;
        let from = state.free.pop();
        state.next += 1;
        state.busy = true;
        if from.is_none() {
            state.segment_bytes += u64::from(self.segment_bytes);
        }
        (number, from)
    }

    fn finish(&self, state: &mut State, number: u32, made: io::Result<Arc<dyn DiskFile>>) -> bool {
        state.busy = false;
        let ok = made.is_ok();
        match made {
            Ok(file) => {
                state.ready.push_back(Spare { number, file });
                state.failure = None;
            }
            Err(error) => {
                tracing::warn!(number, %error, "no spare segment");
                state.segment_bytes -= u64::from(self.segment_bytes);
                state.failure = Some(error.to_string());
            }
        }
        self.changed.notify_all();
        ok
    }

    fn make(&self, number: u32, from: Option<&Path>) -> io::Result<Arc<dyn DiskFile>> {
        let made = match from {
            Some(old) => self.rewrite(number, old),
            None => self.create(number),
        };
        if made.is_err() {
            // Whatever it is, it is not a segment; the next start would remove it too.
            let _ = self.files.disk.remove(&self.files.unfinished(number));
        }
        made
    }

    /// A new segment of zeros.
    fn create(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.files.disk.create(&self.files.unfinished(number))?;
        let length = self.segment_bytes as usize;
        let zeros = vec![0; ZEROS.min(length)];
        for offset in (0..length).step_by(ZEROS) {
            let len = ZEROS.min(length - offset);
            file.write_all_at(&zeros[..len], offset as u64)?;
            if (offset + len).is_multiple_of(SYNC_EVERY) {
                file.sync_data()?;
            }
        }
        self.name(number, &*file)?;
        Ok(file)
    }

    /// A released segment under a new number. Its old bytes stay: no checksum holds for them.
    fn rewrite(&self, number: u32, old: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let aside = self.files.unfinished(number);
        self.files.disk.rename(old, &aside)?;
        // Only then may the header change: under the old name it would be damage.
        self.files.sync()?;
        let file = self.files.disk.open(&aside, Access::ReadWrite)?;
        self.name(number, &*file)?;
        Ok(file)
    }

    fn name(&self, number: u32, file: &dyn DiskFile) -> io::Result<()> {
        let header = segment_header(number, self.segment_bytes, self.salt);
        debug_assert_eq!(header.len(), SEGMENT_HEADER as usize);
        file.write_all_at(&header, 0)?;
        file.sync_data()?;
        let (from, to) = (self.files.unfinished(number), self.files.segment(number));
        self.files.disk.rename(&from, &to)?;
        self.files.sync()
    }
}
