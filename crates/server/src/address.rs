//! `annals.json` in a data directory: the server's pid and ports, so that other verbs find it.
//!
//! The directory's lock says whether the file is true: a killed server leaves it behind.

use crate::exit::{Exit, Failure, Result, at_path};
use annals_core::Disk;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FILE: &str = "annals.json";
const LOCK: &str = "annals.lock";

/// Where the server of a directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Process id.
    pub pid: u32,
    /// AMQP port on 127.0.0.1.
    pub amqp_port: u16,
    /// HTTP port on 127.0.0.1.
    pub http_port: u16,
    /// Version of annals that runs.
    pub version: String,
}

impl Address {
    /// The control API's base URL.
    pub fn server_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// The broker's URI.
    pub fn amqp_uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp_port)
    }

    /// Reads the address last written in a directory; `None` where there is none. Whether
    /// anything listens there is for the caller to find out.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(at_path(&path)(e)),
        }
    }
}

/// The right to run a platform on a directory: held until dropped, by one process at a time.
pub struct DirectoryLock {
    dir: PathBuf,
    _guard: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for DirectoryLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DirectoryLock").field(&self.dir).finish()
    }
}

impl DirectoryLock {
    /// Takes the lock, making the directory if it is not there. Another process that holds it is
    /// a conflict that names it.
    pub fn take(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        disk.create_dir_all(dir).map_err(at_path(dir))?;
        let path = dir.join(LOCK);
        match disk.lock(&path) {
            Ok(guard) => Ok(Self {
                dir: dir.to_owned(),
                _guard: guard,
            }),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Err(taken(dir)),
            Err(e) => Err(at_path(&path)(e)),
        }
    }

    /// Writes where this process listens. Not durable: it is worth nothing after a restart.
    pub fn announce(&self, address: &Address) -> Result<()> {
        let path = self.dir.join(FILE);
        let written = self.dir.join("annals.json.tmp");
        let text = serde_json::to_string_pretty(address)
            .expect("an address is plain data with string keys");
        std::fs::write(&written, text + "\n").map_err(at_path(&written))?;
        std::fs::rename(&written, &path).map_err(at_path(&path))
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // The next reader finds no server instead of one that does not answer.
        let _ = std::fs::remove_file(self.dir.join(FILE));
    }
}

fn taken(dir: &Path) -> Failure {
    let owner = match Address::read(dir) {
        Ok(Some(address)) => format!("process {}", address.pid),
        _ => "another process".to_owned(),
    };
    Failure::new(
        Exit::Conflict,
        format!("{} is in use by {owner}", dir.display()),
    )
    .next("stop that process, or use another directory with --data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_core::system::SystemDisk;

    fn address() -> Address {
        Address {
            pid: 4711,
            amqp_port: 5672,
            http_port: 7400,
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn a_second_process_on_a_directory_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(&SystemDisk, dir.path()).unwrap();
        lock.announce(&address()).unwrap();
        let refusal = DirectoryLock::take(&SystemDisk, dir.path()).unwrap_err();
        assert_eq!(refusal.exit, Exit::Conflict);
        assert!(refusal.to_string().contains("process 4711"), "{refusal}");
        assert!(refusal.next.is_some());
        drop(lock);
        drop(DirectoryLock::take(&SystemDisk, dir.path()).unwrap());
    }

    #[test]
    fn the_address_is_there_while_the_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Address::read(dir.path()).unwrap(), None);
        let lock = DirectoryLock::take(&SystemDisk, dir.path()).unwrap();
        lock.announce(&address()).unwrap();
        assert_eq!(Address::read(dir.path()).unwrap(), Some(address()));
        drop(lock);
        assert_eq!(Address::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_damaged_address_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert_eq!(Address::read(dir.path()).unwrap(), None);
    }
}
