//! Frames out: a bounded buffer that small frames are copied into and large bodies pass by.

use super::codec::{BODY, END, HEADER, METHOD, OVERHEAD};
use super::fault::cut;
use super::method::BASIC;
use crate::message::Message;
use amq_protocol::frame::{AMQPFrame, gen_frame};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::types::ShortString;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Bytes gathered before a write.
const GATHER: usize = 256 << 10;
/// Body frames from here on are written from where they lie instead of being copied.
const PASS_BY: usize = 16 << 10;
/// Most slices of one vectored write.
const SLICES: usize = 16;

/// Frames that wait to be written.
#[derive(Debug)]
pub(crate) struct Output {
    /// Whole slices before `tail`.
    slices: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
    frame_max: usize,
}

/// What a delivery or a return says before its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deliver<'a> {
    pub(crate) channel: u16,
    pub(crate) consumer_tag: &'a str,
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
}

impl Output {
    pub(crate) fn new(frame_max: usize) -> Self {
        Self {
            slices: VecDeque::new(),
            tail: BytesMut::new(),
            bytes: 0,
            frame_max,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether it should be written before more is added.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= GATHER
    }

    /// Adds bytes that are whole frames.
    pub(crate) fn put_encoded(&mut self, frames: &[u8]) {
        self.tail.extend_from_slice(frames);
        self.bytes += frames.len();
    }

    /// basic.deliver and its content.
    pub(crate) fn put_deliver(&mut self, deliver: Deliver<'_>, message: &Message) {
        let start = self.open_method(deliver.channel, 60);
        put_short(&mut self.tail, deliver.consumer_tag);
        self.tail.put_u64(deliver.tag);
        self.tail.put_u8(deliver.redelivered.into());
        put_short(&mut self.tail, &message.exchange);
        put_short(&mut self.tail, &message.routing_key);
        self.close(start);
        self.put_content(deliver.channel, message.properties.bytes(), &message.body);
    }

    /// basic.get-ok and its content.
    pub(crate) fn put_get_ok(
        &mut self,
        channel: u16,
        tag: u64,
        redelivered: bool,
        left: u32,
        message: &Message,
    ) {
        let start = self.open_method(channel, 71);
        self.tail.put_u64(tag);
        self.tail.put_u8(redelivered.into());
        put_short(&mut self.tail, &message.exchange);
        put_short(&mut self.tail, &message.routing_key);
        self.tail.put_u32(left);
        self.close(start);
        self.put_content(channel, message.properties.bytes(), &message.body);
    }

    /// basic.return and its content.
    pub(crate) fn put_return(&mut self, channel: u16, code: u16, text: &str, message: &Message) {
        let start = self.open_method(channel, 50);
        self.tail.put_u16(code);
        put_short(&mut self.tail, text);
        put_short(&mut self.tail, &message.exchange);
        put_short(&mut self.tail, &message.routing_key);
        self.close(start);
        self.put_content(channel, message.properties.bytes(), &message.body);
    }

    /// basic.ack, as a confirm.
    pub(crate) fn put_ack(&mut self, channel: u16, tag: u64, multiple: bool) {
        let start = self.open_method(channel, 80);
        self.tail.put_u64(tag);
        self.tail.put_u8(multiple.into());
        self.close(start);
    }

    /// basic.nack, as a confirm.
    pub(crate) fn put_nack(&mut self, channel: u16, tag: u64, multiple: bool) {
        let start = self.open_method(channel, 120);
        self.tail.put_u64(tag);
        self.tail.put_u8(multiple.into());
        self.close(start);
    }

    /// A heartbeat.
    pub(crate) fn put_heartbeat(&mut self) {
        self.put_encoded(&[8, 0, 0, 0, 0, 0, 0, END]);
    }

    /// Writes all, and empties.
    pub(crate) async fn write_to<W: AsyncWrite + Unpin>(
        &mut self,
        writer: &mut W,
    ) -> io::Result<()> {
        if self.slices.is_empty() {
            writer.write_all(&self.tail).await?;
            self.tail.clear();
        } else {
            let tail = self.tail.split().freeze();
            self.slices.push_back(tail);
            write_slices(&mut self.slices, writer).await?;
        }
        self.bytes = 0;
        writer.flush().await
    }

    fn put_content(&mut self, channel: u16, properties: &[u8], body: &Bytes) {
        let start = self.open(HEADER, channel);
        self.tail.put_u16(BASIC);
        self.tail.put_u16(0);
        self.tail.put_u64(body.len() as u64);
        self.tail.put_slice(properties);
        self.close(start);
        let part_max = self.frame_max - OVERHEAD;
        let mut at = 0;
        while at < body.len() {
            let part = body.slice(at..body.len().min(at + part_max));
            at += part.len();
            self.put_body(channel, part);
        }
    }

    fn put_body(&mut self, channel: u16, part: Bytes) {
        self.tail.put_u8(BODY);
        self.tail.put_u16(channel);
        self.tail.put_u32(part.len() as u32);
        self.bytes += OVERHEAD + part.len();
        if part.len() < PASS_BY {
            self.tail.put_slice(&part);
        } else {
            let before = self.tail.split().freeze();
            self.slices.extend([before, part]);
        }
        self.tail.put_u8(END);
    }

    fn open_method(&mut self, channel: u16, method: u16) -> usize {
        let start = self.open(METHOD, channel);
        self.tail.put_u16(BASIC);
        self.tail.put_u16(method);
        start
    }

    /// Starts a frame whose size is not known yet; where its payload starts.
    fn open(&mut self, kind: u8, channel: u16) -> usize {
        self.tail.put_u8(kind);
        self.tail.put_u16(channel);
        self.tail.put_u32(0);
        self.tail.len()
    }

    fn close(&mut self, start: usize) {
        let size = self.tail.len() - start;
        self.tail[start - 4..start].copy_from_slice(&(size as u32).to_be_bytes());
        self.tail.put_u8(END);
        self.bytes += size + OVERHEAD;
    }
}

/// Encodes a method that is not on the hot path.
pub(crate) fn encode(channel: u16, class: AMQPClass) -> Vec<u8> {
    let frame = AMQPFrame::Method(channel, class);
    let written =
        gen_frame(&frame)(Vec::with_capacity(64).into()).expect("a Vec takes all that is written");
    written.into_inner().0
}

/// A short string; text over 255 bytes is cut.
pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(cut(text, 255)).expect("cut to 255 bytes")
}

