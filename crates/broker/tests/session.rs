//! What a session is told: deliveries, settlements, refusals.

mod harness;

use annals_broker::{
    Destination, ExchangeKind, ExchangeSpec, QueueSpec, SessionEvent, Settle, Settlement,
};
use annals_core::sim::SimDisk;
use annals_core::system::SystemDisk;
use bytes::Bytes;
use harness::*;
use std::sync::Arc;

#[tokio::test]
async fn a_confirmed_message_is_delivered_and_gone_once_acked() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    assert_eq!(
        client
            .publish(vec![message("q", "a"), message("q", "b")])
            .await,
        2
    );
    client
        .session
        .consume(consumer("q", "c", 10))
        .await
        .unwrap();
    let got = client.deliveries(2).await;
    assert_eq!(text(&got[0].1.body), "a");
    assert_eq!((&*got[0].1.exchange, &*got[0].1.routing_key), ("", "q"));
    assert!(got[0].1.properties.is_persistent());
    assert_eq!([got[0].0.tag, got[1].0.tag], [1, 2]);
    client
        .session
        .settle(1, vec![settlement(2, true, Settle::Ack)])
        .await;
    client.session.close_channel(1).await;
    assert_eq!(client.ready("q").await, 0);
    assert_eq!(broker.stats().messages, 0);
    broker.close().await.unwrap();
}

#[tokio::test]
async fn the_broker_works_on_the_system_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.directory = dir.path().join("broker");
    config.log.background = true;
    let broker = open_with(config.clone(), Arc::new(SystemDisk));
    let mut first = client(&broker);
    first.session.declare_queue(queue("q")).await.unwrap();
    let batch = (0..500).map(|n| message("q", n.to_string())).collect();
    assert_eq!(first.publish(batch).await, 500);
    broker.close().await.unwrap();
    let broker = open_with(config, Arc::new(SystemDisk));
    let mut second = client(&broker);
    second.session.consume(consumer("q", "c", 0)).await.unwrap();
    let bodies = second.bodies(500).await;
    assert!((0..500).all(|n| bodies[n].0 == n.to_string()));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn credit_bounds_what_a_consumer_has_and_turns_are_taken() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    client
        .session
        .consume(consumer("q", "one", 2))
        .await
        .unwrap();
    client
        .session
        .consume(consumer("q", "two", 2))
        .await
        .unwrap();
    let batch = (0..6).map(|n| message("q", n.to_string())).collect();
    client.publish(batch).await;
    let mut tags = std::collections::BTreeMap::<String, u32>::new();
    let mut first = None;
    let mut count = 0;
    while count < 4 {
        if let Some(SessionEvent::Deliveries {
            consumer_tag,
            deliveries,
            ..
        }) = client.event().await
        {
            first.get_or_insert(deliveries[0].tag);
            *tags.entry(consumer_tag.to_string()).or_default() += deliveries.len() as u32;
            count += deliveries.len();
        }
    }
    assert_eq!(
        tags.into_iter().collect::<Vec<_>>(),
        [("one".to_owned(), 2), ("two".to_owned(), 2)]
    );
    assert_eq!(client.ready("q").await, 2);
    client.session.settle(1, vec![ack(first.unwrap())]).await;
    assert_eq!(client.deliveries(1).await[0].0.tag, 5);
    assert_eq!(client.ready("q").await, 1);
}

#[tokio::test]
async fn requeued_messages_come_back_at_their_place_flagged() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    let batch = (0..5).map(|n| message("q", n.to_string())).collect();
    client.publish(batch).await;
    client.session.consume(consumer("q", "c", 3)).await.unwrap();
    assert_eq!(client.bodies(3).await.len(), 3);
    client
        .session
        .settle(
            1,
            vec![
                settlement(2, false, Settle::Requeue),
                settlement(3, false, Settle::Reject),
                settlement(1, false, Settle::Requeue),
            ],
        )
        .await;
    let bodies = client.bodies(3).await;
    let expected = [("0", true), ("1", true), ("3", false)];
    assert!(
        bodies.iter().map(|(b, r)| (b.as_str(), *r)).eq(expected),
        "{bodies:?}"
    );
    // The client goes: all comes back, and is flagged where it was delivered.
    drop(client);
    let client = harness::client(&broker);
    let left = client.drain("q").await;
    let left: Vec<_> = left
        .iter()
        .map(|(d, b)| (b.as_str(), d.redelivered))
        .collect();
    assert_eq!(left, [("0", true), ("1", true), ("3", true), ("4", false)]);
}

