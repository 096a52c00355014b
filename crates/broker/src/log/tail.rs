//! The recently committed part of the log, in memory.

use super::Lsn;
use super::format::{RECORD_HEADER, RecordHeader, Salt};
use bytes::Bytes;
use std::collections::VecDeque;

/// Recent writes, oldest first, bounded in bytes.
#[derive(Debug)]
pub(super) struct Tail {
    parts: VecDeque<(Lsn, Bytes)>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            parts: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds what was written at `start`, after everything added before.
    pub(super) fn push(&mut self, start: Lsn, bytes: Bytes) {
        self.bytes += bytes.len();
        self.parts.push_back((start, bytes));
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.parts.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }

    /// The payload of the record at `lsn`, if it is here.
    pub(super) fn read(&self, salt: Salt, lsn: Lsn) -> Option<Bytes> {
        let after = self.parts.partition_point(|(start, _)| *start <= lsn);
        let (start, bytes) = self.parts.get(after.checked_sub(1)?)?;
        if start.segment() != lsn.segment() {
            return None;
        }
        let from = (lsn.offset() - start.offset()) as usize;
        let header = RecordHeader::parse(bytes.get(from..)?, salt, lsn)?;
        let payload = from + RECORD_HEADER..from + RECORD_HEADER + header.len;
        bytes
            .get(payload.clone())
            .filter(|payload| header.matches(payload))?;
        Some(bytes.slice(payload))
    }
}
