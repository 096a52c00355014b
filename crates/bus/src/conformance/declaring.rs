//! Properties of declarations and of what outlives a connection.

use super::Backend;
use super::setting::{
    EXCHANGE, QUEUE, bodies, collect, consume, declare, expect, message, publish, publish_numbers,
    publish_quietly,
};
use crate::{ErrorKind, Exchange, ExchangeKind, Queue, Topology};
use std::sync::Arc;

/// Neither messages nor bindings.
pub async fn declaring_again_changes_nothing(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    for _ in 0..2 {
        let exchanges = [(EXCHANGE, ExchangeKind::Topic)];
        declare(&*bus, &exchanges, &[QUEUE], &[(EXCHANGE, "#", QUEUE)]).await;
        publish(&*bus, vec![message(EXCHANGE, "a.b", "x")]).await;
    }
    expect(&*bus, QUEUE, &["x", "x"]).await;
}

/// What is there stays as it was, and the bus usable.
pub async fn a_conflicting_declaration_is_refused_and_harmless(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    let exchanges = [(EXCHANGE, ExchangeKind::Topic)];
    declare(&*bus, &exchanges, &[QUEUE], &[(EXCHANGE, "a.*", QUEUE)]).await;
    let as_fanout = Topology {
        exchanges: vec![Exchange {
            kind: ExchangeKind::Fanout,
            ..Exchange::durable_topic(EXCHANGE)
        }],
        ..Topology::default()
    };
    let refused = bus.declare(&as_fanout).await;
    let error = refused.expect_err("the exchange is a topic exchange");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    publish(&*bus, vec![message(EXCHANGE, "a.b", "x")]).await;
    publish_quietly(&*bus, vec![message(EXCHANGE, "b.a", "as by fanout")]).await;
    expect(&*bus, QUEUE, &["x"]).await;
}

/// And is out of reach for others before.
pub async fn an_exclusive_queue_goes_with_its_connection(backend: Arc<dyn Backend>) {
    let (bus, other) = (backend.connect().await, backend.connect().await);
    let exclusive = Topology {
        queues: vec![Queue {
            name: QUEUE.to_owned(),
            durable: false,
        }],
        ..Topology::default()
    };
    bus.declare(&exclusive).await.expect("the topology is good");
    publish_numbers(&*bus, 0..2).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let got = collect(&mut *consumer, 2).await;
    assert_eq!(bodies(&got), ["0", "1"]);
    let error = other.consume(QUEUE, 0).await.expect_err("it is exclusive");
    assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");
    bus.close().await.expect("can be closed");
    let error = other.consume(QUEUE, 0).await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// With its bindings and messages; what was acknowledged stays gone.
pub async fn a_durable_queue_outlives_a_restart(backend: Arc<dyn Backend>) {
    let bus = backend.connect().await;
    let exchanges = [(EXCHANGE, ExchangeKind::Topic)];
    declare(&*bus, &exchanges, &[QUEUE], &[(EXCHANGE, "a.*", QUEUE)]).await;
    let bodies = ["0", "1", "2", "3"];
    let batch = bodies.map(|body| message(EXCHANGE, "a.b", body)).into();
    publish(&*bus, batch).await;
    let mut consumer = consume(&*bus, QUEUE, 2).await;
    let got = collect(&mut *consumer, 2).await;
    let tag = crate::Tags::One(got[0].tag);
    let settled = consumer.settle(crate::Settle::Ack, tag).await;
    settled.expect("can be settled");
    bus.close().await.expect("can be closed");
    if !backend.restart().await {
        return;
    }
    let bus = backend.connect().await;
    publish(&*bus, vec![message(EXCHANGE, "a.c", "4")]).await;
    expect(&*bus, QUEUE, &["1", "2", "3", "4"]).await;
}
