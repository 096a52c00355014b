//! [`LogReader`]: payloads by position.

use super::Lsn;
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads committed records; cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) records: Arc<RwLock<BTreeMap<Lsn, Bytes>>>,
}

impl LogReader {
    /// The payload of the record at `lsn`.
    ///
    /// `Corrupt` if its bytes are damaged, `NotFound` if its segment was released.
    pub fn read(&self, lsn: Lsn) -> Result<Bytes> {
        let found = self.records.read().get(&lsn).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no record at {lsn}")))
    }

    /// The payloads of the first of `lsns` (ascending), reading ahead: at least one, then until
    /// `bytes_max` is reached.
    pub fn read_run(&self, lsns: &[Lsn], bytes_max: usize) -> Vec<Result<Bytes>> {
        let mut out = Vec::new();
        let mut bytes = 0;
        for &lsn in lsns {
            if bytes >= bytes_max && !out.is_empty() {
                break;
            }
            let payload = self.read(lsn);
            bytes += payload.as_ref().map_or(0, Bytes::len);
            out.push(payload);
        }
        out
    }
}
