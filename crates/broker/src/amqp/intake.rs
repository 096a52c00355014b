//! Bytes in: a socket's read half and what was read but is not yet a whole frame.

use super::codec::{First, first_frame, whole_frames};
use super::fault::Fault;
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Least and most bytes asked of one read; grows with what a read brings.
const READ_MIN: usize = 4 << 10;
const READ_MAX: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Intake<R> {
    reader: R,
    buffer: BytesMut,
    frame_max: usize,
    read_size: usize,
    wanted: usize,
}

impl<R: AsyncRead + Unpin> Intake<R> {
    pub(crate) fn new(reader: R, frame_max: usize) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            frame_max,
            read_size: READ_MIN,
            wanted: 0,
        }
    }

    pub(crate) fn set_frame_max(&mut self, frame_max: usize) {
        self.frame_max = frame_max;
    }

    /// Reads what is there, or waits for something; `false` at the end. Can be dropped and called
    /// again without loss.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        let missing = self.wanted.saturating_sub(self.buffer.len());
        let mut room = self.buffer.capacity() - self.buffer.len();
        if room < missing.max(self.read_size / 4) {
            self.buffer.reserve(self.read_size.max(missing));
            room = self.buffer.capacity() - self.buffer.len();
        }
        let read = self.reader.read_buf(&mut self.buffer).await?;
        if read == room {
            self.read_size = (self.read_size * 2).min(READ_MAX);
        } else if read < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(READ_MIN);
        }
        Ok(read > 0)
    }

    /// Takes all whole frames; what is wrong behind them, if anything.
    pub(crate) fn take_frames(&mut self) -> (Bytes, Option<Fault>) {
        let whole = whole_frames(&self.buffer, self.frame_max);
        self.wanted = whole.wanted;
        if whole.bytes == 0 {
            return (Bytes::new(), whole.fault);
        }
        (self.buffer.split_to(whole.bytes).freeze(), whole.fault)
    }

    /// Takes the first frame if it is whole.
    pub(crate) fn take_frame(&mut self) -> Result<Option<Bytes>, Fault> {
        match first_frame(&self.buffer, self.frame_max) {
            First::Whole(total) => Ok(Some(self.buffer.split_to(total).freeze())),
            First::Partial { .. } => Ok(None),
            First::Bad(fault) => Err(fault),
        }
    }

    /// Reads exactly `N` bytes; `None` at the end.
    pub(crate) async fn take_exact<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        while self.buffer.len() < N {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        let taken = self.buffer.split_to(N);
        Ok(taken.first_chunk().copied())
    }

    /// Reads and forgets until a read ends with `suffix`, or the other side ends.
    pub(crate) async fn discard_until(&mut self, suffix: &[u8]) -> io::Result<()> {
        self.wanted = 0;
        while !self.buffer.ends_with(suffix) {
            let forget = self.buffer.len().saturating_sub(suffix.len());
            bytes::Buf::advance(&mut self.buffer, forget);
            if !self.fill().await? {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn frames_are_found_however_the_bytes_arrive() {
        let frame = [8, 0, 0, 0, 0, 0, 0, 0xCE];
        let bytes: Vec<u8> = frame.repeat(50);
        for step in [1, 3, 8, 13, 400] {
            let (mut writer, reader) = tokio::io::duplex(step);
            let bytes = bytes.clone();
            let write = async move {
                writer.write_all(&bytes).await.expect("the reader reads");
            };
            let read = async {
                let mut intake = Intake::new(reader, 4096);
                let mut frames = 0;
                while intake.fill().await.expect("readable") {
                    let (chunk, fault) = intake.take_frames();
                    assert_eq!(fault, None);
                    frames += chunk.len() / frame.len();
                }
                frames
            };
            let ((), frames) = tokio::join!(write, read);
            assert_eq!(frames, 50);
        }
    }

    #[tokio::test]
    async fn a_frame_larger_than_a_read_is_put_together() {
        let (mut writer, reader) = tokio::io::duplex(1000);
        let mut frame = vec![3, 0, 1, 0, 1, 0, 0];
        frame.extend([7; 65536]);
        frame.push(0xCE);
        let expected = frame.clone();
        let write = async move {
            writer.write_all(&frame).await.expect("the reader reads");
        };
        let read = async {
            let mut intake = Intake::new(reader, 131_072);
            loop {
                assert!(intake.fill().await.expect("readable"));
                let (chunk, _) = intake.take_frames();
                if !chunk.is_empty() {
                    return chunk;
                }
            }
        };
        let ((), chunk) = tokio::join!(write, read);
        assert!(chunk == expected);
    }
}
