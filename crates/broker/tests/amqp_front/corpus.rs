//! Seeds of the frame parser's fuzzing, and what grows from them, as a plain test.

use super::peer::{declare, encode, frame, header, method, open, publish, start_ok, tune_ok};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, channel};
use annals_broker::amqp::decode_all;
use proptest::prelude::*;

/// Valid frames of every kind, and frames that once needed care.
fn seeds() -> Vec<Vec<u8>> {
    let mut nested = Vec::new();
    while nested.len() < 3000 {
        let mut outer = vec![1, b'k', b'F'];
        outer.extend((nested.len() as u32).to_be_bytes());
        outer.append(&mut nested);
        nested = outer;
    }
    let mut deep = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    deep.extend((nested.len() as u32).to_be_bytes());
    deep.extend(nested);
    vec![
        method(0, AMQPClass::Connection(start_ok("guest"))),
        method(0, AMQPClass::Connection(tune_ok(1, 4096))),
        method(0, AMQPClass::Connection(open("/"))),
        method(
            1,
            AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
        ),
        method(1, AMQPClass::Queue(declare("q"))),
        publish(1, "x", "key", true, b"body"),
        publish(2, "", "", false, b""),
        [
            publish(1, "x", "k", false, b"a"),
            publish(1, "x", "k", false, b"b"),
        ]
        .concat(),
        method(
            1,
            AMQPClass::Basic(basic::AMQPMethod::Nack(basic::Nack {
                delivery_tag: 1,
                multiple: true,
                requeue: true,
            })),
        ),
        encode(&AMQPFrame::Heartbeat),
        frame(1, 1, &deep),
        header(1, u64::MAX),
        // A table that says it is longer than its frame.
        frame(1, 1, &[0, 50, 0, 10, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        Vec::new(),
    ]
}

#[test]
fn the_corpus_decodes_without_a_panic_and_valid_frames_are_counted() {
    let seeds = seeds();
    let counts: Vec<usize> = seeds.iter().map(|seed| decode_all(seed)).collect();
    assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 2, 1, 0, 0, 0, 0, 0]);
    for a in &seeds {
        for b in &seeds {
            decode_all(&[a.as_slice(), b].concat());
        }
        for cut in 0..a.len() {
            decode_all(&a[..cut]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_seeds_never_panic(
        at in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let seeds = seeds();
        let mut bytes = at.get(&seeds).clone();
        bytes.extend(publish(1, "x", "key", true, b"body"));
        for (position, byte) in changes {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        decode_all(&bytes);
    }

    #[test]
    fn any_payload_of_any_method_never_panics(
        class in prop::sample::select(vec![10_u16, 20, 40, 50, 60, 85, 90, 7]),
        method in 0_u16..130,
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = class.to_be_bytes().to_vec();
        bytes.extend(method.to_be_bytes());
        bytes.extend(payload);
        decode_all(&frame(1, 1, &bytes));
    }
}
