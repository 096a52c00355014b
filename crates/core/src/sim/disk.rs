//! [`SimDisk`]: files in memory, every change recorded.

use super::SimRandom;
use super::crash::{Change, NameChange, Node, Step, Survivor};
use crate::Random;
use crate::disk::{Access, DirEntry, Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A disk in memory that records every change, fails on command, and tells what a crash at any
/// point could have left. A clone is the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// An operation that [`SimDisk::fail`] can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimOp {
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::write_all_at`]; half of the bytes are written all the same.
    Write,
    /// [`DiskFile::set_len`].
    SetLen,
    /// [`DiskFile::sync_data`]; of what was not yet durable some is lost for good, though readers
    /// still see it until the crash, and no later sync brings it back.
    Sync,
    /// [`Disk::open`] and [`Disk::create`].
    Open,
    /// [`Disk::rename`], [`Disk::hard_link`] and [`Disk::remove`].
    Name,
    /// [`Disk::sync_dir`].
    SyncDir,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Arc<Vec<u8>>>,
    names: BTreeMap<PathBuf, Node>,
    history: Vec<Step>,
    /// What would survive a crash after the first `replayed` steps.
    survivor: Survivor,
    replayed: usize,
    /// The same before the first step.
    origin: Survivor,
    faults: BTreeMap<SimOp, Vec<(u64, io::ErrorKind)>>,
    space: Option<u64>,
    locks: BTreeSet<PathBuf>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk; the directory `/` exists.
    pub fn new() -> Self {
        Self::holding(
            Vec::new(),
            BTreeMap::from([(PathBuf::from("/"), Node::Dir)]),
        )
    }

    fn holding(files: Vec<Arc<Vec<u8>>>, names: BTreeMap<PathBuf, Node>) -> Self {
        let origin = Survivor::new(&files, &names);
        let survivor = origin.clone();
        Self(Arc::new(Mutex::new(State {
            files,
            names,
            origin,
            survivor,
            ..State::default()
        })))
    }

    /// How many changes and syncs were recorded so far.
    pub fn steps(&self) -> usize {
        self.state().history.len()
    }

    /// `n` disks that a crash after the first `step` steps could have left: the one with nothing
    /// kept that was not synced, the one with everything kept, and `n - 2` chosen by `seed`, where
    /// un-synced writes are kept, dropped or torn at 512 bytes in any combination, and so are
    /// un-synced names. Cheapest when called with ascending steps.
    pub fn crash_images(&self, step: usize, seed: u64, n: usize) -> Vec<Self> {
        let mut state = self.state();
        let state = &mut *state;
        if step < state.replayed {
            (state.survivor, state.replayed) = (state.origin.clone(), 0);
        }
        for index in state.replayed..step.min(state.history.len()) {
            state.survivor.apply(index as u64, &state.history[index]);
            state.replayed = index + 1;
        }
        let image = |i| {
            // Every step draws anew: with one draw for all, the same few changes would be dropped.
            let drawn = SimRandom::new(seed ^ (step as u64).rotate_left(32)).next_u64();
            let (files, names) = state.survivor.image(drawn, i);
            Self::holding(files, names)
        };
        (0..n as u64).map(image).collect()
    }

    /// Makes the `nth` coming `op` fail once (1 is the next).
    pub fn fail(&self, op: SimOp, nth: u64, error: io::ErrorKind) {
        self.state()
            .faults
            .entry(op)
            .or_default()
            .push((nth, error));
    }

    /// Bounds the sum of all file lengths; growth beyond it fails with `StorageFull`.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state().space = bytes;
    }

    /// A file's content, if there is such a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.names.get(path) {
            Some(Node::File(node)) => Some(state.files[*node].to_vec()),
            _ => None,
        }
    }

    /// Changes a file's content behind the back of whoever uses it, as failing hardware does.
    /// Not recorded: meant for a disk that is opened next.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let Some(Node::File(node)) = state.names.get(path).copied() else {
            panic!("no file {} to damage", path.display());
        };
        change(Arc::make_mut(&mut state.files[node]));
    }

    /// A copy of the disk as its users see it now.
    pub fn snapshot(&self) -> Self {
        let state = self.state();
        Self::holding(state.files.clone(), state.names.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, node: usize, access: Access) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            node,
            access,
        })
    }
}

impl State {
    /// Fails if this is the operation that was told to.
    fn check(&mut self, op: SimOp) -> io::Result<()> {
        let Some(faults) = self.faults.get_mut(&op) else {
            return Ok(());
        };
        let mut due = None;
        faults.retain_mut(|(nth, error)| {
            *nth -= 1;
            if *nth == 0 {
                due = Some(*error);
            }
            *nth > 0
        });
        due.map_or(Ok(()), |error| Err(io::Error::new(error, "told to fail")))
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(node)) => Ok(*node),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<PathBuf> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        match self.names.get(parent) {
            Some(Node::Dir) => Ok(parent.to_owned()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives `path`, which must be free, to `node`.
    fn put(&mut self, path: &Path, node: Node) -> io::Result<()> {
        self.parent(path)?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.names.insert(path.to_owned(), node);
        self.history
            .push(Step::Name(NameChange::Put(path.to_owned(), node)));
        Ok(())
    }

    /// How far a file may grow.
    fn room(&self, node: usize) -> usize {
        let Some(space) = self.space else {
            return usize::MAX;
        };
        let named: BTreeSet<_> = self.names.values().collect();
        let used = |i: &usize| {
            if named.contains(&Node::File(*i)) {
                self.files[*i].len()
            } else {
                0
            }
        };
        let others: usize = (0..self.files.len())
            .filter(|i| *i != node)
            .map(|i| used(&i))
            .sum();
        (space as usize).saturating_sub(others)
    }

    fn change(&mut self, node: usize, change: Change) {
        change.apply(&mut self.files[node]);
        self.history.push(Step::Data(node, change));
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.check(SimOp::Open)?;
        let node = state.file(path)?;
        Ok(self.handle(node, access))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.check(SimOp::Open)?;
        let node = state.files.len();
        state.put(path, Node::File(node))?;
        state.files.push(Arc::default());
        Ok(self.handle(node, Access::ReadWrite))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let chain: Vec<_> = path
            .ancestors()
            .filter(|p| !p.as_os_str().is_empty())
            .collect();
        for dir in chain.into_iter().rev() {
            match state.names.get(dir) {
                Some(Node::Dir) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => state.put(dir, Node::Dir)?,
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(SimOp::Name)?;
        let node = state.file(from)?;
        state.parent(to)?;
        if state.names.get(to) == Some(&Node::Dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.names.remove(from);
        state.names.insert(to.to_owned(), Node::File(node));
        let change = NameChange::Move(from.to_owned(), to.to_owned(), Node::File(node));
        state.history.push(Step::Name(change));
        Ok(())
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(SimOp::Name)?;
        let node = state.file(existing)?;
        state.put(new, Node::File(node))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(SimOp::Name)?;
        let node = state.file(path)?;
        state.names.remove(path);
        let change = NameChange::Drop(path.to_owned(), Node::File(node));
        state.history.push(Step::Name(change));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        match state.names.get(dir) {
            Some(Node::Dir) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let inside = state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, node): (&PathBuf, &Node)| DirEntry {
            path: path.clone(),
            is_dir: *node == Node::Dir,
            len: match node {
                Node::File(node) => state.files[*node].len() as u64,
                Node::Dir => 0,
            },
        };
        Ok(inside.map(entry).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(SimOp::SyncDir)?;
        match state.names.get(dir) {
            Some(Node::Dir) => state.history.push(Step::SyncDir(dir.to_owned())),
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        state.parent(path)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(self.clone(), path.to_owned())))
    }
}

struct Lock(SimDisk, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: usize,
    access: Access,
}

impl SimFile {
    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.access {
            Access::ReadWrite => Ok(self.disk.state()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.check(SimOp::Read)?;
        let file = &state.files[self.node];
        let from = usize::try_from(offset).map_or(file.len(), |o| o.min(file.len()));
        let n = buffer.len().min(file.len() - from);
        buffer[..n].copy_from_slice(&file[from..from + n]);
        Ok(n)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        let offset = offset as usize;
        let failure = state.check(SimOp::Write).err();
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let fits = state
            .room(self.node)
            .max(state.files[self.node].len())
            .saturating_sub(offset);
        let (n, failure) = match failure {
            Some(error) => (bytes.len() / 2, Some(error)),
            None if fits < bytes.len() => (fits, Some(full)),
            None => (bytes.len(), None),
        };
        if n > 0 {
            state.change(self.node, Change::Write(offset, bytes[..n].into()));
        }
        failure.map_or(Ok(()), Err)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.check(SimOp::Sync);
        state.history.push(Step::Sync(self.node, outcome.is_ok()));
        outcome
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.node].len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        state.check(SimOp::SetLen)?;
        let len = len as usize;
        if len > state.files[self.node].len() && len > state.room(self.node) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.change(self.node, Change::SetLen(len));
        Ok(())
    }
}
