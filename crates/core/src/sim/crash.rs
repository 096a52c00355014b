//! What survives a crash: the model of durability behind [`SimDisk`](super::SimDisk).
//!
//! A change to a file is settled by a sync of the file, a name by a sync of every directory it
//! lies in. Until then it is loose: any subset of the loose changes, writes torn at sector
//! boundaries, may be found after the crash.

use super::SimRandom;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The unit that is written whole or not at all.
const SECTOR: usize = 512;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    File(usize),
    Dir,
}

/// One recorded step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Data(usize, Change),
    /// Whether it succeeded.
    Sync(usize, bool),
    Name(NameChange),
    SyncDir(PathBuf),
}

/// A change to a file's content.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(usize, Arc<[u8]>),
    SetLen(usize),
}

/// A change to names.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Put(PathBuf, Node),
    Move(PathBuf, PathBuf, Node),
    Drop(PathBuf, Node),
}

impl Change {
    /// Makes the whole change.
    pub(super) fn apply(&self, file: &mut Arc<Vec<u8>>) {
        match self {
            Self::Write(offset, bytes) => write(Arc::make_mut(file), *offset, bytes),
            Self::SetLen(len) => Arc::make_mut(file).resize(*len, 0),
        }
    }

    /// Makes the change to some of the sectors it touches.
    fn tear(&self, file: &mut Arc<Vec<u8>>, random: &SimRandom) {
        let Self::Write(offset, bytes) = self else {
            return;
        };
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min(from + SECTOR - (offset + from) % SECTOR);
            if random.one_in(2) {
                write(Arc::make_mut(file), offset + from, &bytes[from..to]);
            }
            from = to;
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Put(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Move(from, to, node) => {
                remove(names, from, *node);
                names.insert(to.clone(), *node);
            }
            Self::Drop(path, node) => remove(names, path, *node),
        }
    }

    /// The directories whose sync settles it.
    fn dirs(&self) -> Vec<PathBuf> {
        let parent = |path: &Path| path.parent().map(Path::to_owned);
        let mut dirs: Vec<_> = match self {
            Self::Put(path, _) | Self::Drop(path, _) => parent(path).into_iter().collect(),
            Self::Move(from, to, _) => parent(from).into_iter().chain(parent(to)).collect(),
        };
        dirs.dedup();
        dirs
    }
}

/// Removes a name if it still stands for `node`: with changes in between dropped it may not.
fn remove(names: &mut BTreeMap<PathBuf, Node>, path: &Path, node: Node) {
    if names.get(path) == Some(&node) {
        names.remove(path);
    }
}

/// What is settled, and what is loose.
#[derive(Debug, Clone, Default)]
pub(super) struct Survivor {
    files: Vec<(Arc<Vec<u8>>, Vec<Change>)>,
    names: BTreeMap<PathBuf, Node>,
    loose: Vec<(NameChange, Vec<PathBuf>)>,
}

impl Survivor {
    /// Everything settled.
    pub(super) fn new(files: &[Arc<Vec<u8>>], names: &BTreeMap<PathBuf, Node>) -> Self {
        let files = files
            .iter()
            .map(|file| (file.clone(), Vec::new()))
            .collect();
        Self {
            files,
            names: names.clone(),
            loose: Vec::new(),
        }
    }

    /// Takes the next step, the `index`-th.
    pub(super) fn apply(&mut self, index: u64, step: &Step) {
        match step {
            Step::Data(node, change) => self.file(*node).1.push(change.clone()),
            Step::Sync(node, ok) => self.settle(*node, *ok, &SimRandom::new(index)),
            Step::Name(change) => {
                if let NameChange::Put(_, Node::File(node)) = change {
                    self.file(*node);
                }
                self.loose.push((change.clone(), change.dirs()));
            }
            Step::SyncDir(dir) => self.settle_names(dir),
        }
    }

    fn file(&mut self, node: usize) -> &mut (Arc<Vec<u8>>, Vec<Change>) {
        if self.files.len() <= node {
            self.files.resize_with(node + 1, Default::default);
        }
        &mut self.files[node]
    }

    /// A failed sync loses some changes for good: the system takes their pages for written.
    fn settle(&mut self, node: usize, ok: bool, random: &SimRandom) {
        let (settled, loose) = self.file(node);
        for change in loose.drain(..) {
            if ok || random.one_in(2) {
                change.apply(settled);
            }
        }
    }

    fn settle_names(&mut self, dir: &Path) {
        let names = &mut self.names;
        self.loose.retain_mut(|(change, dirs)| {
            dirs.retain(|d| d != dir);
            if dirs.is_empty() {
                change.apply(names);
            }
            !dirs.is_empty()
        });
    }

    /// One legal state after a crash: 0 keeps nothing loose, 1 everything, others as chosen.
    pub(super) fn image(
        &self,
        seed: u64,
        number: u64,
    ) -> (Vec<Arc<Vec<u8>>>, BTreeMap<PathBuf, Node>) {
        let random = SimRandom::new(seed.wrapping_mul(0x5851_F42D_4C95_7F2D) ^ number);
        // Most crashes keep a mix; some lean to one side, where rare combinations are found.
        let lean = 1 + random.below(4);
        let keep = |random: &SimRandom| match number {
            0 => false,
            1 => true,
            _ if number.is_multiple_of(2) => random.one_in(lean),
            _ => !random.one_in(lean + 1),
        };
        let files = self.files.iter().map(|(settled, loose)| {
            let mut file = settled.clone();
            for change in loose {
                if number > 1 && random.one_in(3) {
                    change.tear(&mut file, &random);
                } else if keep(&random) {
                    change.apply(&mut file);
                }
            }
            file
        });
        let files = files.collect();
        let mut names = self.names.clone();
        for (change, _) in &self.loose {
            if keep(&random) {
                change.apply(&mut names);
            }
        }
        (files, reachable(names))
    }
}

/// Drops names whose directory is not there.
fn reachable(mut names: BTreeMap<PathBuf, Node>) -> BTreeMap<PathBuf, Node> {
    // Parents sort before what they hold.
    let mut dirs: Vec<PathBuf> = Vec::new();
    names.retain(|path, node| {
        let held = path
            .parent()
            .is_none_or(|parent| dirs.iter().any(|d| d == parent));
        if held && *node == Node::Dir {
            dirs.push(path.clone());
        }
        held
    });
    names
}
