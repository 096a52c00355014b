//! The bytes of a segment: its header, group headers, records. docs/formats/broker-log.md.

use super::Lsn;

/// Length of a segment's header; the first group follows.
pub(super) const SEGMENT_HEADER: u32 = 64;
/// Length of a group's header.
pub(super) const GROUP_HEADER: usize = 32;
/// Length of a record's header.
pub(super) const RECORD_HEADER: usize = 12;
/// Everything starts at a multiple of this.
pub(super) const ALIGN: usize = 8;
/// A record's payload is shorter than this, so that a length never looks like [`GROUP_MAGIC`].
pub(super) const PAYLOAD_MAX: u32 = 1 << 30;
/// The kind of the log's own records: a released segment's number. Not for users.
pub(super) const KIND_RELEASE: u8 = 0;

const SEGMENT_MAGIC: &[u8; 8] = b"ANNALSLG";
const VERSION: u32 = 1;
const GROUP_MAGIC: u32 = 0xB10C_A11A;
/// Never zero, so that zeros are never a record.
const RECORD_MARK: u8 = 0xA5;
const CLOSED: u32 = 1;

/// Bytes a payload of `len` bytes takes as a record.
pub(super) const fn record_bytes(len: usize) -> usize {
    (RECORD_HEADER + len).next_multiple_of(ALIGN)
}

/// The log's random number, which every checksum in it starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt {
    pub(super) number: u64,
    crc: u32,
}

impl Salt {
    pub(super) fn new(number: u64) -> Self {
        let crc = crc32c::crc32c(&number.to_le_bytes());
        Self { number, crc }
    }

    /// The checksum of a record's header at `lsn`; that of the payload continues from it.
    fn record(self, lsn: Lsn, len: u32, kind: u8) -> u32 {
        let mut bytes = [0; 14];
        bytes[..8].copy_from_slice(&lsn.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..].copy_from_slice(&[kind, RECORD_MARK]);
        crc32c::crc32c_append(self.crc, &bytes)
    }

    fn group(self, lsn: Lsn, header: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(self.crc, &lsn.0.to_le_bytes());
        crc32c::crc32c_append(crc, &header[8..GROUP_HEADER])
    }
}

/// Half of the checksum of a record's header: enough to trust its length.
fn fold(crc: u32) -> u16 {
    (crc ^ (crc >> 16)) as u16
}

/// The first bytes of a segment.
pub(super) fn segment_header(
    number: u32,
    segment_bytes: u32,
    salt: Salt,
) -> [u8; SEGMENT_HEADER as usize] {
    let mut header = [0; SEGMENT_HEADER as usize];
    header[..8].copy_from_slice(SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&number.to_le_bytes());
    header[16..24].copy_from_slice(&salt.number.to_le_bytes());
    header[24..28].copy_from_slice(&segment_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..32].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What a segment's header says.
pub(super) enum SegmentHeader {
    Valid {
        number: u32,
        segment_bytes: u32,
        salt: Salt,
    },
    /// Written by another version of annals.
    Foreign(u32),
    Damaged,
}

/// Reads a segment's header.
pub(super) fn parse_segment_header(header: &[u8]) -> SegmentHeader {
    if header.len() < 32
        || header[..8] != *SEGMENT_MAGIC
        || u32_at(header, 28) != crc32c::crc32c(&header[..28])
    {
        return SegmentHeader::Damaged;
    }
    match u32_at(header, 8) {
        VERSION => {
            let salt = Salt::new(u64_at(header, 16));
            SegmentHeader::Valid {
                number: u32_at(header, 12),
                segment_bytes: u32_at(header, 24),
                salt,
            }
        }
        other => SegmentHeader::Foreign(other),
    }
}

/// What stands before the records of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// Length of the write, this header included.
    pub(super) len: u32,
    /// Whether the log was closed in order after it.
    pub(super) closed: bool,
    /// All of the log before this was durable when the group was written.
    pub(super) durable: Lsn,
    /// Where the segment before this one ends; 0 in a log's first.
    pub(super) base: Lsn,
}