fn put_short(out: &mut BytesMut, text: &str) {
    // Names came in as short strings or are ours; the cut keeps a frame well-formed regardless.
    let text = cut(text, 255);
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

async fn write_slices<W: AsyncWrite + Unpin>(
    slices: &mut VecDeque<Bytes>,
    writer: &mut W,
) -> io::Result<()> {
    while !slices.is_empty() {
        let mut written = {
            let mut vector = [IoSlice::new(&[]); SLICES];
            let count = slices.len().min(SLICES);
            for (slot, slice) in vector.iter_mut().zip(slices.iter()) {
                *slot = IoSlice::new(slice);
            }
            writer.write_vectored(&vector[..count]).await?
        };
        if written == 0 && slices.iter().take(SLICES).any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = slices.front_mut() {
            if written < first.len() {
                bytes::Buf::advance(first, written);
                break;
            }
            written -= first.len();
            slices.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::frame::parse_frame;
    use amq_protocol::protocol::basic;
    use annals_core::Properties;

    fn message(body: &[u8]) -> Message {
        Message {
            exchange: "events".into(),
            routing_key: "vcs.v1.TagCreated".into(),
            properties: Properties::builder()
                .message_id("id-1")
                .build()
                .expect("valid"),
            body: Bytes::copy_from_slice(body),
        }
    }

    async fn written(mut output: Output) -> Vec<u8> {
        let mut out = Vec::new();
        output.write_to(&mut out).await.expect("a Vec takes all");
        assert!(output.is_empty());
        out
    }

    fn parsed(mut bytes: &[u8]) -> Vec<AMQPFrame> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let (rest, frame) = parse_frame(bytes).expect("frames the library parses");
            frames.push(frame);
            bytes = rest;
        }
        frames
    }

    #[tokio::test]
    async fn a_delivery_is_what_the_library_parses() {
        let mut output = Output::new(131_072);
        let deliver = Deliver {
            channel: 3,
            consumer_tag: "ctag",
            tag: 9,
            redelivered: true,
        };
        output.put_deliver(deliver, &message(b"body"));
        let frames = parsed(&written(output).await);
        let expected = basic::Deliver {
            consumer_tag: "ctag".into(),
            delivery_tag: 9,
            redelivered: true,
            exchange: "events".into(),
            routing_key: "vcs.v1.TagCreated".into(),
        };
        assert_eq!(
            frames[0],
            AMQPFrame::Method(3, AMQPClass::Basic(basic::AMQPMethod::Deliver(expected)))
        );
        let AMQPFrame::Header(3, header) = &frames[1] else {
            panic!("not a header: {:?}", frames[1]);
        };
        assert_eq!(header.body_size, 4);
        assert_eq!(
            header
                .properties
                .message_id()
                .as_ref()
                .map(|id| id.as_str()),
            Some("id-1")
        );
        assert_eq!(frames[2], AMQPFrame::Body(3, b"body".to_vec()));
    }

    #[tokio::test]
    async fn bodies_are_cut_into_frames_whether_copied_or_passed_by() {
        for frame_max in [4096, 131_072] {
            let body: Vec<u8> = (0..300_000_u32).map(|i| i as u8).collect();
            let mut output = Output::new(frame_max);
            output.put_return(1, 312, "NO_ROUTE", &message(&body));
            output.put_ack(1, 4, true);
            let frames = parsed(&written(output).await);
            let mut joined = Vec::new();
            for frame in &frames {
                if let AMQPFrame::Body(1, part) = frame {
                    assert!(part.len() + OVERHEAD <= frame_max);
                    joined.extend_from_slice(part);
                }
            }
            assert!(joined == body);
            let ack = basic::Ack {
                delivery_tag: 4,
                multiple: true,
            };
            assert_eq!(
                frames.last(),
                Some(&AMQPFrame::Method(
                    1,
                    AMQPClass::Basic(basic::AMQPMethod::Ack(ack))
                ))
            );
        }
    }

    #[tokio::test]
    async fn nacks_and_heartbeats_are_what_the_library_parses() {
        let mut output = Output::new(4096);
        output.put_nack(2, 5, false);
        output.put_heartbeat();
        let nack = basic::Nack {
            delivery_tag: 5,
            multiple: false,
            requeue: false,
        };
        assert_eq!(
            parsed(&written(output).await),
            [
                AMQPFrame::Method(2, AMQPClass::Basic(basic::AMQPMethod::Nack(nack))),
                AMQPFrame::Heartbeat
            ]
        );
    }

    #[tokio::test]
    async fn a_writer_that_takes_little_at_a_time_gets_all_of_it() {
        let (mut writer, mut reader) = tokio::io::duplex(777);
        let body = vec![5; 200_000];
        let mut output = Output::new(131_072);
        output.put_return(1, 312, "NO_ROUTE", &message(&body));
        let mut whole = Output::new(131_072);
        whole.put_return(1, 312, "NO_ROUTE", &message(&body));
        let expected = written(whole).await;
        let write = async move {
            output
                .write_to(&mut writer)
                .await
                .expect("the reader reads");
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(
            write,
            tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut got)
        );
        read.expect("the writer ends");
        assert!(got == expected);
    }
}
