//! What the properties start from: a queue or two, numbered messages, a way to collect them.

use super::Backend;
use crate::{
    Binding, Bus, Consumer, Delivery, Exchange, ExchangeKind, Message, Outcome, Queue, Topology,
    topology::Destination,
};
use annals_core::Properties;
use bytes::Bytes;
use std::sync::Arc;

/// The queue most properties use.
pub(super) const QUEUE: &str = "conformance.queue";
/// The exchange most properties use.
pub(super) const EXCHANGE: &str = "conformance.exchange";

/// A connection, with [`QUEUE`] declared.
pub(super) async fn with_queue(backend: &dyn Backend) -> Arc<dyn Bus> {
    let bus = backend.connect().await;
    declare(&*bus, &[], &[QUEUE], &[]).await;
    bus
}

/// Declares exchanges, durable queues, and bindings `(source, key, destination)`, where a
/// destination that is a queue's name is that queue.
pub(super) async fn declare(
    bus: &dyn Bus,
    exchanges: &[(&str, ExchangeKind)],
    queues: &[&str],
    bindings: &[(&str, &str, &str)],
) {
    let exchange = |(name, kind): &(&str, ExchangeKind)| Exchange {
        name: (*name).to_owned(),
        kind: *kind,
        durable: true,
    };
    let binding = |(source, key, destination): &(&str, &str, &str)| Binding {
        source: (*source).to_owned(),
        destination: if queues.contains(destination) {
            Destination::Queue((*destination).to_owned())
        } else {
            Destination::Exchange((*destination).to_owned())
        },
        key: (*key).to_owned(),
    };
    let topology = Topology {
        exchanges: exchanges.iter().map(exchange).collect(),
        queues: queues.iter().map(|name| Queue::durable(name)).collect(),
        bindings: bindings.iter().map(binding).collect(),
    };
    bus.declare(&topology).await.expect("the topology is good");
}

/// A mandatory, persistent message.
pub(super) fn message(exchange: &str, routing_key: &str, body: impl Into<Bytes>) -> Message {
    let properties = Properties::builder().persistent().build();
    Message {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        properties: properties.expect("valid properties"),
        body: body.into(),
        mandatory: true,
    }
}

/// A message for [`QUEUE`] whose body is a number.
pub(super) fn numbered(number: usize) -> Message {
    message("", QUEUE, number.to_string())
}

/// Publishes messages with these numbers to [`QUEUE`]; all must be taken.
pub(super) async fn publish_numbers(bus: &dyn Bus, numbers: std::ops::Range<usize>) {
    publish(bus, numbers.map(numbered).collect()).await;
}

/// Publishes; all must be taken.
pub(super) async fn publish(bus: &dyn Bus, batch: Vec<Message>) {
    let count = batch.len();
    let outcomes = bus.publish(batch).await;
    assert_eq!(outcomes.len(), count, "one outcome per message");
    for (place, outcome) in outcomes.iter().enumerate() {
        assert!(outcome.is_bus(), "message {place}: {outcome:?}");
    }
}

/// Publishes what may reach no queue: not mandatory, and whatever is said of it.
pub(super) async fn publish_quietly(bus: &dyn Bus, batch: Vec<Message>) {
    let quiet = |message| Message {
        mandatory: false,
        ..message
    };
    drop(bus.publish(batch.into_iter().map(quiet).collect()).await);
}

/// Starts to consume; must succeed.
pub(super) async fn consume(bus: &dyn Bus, queue: &str, prefetch: u32) -> Box<dyn Consumer> {
    let consumer = bus.consume(queue, prefetch).await;
    consumer.expect("the queue can be consumed")
}

/// Waits for so many deliveries; more at once is a failure.
pub(super) async fn collect(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut deliveries: Vec<Delivery> = Vec::new();
    while deliveries.len() < count {
        let more = consumer.next().await.expect("the consumer works");
        let more = more.expect("the consumer has not ended");
        assert!(!more.is_empty(), "next waits for a delivery");
        deliveries.extend(more);
    }
    let got = bodies(&deliveries);
    assert_eq!(deliveries.len(), count, "more than expected: {got:?}");
    deliveries
}

/// Settles one by one; must succeed.
pub(super) async fn settle_each(
    consumer: &mut dyn Consumer,
    settle: crate::Settle,
    deliveries: &[Delivery],
) {
    for delivery in deliveries {
        let settled = consumer.settle(settle, crate::Tags::One(delivery.tag));
        settled.await.expect("can be settled");
    }
}

/// Asserts that what a queue delivers to a new consumer is these bodies and no more: a marker
/// published after they came comes next.
pub(super) async fn expect(bus: &dyn Bus, queue: &str, expected: &[&str]) {
    let mut consumer = consume(bus, queue, 0).await;
    let got = collect(&mut *consumer, expected.len()).await;
    assert_eq!(bodies(&got), expected, "in {queue}");
    expect_no_more(bus, queue, &mut *consumer).await;
    consumer.cancel().await.expect("can be cancelled");
}

/// Asserts that a consumer has been given all that its queue holds.
pub(super) async fn expect_no_more(bus: &dyn Bus, queue: &str, consumer: &mut dyn Consumer) {
    publish(bus, vec![message("", queue, "marker")]).await;
    let next = collect(consumer, 1).await;
    assert_eq!(bodies(&next), ["marker"], "more in {queue}");
    settle_each(consumer, crate::Settle::Ack, &next).await;
}

/// The bodies, as text.
pub(super) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    let body = |d: &Delivery| {
        std::str::from_utf8(&d.body)
            .unwrap_or("not text")
            .to_owned()
    };
    deliveries.iter().map(body).collect()
}

/// The one outcome of a batch of one.
pub(super) async fn publish_one(bus: &dyn Bus, message: Message) -> Outcome {
    let mut outcomes = bus.publish(vec![message]).await;
    assert_eq!(outcomes.len(), 1, "one outcome per message");
    outcomes.remove(0)
}
