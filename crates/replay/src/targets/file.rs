//! [`FileTarget`]: a file, there whole or not at all.

use super::{Delivered, Format, Target};
use annals_archive::reader::EventRef;
use annals_core::disk::{Disk, DiskFile};
use annals_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes collected before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes events to `<path>.part`, which becomes `path`, durable, when the replay has finished. A
/// file of that name is never replaced; a part left by a replay that broke off is.
#[derive(Debug)]
pub struct FileTarget {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    part: PathBuf,
    file: Arc<dyn DiskFile>,
    format: Format,
    buffer: Vec<u8>,
    written: u64,
}

impl FileTarget {
    /// A new file; its name says the format ([`Format::of_path`]).
    pub fn create(disk: Arc<dyn Disk>, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let format = Format::of_path(&path)?;
        if disk.open(&path, annals_core::disk::Access::Read).is_ok() {
            return Err(exists(&path));
        }
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = match disk.create(&part) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&part)?;
                disk.create(&part)
            }
            other => other,
        };
        let file = file.map_err(|e| Error::from(e).context(part.display()))?;
        Ok(Self {
            disk,
            path,
            part,
            file,
            format,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
        })
    }

    async fn write_buffer(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.buffer);
        let (file, at) = (self.file.clone(), self.written);
        self.written += bytes.len() as u64;
        self.buffer = blocking(move || {
            file.write_all_at(&bytes, at)?;
            Ok(bytes)
        })
        .await?;
        self.buffer.clear();
        Ok(())
    }
}

#[async_trait]
impl Target for FileTarget {
    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    async fn deliver(&mut self, events: &[EventRef<'_>]) -> Result<Delivered> {
        for event in events {
            self.format.put(event, &mut self.buffer)?;
            if self.buffer.len() >= BUFFER_BYTES {
                self.write_buffer().await?;
            }
        }
        Ok(Delivered::all(events))
    }

    async fn finish(&mut self) -> Result<()> {
        self.write_buffer().await?;
        let (disk, file) = (self.disk.clone(), self.file.clone());
        let (part, path) = (self.part.clone(), self.path.clone());
        blocking(move || {
            file.sync_data()?;
            disk.hard_link(&part, &path)?;
            disk.remove(&part)?;
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            disk.sync_dir(dir.unwrap_or(Path::new(".")))
        })
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::Conflict => exists(&self.path),
            _ => error.context(self.path.display()),
        })
    }
}

fn exists(path: &Path) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("{} already exists", path.display()),
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|e| Error::new(ErrorKind::Internal, "a write panicked").caused_by(e))??)
}
