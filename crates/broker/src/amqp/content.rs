//! Content of a publish put together: method, then header, then body frames until it is whole.

use super::codec::{BODY, Fields, Frame, HEADER};
use super::fault::Fault;
use super::method::{BASIC, PUBLISH, PublishMethod};
use annals_core::Properties;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// Most bytes set aside for a body that is only announced.
const AHEAD_MAX: usize = 64 << 10;

/// What a channel expects next.
#[derive(Debug, Default)]
pub(crate) struct Content {
    state: State,
    names: Names,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Method,
    Header(Head),
    Body {
        head: Head,
        properties: Properties,
        size: usize,
        body: BytesMut,
    },
}

/// What basic.publish says.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) exchange: Arc<str>,
    pub(crate) routing_key: Arc<str>,
    pub(crate) mandatory: bool,
}

/// A publish with its content.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) head: Head,
    pub(crate) properties: Properties,
    pub(crate) body: Bytes,
}

impl Content {
    /// Whether a method may come.
    pub(crate) fn expects_method(&self) -> bool {
        matches!(self.state, State::Method)
    }

    /// Bytes of a body held so far.
    pub(crate) fn held(&self) -> usize {
        match &self.state {
            State::Body { body, .. } => body.len(),
            _ => 0,
        }
    }

    /// What is wrong with a method frame now.
    pub(crate) fn unexpected_method(&self) -> Fault {
        let expected = match self.state {
            State::Header(_) => {
                "expected content header for class 60, got non content header frame instead"
            }
            _ => "expected content body, got non content body frame instead",
        };
        Fault::unexpected_frame(expected).on(PUBLISH)
    }

    /// Starts with a publish.
    pub(crate) fn start(&mut self, publish: PublishMethod<'_>) {
        self.state = State::Header(Head {
            exchange: interned(&mut self.names.exchange, publish.exchange),
            routing_key: interned(&mut self.names.routing_key, publish.routing_key),
            mandatory: publish.mandatory,
        });
    }

    /// Goes on with a header or body frame; the publish when it is whole.
    pub(crate) fn go_on(
        &mut self,
        frame: &Frame<'_>,
        size_max: usize,
    ) -> Result<Option<Whole>, Fault> {
        match (std::mem::take(&mut self.state), frame.kind) {
            (State::Header(head), HEADER) => self.header(head, frame, size_max),
            (
                State::Body {
                    head,
                    properties,
                    size,
                    body,
                },
                BODY,
            ) => self.body(head, properties, size, body, frame),
            (State::Method, _) => Err(Fault::unexpected_frame(
                "expected method frame, got non method frame instead",
            )),
            (state, _) => {
                self.state = state;
                Err(self.unexpected_method())
            }
        }
    }

    fn header(
        &mut self,
        head: Head,
        frame: &Frame<'_>,
        size_max: usize,
    ) -> Result<Option<Whole>, Fault> {
        let mut fields = Fields(frame.payload);
        let (Some(class), Some(_weight), Some(size)) = (fields.u16(), fields.u16(), fields.u64())
        else {
            return Err(Fault::frame_error("a content header is cut short").on(PUBLISH));
        };
        if class != BASIC {
            let detail = format_args!(
                "expected content header for class 60, got one for class {class} instead"
            );
            return Err(Fault::unexpected_frame(detail).on(PUBLISH));
        }
        let properties = Properties::parse(frame.share(fields.0))
            .map_err(|error| Fault::frame_error(error).on(PUBLISH))?;
        let with_properties = size.saturating_add(properties.bytes().len() as u64);
        if with_properties > size_max as u64 {
            let detail =
                format_args!("message size {size} is larger than configured max size {size_max}");
            return Err(Fault::new(406, detail).on(PUBLISH));
        }
        if size == 0 {
            return Ok(Some(Whole {
                head,
                properties,
                body: Bytes::new(),
            }));
        }
        self.state = State::Body {
            head,
            properties,
            size: size as usize,
            body: BytesMut::new(),
        };
        Ok(None)
    }

    fn body(
        &mut self,
        head: Head,
        properties: Properties,
        size: usize,
        mut body: BytesMut,
        frame: &Frame<'_>,
    ) -> Result<Option<Whole>, Fault> {
        let part = frame.payload;
        if body.is_empty() && part.len() == size {
            return Ok(Some(Whole {
                head,
                properties,
                body: frame.share(part),
            }));
        }
        if part.len() > size - body.len() {
            return Err(
                Fault::frame_error("content body is longer than its header says").on(PUBLISH),
            );
        }
        if body.is_empty() {
            body.reserve(size.min(part.len() + AHEAD_MAX));
        }
        body.extend_from_slice(part);
        if body.len() == size {
            return Ok(Some(Whole {
                head,
                properties,
                body: body.freeze(),
            }));
        }
        self.state = State::Body {
            head,
            properties,
            size,
            body,
        };
        Ok(None)
    }
}

