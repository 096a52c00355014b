//! Replays onto a bus: marked, private, the messages as they were published; and what the archiver
//! makes of them.

mod support;

use annals_bus::topology::{Destination, bus_exchange};
use annals_bus::{Binding, Bus, Consumer, MemoryBus, Message, Outcome, Queue, Topology};
use annals_core::properties::REPLAY_ID;
use annals_core::{Error, ErrorKind, Event, Properties, Result, binary, json};
use annals_replay::targets::{ExchangeTarget, exchange_name};
use annals_replay::{KnownReplays, Receipt, Replay};
use async_trait::async_trait;
use refusals::Refusals;
use std::ops::ControlFlow;
use std::sync::Arc;
use support::{BUS, World, event, message, raw, types};

const PLACED: &str = "shop.v1.OrderPlaced";

async fn run(replay: &Replay, target: &mut ExchangeTarget) -> Result<Receipt> {
    let plan = replay.plan().await?;
    replay
        .run(&plan, target, |_| ControlFlow::Continue(()))
        .await
}

async fn declare(world: &World, replay: &Replay, queues: &[&str]) -> ExchangeTarget {
    ExchangeTarget::declare(world.bus.clone(), BUS, replay.id(), queues)
        .await
        .unwrap()
}

fn mark(properties: &Properties) -> Option<&str> {
    properties
        .header(REPLAY_ID)
        .and_then(|value| value.as_str())
}

#[tokio::test]
async fn a_replay_reaches_its_own_queues_only_and_every_delivery_is_marked() {
    let world = World::new().await;
    world.live_queue("billing").await;
    let events: Vec<Event> = (0..50).map(|number| event(PLACED, number)).collect();
    world.archive(events.iter().map(message).collect()).await;
    assert_eq!(world.drain("billing").await.len(), 50);

    let (one, two) = (
        world.replay(types(&[])).await,
        world.replay(types(&[])).await,
    );
    assert_ne!(one.id(), two.id());
    let mut first = declare(&world, &one, &["replay-one"]).await;
    let mut second = declare(&world, &two, &["replay-two"]).await;
    assert_eq!(first.exchange(), exchange_name(BUS, one.id()));
    run(&one, &mut first).await.unwrap();
    run(&two, &mut second).await.unwrap();

    for (queue, id) in [("replay-one", one.id()), ("replay-two", two.id())] {
        let deliveries = world.drain(queue).await;
        assert_eq!(deliveries.len(), 50);
        for (delivery, event) in deliveries.iter().zip(&events) {
            assert_eq!(&delivery.body, event.bytes());
            assert_eq!(&*delivery.routing_key, PLACED);
            assert_eq!(mark(&delivery.properties), Some(id));
            assert_eq!(delivery.properties.message_id(), Some(event.header().id));
            assert_eq!(delivery.properties.app_id(), Some("shop"));
            assert!(delivery.properties.is_persistent());
        }
    }
    assert_eq!(world.drain("billing").await, []);
}

