//! Methods in: publish and settlement by hand, in place; all others by `amq-protocol`.
//!
//! `amq-protocol` recurses into nested tables, so the one table a method may have is checked for
//! depth first; a peer cannot reach the end of the stack.

use super::codec::Fields;
use super::fault::{Fault, MethodId};
use amq_protocol::protocol::{AMQPClass, parse_class};
use annals_core::properties::check_table;

pub(crate) const BASIC: u16 = 60;
pub(crate) const PUBLISH: MethodId = (BASIC, 40);
pub(crate) const ACK: MethodId = (BASIC, 80);
pub(crate) const REJECT: MethodId = (BASIC, 90);
pub(crate) const NACK: MethodId = (BASIC, 120);

/// A method from a client.
#[derive(Debug)]
pub(crate) enum Method<'a> {
    /// basic.publish; content follows.
    Publish(PublishMethod<'a>),
    /// basic.ack, basic.nack, basic.reject.
    Settle(SettleMethod),
    /// Any other.
    Other(OtherMethod<'a>),
}

/// basic.publish, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublishMethod<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
}

/// basic.ack, basic.nack or basic.reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SettleMethod {
    pub(crate) id: MethodId,
    pub(crate) tag: u64,
    pub(crate) multiple: bool,
    pub(crate) requeue: bool,
}

/// Any other method.
#[derive(Debug)]
pub(crate) struct OtherMethod<'a> {
    pub(crate) id: MethodId,
    pub(crate) class: AMQPClass,
    /// The payload after class and method.
    pub(crate) fields: &'a [u8],
    /// Its encoded table without the length; empty if it has none.
    pub(crate) table: &'a [u8],
}

/// Decodes the payload of a method frame.
pub(crate) fn decode(payload: &[u8]) -> Result<Method<'_>, Fault> {
    let mut fields = Fields(payload);
    let (Some(class), Some(method)) = (fields.u16(), fields.u16()) else {
        return Err(Fault::frame_error("a method frame without a method"));
    };
    let id = (class, method);
    let decoded = match id {
        PUBLISH => publish(fields).map(Method::Publish),
        ACK | NACK | REJECT => settle(id, fields).map(Method::Settle),
        _ => return other(id, payload, fields.0).map(Method::Other),
    };
    decoded.ok_or_else(|| malformed(id))
}

