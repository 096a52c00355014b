//! Varint-length-delimited framing: the same on the bus, in segments and in replay files.
//!
//! A frame is a Protobuf varint (the message's length in bytes) and the message. It is what
//! Protobuf runtimes call "delimited"; see docs/formats/record.md.

use crate::{Error, Result};

/// Longest varint of a length, in bytes (lengths are below 2^63).
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends `length` as a varint.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes `value` takes as a varint.
pub fn varint_len(value: u64) -> usize {
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Reads a varint at the start of `bytes`: the value and what follows it.
///
/// `None` where the bytes end inside the varint or it does not fit 64 bits.
#[inline]
pub fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((u64::from(first), &bytes[1..]));
    }
    let mut value = u64::from(first & 0x7f);
    for (i, &byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX).skip(1) {
        // The tenth byte has room for one bit.
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

/// Appends `message` as one frame.
pub fn put(message: &[u8], out: &mut Vec<u8>) {
    put_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// Walks the frames of a buffer; ends after the last, or with an error where one is cut or its
/// length lies.
pub fn iter(bytes: &[u8]) -> Frames<'_> {
    Frames { rest: bytes, at: 0 }
}

/// Iterator of [`iter`]: borrowed messages.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = take_varint(self.rest)
            .and_then(|(length, rest)| Some(rest.split_at_checked(usize::try_from(length).ok()?)));
        let Some(Some((message, rest))) = found else {
            let at = self.at;
            self.rest = &[];
            return Some(Err(Error::corrupt(format!("frame at byte {at} is cut"))));
        };
        self.at += self.rest.len() - rest.len();
        self.rest = rest;
        Some(Ok(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> (63 - shift)] {
                let mut out = Vec::new();
                put_varint(value, &mut out);
                assert_eq!(out.len(), varint_len(value), "{value}");
                assert_eq!(take_varint(&out), Some((value, &[][..])), "{value}");
            }
        }
    }

    #[test]
    fn overlong_and_cut_varints_are_refused() {
        assert_eq!(take_varint(&[]), None);
        assert_eq!(take_varint(&[0x80]), None);
        assert_eq!(take_varint(&[0xff; 10]), None);
        assert_eq!(take_varint(&[0x80; 11]), None);
    }

    #[test]
    fn frames_come_back_in_order_and_a_cut_one_is_an_error() {
        let mut out = Vec::new();
        put(b"one", &mut out);
        put(b"", &mut out);
        put(&[7; 300], &mut out);
        let all: Vec<_> = iter(&out).collect::<Result<_>>().unwrap();
        assert_eq!(all, [&b"one"[..], b"", &[7; 300]]);
        let cut: Vec<_> = iter(&out[..out.len() - 1]).collect();
        assert_eq!(cut.len(), 3);
        assert!(cut[2].as_ref().unwrap_err().to_string().contains("byte 5"));
        assert!(iter(&[0xff; 9]).next().unwrap().is_err());
    }
}