#[tokio::test]
async fn a_consumer_without_acks_gets_no_more_than_it_takes() {
    let broker = open_with(
        annals_broker::Config {
            window: 10,
            ..config()
        },
        Arc::new(SimDisk::new()),
    );
    let mut publisher = client(&broker);
    publisher.session.declare_queue(queue("q")).await.unwrap();
    let batch = (0..100).map(|n| message("q", n.to_string())).collect();
    publisher.publish(batch).await;
    let mut taker = client(&broker);
    let spec = annals_broker::ConsumeSpec {
        no_ack: true,
        ..consumer("q", "c", 0)
    };
    taker.session.consume(spec).await.unwrap();
    assert_eq!(publisher.ready("q").await, 90);
    let bodies = taker.bodies(100).await;
    assert!((0..100).all(|n| bodies[n].0 == n.to_string()));
    // Taken but not known to be dealt with: they come back.
    assert!(broker.stats().messages >= 1);
    drop(taker);
    assert!(publisher.ready("q").await >= 1);
}

#[tokio::test]
async fn unroutable_messages_are_returned_before_their_confirm() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    let mut publish = message("nowhere", "x");
    publish.confirm = 1;
    let quiet = annals_broker::Publish {
        mandatory: false,
        confirm: 2,
        ..publish.clone()
    };
    client.session.publish(1, vec![publish, quiet]).await;
    let Some(SessionEvent::Returned { code, publish, .. }) = client.event().await else {
        panic!("not returned");
    };
    assert_eq!((code, &publish.body[..]), (312, &b"x"[..]));
    let confirmed = client.event().await;
    assert!(
        matches!(
            confirmed,
            Some(SessionEvent::Confirmed {
                channel: 1,
                up_to: 2
            })
        ),
        "{confirmed:?}"
    );
}

#[tokio::test]
async fn a_channel_that_errs_is_deaf_until_it_is_closed() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    let lost = annals_broker::Publish {
        exchange: "nowhere".into(),
        ..message("q", "x")
    };
    client
        .session
        .publish(1, vec![message("q", "a"), lost, message("q", "b")])
        .await;
    client.session.publish(1, vec![message("q", "c")]).await;
    let Some(SessionEvent::ChannelError {
        channel: 1,
        refusal,
    }) = client.event().await
    else {
        panic!("no error");
    };
    assert_eq!(refusal.code, 404);
    assert_eq!(
        refusal.text,
        "NOT_FOUND - no exchange 'nowhere' in vhost '/'"
    );
    assert_eq!(client.ready("q").await, 1);
    client.session.close_channel(1).await;
    client.session.publish(1, vec![message("q", "d")]).await;
    assert_eq!(client.ready("q").await, 2);
    client.session.settle(1, vec![ack(7)]).await;
    let Some(SessionEvent::ChannelError { refusal, .. }) = client.event().await else {
        panic!("no error");
    };
    assert_eq!(refusal.text, "PRECONDITION_FAILED - unknown delivery tag 7");
}

