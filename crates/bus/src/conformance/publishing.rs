//! Properties of publishing and routing.

use super::Backend;
use super::setting::{
    EXCHANGE, QUEUE, bodies, collect, consume, declare, expect, message, publish, publish_numbers,
    publish_one, publish_quietly, settle_each, with_queue,
};
use crate::{ErrorKind, ExchangeKind, Message, Outcome, Settle};
use annals_core::Properties;
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;

/// Confirmed means queued: it is there even if the publisher is gone at once.
pub async fn a_confirmed_message_is_queued(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..3).await;
    bus.close().await.expect("can be closed");
    expect(&*backend.connect().await, QUEUE, &["0", "1", "2"]).await;
}

/// Nothing is added to a message, taken from it or encoded anew.
pub async fn body_and_properties_arrive_byte_identical(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let all_bytes: Vec<u8> = (0..=255).chain([0, 0]).collect();
    for properties in [Properties::none(), full_properties()] {
        let sent = Message {
            properties,
            ..message("", QUEUE, all_bytes.clone())
        };
        publish(&*bus, vec![sent.clone()]).await;
        let mut consumer = consume(&*bus, QUEUE, 0).await;
        let got = collect(&mut *consumer, 1).await.remove(0);
        assert_eq!(got.body, sent.body);
        assert_eq!(got.properties.bytes(), sent.properties.bytes());
        assert_eq!((&*got.exchange, &*got.routing_key), ("", QUEUE));
        settle_each(&mut *consumer, Settle::Ack, &[got]).await;
        consumer.cancel().await.expect("can be cancelled");
    }
}

/// Within a call and from one call to the next.
pub async fn messages_arrive_in_the_order_published(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..40).await;
    publish_numbers(&*bus, 40..60).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let got = collect(&mut *consumer, 60).await;
    let expected: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&got), expected);
    assert!(got.is_sorted_by(|a, b| a.tag < b.tag), "tags do not grow");
}

/// Of 1 MiB, and of nothing.
pub async fn a_big_and_an_empty_body_pass(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let big: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let sent = [Bytes::from(big), Bytes::new()];
    publish(&*bus, sent.clone().map(|b| message("", QUEUE, b)).into()).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let got = collect(&mut *consumer, 2).await;
    let lengths: Vec<usize> = got.iter().map(|d| d.body.len()).collect();
    assert_eq!(lengths, [1 << 20, 0]);
    assert!(got[0].body == sent[0], "the body came back changed");
}

/// None lost, none twice, though published and consumed at the same time in many batches.
pub async fn ten_thousand_small_messages_arrive(backend: Arc<dyn Backend>) {
    const COUNT: usize = 10_000;
    let bus = with_queue(&*backend).await;
    let publisher = backend.connect().await;
    let publishing = async {
        for from in (0..COUNT).step_by(500) {
            publish_numbers(&*publisher, from..from + 500).await;
        }
    };
    let consuming = async {
        let mut consumer = consume(&*bus, QUEUE, 300).await;
        let mut got = HashSet::new();
        while got.len() < COUNT {
            let deliveries = consumer.next().await.expect("the consumer works");
            let deliveries = deliveries.expect("the consumer has not ended");
            for body in bodies(&deliveries) {
                assert!(!got.contains(&body), "message {body} came twice");
                got.insert(body);
            }
            settle_each(&mut *consumer, Settle::Ack, &deliveries).await;
        }
        consumer.cancel().await.expect("can be cancelled");
    };
    tokio::join!(publishing, consuming);
    expect(&*bus, QUEUE, &[]).await;
}

/// `*` is one word, `#` any number of words.
pub async fn a_topic_exchange_routes_by_pattern(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    let exchanges = [(EXCHANGE, ExchangeKind::Topic)];
    let queues = ["q.one", "q.tail", "q.all", "q.literal"];
    let bindings = [
        (EXCHANGE, "vcs.*.Pushed", "q.one"),
        (EXCHANGE, "vcs.#", "q.tail"),
        (EXCHANGE, "#", "q.all"),
        (EXCHANGE, "vcs.v1.Tagged", "q.literal"),
    ];
    declare(&*bus, &exchanges, &queues, &bindings).await;
    let keys = ["vcs.v1.Pushed", "vcs", "mail.Sent", "vcs.v1.Tagged"];
    publish(&*bus, keys.map(|key| message(EXCHANGE, key, key)).into()).await;
    expect(&*bus, "q.one", &["vcs.v1.Pushed"]).await;
    let tail = ["vcs.v1.Pushed", "vcs", "vcs.v1.Tagged"];
    expect(&*bus, "q.tail", &tail).await;
    expect(&*bus, "q.all", &keys).await;
    expect(&*bus, "q.literal", &["vcs.v1.Tagged"]).await;
}

/// Wildcards mean nothing there.
pub async fn a_direct_exchange_routes_by_equality(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    let exchanges = [(EXCHANGE, ExchangeKind::Direct)];
    let bindings = [(EXCHANGE, "a.b", "q.same"), (EXCHANGE, "#", "q.hash")];
    declare(&*bus, &exchanges, &["q.same", "q.hash"], &bindings).await;
    let keys = ["a.b", "#"];
    publish(&*bus, keys.map(|key| message(EXCHANGE, key, key)).into()).await;
    expect(&*bus, "q.same", &["a.b"]).await;
    expect(&*bus, "q.hash", &["#"]).await;
}

