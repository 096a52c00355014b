//! Frames, read in place: one check per socket read, then slices of the bytes read.
//!
//! A frame is a type octet, a channel, a payload size, the payload and the end octet 0xCE
//! (AMQP 0-9-1, section 4.2.3). [`whole_frames`] checks as many whole frames as a buffer holds;
//! [`Frames`] then walks them without checks that can fail and without copies.

use super::fault::Fault;
use bytes::Bytes;

/// Frame types.
pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;
/// Ends every frame.
pub(crate) const END: u8 = 0xCE;
/// Octets of a frame beside its payload.
pub(crate) const OVERHEAD: usize = 8;
/// Octets before the payload.
const PREFIX: usize = 7;

/// How much of a buffer is whole frames, and what is wrong behind them, if anything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) bytes: usize,
    /// Bytes that the frame behind them needs in all.
    pub(crate) wanted: usize,
    pub(crate) fault: Option<Fault>,
}

/// Checks frames from the front of `buffer`: known type, size within `frame_max`, end octet.
pub(crate) fn whole_frames(buffer: &[u8], frame_max: usize) -> Whole {
    let mut bytes = 0;
    loop {
        let (wanted, fault) = match first_frame(&buffer[bytes..], frame_max) {
            First::Whole(total) => {
                bytes += total;
                continue;
            }
            First::Partial { wanted } => (wanted, None),
            First::Bad(fault) => (0, Some(fault)),
        };
        return Whole {
            bytes,
            wanted,
            fault,
        };
    }
}

/// The first frame of a buffer.
#[derive(Debug)]
pub(crate) enum First {
    /// Of so many bytes.
    Whole(usize),
    /// Not whole before so many bytes are there.
    Partial {
        /// In all.
        wanted: usize,
    },
    /// Not a frame.
    Bad(Fault),
}

/// Checks the first frame of a buffer.
pub(crate) fn first_frame(buffer: &[u8], frame_max: usize) -> First {
    if let Some(&kind) = buffer.first()
        && !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT)
    {
        return First::Bad(Fault::frame_error(format_args!(
            "type {kind}: unknown_frame"
        )));
    }
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else {
        return First::Partial { wanted: PREFIX };
    };
    let (kind, size) = (prefix[0], size_of(prefix));
    let total = size + OVERHEAD;
    if total > frame_max {
        return First::Bad(Fault::frame_error(format_args!(
            "type {kind}, payload of {size} octets is over the frame_max of {frame_max}"
        )));
    }
    match buffer.get(total - 1) {
        None => First::Partial { wanted: total },
        Some(&END) => First::Whole(total),
        Some(end) => First::Bad(Fault::frame_error(format_args!(
            "type {kind}, invalid frame end octet {end}"
        ))),
    }
}

fn size_of(prefix: &[u8; PREFIX]) -> usize {
    u32::from_be_bytes([prefix[3], prefix[4], prefix[5], prefix[6]]) as usize
}

/// Walks frames that [`whole_frames`] has checked.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    chunk: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// `chunk` holds whole frames and nothing else.
    pub(crate) fn new(chunk: &'a Bytes) -> Self {
        Self { chunk, rest: chunk }
    }
}

/// One frame, borrowed from the bytes read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: &'a [u8],
    chunk: &'a Bytes,
}

impl Frame<'_> {
    /// Part of the payload as a slice that outlives the frame; no bytes are copied.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        self.chunk.slice_ref(part)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let prefix = self.rest.first_chunk::<PREFIX>()?;
        let total = size_of(prefix) + OVERHEAD;
        let (frame, rest) = self.rest.split_at_checked(total)?;
        self.rest = rest;
        Some(Frame {
            kind: prefix[0],
            channel: u16::from_be_bytes([prefix[1], prefix[2]]),
            payload: &frame[PREFIX..total - 1],
            chunk: self.chunk,
        })
    }
}

