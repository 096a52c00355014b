//! The way in for a fuzzer: any bytes through the same code that a socket's bytes go through.

use super::codec::{Frames, METHOD, whole_frames};
use super::content::Content;
use super::fault::Fault;
use super::method::{Method, decode};
use super::output::encode;
use bytes::Bytes;

/// Longest frame and message taken.
const FRAME_MAX: usize = 4096;
const MESSAGE_MAX: usize = 1 << 16;

/// Decodes bytes as a client's frames until the first fault; how many methods and contents were
/// whole. Never panics, whatever the bytes; what it holds is bounded by their number.
#[doc(hidden)]
pub fn decode_all(bytes: &[u8]) -> usize {
    let chunk = Bytes::copy_from_slice(bytes);
    let whole = whole_frames(&chunk, FRAME_MAX);
    let chunk = chunk.slice(..whole.bytes);
    let mut contents: [Content; 4] = Default::default();
    let mut count = 0;
    for frame in Frames::new(&chunk) {
        let content = &mut contents[usize::from(frame.channel) % 4];
        let taken = if frame.kind == METHOD {
            method(frame.payload, content)
        } else {
            content
                .go_on(&frame, MESSAGE_MAX)
                .map(|whole| whole.is_some())
        };
        match taken {
            Ok(whole) => count += usize::from(whole),
            Err(fault) => {
                // What would be answered is encoded as well.
                let _ = super::writer::connection_close(&fault);
                break;
            }
        }
    }
    count
}

fn method(payload: &[u8], content: &mut Content) -> Result<bool, Fault> {
    if !content.expects_method() {
        return Err(content.unexpected_method());
    }
    match decode(payload)? {
        Method::Publish(publish) => {
            content.start(publish);
            Ok(false)
        }
        Method::Settle(_) => Ok(true),
        Method::Other(other) => {
            let again = encode(1, other.class);
            assert!(!again.is_empty(), "what was decoded encodes");
            Ok(true)
        }
    }
}