fn publish(mut fields: Fields<'_>) -> Option<PublishMethod<'_>> {
    fields.u16()?;
    let exchange = fields.short()?;
    let routing_key = fields.short()?;
    let bits = fields.u8()?;
    fields.0.is_empty().then_some(PublishMethod {
        exchange,
        routing_key,
        mandatory: bits & 1 != 0,
        immediate: bits & 2 != 0,
    })
}

fn settle(id: MethodId, mut fields: Fields<'_>) -> Option<SettleMethod> {
    let tag = fields.u64()?;
    let bits = fields.u8()?;
    let (multiple, requeue) = match id {
        ACK => (bits & 1 != 0, false),
        REJECT => (false, bits & 1 != 0),
        _ => (bits & 1 != 0, bits & 2 != 0),
    };
    fields.0.is_empty().then_some(SettleMethod {
        id,
        tag,
        multiple,
        requeue,
    })
}

fn other<'a>(id: MethodId, payload: &'a [u8], fields: &'a [u8]) -> Result<OtherMethod<'a>, Fault> {
    if !from_client(id) {
        return Err(Fault::new(503, "unimplemented method").on(id));
    }
    let table = table(id, Fields(fields)).ok_or_else(|| malformed(id))?;
    check_table(table, 0).map_err(|_| malformed(id))?;
    match parse_class(payload) {
        Ok(([], class)) => Ok(OtherMethod {
            id,
            class,
            fields,
            table,
        }),
        _ => Err(malformed(id)),
    }
}

/// The encoded table of a method that has one.
fn table(id: MethodId, mut fields: Fields<'_>) -> Option<&[u8]> {
    // Reserved octets, short strings and flag octets before the table.
    let (reserved, shorts, flags) = match id {
        (10, 11) => (0, 0, 0),
        (40, 10) => (2, 2, 1),
        (40, 30 | 40) | (50, 20) => (2, 3, 1),
        (50, 10) => (2, 1, 1),
        (50, 50) => (2, 3, 0),
        (BASIC, 20) => (2, 2, 1),
        _ => return Some(&[]),
    };
    for _ in 0..reserved {
        fields.u8()?;
    }
    for _ in 0..shorts {
        fields.short()?;
    }
    for _ in 0..flags {
        fields.u8()?;
    }
    fields.long()
}

/// Whether a client may send it at all.
fn from_client(id: MethodId) -> bool {
    matches!(
        id,
        (10, 11 | 21 | 31 | 40 | 50 | 51 | 70)
            | (20, 10 | 20 | 21 | 40 | 41)
            | (40, 10 | 20 | 30 | 40)
            | (50, 10 | 20 | 30 | 40 | 50)
            | (BASIC, 10 | 20 | 30 | 31 | 70 | 100 | 110)
            | (85, 10)
            | (90, 10 | 20 | 30)
    )
}

fn malformed((class, method): MethodId) -> Fault {
    Fault::frame_error(format_args!("cannot decode method {class}.{method}")).on((class, method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::frame::{AMQPFrame, gen_frame};
    use amq_protocol::protocol::{basic, queue};
    use amq_protocol::types::AMQPValue;

    /// The payload of a method as `amq-protocol` encodes it.
    fn payload(class: AMQPClass) -> Vec<u8> {
        let frame = AMQPFrame::Method(1, class);
        let (bytes, _) = gen_frame(&frame)(Vec::new().into())
            .expect("encodes")
            .into_inner();
        bytes[7..bytes.len() - 1].to_vec()
    }

    #[test]
    fn publishes_decode_as_the_library_encodes_them() {
        for (mandatory, immediate) in [(false, false), (true, false), (false, true), (true, true)] {
            let payload = payload(AMQPClass::Basic(basic::AMQPMethod::Publish(
                basic::Publish {
                    exchange: "events".into(),
                    routing_key: "vcs.v1.TagCreated".into(),
                    mandatory,
                    immediate,
                },
            )));
            let Ok(Method::Publish(publish)) = decode(&payload) else {
                panic!("not a publish");
            };
            let expected = PublishMethod {
                exchange: "events",
                routing_key: "vcs.v1.TagCreated",
                mandatory,
                immediate,
            };
            assert_eq!(publish, expected);
        }
    }

    #[test]
    fn settlements_decode_as_the_library_encodes_them() {
        #[track_caller]
        fn check(method: basic::AMQPMethod, id: MethodId, multiple: bool, requeue: bool) {
            let payload = payload(AMQPClass::Basic(method));
            let Ok(Method::Settle(settle)) = decode(&payload) else {
                panic!("not a settlement");
            };
            let expected = SettleMethod {
                id,
                tag: 7,
                multiple,
                requeue,
            };
            assert_eq!(settle, expected);
        }
        for a in [false, true] {
            let ack = basic::Ack {
                delivery_tag: 7,
                multiple: a,
            };
            check(basic::AMQPMethod::Ack(ack), ACK, a, false);
            let reject = basic::Reject {
                delivery_tag: 7,
                requeue: a,
            };
            check(basic::AMQPMethod::Reject(reject), REJECT, false, a);
            for b in [false, true] {
                let nack = basic::Nack {
                    delivery_tag: 7,
                    multiple: a,
                    requeue: b,
                };
                check(basic::AMQPMethod::Nack(nack), NACK, a, b);
            }
        }
    }

    #[test]
    fn a_methods_table_is_handed_on_encoded() {
        let mut arguments = amq_protocol::types::FieldTable::default();
        let quorum = AMQPValue::LongString("quorum".into());
        arguments.insert("x-queue-type".into(), quorum);
        let payload = payload(AMQPClass::Queue(queue::AMQPMethod::Declare(
            queue::Declare {
                queue: "q".into(),
                arguments,
                ..Default::default()
            },
        )));
        let Ok(Method::Other(other)) = decode(&payload) else {
            panic!("not another method");
        };
        assert_eq!(other.id, (50, 10));
        let fields: Vec<_> = annals_core::properties::Fields::new(other.table).collect();
        assert_eq!(fields.len(), 1);
        assert_eq!(fields[0].0, "x-queue-type");
    }

    #[test]
    fn bad_methods_are_refused_by_kind() {
        #[track_caller]
        fn check(payload: &[u8], code: u16) {
            assert_eq!(decode(payload).expect_err("refused").code, code);
        }
        check(&[], 501);
        check(&[0, 60, 0], 501);
        check(&[0, 60, 0, 40, 0, 0, 9], 501);
        check(&[0, 60, 0, 80, 1], 501);
        check(&[0, 50, 0, 10, 0, 0, 1, b'q', 0, 0, 0, 0, 9], 501);
        check(&[0, 99, 0, 10], 503);
        check(&[0, 60, 0, 60], 503);
        check(&[0xff; 4], 503);
    }

    #[test]
    fn tables_nested_to_the_end_of_the_stack_are_refused() {
        let mut table = Vec::new();
        while table.len() < 100_000 {
            let mut outer = vec![1, b'k', b'F'];
            outer.extend((table.len() as u32).to_be_bytes());
            outer.append(&mut table);
            table = outer;
        }
        let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
        payload.extend((table.len() as u32).to_be_bytes());
        payload.extend(table);
        assert_eq!(decode(&payload).expect_err("refused").code, 501);
    }
}