/// Whatever the keys.
pub async fn a_fanout_exchange_routes_to_all(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    let exchanges = [(EXCHANGE, ExchangeKind::Fanout)];
    let bindings = [(EXCHANGE, "", "q.one"), (EXCHANGE, "other", "q.two")];
    declare(&*bus, &exchanges, &["q.one", "q.two"], &bindings).await;
    publish(&*bus, vec![message(EXCHANGE, "key", "x")]).await;
    expect(&*bus, "q.one", &["x"]).await;
    expect(&*bus, "q.two", &["x"]).await;
}

/// Without a binding.
pub async fn the_default_exchange_routes_by_queue_name(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    declare(&*bus, &[], &["q.one", "q.two"], &[]).await;
    publish(&*bus, vec![message("", "q.two", "x")]).await;
    expect(&*bus, "q.one", &[]).await;
    expect(&*bus, "q.two", &["x"]).await;
}

/// Along bindings between exchanges, each by its own kind, through a circle once.
pub async fn an_exchange_routes_to_exchanges(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    let (top, below) = ("x.top", "x.below");
    let exchanges = [(top, ExchangeKind::Topic), (below, ExchangeKind::Direct)];
    let bindings = [
        (top, "a.#", below),
        (below, "a.b", "q.below"),
        (below, "a.b", top),
    ];
    declare(&*bus, &exchanges, &["q.below"], &bindings).await;
    let keys = ["a.b", "a.c", "c.b"];
    publish_quietly(&*bus, keys.map(|key| message(top, key, key)).into()).await;
    expect(&*bus, "q.below", &["a.b"]).await;
}

/// However many ways lead there.
pub async fn a_queue_gets_one_copy_though_several_bindings_match(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    let below = "x.below";
    let exchanges = [
        (EXCHANGE, ExchangeKind::Topic),
        (below, ExchangeKind::Fanout),
    ];
    let bindings = [
        (EXCHANGE, "#", QUEUE),
        (EXCHANGE, "a.*", QUEUE),
        (EXCHANGE, "a.b", below),
        (below, "", QUEUE),
    ];
    declare(&*bus, &exchanges, &[QUEUE], &bindings).await;
    publish(&*bus, vec![message(EXCHANGE, "a.b", "x")]).await;
    expect(&*bus, QUEUE, &["x"]).await;
}

/// Each failure stands in its message's place; the others are queued.
pub async fn an_unroutable_mandatory_message_is_an_error(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let (good, lost) = (
        |body: &'static str| message("", QUEUE, body),
        || message("", "nobody", "lost"),
    );
    let batch = vec![good("a"), lost(), good("b"), lost(), lost(), good("c")];
    let outcomes = bus.publish(batch).await;
    let taken: Vec<bool> = outcomes.iter().map(Outcome::is_bus).collect();
    assert_eq!(taken, [true, false, true, false, false, true]);
    for outcome in outcomes {
        if let Outcome::Failed(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains("no queue is bound"), "{error}");
        }
    }
    expect(&*bus, QUEUE, &["a", "b", "c"]).await;
}

/// Dropped and confirmed.
pub async fn an_unroutable_message_that_is_not_mandatory_is_no_error(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let lost = Message {
        mandatory: false,
        ..message("", "nobody", "lost")
    };
    publish(&*bus, vec![lost]).await;
    publish_numbers(&*bus, 0..1).await;
    expect(&*bus, QUEUE, &["0"]).await;
}

/// The bus stays usable, and consumers on it.
pub async fn an_unknown_exchange_fails_its_messages_only(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let outcome = publish_one(&*bus, message("nowhere", "key", "lost")).await;
    let error = outcome
        .into_result()
        .expect_err("there is no such exchange");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    publish_numbers(&*bus, 0..1).await;
    let got = collect(&mut *consumer, 1).await;
    assert_eq!(bodies(&got), ["0"]);
}

/// Every property and every type of header field; headers by name, as a client may sort them.
fn full_properties() -> Properties {
    let fields: &[&[u8]] = &[
        b"\x01at\x01",
        b"\x01bb\xff",
        b"\x01cs\xff\xfe",
        b"\x01du\x00\x01",
        b"\x01eI\xff\xff\xff\xfe",
        b"\x01fi\x00\x00\x00\x01",
        b"\x01gl\xff\xff\xff\xff\xff\xff\xff\xfe",
        b"\x01hf\x3f\x80\x00\x00",
        b"\x01id\x3f\xf0\x00\x00\x00\x00\x00\x00",
        b"\x01jD\x02\x00\x00\x00\x07",
        b"\x01kS\x00\x00\x00\x02hi",
        b"\x01lx\x00\x00\x00\x03\x00\xff\x00",
        b"\x01mT\x00\x00\x00\x00\x65\x00\x00\x00",
        b"\x01nV",
        b"\x01oA\x00\x00\x00\x03t\x00V",
        b"\x01pF\x00\x00\x00\x04\x01kt\x01",
        b"\x01qB\xff",
    ];
    Properties::builder()
        .content_type("application/cloudevents+protobuf")
        .content_encoding("identity")
        .header_fields(&fields.concat())
        .persistent()
        .priority(3)
        .correlation_id("c-1")
        .reply_to("r-1")
        .message_id("m-1")
        .timestamp(1_700_000_000)
        .message_type("vcs.v1.Tagged")
        .app_id("vcs")
        .build()
        .expect("valid properties")
}
