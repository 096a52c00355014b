//! A directory as a bucket, over the injected [`Disk`].
//!
//! An object is written to a temporary file and synced, then given its name by `hard_link`, which
//! fails if the name is taken: create-only and never partial. Then the directories up to the root
//! are synced. A sync that fails stops the bucket for good (the kernel may have dropped the pages
//! and would answer the next sync with success): every later write fails until the process starts
//! again and looks at what is there.
//!
//! Several processes may share a directory: each holds the lock of a temporary directory of its
//! own, and empties it of what a dead owner left.

use super::{Bucket, Created, Entry, LIST_MAX, TEMPORARY, check_folder, check_name};
use annals_core::disk::{Access, DiskFile};
use annals_core::{Disk, Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most processes that write to one directory.
const OWNERS_MAX: u32 = 1000;
/// Directories remembered as durable; forgotten together, so that they stay few.
const KNOWN_DIRS_MAX: usize = 10_000;

/// A directory as a [`Bucket`]. Cheap to clone; clones share the temporary directory.
#[derive(Clone)]
pub struct DirectoryBucket {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    temporary: Mutex<Option<Temporary>>,
    next: AtomicU64,
    /// Directories whose own names are durable, up to the root.
    known_dirs: Mutex<HashSet<PathBuf>>,
    stopped: AtomicBool,
}

/// A temporary directory of our own, as long as the lock is held.
struct Temporary {
    dir: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl DirectoryBucket {
    /// Takes a directory; makes it, durably, if it is not there.
    pub fn open(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        disk.create_dir_all(&root).map_err(|e| at(&root, e))?;
        sync_all(&*disk, &root)?;
        let inner = Inner {
            disk,
            root,
            temporary: Mutex::default(),
            next: AtomicU64::new(0),
            known_dirs: Mutex::default(),
            stopped: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Runs blocking file work off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "file work panicked").caused_by(e))?
    }
}

impl fmt::Debug for DirectoryBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirectoryBucket")
            .field(&self.inner.root)
            .finish()
    }
}

