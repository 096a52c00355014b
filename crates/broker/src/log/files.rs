//! The log's directory: which names there are, and what they stand for.

use super::Lsn;
use annals_core::Disk;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of a log.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
}

/// What a log's directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: BTreeSet<u32>,
    /// Their positions and lengths.
    pub(super) snapshots: Vec<(Lsn, u64)>,
    /// Segments once found damaged.
    pub(super) damaged: BTreeSet<u32>,
    /// Left by an interrupted preparation.
    pub(super) unfinished: Vec<PathBuf>,
}

impl Files {
    pub(super) fn segment(&self, number: u32) -> PathBuf {
        self.dir.join(segment_name(number))
    }

    /// Where a segment is prepared before it gets its name.
    pub(super) fn unfinished(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}.tmp"))
    }

    /// Marks the segment as damaged, for ever.
    pub(super) fn damaged(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:010}.damaged"))
    }

    pub(super) fn snapshot(&self, at: Lsn) -> PathBuf {
        self.dir.join(snapshot_name(at))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.dir)
    }

    /// Creates the directory, durably, and takes its lock.
    pub(super) fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let missing = |dir: &&Path| self.disk.list(dir).is_err();
        let ancestors = self
            .dir
            .ancestors()
            .filter(|dir| !dir.as_os_str().is_empty());
        let created: Vec<_> = ancestors.take_while(missing).collect();
        self.disk.create_dir_all(&self.dir)?;
        for parent in created.iter().rev().filter_map(|dir| dir.parent()) {
            let here = parent.as_os_str().is_empty();
            self.disk
                .sync_dir(if here { Path::new(".") } else { parent })?;
        }
        self.disk.lock(&self.dir.join("lock"))
    }

    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in self.disk.list(&self.dir)? {
            let name = entry
                .path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Some((stem, extension)) = name.split_once('.') else {
                continue;
            };
            match (extension, stem.parse(), u64::from_str_radix(stem, 16)) {
                ("seg", Ok(number), _) if number > 0 => {
                    listing.segments.insert(number);
                }
                ("damaged", Ok(number), _) => {
                    listing.damaged.insert(number);
                }
                ("snapshot", _, Ok(at)) => listing.snapshots.push((Lsn(at), entry.len)),
                ("tmp", ..) => listing.unfinished.push(entry.path),
                _ => {}
            }
        }
        listing.snapshots.sort_unstable();
        Ok(listing)
    }
}

pub(super) fn segment_name(number: u32) -> String {
    format!("{number:010}.seg")
}

pub(super) fn snapshot_name(at: Lsn) -> String {
    format!("{:016x}.snapshot", at.0)
}