#[tokio::test]
async fn every_way_to_settle_is_checked() {
    #[track_caller]
    fn code(event: Option<SessionEvent>) -> u16 {
        match event {
            Some(SessionEvent::ChannelError { refusal, .. }) => refusal.code,
            other => panic!("{other:?}"),
        }
    }
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    let batch = (0..4).map(|n| message("q", n.to_string())).collect();
    client.publish(batch).await;
    for bad in [
        vec![ack(0)],
        vec![ack(5)],
        vec![settlement(5, true, Settle::Ack)],
        vec![ack(1), ack(1)],
    ] {
        client.session.consume(consumer("q", "c", 0)).await.unwrap();
        let left = client.ready("q").await as usize;
        assert_eq!(left, 0);
        client.session.settle(1, bad).await;
        loop {
            match client.event().await {
                Some(SessionEvent::Deliveries { .. }) => {}
                event => {
                    assert_eq!(code(event), 406);
                    break;
                }
            }
        }
        client.session.close_channel(1).await;
    }
    // One was acked before its second ack was refused.
    assert_eq!(client.ready("q").await, 3);
    // 0 with multiple means all.
    client.session.consume(consumer("q", "c", 0)).await.unwrap();
    let all = Settlement {
        tag: 0,
        multiple: true,
        how: Settle::Ack,
    };
    client.session.settle(1, vec![all]).await;
    client.session.close_channel(1).await;
    assert_eq!(client.ready("q").await, 0);
}

#[tokio::test]
async fn exclusive_and_auto_delete_things_go_with_who_they_were_for() {
    let broker = open(&SimDisk::new());
    let owner = client(&broker);
    let mut other = client(&broker);
    let minted = owner
        .session
        .declare_queue(QueueSpec {
            exclusive: true,
            ..queue("")
        })
        .await
        .unwrap()
        .name;
    assert!(minted.starts_with("amq.gen-"), "{minted}");
    let auto = QueueSpec {
        auto_delete: true,
        ..queue("auto")
    };
    owner.session.declare_queue(auto).await.unwrap();
    let spec = ExchangeSpec {
        auto_delete: true,
        ..exchange("x", ExchangeKind::Fanout)
    };
    owner.session.declare_exchange(spec).await.unwrap();
    owner.session.bind(binding("x", "auto", "")).await.unwrap();
    let refusal = other
        .session
        .consume(consumer(&minted, "c", 0))
        .await
        .unwrap_err();
    assert_eq!(refusal.code, 405);
    other
        .session
        .consume(consumer("auto", "c", 0))
        .await
        .unwrap();
    other.session.cancel(1, "c").await.unwrap();
    for (name, code) in [("auto", 404), (minted.as_str(), 405)] {
        let spec = QueueSpec {
            passive: true,
            ..queue(name)
        };
        let refusal = other.session.declare_queue(spec).await.unwrap_err();
        assert_eq!(refusal.code, code, "{name}");
    }
    let spec = ExchangeSpec {
        passive: true,
        ..exchange("x", ExchangeKind::Fanout)
    };
    let refusal = other.session.declare_exchange(spec).await.unwrap_err();
    assert_eq!(refusal.code, 404);
    drop(owner);
    let spec = QueueSpec {
        passive: true,
        ..queue(&minted)
    };
    let refusal = other.session.declare_queue(spec).await.unwrap_err();
    assert_eq!(refusal.code, 404);
    // A queue deleted under a consumer cancels it.
    other.session.declare_queue(queue("q")).await.unwrap();
    other.session.consume(consumer("q", "c2", 0)).await.unwrap();
    assert_eq!(other.session.delete_queue("q", false, false).await, Ok(0));
    let event = other.event().await;
    assert!(
        matches!(&event, Some(SessionEvent::ConsumerCancelled { consumer_tag, .. })
            if &**consumer_tag == "c2"),
        "{event:?}"
    );
}

