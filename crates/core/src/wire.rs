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
    /// `nesting`: how many messages this one lies in.
    #[cold]
    pub fn skip_unless(
        &mut self,
        tag: u32,
        known: std::ops::RangeInclusive<u32>,
        nesting: usize,
    ) -> Result<()> {
        if known.contains(&(tag >> 3)) {
            return Err(Malformed);
        }
        self.skip(tag, nesting)
    }

    /// Skips the field of a `tag`, whatever it is, of a message that lies in `nesting` others.
    pub fn skip(&mut self, tag: u32, nesting: usize) -> Result<()> {
        match tag & 7 {
            3 => self.skip_group(tag >> 3, DEPTH_MAX.saturating_sub(nesting)),
            _ => self.skip_plain(tag),
        }
    }

    fn skip_plain(&mut self, tag: u32) -> Result<()> {
        let fixed = match tag & 7 {
            0 => return self.varint().map(drop),
            1 => 8,
            2 => return self.bytes().map(drop),
            5 => 4,
            _ => return Err(Malformed),
        };
        self.0 = self.0.get(fixed..).ok_or(Malformed)?;
        Ok(())
    }

    #[cold]
    fn skip_group(&mut self, number: u32, depth_max: usize) -> Result<()> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let tag = self.tag()?;
            match tag & 7 {
                4 if tag >> 3 == innermost => drop(open.pop()),
                // At the bottom a group may only end: a decoder counts a field as a level too.
                _ if open.len() >= depth_max => return Err(Malformed),
                3 => open.push(tag >> 3),
                _ => self.skip_plain(tag)?,
            }
        }
        Ok(())
    }
}

/// Deepest nesting, of messages and groups together, that is followed: as deep as `prost` goes.
const DEPTH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use crate::envelope::CloudEvent;
    use crate::frame::put_varint;
    use crate::{Event, Header};
    use prost::Message;

    /// Groups in one another, `content` in the innermost.
    fn groups(depth: usize, content: &[u8]) -> Vec<u8> {
        let (start, end) = (12 << 3 | 3, 12 << 3 | 4);
        [vec![start; depth], content.to_vec(), vec![end; depth]].concat()
    }

    /// A field of a message, with bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        put_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn groups_are_followed_exactly_as_deep_as_a_decoder_goes_in_every_message() {
        let key = field(1, b"subject");
        let in_entry = |inside: &[u8]| field(5, &[&key, inside].concat());
        let in_value = |inside: &[u8]| in_entry(&field(2, inside));
        type Place<'a> = (&'a str, Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>);
        let places: [Place<'_>; 5] = [
            ("envelope", Box::new(<[u8]>::to_vec)),
            ("proto_data", Box::new(|inside| field(8, inside))),
            ("attribute", Box::new(in_entry)),
            ("value", Box::new(in_value)),
            ("timestamp", Box::new(|inside| in_value(&field(7, inside)))),
        ];
        let contents: [&[u8]; 5] = [b"", b"\x08\x01", b"\x0a\x01x", b"\x0d1234", b"\x0912345678"];
        let rest = [
            field(1, b"i"),
            field(2, b"/s"),
            field(3, b"1.0"),
            field(4, b"t"),
        ]
        .concat();
        for (place, build) in &places {
            let mut accepted = 0;
            for depth in 90..=102 {
                for content in contents {
                    let envelope = [build(&groups(depth, content)), rest.clone()].concat();
                    let decoded = CloudEvent::decode(&envelope[..]).map(drop);
                    let text = format!("{depth} groups around {content:?} in {place}: {decoded:?}");
                    assert_eq!(Header::scan(&envelope).is_ok(), decoded.is_ok(), "{text}");
                    assert_eq!(Event::parse(envelope).is_ok(), decoded.is_ok(), "{text}");
                    accepted += usize::from(decoded.is_ok());
                }
            }
            assert!((1..13 * contents.len()).contains(&accepted), "{place}");
        }
    }
}
