//! [`LogReader`]: payloads by position, from any thread.

use super::Lsn;
use super::files::Files;
use super::format::{RECORD_HEADER, RecordHeader, Salt};
use super::tail::Tail;
use annals_core::disk::{Access, DiskFile};
use annals_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

/// First read of a record whose length is not known.
const GUESS: usize = 4096;
/// Longest stretch that is read at once for a run.
const AHEAD: usize = 256 << 10;
/// Records of a run that lie further apart are read one by one.
const GAP: u32 = 8 << 10;
/// Segments kept open for reading.
const OPEN_MAX: usize = 64;

/// Reads committed records: recent ones from memory, others from the disk, checksums verified.
/// Cheap to clone, usable from any thread; never serves the bytes of a recycled segment.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) source: Arc<Source>,
}

/// What readers and the writer share.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) files: Files,
    pub(super) salt: Salt,
    pub(super) tail: RwLock<Tail>,
    /// Segments that hold records.
    pub(super) segments: RwLock<BTreeSet<u32>>,
    /// Segments a reader found damaged: they are not recycled.
    pub(super) damaged: Mutex<BTreeSet<u32>>,
    /// Recently used files, the last used at the back.
    open: Mutex<VecDeque<(u32, Arc<dyn DiskFile>)>>,
}

impl LogReader {
    /// The payload of the record at `lsn`.
    ///
    /// `Corrupt` if its bytes are damaged, `NotFound` if its segment was released.
    pub fn read(&self, lsn: Lsn) -> Result<Bytes> {
        if let Some(payload) = self.source.tail.read().read(self.source.salt, lsn) {
            return Ok(payload);
        }
        self.source.read(lsn)
    }

    /// The payloads of the first of `lsns`, which ascend, reading ahead where they lie close: at
    /// least one, then until `bytes_max` bytes are reached.
    pub fn read_run(&self, lsns: &[Lsn], bytes_max: usize) -> Vec<Result<Bytes>> {
        let mut out = Vec::with_capacity(lsns.len().min(1024));
        let mut bytes = 0;
        let mut ahead = Ahead::default();
        while out.len() < lsns.len() && (bytes < bytes_max || out.is_empty()) {
            let rest = &lsns[out.len()..];
            let recent = self.source.tail.read().read(self.source.salt, rest[0]);
            let payload = match recent.or_else(|| ahead.read(&self.source, rest, bytes_max - bytes))
            {
                Some(payload) => Ok(payload),
                None => self.source.read(rest[0]),
            };
            bytes += payload.as_ref().map_or(0, Bytes::len);
            out.push(payload);
        }
        out
    }
}