#[tokio::test]
async fn requests_are_refused_in_rabbitmqs_words() {
    let broker = open(&SimDisk::new());
    let one = client(&broker);
    let two = client(&broker);
    let s = &one.session;
    s.declare_queue(queue("q")).await.unwrap();
    s.declare_queue(QueueSpec {
        exclusive: true,
        ..queue("mine")
    })
    .await
    .unwrap();
    s.declare_exchange(exchange("x", ExchangeKind::Topic))
        .await
        .unwrap();
    s.bind(binding("x", "q", "#")).await.unwrap();
    let internal = ExchangeSpec {
        internal: true,
        ..exchange("inner", ExchangeKind::Fanout)
    };
    s.declare_exchange(internal).await.unwrap();
    one.session.publish(1, vec![message("q", "x")]).await;
    s.consume(annals_broker::ConsumeSpec {
        exclusive: true,
        ..consumer("q", "c", 1)
    })
    .await
    .unwrap();
    one.session.publish(1, vec![message("q", "y")]).await;

    let transient = QueueSpec {
        durable: false,
        ..queue("q")
    };
    let with = |name: &'static str, value: &'static str| QueueSpec {
        arguments: table(name, value),
        ..queue("new")
    };
    let passive = |name: &str| QueueSpec {
        passive: true,
        ..queue(name)
    };
    let s = &two.session;
    let no = "in vhost '/'";
    let locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in \
                  vhost '/'. It could be originally declared on another connection or the \
                  exclusive property value does not match that of the original declaration.";
    let cases: Vec<(Result<(), annals_broker::Refusal>, u16, String)> = vec![
        (
            s.declare_queue(passive("nope")).await.map(drop),
            404,
            format!("NOT_FOUND - no queue 'nope' {no}"),
        ),
        (
            s.declare_queue(transient).await.map(drop),
            406,
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' {no}: received \
                 'false' but current is 'true'"
            ),
        ),
        (
            s.declare_queue(queue("amq.q")).await.map(drop),
            403,
            "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'".to_owned(),
        ),
        (
            s.declare_queue(queue("mine")).await.map(drop),
            405,
            locked.to_owned(),
        ),
        (
            s.declare_queue(with("x-message-ttl", "5")).await.map(drop),
            406,
            format!(
                "PRECONDITION_FAILED - argument 'x-message-ttl' is not supported yet for queue \
                 'new' {no}"
            ),
        ),
        (
            s.declare_queue(with("x-colour", "red")).await.map(drop),
            406,
            format!("PRECONDITION_FAILED - unknown argument 'x-colour' for queue 'new' {no}"),
        ),
        (
            s.declare_queue(with("x-queue-type", "stream"))
                .await
                .map(drop),
            406,
            format!(
                "PRECONDITION_FAILED - queue type 'stream' is not supported for queue 'new' {no}"
            ),
        ),
        (
            s.declare_queue(QueueSpec {
                arguments: table("x-queue-type", "quorum"),
                ..queue("q")
            })
            .await
            .map(drop),
            406,
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' {no}: \
                 received the value 'quorum' of type 'longstr' but current is none"
            ),
        ),
        (
            s.declare_exchange(exchange("x", ExchangeKind::Direct))
                .await,
            406,
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' {no}: received \
                 'direct' but current is 'topic'"
            ),
        ),
        (
            s.declare_exchange(exchange("", ExchangeKind::Direct)).await,
            403,
            "ACCESS_REFUSED - operation not permitted on the default exchange".to_owned(),
        ),
        (
            s.declare_exchange(exchange("amq.new", ExchangeKind::Direct))
                .await,
            403,
            "ACCESS_REFUSED - exchange name 'amq.new' contains reserved prefix 'amq.*'".to_owned(),
        ),
        (
            s.delete_exchange("amq.topic", false).await,
            403,
            format!("ACCESS_REFUSED - deletion of system exchange 'amq.topic' {no} not allowed"),
        ),
        (
            s.delete_exchange("x", true).await,
            406,
            format!("PRECONDITION_FAILED - exchange 'x' {no} in use"),
        ),
        (
            s.delete_queue("q", true, false).await.map(drop),
            406,
            format!("PRECONDITION_FAILED - queue 'q' {no} in use"),
        ),
        (
            s.delete_queue("q", false, true).await.map(drop),
            406,
            format!("PRECONDITION_FAILED - queue 'q' {no} not empty"),
        ),
        (
            s.consume(consumer("q", "c", 1)).await,
            403,
            format!("ACCESS_REFUSED - queue 'q' {no} in exclusive use"),
        ),
        (
            s.bind(binding("nope", "q", "")).await,
            404,
            format!("NOT_FOUND - no exchange 'nope' {no}"),
        ),
        (
            s.bind(binding("x", "nope", "")).await,
            404,
            format!("NOT_FOUND - no queue 'nope' {no}"),
        ),
    ];
    for (outcome, code, text) in cases {
        let refusal = outcome.expect_err(&text);
        assert_eq!((refusal.code, refusal.text.as_str()), (code, text.as_str()));
    }
    // What is there already or gone already is no error.
    two.session.declare_queue(queue("q")).await.unwrap();
    let same = QueueSpec {
        arguments: table("x-queue-type", "classic"),
        ..queue("q")
    };
    two.session.declare_queue(same).await.unwrap();
    two.session
        .declare_queue(with("x-delivery-limit", "3"))
        .await
        .unwrap();
    two.session.bind(binding("x", "q", "#")).await.unwrap();
    two.session
        .unbind(binding("x", "q", "other"))
        .await
        .unwrap();
    two.session.delete_exchange("nope", false).await.unwrap();
    assert_eq!(two.session.delete_queue("nope", false, false).await, Ok(0));
}