/// The last names seen: publishes of one channel mostly share them, and then cost no allocation.
#[derive(Debug, Default)]
struct Names {
    exchange: Option<Arc<str>>,
    routing_key: Option<Arc<str>>,
}

fn interned(last: &mut Option<Arc<str>>, text: &str) -> Arc<str> {
    match last {
        Some(last) if **last == *text => last.clone(),
        _ => last.insert(text.into()).clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Frames, METHOD, OVERHEAD, whole_frames};
    use super::*;

    const PUBLISH_METHOD: PublishMethod<'_> = PublishMethod {
        exchange: "x",
        routing_key: "k",
        mandatory: true,
        immediate: false,
    };

    fn frame(kind: u8, payload: &[u8]) -> Bytes {
        let mut out = vec![kind, 0, 1];
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload);
        out.push(0xCE);
        out.into()
    }

    fn header(class: u16, size: u64) -> Bytes {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend([0, 0]);
        payload.extend(size.to_be_bytes());
        payload.extend([0, 0]);
        frame(HEADER, &payload)
    }

    fn feed(content: &mut Content, bytes: &Bytes) -> Result<Option<Whole>, Fault> {
        assert_eq!(
            whole_frames(bytes, bytes.len() + OVERHEAD).bytes,
            bytes.len()
        );
        let frame = Frames::new(bytes).next().expect("a frame");
        content.go_on(&frame, 100)
    }

    #[test]
    fn a_body_in_one_frame_is_not_copied() {
        let mut content = Content::default();
        content.start(PUBLISH_METHOD);
        assert!(feed(&mut content, &header(60, 3)).unwrap().is_none());
        let body = frame(BODY, b"abc");
        let whole = feed(&mut content, &body).unwrap().expect("whole");
        assert_eq!(whole.body.as_ptr(), body[7..].as_ptr());
        assert_eq!((&*whole.head.exchange, whole.head.mandatory), ("x", true));
        assert!(content.expects_method());
    }

    #[test]
    fn a_body_in_many_frames_is_put_together_empty_ones_included() {
        let mut content = Content::default();
        content.start(PUBLISH_METHOD);
        assert!(feed(&mut content, &header(60, 5)).unwrap().is_none());
        for part in [&b"ab"[..], b"", b"cd"] {
            assert!(feed(&mut content, &frame(BODY, part)).unwrap().is_none());
        }
        assert_eq!(content.held(), 4);
        let whole = feed(&mut content, &frame(BODY, b"e"))
            .unwrap()
            .expect("whole");
        assert_eq!(&whole.body[..], b"abcde");
    }

    #[test]
    fn an_empty_body_needs_no_frame() {
        let mut content = Content::default();
        content.start(PUBLISH_METHOD);
        let whole = feed(&mut content, &header(60, 0)).unwrap().expect("whole");
        assert!(whole.body.is_empty());
    }

    #[test]
    fn frames_out_of_order_and_sizes_that_lie_are_faults() {
        #[track_caller]
        fn check(frames: &[Bytes], started: bool, code: u16) {
            let mut content = Content::default();
            if started {
                content.start(PUBLISH_METHOD);
            }
            let (last, before) = frames.split_last().expect("frames");
            for frame in before {
                assert!(feed(&mut content, frame).expect("no fault").is_none());
            }
            assert_eq!(feed(&mut content, last).expect_err("a fault").code, code);
        }
        check(&[header(60, 1)], false, 505);
        check(&[frame(BODY, b"a")], false, 505);
        check(&[frame(BODY, b"a")], true, 505);
        check(&[header(60, 1), header(60, 1)], true, 505);
        check(&[header(60, 1), frame(METHOD, b"a")], true, 505);
        check(&[header(50, 1)], true, 505);
        check(&[header(60, 101)], true, 406);
        check(&[header(60, u64::MAX)], true, 406);
        check(&[header(60, 1), frame(BODY, b"ab")], true, 501);
        check(
            &[header(60, 5), frame(BODY, b"ab"), frame(BODY, b"abcd")],
            true,
            501,
        );
        check(&[frame(HEADER, &[0, 60])], true, 501);
        check(
            &[frame(HEADER, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff])],
            true,
            501,
        );
    }

    #[test]
    fn neighbours_share_their_names() {
        let mut content = Content::default();
        content.start(PUBLISH_METHOD);
        let first = feed(&mut content, &header(60, 0)).unwrap().expect("whole");
        content.start(PUBLISH_METHOD);
        let second = feed(&mut content, &header(60, 0)).unwrap().expect("whole");
        assert!(Arc::ptr_eq(&first.head.exchange, &second.head.exchange));
    }
}
