//! Protobuf's wire format, read by position, so that an error knows its byte.

/// Wire type of numbers of variable length.
pub(crate) const VARINT: u32 = 0;
/// Wire type of eight bytes.
pub(crate) const FIXED64: u32 = 1;
/// Wire type of text, bytes, messages, packed numbers.
pub(crate) const BYTES: u32 = 2;
/// Wire type that opens a group.
pub(crate) const GROUP: u32 = 3;
/// Wire type that closes a group.
pub(crate) const GROUP_END: u32 = 4;
/// Wire type of four bytes.
pub(crate) const FIXED32: u32 = 5;

/// Messages and groups that may lie in one another: as `prost` has it.
pub(crate) const LEVELS_MAX: u32 = 100;

/// Part of a payload: where it starts and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// As one of the values [`Wire::raw`] gives.
    #[inline(always)]
    pub(crate) fn raw(self) -> u64 {
        u64::from(self.start) << 32 | u64::from(self.end)
    }

    /// What [`raw`](Self::raw) packed; `0` is an empty one.
    #[inline(always)]
    pub(crate) fn of(raw: u64) -> Self {
        Self {
            start: (raw >> 32) as u32,
            end: raw as u32,
        }
    }

    /// The bytes of the payload it is of; none if it is of another.
    #[inline(always)]
    pub(crate) fn within(self, payload: &[u8]) -> &[u8] {
        payload
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// A payload up to some byte, and how far it was read. `None` is a cut or overlong field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Wire<'a> {
    /// Reads a part of a payload.
    #[inline(always)]
    pub(crate) fn new(payload: &'a [u8], span: Span) -> Self {
        let end = (span.end as usize).min(payload.len());
        Self {
            bytes: &payload[..end],
            at: span.start as usize,
        }
    }

    /// A part of what this reads.
    #[inline(always)]
    pub(crate) fn part(&self, span: Span) -> Self {
        Self::new(self.bytes, span)
    }

    /// The byte reading is at, counted from the start of the payload.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether a part is text.
    #[inline(always)]
    pub(crate) fn text(&self, span: Span) -> bool {
        std::str::from_utf8(span.within(self.bytes)).is_ok()
    }

    /// Whether all was read.
    #[inline(always)]
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Takes a varint.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Some(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Option<u64> {
        let rest = self.bytes.get(self.at..)?;
        let mut value = 0;
        for (i, &byte) in rest.iter().enumerate().take(10) {
            // The tenth byte has room for one bit.
            if i == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Some(value);
            }
        }
        None
    }

    /// Takes a tag: number and wire type, which may be none there is.
    #[inline(always)]
    pub(crate) fn tag(&mut self) -> Option<(u32, u32)> {
        let tag = u32::try_from(self.varint()?).ok()?;
        (tag >> 3 != 0).then_some((tag >> 3, tag & 7))
    }

    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*bytes)
    }

    /// Takes a length and so many bytes.
    #[inline(always)]
    pub(crate) fn span(&mut self) -> Option<Span> {
        let length = self.varint()?;
        if length > self.bytes.len().saturating_sub(self.at) as u64 {
            return None;
        }
        let start = self.at;
        self.at += length as usize;
        Some(Span {
            start: start as u32,
            end: self.at as u32,
        })
    }

    /// Takes a value of a wire type as 64 bits: the number, the bits, or the packed [`Span`].
    #[inline(always)]
    pub(crate) fn raw(&mut self, wire_type: u32) -> Option<u64> {
        match wire_type {
            VARINT => self.varint(),
            BYTES => self.span().map(Span::raw),
            FIXED64 => self.take().map(u64::from_le_bytes),
            FIXED32 => self.take().map(u32::from_le_bytes).map(u64::from),
            _ => None,
        }
    }

    /// Takes the value of a field nobody knows, groups included. `levels`: how many messages and
    /// groups may still open. `strict`: a plain field needs a level as well (prost in map entries).
    pub(crate) fn skip(&mut self, tag: (u32, u32), levels: u32, strict: bool) -> Option<()> {
        let (number, wire_type) = tag;
        if levels == 0 && (strict || wire_type == GROUP) {
            return None;
        }
        if wire_type != GROUP {
            return self.raw(wire_type).map(drop);
        }
        loop {
            match self.tag()? {
                (end, GROUP_END) => return (end == number).then_some(()),
                inner => self.skip(inner, levels - 1, strict)?,
            }
        }
    }
}

/// From a field's number to its place in a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    /// Places plus one of small numbers; 0 is none.
    small: Vec<u32>,
    /// Numbers and places of the others, sorted.
    large: Vec<(u32, u32)>,
}

impl Numbers {
    /// Numbers below this are looked up by index.
    const SMALL_MAX: u32 = 256;

    /// Numbers, each with its place.
    pub(crate) fn new(pairs: impl IntoIterator<Item = (u32, usize)>) -> Self {
        let mut numbers = Self::default();
        for (number, place) in pairs {
            let place = place as u32;
            if number < Self::SMALL_MAX {
                let length = numbers.small.len().max(number as usize + 1);
                numbers.small.resize(length, 0);
                numbers.small[number as usize] = place + 1;
            } else {
                numbers.large.push((number, place));
            }
        }
        numbers.large.sort_unstable();
        numbers
    }

    /// The place of a number.
    #[inline(always)]
    pub(crate) fn find(&self, number: u32) -> Option<usize> {
        match self.small.get(number as usize) {
            Some(&place) => (place as usize).checked_sub(1),
            None if self.large.is_empty() => None,
            None => {
                let found = self.large.binary_search_by_key(&number, |pair| pair.0);
                found.ok().map(|i| self.large[i].1 as usize)
            }
        }
    }
}
