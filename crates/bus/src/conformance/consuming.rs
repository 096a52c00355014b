//! Properties of consuming and settling.

use super::Backend;
use super::setting::{
    QUEUE, bodies, collect, consume, expect, expect_no_more, numbered, publish, publish_numbers,
    settle_each, with_queue,
};
use crate::{ErrorKind, Settle, Tags};
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A consumer has at most `prefetch` unsettled; settling makes room for as many.
pub async fn prefetch_bounds_unsettled_deliveries(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..10).await;
    let mut bounded = consume(&*bus, QUEUE, 4).await;
    let first = collect(&mut *bounded, 4).await;
    // The rest goes to whoever else comes: it was not taken.
    let mut other = consume(&*bus, QUEUE, 0).await;
    let rest = collect(&mut *other, 6).await;
    settle_each(&mut *other, Settle::Ack, &rest).await;
    other.cancel().await.expect("can be cancelled");
    publish_numbers(&*bus, 10..14).await;
    settle_each(&mut *bounded, Settle::Ack, &first[..2]).await;
    collect(&mut *bounded, 2).await;
    let mut other = consume(&*bus, QUEUE, 0).await;
    collect(&mut *other, 2).await;
}

/// The earlier ones are not delivered again, the later ones are.
pub async fn ack_up_to_settles_all_before(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..5).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let got = collect(&mut *consumer, 5).await;
    let settled = consumer.settle(Settle::Ack, Tags::UpTo(got[2].tag)).await;
    settled.expect("can be settled");
    consumer.cancel().await.expect("can be cancelled");
    expect(&*bus, QUEUE, &["3", "4"]).await;
}

/// Neither those before it nor those after.
pub async fn ack_of_one_settles_no_other(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..5).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let got = collect(&mut *consumer, 5).await;
    settle_each(&mut *consumer, Settle::Ack, &got[2..=2]).await;
    consumer.cancel().await.expect("can be cancelled");
    expect(&*bus, QUEUE, &["0", "1", "3", "4"]).await;
}

/// Before what was published after it.
pub async fn a_requeued_message_comes_back_in_its_place(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..6).await;
    let mut consumer = consume(&*bus, QUEUE, 3).await;
    let got = collect(&mut *consumer, 3).await;
    let settled = consumer.settle(Settle::Requeue, Tags::UpTo(got[1].tag));
    settled.await.expect("can be settled");
    settle_each(&mut *consumer, Settle::Ack, &got[2..]).await;
    consumer.cancel().await.expect("can be cancelled");
    expect(&*bus, QUEUE, &["0", "1", "3", "4", "5"]).await;
}

/// And a first delivery does not.
pub async fn a_redelivery_says_so(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..1).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let first = collect(&mut *consumer, 1).await.remove(0);
    assert!(!first.redelivered, "a first delivery says redelivered");
    let settled = consumer.settle(Settle::Requeue, Tags::One(first.tag)).await;
    settled.expect("can be settled");
    let second = collect(&mut *consumer, 1).await.remove(0);
    assert!(second.redelivered, "a redelivery does not say so");
    assert!(second.tag > first.tag, "tags do not grow");
}

/// Neither delivered again nor left behind, and room for the next.
pub async fn a_rejected_message_is_gone(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..2).await;
    let mut consumer = consume(&*bus, QUEUE, 1).await;
    let got = collect(&mut *consumer, 1).await;
    settle_each(&mut *consumer, Settle::Reject, &got).await;
    let next = collect(&mut *consumer, 1).await;
    assert_eq!(bodies(&next), ["1"], "after the rejected one");
    consumer.cancel().await.expect("can be cancelled");
    expect(&*bus, QUEUE, &["1"]).await;
}

/// One never given, and one settled before. The consumer goes on.
pub async fn a_wrong_tag_is_refused_and_harmless(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..1).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let tag = collect(&mut *consumer, 1).await[0].tag;
    let never_given = consumer.settle(Settle::Ack, Tags::One(tag + 7)).await;
    let error = never_given.expect_err("a tag that was never given");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let settled = consumer.settle(Settle::Ack, Tags::One(tag)).await;
    settled.expect("can be settled");
    let again = consumer.settle(Settle::Ack, Tags::UpTo(tag)).await;
    let error = again.expect_err("a tag that is settled");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    expect_no_more(&*bus, QUEUE, &mut *consumer).await;
}

/// Also where deliveries were never taken out of it.
pub async fn a_cancelled_consumer_gives_back_what_it_held(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    publish_numbers(&*bus, 0..4).await;
    let mut consumer = consume(&*bus, QUEUE, 2).await;
    collect(&mut *consumer, 2).await;
    consumer.cancel().await.expect("can be cancelled");
    expect(&*bus, QUEUE, &["0", "1", "2", "3"]).await;
}

/// To the consumers of other connections.
pub async fn a_closed_bus_gives_back_what_it_held(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let other = backend.connect().await;
    publish_numbers(&*other, 0..3).await;
    let mut held = consume(&*bus, QUEUE, 0).await;
    collect(&mut *held, 3).await;
    bus.close().await.expect("can be closed");
    let mut consumer = consume(&*other, QUEUE, 0).await;
    let got = collect(&mut *consumer, 3).await;
    assert_eq!(bodies(&got), ["0", "1", "2"]);
}

/// Every message goes to one of them.
pub async fn two_consumers_share_without_duplicates(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let other = backend.connect().await;
    let mut one = consume(&*bus, QUEUE, 5).await;
    let mut two = consume(&*other, QUEUE, 5).await;
    let mut seen = HashSet::new();
    for round in 0..20 {
        publish_numbers(&*bus, round * 10..round * 10 + 10).await;
        // Ten messages, room for five each.
        let got = [collect(&mut *one, 5).await, collect(&mut *two, 5).await];
        for body in got.iter().flat_map(|deliveries| bodies(deliveries)) {
            assert!(seen.insert(body.clone()), "both got message {body}");
        }
        settle_each(&mut *one, Settle::Ack, &got[0]).await;
        settle_each(&mut *two, Settle::Ack, &got[1]).await;
    }
}

/// Dropped at any moment, it loses no delivery.
pub async fn next_can_be_dropped_without_loss(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    let mut got = Vec::new();
    for number in 0..100 {
        publish(&*bus, vec![numbered(number)]).await;
        let mut waiting = pin!(consumer.next());
        let polled = waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(deliveries) = polled {
            got.extend(deliveries.expect("the consumer works").expect("not ended"));
        }
        tokio::task::yield_now().await;
    }
    let rest = 100 - got.len();
    got.extend(collect(&mut *consumer, rest).await);
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&got), expected);
}

/// `None`, then and ever after.
pub async fn a_consumer_ends_with_its_bus(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let mut consumer = consume(&*bus, QUEUE, 0).await;
    bus.close().await.expect("can be closed");
    for _ in 0..2 {
        let ended = consumer.next().await.expect("a closed bus is no error");
        assert_eq!(ended, None);
    }
}

/// And the bus stays usable.
pub async fn consuming_a_missing_queue_is_not_found(backend: Arc<dyn Backend>) {
    let bus = with_queue(&*backend).await;
    let missing = bus.consume("conformance.missing", 0).await;
    let error = missing.expect_err("there is no such queue");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    publish_numbers(&*bus, 0..1).await;
    expect(&*bus, QUEUE, &["0"]).await;
}
