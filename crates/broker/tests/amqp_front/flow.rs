//! Backpressure and order: what a slow client costs, and what it sees when it reads at last.

use super::peer::{Peer, declare, publish};
use super::server::Server;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, channel, queue};

fn consume(tag: &str, no_ack: bool) -> basic::AMQPMethod {
    basic::AMQPMethod::Consume(basic::Consume {
        queue: "q".into(),
        consumer_tag: tag.into(),
        no_ack,
        ..basic::Consume::default()
    })
}

/// Messages of the queue that are ready, as the broker tells.
async fn ready(peer: &mut Peer) -> u64 {
    peer.queue(1, declare("q")).await;
    match peer.next().await {
        Some(AMQPFrame::Method(1, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)))) => {
            ok.message_count.into()
        }
        other => panic!("not queue.declare-ok: {other:?}"),
    }
}

/// Reads confirms until all up to `last` are.
async fn confirmed(peer: &mut Peer, last: u64) {
    loop {
        match peer.next().await {
            Some(AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)))) => {
                if ack.delivery_tag == last {
                    return;
                }
            }
            other => panic!("not a confirm: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_consumer_that_does_not_read_holds_no_memory_and_gets_all_when_it_reads() {
    const MESSAGES: u64 = 600;
    let body = vec![7; 64 << 10];
    let server = Server::start_with(|broker, _| broker.window = 16).await;
    let mut slow = Peer::with_channel(server.address).await;
    slow.queue(1, declare("q")).await;
    slow.next().await.expect("queue.declare-ok");
    slow.basic(1, consume("slow", true)).await;
    slow.next().await.expect("basic.consume-ok");

    let mut publisher = Peer::with_channel(server.address).await;
    publisher.confirm_select(1).await;
    for _ in 0..MESSAGES {
        publisher.publish(1, "q", &body).await;
    }
    confirmed(&mut publisher, MESSAGES).await;
    // The socket's own buffers take some megabytes; the rest lies in the queue.
    let waiting = ready(&mut publisher).await;
    assert!(
        waiting > MESSAGES / 2,
        "only {waiting} wait for a consumer that does not read"
    );

    let mut got = 0;
    let mut tags = 0;
    while got < MESSAGES * body.len() as u64 {
        match slow.next().await.expect("more deliveries") {
            AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))) => {
                tags += 1;
                assert_eq!(deliver.delivery_tag, tags);
            }
            AMQPFrame::Body(1, part) => got += part.len() as u64,
            _ => {}
        }
    }
    assert_eq!(tags, MESSAGES);
}

#[tokio::test]
async fn a_publisher_faster_than_the_disk_is_throttled_and_loses_nothing() {
    const MESSAGES: u64 = 20_000;
    let server = Server::start_with(|broker, _| broker.commands_bytes_max = 64 << 10).await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.queue(1, declare("q")).await;
    peer.next().await.expect("queue.declare-ok");
    peer.confirm_select(1).await;
    let batch = publish(1, "", "q", false, &[7; 300]).repeat(100);
    for _ in 0..MESSAGES / 100 {
        peer.send(&batch).await;
    }
    confirmed(&mut peer, MESSAGES).await;
    assert_eq!(ready(&mut peer).await, MESSAGES);
}

#[tokio::test]
async fn consume_ok_comes_before_the_first_delivery_and_cancel_ok_after_the_last() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.queue(1, declare("q")).await;
    peer.next().await.expect("queue.declare-ok");
    for round in 0..50 {
        for _ in 0..20 {
            peer.publish(1, "q", b"x").await;
        }
        let tag = format!("c{round}");
        peer.basic(1, consume(&tag, true)).await;
        peer.publish(1, "q", b"y").await;
        let cancel = basic::AMQPMethod::Cancel(basic::Cancel {
            consumer_tag: tag.as_str().into(),
            nowait: false,
        });
        peer.basic(1, cancel).await;
        let (mut begun, mut ended) = (false, false);
        while !ended {
            match peer.next().await.expect("a frame") {
                AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_))) => {
                    begun = true;
                }
                AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))) => {
                    assert!(begun, "a delivery before consume-ok");
                    assert_eq!(deliver.consumer_tag.as_str(), tag);
                }
                AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::CancelOk(_))) => {
                    ended = true;
                }
                AMQPFrame::Header(..) | AMQPFrame::Body(..) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_channel_that_takes_an_old_number_sees_nothing_of_the_old_one() {
    let server = Server::start().await;
    let mut peer = Peer::with_channel(server.address).await;
    peer.queue(1, declare("q")).await;
    peer.next().await.expect("queue.declare-ok");
    for _ in 0..30 {
        peer.confirm_select(1).await;
        peer.basic(1, consume("c", false)).await;
        for _ in 0..20 {
            peer.publish(1, "q", b"x").await;
        }
        peer.channel(1, channel::AMQPMethod::Close(channel::Close::default()))
            .await;
        let closed = channel::AMQPMethod::CloseOk(channel::CloseOk {});
        let closed = AMQPFrame::Method(1, AMQPClass::Channel(closed));
        while peer.next().await.expect("channel.close-ok") != closed {}
        peer.open_channel(1).await;
    }
    assert_eq!(ready(&mut peer).await, 30 * 20);
}
