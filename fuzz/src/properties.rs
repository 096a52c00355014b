//! AMQP properties: what is accepted can be read to the end, and made again.

use annals_core::Properties;
use annals_core::properties::REPLAY_ID;

/// Every accessor works on what was accepted, and its header table can be carried over.
pub fn run(bytes: &[u8]) {
    let Ok(properties) = Properties::parse(bytes.to_vec()) else {
        return;
    };
    assert_eq!(properties.bytes(), bytes);
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.message_type(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    assert!(texts.iter().flatten().all(|text| text.len() <= 255));
    let numbers = (
        properties.is_persistent(),
        properties.priority(),
        properties.timestamp(),
    );
    assert!(format!("{numbers:?} {properties:?}").len() > 1);

    // Headers are all there: what the iterator yields, copied, is the same table.
    let count = properties.headers().count();
    let copy = Properties::builder()
        .header_fields(properties.header_table())
        .header(REPLAY_ID, "r")
        .build()
        .expect("a checked table stays valid");
    assert_eq!(copy.headers().count(), count + 1);
    assert!(copy.header(REPLAY_ID).is_some());
}

/// Properties of every kind, with every type of header.
pub fn seeds() -> Vec<Vec<u8>> {
    let full = Properties::builder()
        .content_type("application/cloudevents+protobuf")
        .content_encoding("identity")
        .persistent()
        .priority(3)
        .correlation_id("c")
        .reply_to("q")
        .expiration("1000")
        .message_id("id-1")
        .timestamp(7)
        .message_type("vcs.v1.TagCreated")
        .user_id("guest")
        .app_id("vcs")
        .cluster_id("x")
        .header("text", "größe")
        .header_fields(b"\x01tt\x01\x01bb\xff\x01BB\x01\x01ss\0\x01\x01uu\0\x01")
        .header_fields(b"\x01II\0\0\0\x01\x01ii\0\0\0\x01\x01ll\0\0\0\0\0\0\0\x01")
        .header_fields(b"\x01ff\0\0\0\0\x01dd\0\0\0\0\0\0\0\0\x01TT\0\0\0\0\0\0\0\x01")
        .header_fields(b"\x01DD\0\0\0\0\x01\x01xx\0\0\0\x02ab\x01VV")
        .header_fields(b"\x01AA\0\0\0\x04t\x01Vt\0\x01FF\0\0\0\x04\x01kt\x01")
        .build()
        .map_or_else(|_| Vec::new(), |p| p.bytes().to_vec());
    let small = Properties::builder().header(REPLAY_ID, "r-1").build();
    vec![
        full,
        small.expect("well-formed").bytes().to_vec(),
        Properties::none().bytes().to_vec(),
    ]
}