impl Source {
    pub(super) fn new(files: Files, salt: Salt, tail_bytes_max: usize) -> Self {
        Self {
            files,
            salt,
            tail: RwLock::new(Tail::new(tail_bytes_max)),
            segments: RwLock::default(),
            damaged: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// From now on the segment is not there.
    pub(super) fn forget(&self, number: u32) {
        self.segments.write().remove(&number);
        self.open.lock().retain(|(n, _)| *n != number);
    }

    fn read(&self, lsn: Lsn) -> Result<Bytes> {
        match self.read_stored(lsn) {
            Ok(Some(payload)) => Ok(payload),
            // A segment recycled while it was read is gone, not damaged.
            _ if !self.segments.read().contains(&lsn.segment()) => Err(Error::new(
                ErrorKind::NotFound,
                format!("log record {lsn} was released"),
            )),
            Ok(None) => {
                self.damaged.lock().insert(lsn.segment());
                Err(Error::corrupt(format!("log record {lsn} is damaged")))
            }
            Err(error) => Err(Error::from(error).context(format!("log record {lsn}"))),
        }
    }

    /// `None` if what lies there is not the record.
    fn read_stored(&self, lsn: Lsn) -> io::Result<Option<Bytes>> {
        let file = self.file(lsn.segment())?;
        let mut bytes = read_up_to(&*file, lsn.offset(), GUESS)?;
        let Some(header) = RecordHeader::parse(&bytes, self.salt, lsn) else {
            return Ok(None);
        };
        if header.bytes() > bytes.len() {
            // A length beyond the file reads short, and so does not match.
            let most = file.len()?.saturating_sub(lsn.offset().into());
            let len = header
                .bytes()
                .min(usize::try_from(most).unwrap_or(usize::MAX));
            bytes = read_up_to(&*file, lsn.offset(), len)?;
        }
        let payload = bytes.get(RECORD_HEADER..RECORD_HEADER + header.len);
        Ok(payload
            .filter(|payload| header.matches(payload))
            .map(Bytes::copy_from_slice))
    }

    fn file(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        let known = open.iter().position(|(n, _)| *n == number);
        let file = match known.and_then(|at| open.remove(at)) {
            Some((_, file)) => file,
            None => self
                .files
                .disk
                .open(&self.files.segment(number), Access::Read)?,
        };
        // Not kept after the segment was forgotten: its number is never used again.
        if self.segments.read().contains(&number) {
            open.push_back((number, file.clone()));
        }
        if open.len() > OPEN_MAX {
            open.pop_front();
        }
        Ok(file)
    }
}

/// A stretch of a segment read at once.
#[derive(Debug, Default)]
struct Ahead {
    start: Lsn,
    bytes: Bytes,
    /// Whether payloads are copied out, so that a few do not keep all of it in memory.
    copy: bool,
}

impl Ahead {
    /// The payload of the first of `lsns`, if it lies in the stretch or a new one is worth it.
    fn read(&mut self, source: &Source, lsns: &[Lsn], bytes_max: usize) -> Option<Bytes> {
        if let Some(payload) = self.get(source.salt, lsns[0]) {
            return Some(payload);
        }
        let (count, span) = dense(lsns, bytes_max);
        if count < 2 {
            return None;
        }
        let file = source.file(lsns[0].segment()).ok()?;
        self.bytes = read_up_to(&*file, lsns[0].offset(), span + GUESS)
            .ok()?
            .into();
        self.start = lsns[0];
        self.copy = self.useful(source.salt, &lsns[..count]) * 2 < self.bytes.len();
        self.get(source.salt, lsns[0])
    }

    /// Bytes of the stretch that are asked for.
    fn useful(&self, salt: Salt, lsns: &[Lsn]) -> usize {
        let from = |lsn: &Lsn| (lsn.offset() - self.start.offset()) as usize;
        let header = |lsn| RecordHeader::parse(self.bytes.get(from(lsn)..)?, salt, *lsn);
        lsns.iter()
            .filter_map(header)
            .map(|header| header.len)
            .sum()
    }

    fn get(&self, salt: Salt, lsn: Lsn) -> Option<Bytes> {
        if lsn < self.start || lsn.segment() != self.start.segment() {
            return None;
        }
        let from = (lsn.offset() - self.start.offset()) as usize;
        let header = RecordHeader::parse(self.bytes.get(from..)?, salt, lsn)?;
        let payload = from + RECORD_HEADER..from + RECORD_HEADER + header.len;
        let found = self
            .bytes
            .get(payload.clone())
            .filter(|found| header.matches(found))?;
        Some(if self.copy {
            Bytes::copy_from_slice(found)
        } else {
            self.bytes.slice(payload)
        })
    }
}

/// How many of `lsns` lie close enough to be read at once, and the bytes up to the last of them.
fn dense(lsns: &[Lsn], bytes_max: usize) -> (usize, usize) {
    let first = lsns[0];
    let most = AHEAD.min(bytes_max.saturating_add(GUESS));
    let mut span = 0;
    for (count, pair) in lsns.windows(2).enumerate() {
        let near = pair[1].segment() == first.segment()
            && pair[1] > pair[0]
            && pair[1].offset() - pair[0].offset() <= GAP;
        if !near || (pair[1].offset() - first.offset()) as usize > most {
            return (count + 1, span);
        }
        span = (pair[1].offset() - first.offset()) as usize;
    }
    (lsns.len(), span)
}

/// Reads `len` bytes, or fewer where the file ends.
pub(super) fn read_up_to(file: &dyn DiskFile, offset: u32, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], u64::from(offset) + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