#[tokio::test]
async fn each_kind_of_message_comes_back_as_it_was_published() {
    let world = World::new().await;
    let canonical = message(&event(PLACED, 1));
    let in_json = raw(
        PLACED,
        Properties::builder()
            .content_type("application/cloudevents+json; charset=utf-8")
            .header("tenant", "a")
            .build()
            .unwrap(),
        json::encode(&event(PLACED, 2)).unwrap(),
    );
    let (properties, body) = binary::encode(&event(PLACED, 3)).unwrap();
    let in_headers = raw(PLACED, properties, body);
    let foreign = raw(
        "anything",
        Properties::builder()
            .content_type("text/csv")
            .correlation_id("c")
            .build()
            .unwrap(),
        "a;b",
    );
    // A delivery of somebody else's replay keeps no trace of it.
    let marked = raw(
        PLACED,
        canonical
            .properties
            .with_header(REPLAY_ID, "theirs")
            .unwrap(),
        event(PLACED, 4).bytes().clone(),
    );
    let published = [canonical, in_json, in_headers, foreign, marked];
    world.archive(published.to_vec()).await;

    let replay = world.replay(types(&[])).await;
    let mut target = declare(&world, &replay, &["all"]).await;
    run(&replay, &mut target).await.unwrap();
    let deliveries = world.drain("all").await;
    assert_eq!(deliveries.len(), published.len());
    for (delivery, message) in deliveries.iter().zip(&published) {
        assert_eq!(delivery.body, message.body);
        assert_eq!(delivery.routing_key, message.routing_key);
        let (found, expected) = (&delivery.properties, &message.properties);
        assert_eq!(mark(found), Some(replay.id()));
        assert_eq!(
            found
                .headers()
                .filter(|(name, _)| *name == REPLAY_ID)
                .count(),
            1
        );
        assert_eq!(found.content_type(), expected.content_type());
        assert_eq!(found.correlation_id(), expected.correlation_id());
        let others = |properties: &Properties| {
            let headers = properties.headers().filter(|(name, _)| *name != REPLAY_ID);
            headers
                .map(|header| format!("{header:?}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(others(found), others(expected));
    }
    let again = binary::decode(&deliveries[2].properties, &deliveries[2].body).unwrap();
    assert_eq!(again.header().key(), ("/shop", "e-3"));
}

#[tokio::test]
async fn events_that_no_binding_wants_are_counted() {
    let world = World::new().await;
    let numbers = 0..20;
    let events = numbers.map(|n| event(if n < 5 { PLACED } else { "mail.v1.Sent" }, n));
    world.archive(events.map(|e| message(&e)).collect()).await;
    let replay = world.replay(types(&[])).await;
    let mut target = declare(&world, &replay, &[]).await;
    let topology = Topology {
        queues: vec![Queue::durable("orders")],
        bindings: vec![Binding {
            source: target.exchange().to_owned(),
            destination: Destination::Queue("orders".to_owned()),
            key: "shop.#".to_owned(),
        }],
        ..Topology::default()
    };
    world.bus.declare(&topology).await.unwrap();
    let receipt = run(&replay, &mut target).await.unwrap();
    assert_eq!((receipt.delivered, receipt.skipped.unrouted), (5, 15));
    assert!(receipt.completed);
    assert_eq!(world.drain("orders").await.len(), 5);
}

#[tokio::test]
async fn a_replay_of_ours_onto_the_live_bus_is_never_archived_a_second_time() {
    let world = World::with_known(|ledger| Arc::new(KnownReplays::new(ledger))).await;
    let events: Vec<Event> = (0..30).map(|number| event(PLACED, number)).collect();
    world.archive(events.iter().map(message).collect()).await;
    let replay = world.replay(types(&[])).await;
    let mut target = declare(&world, &replay, &["held"]).await;
    run(&replay, &mut target).await.unwrap();

    // A redrive by hand: what the replay delivered goes to the live exchange, marks and all.
    let onto_live = |delivery: &annals_bus::Delivery| Message {
        exchange: bus_exchange(BUS).into(),
        routing_key: delivery.routing_key.clone(),
        properties: delivery.properties.clone(),
        body: delivery.body.clone(),
        mandatory: true,
    };
    let deliveries = world.drain("held").await;
    world
        .archive(deliveries.iter().map(onto_live).collect())
        .await;
    let stats = world.archiver_stats();
    assert_eq!((stats.archived, stats.replayed_discarded), (30, 30));

    // New to the archive, or marked by an id nobody registered: kept, and reported.
    let mut fresh = onto_live(&deliveries[0]);
    fresh.body = event(PLACED, 99).bytes().clone();
    let mut theirs = onto_live(&deliveries[1]);
    theirs.properties = theirs.properties.with_header(REPLAY_ID, "theirs").unwrap();
    world.archive(vec![fresh, theirs]).await;
    let stats = world.archiver_stats();
    assert_eq!((stats.archived, stats.replayed_archived), (32, 2));
    assert_eq!(
        world
            .replay(types(&[]))
            .await
            .plan()
            .await
            .unwrap()
            .selected,
        31
    );
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_slow_or_unsure_is_waited_for_and_one_that_refuses_ends_the_replay() {
    let world = World::new().await;
    let events: Vec<Event> = (0..10).map(|number| event(PLACED, number)).collect();
    world.archive(events.iter().map(message).collect()).await;
    for (kind, times, expected) in [
        (ErrorKind::Unavailable, 3, Ok(())),
        (ErrorKind::Unknown, 1, Ok(())),
        (ErrorKind::Unavailable, 1000, Err(ErrorKind::Unavailable)),
        (ErrorKind::NotAllowed, 1, Err(ErrorKind::NotAllowed)),
    ] {
        let bus = Arc::new(Refusals::new(world.bus.clone(), kind, times));
        let replay = world.replay(types(&[])).await;
        let queue = format!("queue-{}", replay.id());
        let mut target = ExchangeTarget::declare(bus, BUS, replay.id(), &[&queue])
            .await
            .unwrap();
        let ended = run(&replay, &mut target).await;
        assert_eq!(ended.map(drop).map_err(|e| e.kind()), expected, "{kind:?}");
        if expected.is_ok() {
            assert_eq!(world.drain(&queue).await.len(), 10);
        }
    }
}

mod refusals {
    //! A bus that refuses some messages for a while.

    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Debug)]
    pub(crate) struct Refusals {
        inner: Arc<MemoryBus>,
        kind: ErrorKind,
        left: AtomicU32,
    }

    impl Refusals {
        pub(crate) fn new(inner: Arc<MemoryBus>, kind: ErrorKind, times: u32) -> Self {
            let left = times.into();
            Self { inner, kind, left }
        }
    }

    #[async_trait]
    impl Bus for Refusals {
        async fn declare(&self, topology: &Topology) -> Result<()> {
            self.inner.declare(topology).await
        }

        async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome> {
            let (mut outcomes, alone) = (Vec::new(), batch.len() == 1);
            for (at, message) in batch.into_iter().enumerate() {
                let refuse = (alone || at % 2 == 1) && self.left.load(Ordering::Relaxed) > 0;
                outcomes.extend(match refuse {
                    true => vec![Outcome::Failed(Error::new(self.kind, "not now"))],
                    false => self.inner.publish(vec![message]).await,
                });
            }
            let left = self.left.load(Ordering::Relaxed).saturating_sub(1);
            self.left.store(left, Ordering::Relaxed);
            outcomes
        }

        async fn consume(&self, queue: &str, prefetch: u32) -> Result<Box<dyn Consumer>> {
            self.inner.consume(queue, prefetch).await
        }

        async fn close(&self) -> Result<()> {
            Ok(())
        }
    }
}
