//! Protobuf's wire format, read in place: what the scanners of envelopes and records walk with.
//!
//! The common cases (tags and lengths of one byte) come first
//! and inline, results fit registers; everything else is out of line.

use crate::frame::take_varint;

/// The bytes are not valid Protobuf. No more than that, so that results stay small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What reading gives.
pub type Result<T> = std::result::Result<T, Malformed>;

/// What is left to read of a message.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// Whether the message ends here.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a varint.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64> {
        match self.0 {
            &[byte, ref rest @ ..] if byte < 0x80 => {
                self.0 = rest;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let (value, rest) = take_varint(self.0).ok_or(Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes a tag: field number << 3 | wire type.
    #[inline(always)]
    pub fn tag(&mut self) -> Result<u32> {
        match u32::try_from(self.varint()?) {
            Ok(tag) if tag >> 3 != 0 => Ok(tag),
            _ => Err(Malformed),
        }
    }

    /// Takes a length and so many bytes.
    #[inline(always)]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (value, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    /// Skips the field of an unknown `tag`; one of the `known` numbers has the wrong wire type.
    #[cold]
    pub fn skip_unless(&mut self, tag: u32, known: std::ops::RangeInclusive<u32>) -> Result<()> {
        if known.contains(&(tag >> 3)) {
            return Err(Malformed);
        }
        self.skip(tag)
    }

    /// Skips the field of a `tag`, whatever it is.
    pub fn skip(&mut self, tag: u32) -> Result<()> {
        let fixed = match tag & 7 {
            0 => return self.varint().map(drop),
            1 => 8,
            2 => return self.bytes().map(drop),
            3 => return self.skip_group(tag >> 3),
            5 => 4,
            _ => return Err(Malformed),
        };
        self.0 = self.0.get(fixed..).ok_or(Malformed)?;
        Ok(())
    }

    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<()> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let tag = self.tag()?;
            match tag & 7 {
                3 if open.len() >= GROUP_DEPTH_MAX => return Err(Malformed),
                3 => open.push(tag >> 3),
                4 if tag >> 3 == innermost => drop(open.pop()),
                4 => return Err(Malformed),
                _ => self.skip(tag)?,
            }
        }
        Ok(())
    }
}

/// Deepest nesting of groups that is followed: as deep as `prost` goes.
const GROUP_DEPTH_MAX: usize = 100;