#[tokio::test]
async fn exchanges_feed_exchanges_and_each_queue_gets_one_copy() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    let s = &client.session;
    for name in ["top", "low"] {
        s.declare_exchange(exchange(name, ExchangeKind::Topic))
            .await
            .unwrap();
    }
    for name in ["all", "some"] {
        s.declare_queue(queue(name)).await.unwrap();
    }
    let down = annals_broker::BindingSpec {
        destination: Destination::Exchange("low".to_owned()),
        ..binding("top", "", "#")
    };
    s.bind(down).await.unwrap();
    s.bind(binding("top", "all", "#")).await.unwrap();
    s.bind(binding("low", "all", "a.*")).await.unwrap();
    s.bind(binding("low", "some", "a.*")).await.unwrap();
    let to = |key: &str| annals_broker::Publish {
        exchange: "top".into(),
        routing_key: key.into(),
        ..message("", key.to_owned())
    };
    assert_eq!(client.publish(vec![to("a.b"), to("b"), to("a.c")]).await, 3);
    let bodies = |got: Vec<(_, String)>| got.into_iter().map(|(_, b)| b).collect::<Vec<_>>();
    assert_eq!(bodies(client.drain("all").await), ["a.b", "b", "a.c"]);
    assert_eq!(bodies(client.drain("some").await), ["a.b", "a.c"]);
}

#[tokio::test]
async fn a_purge_drops_what_is_ready() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    let batch = (0..5).map(|n| message("q", n.to_string())).collect();
    client.publish(batch).await;
    let (held, left) = client.session.get(1, "q", false).await.unwrap().unwrap();
    assert_eq!((held.tag, left), (1, 4));
    assert_eq!(client.session.purge_queue("q").await, Ok(4));
    client.session.close_channel(1).await;
    assert_eq!(client.ready("q").await, 1);
}

#[tokio::test]
async fn a_closed_broker_ends_its_sessions() {
    let broker = open(&SimDisk::new());
    let mut client = client(&broker);
    broker.close().await.unwrap();
    let event = client.event().await;
    assert!(matches!(event, Some(SessionEvent::Closed(_))), "{event:?}");
    assert!(client.event().await.is_none());
    let refusal = client.session.declare_queue(queue("q")).await.unwrap_err();
    assert_eq!(refusal.code, 320);
    assert_eq!(broker.ended().await, None);
}

/// An argument table with one text.
fn table(name: &str, value: &str) -> Bytes {
    let mut out = vec![name.len() as u8];
    out.extend_from_slice(name.as_bytes());
    out.push(b'S');
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
    out.into()
}
