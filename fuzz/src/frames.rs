//! AMQP frames: any bytes as a client's, against `amq-protocol`'s parser.

use amq_protocol::frame::{AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, connection, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use annals_broker::amqp::decode_all;
use annals_core::Properties;

/// Octets of a frame before its payload.
const PREFIX: usize = 7;
const METHOD: u8 = 1;
/// Frames of an input that are looked at one by one.
const FRAMES_MAX: usize = 16;

/// No bytes panic; a method that is taken is one to the other parser too; and what was decoded
/// stays decoded when more follows.
pub fn run(bytes: &[u8]) {
    let whole = decode_all(bytes);
    let mut rest = bytes;
    for _ in 0..FRAMES_MAX {
        let Some((frame, after)) = split(rest) else {
            break;
        };
        let before = &bytes[..bytes.len() - after.len()];
        assert!(
            decode_all(before) <= whole,
            "more bytes undo what came before"
        );
        if frame[0] == METHOD && decode_all(frame) == 1 {
            let Ok((left, parsed)) = parse_frame(frame) else {
                panic!("only we take {}", frame.escape_ascii());
            };
            assert!(left.is_empty() && matches!(parsed, AMQPFrame::Method(..)));
        }
        rest = after;
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let size = bytes.get(3..PREFIX)?.try_into().expect("four bytes");
    let end = usize::try_from(u32::from_be_bytes(size)).ok()?;
    bytes.split_at_checked(end.checked_add(PREFIX + 1)?)
}

/// Every method a client sends that has fields, and publishes with their content.
pub fn seeds() -> Vec<Vec<u8>> {
    let arguments = || {
        let mut table = FieldTable::default();
        table.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        table.insert("x-max-length".into(), AMQPValue::LongLongInt(7));
        table.insert(
            "nested".into(),
            AMQPValue::FieldTable(FieldTable::default()),
        );
        table
    };
    let basic = |method| AMQPClass::Basic(method);
    let methods = [
        AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: arguments(),
            mechanism: "PLAIN".into(),
            response: "\0guest\0guest".into(),
            locale: "en_US".into(),
        })),
        AMQPClass::Connection(connection::AMQPMethod::Open(connection::Open {
            virtual_host: "/".into(),
        })),
        AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
        AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
            exchange: "x".into(),
            kind: "topic".into(),
            arguments: arguments(),
            ..exchange::Declare::default()
        })),
        AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
            queue: "q".into(),
            arguments: arguments(),
            ..queue::Declare::default()
        })),
        AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
            queue: "q".into(),
            exchange: "x".into(),
            routing_key: "a.#".into(),
            arguments: arguments(),
            ..queue::Bind::default()
        })),
        basic(basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: 9,
            ..basic::Qos::default()
        })),
        basic(basic::AMQPMethod::Consume(basic::Consume {
            queue: "q".into(),
            consumer_tag: "c".into(),
            arguments: arguments(),
            ..basic::Consume::default()
        })),
        basic(basic::AMQPMethod::Ack(basic::Ack {
            delivery_tag: 1,
            multiple: true,
        })),
        basic(basic::AMQPMethod::Nack(basic::Nack {
            delivery_tag: 2,
            multiple: true,
            requeue: true,
        })),
    ];
    let mut seeds: Vec<Vec<u8>> = methods.into_iter().map(method).collect();
    seeds.extend([
        publish(b"body"),
        publish(b""),
        [publish(b"a"), publish(b"b")].concat(),
    ]);
    seeds.push(frame(8, 0, b""));
    // A table that says it is longer than its frame.
    seeds.push(frame(
        METHOD,
        1,
        &[0, 50, 0, 10, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ));
    seeds
}

fn method(class: AMQPClass) -> Vec<u8> {
    let written = gen_frame(&AMQPFrame::Method(1, class))(Vec::new().into());
    written.expect("a method encodes").into_inner().0
}

fn publish(body: &[u8]) -> Vec<u8> {
    let properties = Properties::builder().persistent().header("k", "v").build();
    let mut header = [0, 60, 0, 0].to_vec();
    header.extend((body.len() as u64).to_be_bytes());
    header.extend(properties.expect("well-formed").bytes());
    let start = AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
        exchange: "x".into(),
        routing_key: "k".into(),
        mandatory: true,
        immediate: false,
    }));
    let body = match body {
        [] => Vec::new(),
        body => [frame(3, 1, &body[..1]), frame(3, 1, &body[1..])].concat(),
    };
    [method(start), frame(2, 1, &header), body].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(0xCE);
    out
}