#[async_trait]
impl Bucket for DirectoryBucket {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        check_name(name)?;
        let path = self.inner.root.join(name);
        self.run(move |inner| inner.create(&path, &bytes)).await
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        check_name(name)?;
        let path = self.inner.root.join(name);
        self.run(move |inner| inner.put(&path, &bytes)).await
    }

    async fn get(&self, name: &str) -> Result<Bytes> {
        check_name(name)?;
        let path = self.inner.root.join(name);
        self.run(move |inner| {
            let file = inner.open(&path)?;
            let len = file.len().map_err(|e| at(&path, e))?;
            read(&*file, &path, 0..len)
        })
        .await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        check_name(name)?;
        let path = self.inner.root.join(name);
        self.run(move |inner| read(&*inner.open(&path)?, &path, range))
            .await
    }

    async fn head(&self, name: &str) -> Result<Option<u64>> {
        check_name(name)?;
        let path = self.inner.root.join(name);
        self.run(move |inner| match inner.open(&path) {
            Ok(file) => Ok(Some(file.len().map_err(|e| at(&path, e))?)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>> {
        check_folder(folder)?;
        let (folder, after) = (folder.to_owned(), after.map(str::to_owned));
        self.run(move |inner| {
            let mut found = Vec::new();
            inner.walk(&folder, after.as_deref(), &mut found)?;
            Ok(found)
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let path = self.inner.root.join(name);
        self.run(move |inner| {
            inner.check_running()?;
            match inner.disk.remove(&path) {
                Ok(()) => inner.sync_dir(parent(&path)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(at(&path, e)),
            }
        })
        .await
    }
}

impl Inner {
    fn create(&self, path: &Path, bytes: &[u8]) -> Result<Created> {
        self.make_parents(path)?;
        let temporary = self.write_temporary(bytes)?;
        let linked = self.disk.hard_link(&temporary, path);
        // Failing to remove it costs space until the next start, nothing else.
        let _ = self.disk.remove(&temporary);
        let created = match linked {
            Ok(()) => Created::Created,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Created::AlreadyExists,
            Err(e) => return Err(at(path, e)),
        };
        // Also where it existed: whoever made it may not have come to this yet.
        self.sync_dirs(path)?;
        Ok(created)
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.make_parents(path)?;
        let temporary = self.write_temporary(bytes)?;
        if let Err(e) = self.disk.rename(&temporary, path) {
            let _ = self.disk.remove(&temporary);
            return Err(at(path, e));
        }
        self.sync_dirs(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        self.disk
            .open(path, Access::Read)
            .map_err(|e| match e.kind() {
                // A component of the name is a file, so that nothing can lie below it.
                io::ErrorKind::NotADirectory => not_found(path).caused_by(e),
                io::ErrorKind::NotFound => not_found(path),
                _ => at(path, e),
            })
    }

    /// Writes and syncs a temporary file; removes it if that fails.
    fn write_temporary(&self, bytes: &[u8]) -> Result<PathBuf> {
        self.check_running()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.temporary_dir()?.join(number.to_string());
        let file = self.disk.create(&path).map_err(|e| at(&path, e))?;
        if let Err(e) = file.write_all_at(bytes, 0) {
            let _ = self.disk.remove(&path);
            return Err(at(&path, e));
        }
        file.sync_data().map_err(|e| self.stop(&path, e))?;
        Ok(path)
    }

    /// The temporary directory of this process: the first whose lock is free.
    fn temporary_dir(&self) -> Result<PathBuf> {
        let mut temporary = self.temporary.lock();
        if let Some(temporary) = &*temporary {
            return Ok(temporary.dir.clone());
        }
        let parent = self.root.join(TEMPORARY);
        self.disk
            .create_dir_all(&parent)
            .map_err(|e| at(&parent, e))?;
        for owner in 0..OWNERS_MAX {
            let path = parent.join(format!("{owner}.lock"));
            let lock = match self.disk.lock(&path) {
                Ok(lock) => lock,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(at(&path, e)),
            };
            let dir = parent.join(owner.to_string());
            self.disk.create_dir_all(&dir).map_err(|e| at(&dir, e))?;
            for left in self.disk.list(&dir).map_err(|e| at(&dir, e))? {
                self.disk
                    .remove(&left.path)
                    .map_err(|e| at(&left.path, e))?;
            }
            *temporary = Some(Temporary {
                dir: dir.clone(),
                _lock: lock,
            });
            return Ok(dir);
        }
        let message = format!("{OWNERS_MAX} processes write to {}", self.root.display());
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    fn make_parents(&self, path: &Path) -> Result<()> {
        let dir = parent(path);
        if self.known_dirs.lock().contains(dir) {
            return Ok(());
        }
        self.disk.create_dir_all(dir).map_err(|e| at(dir, e))
    }

    /// Makes a name durable: its directory, and those above it the first time.
    fn sync_dirs(&self, path: &Path) -> Result<()> {
        let dir = parent(path);
        if self.known_dirs.lock().contains(dir) {
            return self.sync_dir(dir);
        }
        for above in dir
            .ancestors()
            .take_while(|above| above.starts_with(&self.root))
        {
            self.sync_dir(above)?;
        }
        let mut known = self.known_dirs.lock();
        if known.len() >= KNOWN_DIRS_MAX {
            known.clear();
        }
        known.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.check_running()?;
        self.disk.sync_dir(dir).map_err(|e| self.stop(dir, e))
    }

    fn stop(&self, path: &Path, error: io::Error) -> Error {
        self.stopped.store(true, Ordering::SeqCst);
        let message = format!("sync of {} failed: the bucket has stopped", path.display());
        Error::new(ErrorKind::Closed, message).caused_by(error)
    }

    fn check_running(&self) -> Result<()> {
        if self.stopped.load(Ordering::SeqCst) {
            let message = format!("{} stopped after a failed sync", self.root.display());
            return Err(Error::new(ErrorKind::Closed, message));
        }
        Ok(())
    }

    /// Appends what lies below `folder` in byte order of names, until [`LIST_MAX`] are found.
    fn walk(&self, folder: &str, after: Option<&str>, found: &mut Vec<Entry>) -> Result<()> {
        let dir = self.root.join(folder);
        let listed = match self.disk.list(&dir) {
            Ok(listed) => listed,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(e) => return Err(at(&dir, e)),
        };
        // A directory sorts by its name and `/`, as the names below it do.
        let mut children: Vec<(String, bool, u64)> = listed
            .into_iter()
            .filter_map(|child| {
                let file = child.path.file_name()?.to_str()?;
                let slash = if child.is_dir { "/" } else { "" };
                let hidden = file.starts_with(TEMPORARY);
                (!hidden).then(|| (format!("{folder}{file}{slash}"), child.is_dir, child.len))
            })
            .collect();
        children.sort_unstable();
        for (name, is_dir, len) in children {
            if found.len() >= LIST_MAX {
                break;
            }
            // Of a directory at or before `after`, only the one `after` lies in can hold later names.
            let passed = after.is_some_and(|after| *name <= *after);
            match is_dir {
                true if !passed || after.is_some_and(|after| after.starts_with(&name)) => {
                    self.walk(&name, after, found)?;
                }
                false if !passed => found.push(Entry { name, len }),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes a directory's own name durable, however many levels of it were made.
fn sync_all(disk: &dyn Disk, root: &Path) -> Result<()> {
    for dir in root.ancestors() {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        match disk.sync_dir(dir) {
            // One above the root that we may not even read is not one we made.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && dir != root => break,
            Err(e) => return Err(at(dir, e)),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn read(file: &dyn DiskFile, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let len = range.end.saturating_sub(range.start);
    // Checked before memory is taken: the range may come from damaged bytes.
    let held = file.len().map_err(|e| at(path, e))?;
    if range.end > held {
        let message = format!(
            "{} holds {held} bytes, {}..{} were asked for",
            path.display(),
            range.start,
            range.end
        );
        return Err(Error::corrupt(message));
    }
    let mut buffer = vec![0; usize::try_from(len).map_err(|_| not_found(path))?];
    file.read_exact_at(&mut buffer, range.start)
        .map_err(|e| at(path, e))?;
    Ok(buffer.into())
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("a checked name lies below the root")
}

fn at(path: &Path, error: io::Error) -> Error {
    Error::from(error).context(path.display())
}

fn not_found(path: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("{} does not exist", path.display()),
    )
}
