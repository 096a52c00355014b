//! From compressed frames to slots: check, decompress, walk the records, keep those selected.
//! Blocking work; knows nothing of buckets.

use super::damage::Damage;
use super::located::Hit;
use super::plan::Plan;
use crate::index::SkipList;
use crate::ledger::Position;
use crate::record::RecordRef;
use crate::segment::FrameDecoder;
use crate::wire;
use annals_core::{Error, Header, Result, frame};
use bytes::Bytes;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// Buffers kept for the next frames.
const BUFFERS_MAX: usize = 64;
/// A larger buffer is not kept, in bytes.
const BUFFER_BYTES_MAX: usize = 2 << 20;
/// Decoders kept.
const DECODERS_MAX: usize = 16;

/// A compressed frame and what is wanted of it.
#[derive(Debug, Clone)]
pub(crate) struct FrameJob {
    pub(crate) position: Position,
    pub(crate) segment: Arc<str>,
    pub(crate) index: Arc<wire::SegmentIndex>,
    pub(crate) number: usize,
    pub(crate) compressed: Bytes,
    /// Whether each record has to be asked.
    pub(crate) ask: bool,
}

/// The records of a frame that are wanted.
#[derive(Debug, Clone)]
pub(crate) struct DecodedFrame {
    pub(crate) bytes: Bytes,
    pub(crate) slots: Vec<Slot>,
}

/// Where a record lies in its decompressed frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) received_at_us: i64,
    pub(crate) ordinal: u32,
    pub(crate) frame: u32,
    pub(crate) record: u32,
    pub(crate) record_len: u32,
    pub(crate) event: u32,
    pub(crate) event_len: u32,
}

impl Slot {
    /// Where `record` lies in `frame`, which is the first of its batch.
    #[inline]
    fn of(frame: &[u8], record: &[u8], scanned: &RecordRef<'_>) -> Self {
        Self {
            received_at_us: scanned.delivery.received_at_us,
            ordinal: scanned.ordinal,
            frame: 0,
            record: offset(frame, record),
            record_len: record.len() as u32,
            event: offset(frame, scanned.event),
            event_len: scanned.event.len() as u32,
        }
    }

    #[inline]
    pub(crate) fn event_in<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.event as usize..][..self.event_len as usize]
    }

    #[inline]
    pub(crate) fn record_in<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.record as usize..][..self.record_len as usize]
    }
}

/// What all frames of one reading have in common.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) plan: Plan,
    /// Whether every header is read here, so that none fails later.
    pub(crate) check_headers: bool,
}

impl DecodedFrame {
    /// Walks a frame that no index describes and keeps the records that are selected.
    pub(crate) fn of(bytes: Bytes, plan: &Plan) -> Result<Self> {
        let mut slots = Vec::new();
        for record in frame::iter(&bytes) {
            let record = record?;
            let scanned = RecordRef::scan(record)?;
            let header = Header::scan(scanned.event)?;
            if plan.wants_event(&header, scanned.delivery.received_at_us) {
                slots.push(Slot::of(&bytes, record, &scanned));
            }
        }
        Ok(Self { bytes, slots })
    }
}

impl FrameJob {
    /// Decompresses the frame and walks it.
    pub(crate) fn run(
        &self,
        wanted: &Wanted,
        skips: &SkipList,
        pool: &Pool,
        damage: &mut Vec<Damage>,
    ) -> Result<DecodedFrame> {
        let described = &self.index.frames[self.number];
        let bytes = pool.decompress(described, &self.compressed)?;
        let hits = wanted.plan.hits(self.position);
        let most = hits.map_or(described.count as usize, <[Hit]>::len);
        let mut slots = Vec::with_capacity(most.min(described.count as usize).min(1 << 20));
        let mut count = 0;
        let mut skips = skips.cursor();
        for record in frame::iter(&bytes) {
            count += 1;
            let record = record?;
            let scanned = RecordRef::scan(record)?;
            if skips.contains(scanned.ordinal) {
                continue;
            }
            let is_hit = |hits: &[Hit]| {
                let at = hits.binary_search_by_key(&scanned.ordinal, |hit| hit.location.ordinal);
                at.is_ok()
            };
            if !hits.is_none_or(is_hit) {
                continue;
            }
            if self.ask || wanted.check_headers {
                let received = scanned.delivery.received_at_us;
                match Header::scan(scanned.event) {
                    Ok(header) if !self.ask || wanted.plan.wants_event(&header, received) => {}
                    Ok(_) => continue,
                    Err(e) if wanted.check_headers => {
                        let what = format!("record of ordinal {}", scanned.ordinal);
                        damage.push(self.damage(e.context(what)));
                        continue;
                    }
                    Err(e) => return Err(e.context(format!("ordinal {}", scanned.ordinal))),
                }
            }
            slots.push(Slot::of(&bytes, record, &scanned));
        }
        if count != described.count {
            let stated = described.count;
            let message = format!("a frame has {count} records, its index says {stated}");
            return Err(Error::corrupt(message));
        }
        Ok(DecodedFrame { bytes, slots })
    }

    /// This frame, as the place of damage.
    pub(crate) fn damage(&self, error: Error) -> Damage {
        Damage {
            position: self.position,
            segment: Some(self.segment.clone()),
            frame: Some(self.number),
            error,
        }
    }
}

/// Where `part` of `whole` starts. Frames are far below 4 GiB.
#[inline]
fn offset(whole: &[u8], part: &[u8]) -> u32 {
    (part.as_ptr().addr() - whole.as_ptr().addr()) as u32
}

/// Buffers and decoders used again and again: memory fresh from the system costs a page fault
/// every 4 KiB, a tenth of what decompression costs.
#[derive(Default)]
pub(crate) struct Pool {
    buffers: Arc<Buffers>,
    decoders: Mutex<Vec<FrameDecoder>>,
}

type Buffers = Mutex<Vec<Vec<u8>>>;

impl Pool {
    /// Checks and decompresses a frame into a buffer that comes back here when it is dropped.
    pub(crate) fn decompress(&self, frame: &wire::Frame, compressed: &[u8]) -> Result<Bytes> {
        let decoder = self.decoders.lock().pop();
        let mut decoder = decoder.map_or_else(FrameDecoder::new, Ok)?;
        let mut lent = Lent {
            bytes: self.buffers.lock().pop().unwrap_or_default(),
            home: Arc::clone(&self.buffers),
        };
        decoder.decode_into(frame, compressed, &mut lent.bytes)?;
        let mut decoders = self.decoders.lock();
        if decoders.len() < DECODERS_MAX {
            decoders.push(decoder);
        }
        Ok(Bytes::from_owner(lent))
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers = self.buffers.lock().len();
        f.debug_struct("Pool")
            .field("buffers", &buffers)
            .finish_non_exhaustive()
    }
}

struct Lent {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.bytes.capacity() > BUFFER_BYTES_MAX {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut home = self.home.lock();
        if home.len() < BUFFERS_MAX {
            home.push(bytes);
        }
    }
}