impl Group {
    /// Its bytes, if it lies at `lsn`.
    pub(super) fn encode(&self, salt: Salt, lsn: Lsn) -> [u8; GROUP_HEADER] {
        let mut header = [0; GROUP_HEADER];
        header[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        header[8..12].copy_from_slice(&self.len.to_le_bytes());
        header[12..16].copy_from_slice(&(u32::from(self.closed) * CLOSED).to_le_bytes());
        header[16..24].copy_from_slice(&self.durable.0.to_le_bytes());
        header[24..].copy_from_slice(&self.base.0.to_le_bytes());
        let crc = salt.group(lsn, &header);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// The group header at the start of `bytes`, which lie at `lsn`, if there is a valid one.
    pub(super) fn parse(bytes: &[u8], salt: Salt, lsn: Lsn) -> Option<Self> {
        let header = bytes.get(..GROUP_HEADER)?;
        let valid =
            u32_at(header, 0) == GROUP_MAGIC && u32_at(header, 4) == salt.group(lsn, header);
        valid.then(|| Self {
            len: u32_at(header, 8),
            closed: u32_at(header, 12) & CLOSED != 0,
            durable: Lsn(u64_at(header, 16)),
            base: Lsn(u64_at(header, 24)),
        })
    }

    /// Whether `bytes` could start a group header: cheaper than [`Group::parse`].
    pub(super) fn is_like(bytes: &[u8]) -> bool {
        bytes.starts_with(&GROUP_MAGIC.to_le_bytes())
    }
}

/// Appends a record that will lie at `lsn`.
pub(super) fn encode_record(out: &mut Vec<u8>, salt: Salt, lsn: Lsn, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(record_bytes(len));
    let start = out.len();
    let head = salt.record(lsn, len as u32, kind);
    let check = fold(head).to_le_bytes();
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[kind, RECORD_MARK, check[0], check[1], 0, 0, 0, 0]);
    for part in parts {
        out.extend_from_slice(part);
    }
    let payload = start + RECORD_HEADER;
    let crc = crc32c::crc32c_append(head, &out[payload..]);
    out[payload - 4..payload].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + record_bytes(len), 0);
}

/// A record's header that can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) len: usize,
    pub(super) kind: u8,
    /// Checksum of header and payload.
    crc: u32,
    head: u32,
}

impl RecordHeader {
    /// The header at the start of `bytes`, which lie at `lsn`, if its own check holds.
    pub(super) fn parse(bytes: &[u8], salt: Salt, lsn: Lsn) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER)?;
        let (len, kind) = (u32_at(header, 0), header[4]);
        if header[5] != RECORD_MARK || len >= PAYLOAD_MAX {
            return None;
        }
        let head = salt.record(lsn, len, kind);
        let valid = fold(head).to_le_bytes() == header[6..8];
        valid.then(|| Self {
            len: len as usize,
            kind,
            crc: u32_at(header, 8),
            head,
        })
    }

    /// Bytes the record takes.
    pub(super) fn bytes(&self) -> usize {
        record_bytes(self.len)
    }

    /// Whether `payload` is what was appended.
    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        crc32c::crc32c_append(self.head, payload) == self.crc
    }
}

/// What lies at a position.
pub(super) enum Item<'a> {
    Group(Group),
    Record {
        kind: u8,
        payload: &'a [u8],
        bytes: usize,
    },
    /// A record of known length with a damaged payload.
    Broken {
        bytes: usize,
    },
    Nothing,
}

/// Reads what lies at the start of `bytes`, which lie at `lsn`.
pub(super) fn parse(bytes: &[u8], salt: Salt, lsn: Lsn) -> Item<'_> {
    if Group::is_like(bytes) {
        return Group::parse(bytes, salt, lsn).map_or(Item::Nothing, Item::Group);
    }
    let Some(header) = RecordHeader::parse(bytes, salt, lsn) else {
        return Item::Nothing;
    };
    match bytes.get(RECORD_HEADER..RECORD_HEADER + header.len) {
        Some(payload) if header.matches(payload) => Item::Record {
            kind: header.kind,
            payload,
            bytes: header.bytes(),
        },
        Some(_) => Item::Broken {
            bytes: header.bytes(),
        },
        None => Item::Nothing,
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