/// Reads big-endian numbers and short strings off the front of a payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[value]| value)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A short string; `None` also when it is not UTF-8.
    pub(crate) fn short(&mut self) -> Option<&'a str> {
        let length = self.u8()?;
        std::str::from_utf8(self.take(length.into())?).ok()
    }

    /// A long string or an encoded table, without its length.
    pub(crate) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4096;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend(channel.to_be_bytes());
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload);
        out.push(END);
        out
    }

    #[test]
    fn whole_frames_are_walked_in_place_and_a_partial_one_waits() {
        let mut buffer = frame(METHOD, 1, b"abc");
        buffer.extend(frame(BODY, 513, b""));
        let whole_bytes = buffer.len();
        buffer.extend(&frame(HEADER, 1, b"defg")[..9]);
        let whole = whole_frames(&buffer, MAX);
        assert_eq!(whole.bytes, whole_bytes);
        assert_eq!(whole.wanted, 12);
        assert_eq!(whole.fault, None);

        let chunk = Bytes::from(buffer).slice(..whole.bytes);
        let frames: Vec<_> = Frames::new(&chunk).collect();
        assert_eq!(frames.len(), 2);
        assert_eq!(
            (frames[0].kind, frames[0].channel, frames[0].payload),
            (METHOD, 1, &b"abc"[..])
        );
        assert_eq!(
            (frames[1].kind, frames[1].channel, frames[1].payload),
            (BODY, 513, &b""[..])
        );
        let shared = frames[0].share(&frames[0].payload[1..]);
        assert_eq!(shared.as_ptr(), chunk[8..].as_ptr(), "no copy");
    }

    #[test]
    fn every_cut_of_valid_frames_waits_for_more() {
        let mut buffer = frame(METHOD, 1, b"abc");
        buffer.extend(frame(HEARTBEAT, 0, b""));
        for cut in 0..buffer.len() {
            let whole = whole_frames(&buffer[..cut], MAX);
            assert_eq!(whole.fault, None, "{cut}");
            assert_eq!(whole.bytes, if cut < 11 { 0 } else { 11 }, "{cut}");
            assert!(whole.bytes + whole.wanted > cut, "{cut}");
        }
    }

    #[test]
    fn bad_frames_are_frame_errors_after_the_good_ones_before_them() {
        #[track_caller]
        fn check(bad: &[u8], text: &str) {
            let good = frame(METHOD, 1, b"abc");
            let buffer = [good.as_slice(), bad].concat();
            let whole = whole_frames(&buffer, MAX);
            let fault = whole.fault.expect("a fault");
            assert_eq!((whole.bytes, fault.code), (good.len(), 501));
            assert!(fault.text.contains(text), "{}", fault.text);
        }
        check(&frame(4, 1, b"x"), "unknown_frame");
        check(&[0; 8], "unknown_frame");
        check(b"GET / HTTP/1.1", "unknown_frame");
        check(&frame(METHOD, 1, &[0; MAX]), "frame_max");
        check(&[METHOD, 0, 1, 0xff, 0xff, 0xff, 0xff], "frame_max");
        let mut wrong_end = frame(METHOD, 1, b"abc");
        *wrong_end.last_mut().expect("not empty") = 0xCD;
        check(&wrong_end, "end octet 205");
    }

    #[test]
    fn a_frame_of_exactly_frame_max_passes_and_one_more_octet_does_not() {
        let fits = frame(BODY, 1, &vec![7; MAX - OVERHEAD]);
        assert_eq!(whole_frames(&fits, MAX).bytes, MAX);
        let over = frame(BODY, 1, &vec![7; MAX - OVERHEAD + 1]);
        assert_eq!(whole_frames(&over, MAX).fault.map(|f| f.code), Some(501));
    }

    #[test]
    fn fields_end_with_none_not_a_panic() {
        let mut fields = Fields(&[2, b'h', b'i', 0, 0, 0, 1, b'x', 9]);
        assert_eq!(fields.short(), Some("hi"));
        assert_eq!(fields.long(), Some(&b"x"[..]));
        assert_eq!(fields.short(), None);
        assert_eq!(Fields(&[1, 0xff]).short(), None);
        assert_eq!(Fields(&[1]).u16(), None);
    }
}
