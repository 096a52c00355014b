//! What a publisher does to events, and what it says of them.

use annals_bus::{
    Bus, Consumer, Delivery, Error, ErrorKind, Holder, MemoryBus, Message, Outcome, Publisher,
    PublisherOptions, Result, Topology, topology,
};
use annals_core::sim::{SimClock, SimRandom};
use annals_core::{Event, EventBuilder, Timestamp};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;

fn publisher(bus: Arc<dyn Bus>) -> Publisher {
    let options = PublisherOptions::of_bus("main", "shop");
    let (clock, random) = (
        Arc::new(SimClock::new(Timestamp::UNIX_EPOCH)),
        Arc::new(SimRandom::new(1)),
    );
    Publisher::new(bus, options, clock, random)
}

fn event(id: &str) -> EventBuilder {
    let event = EventBuilder::new("shop.v1.OrderPlaced", "/shop", id);
    event.expect("valid names").json("{}")
}

async fn memory() -> Arc<MemoryBus> {
    let bus = MemoryBus::new();
    let declared = bus.declare(&Topology::of_bus("main")).await;
    declared.expect("the topology is good");
    Arc::new(bus)
}

async fn archived(bus: &MemoryBus) -> Vec<Delivery> {
    let queue = topology::archive_queue("main");
    let consumer = bus.consume(&queue, 0).await;
    let mut consumer = consumer.expect("can be consumed");
    let deliveries = consumer.next().await.expect("works");
    deliveries.expect("goes on")
}

fn sequence(event: &Event) -> Option<u64> {
    event.header().producer_seq
}

#[tokio::test]
async fn events_are_stamped_with_producer_dense_numbers_and_time() {
    let bus = memory().await;
    let publisher = publisher(bus.clone());
    let own_time: Timestamp = "2020-01-01T00:00:00Z".parse().expect("a time");
    let first = publisher.publish(vec![event("a"), event("b").time(own_time)]);
    let mut receipts = first.await;
    receipts.extend(publisher.publish(vec![event("c")]).await);

    for (receipt, number) in receipts.iter().zip(1..) {
        let receipt = receipt.as_ref().expect("accepted");
        let header = receipt.event.header();
        assert_eq!(receipt.holder, Holder::Bus);
        assert_eq!(header.producer_id, Some(publisher.producer_id().as_str()));
        assert_eq!(header.producer_seq, Some(number));
        assert!(header.time.is_some());
    }
    let second = &receipts[1].as_ref().expect("accepted").event;
    assert_eq!(second.header().time, Some(own_time));
}

#[tokio::test]
async fn a_message_carries_the_events_bytes_and_says_what_it_is() {
    let bus = memory().await;
    let receipt = publisher(bus.clone()).publish_one(event("a")).await;
    let receipt = receipt.expect("accepted");
    let delivery = archived(&bus).await.remove(0);
    assert_eq!(delivery.body, *receipt.event.bytes());
    assert_eq!(&*delivery.exchange, "annals.main");
    assert_eq!(&*delivery.routing_key, "shop.v1.OrderPlaced");
    let properties = &delivery.properties;
    assert_eq!(
        properties.content_type(),
        Some("application/cloudevents+protobuf")
    );
    assert_eq!(properties.message_id(), Some("a"));
    assert_eq!(properties.message_type(), Some("shop.v1.OrderPlaced"));
    assert_eq!(properties.app_id(), Some("shop"));
    assert!(properties.is_persistent());
}

#[tokio::test]
async fn events_published_as_they_are_keep_their_bytes() {
    let bus = memory().await;
    let event = event("a").build().expect("valid");
    let receipts = publisher(bus.clone())
        .publish_events(vec![event.clone()])
        .await;
    assert_eq!(receipts[0].as_ref().expect("accepted").event, event);
    assert_eq!(archived(&bus).await[0].body, *event.bytes());
}

#[tokio::test]
async fn a_number_not_used_up_goes_to_a_later_event() {
    let bus = Arc::new(MemoryBus::new());
    let publisher = publisher(bus.clone());
    for refused in publisher.publish(vec![event("a"), event("b")]).await {
        let refused = refused.expect_err("there is no exchange");
        assert_eq!(refused.error.kind(), ErrorKind::NotFound);
        assert_eq!(refused.event, None);
    }
    let declared = bus.declare(&Topology::of_bus("main")).await;
    declared.expect("the topology is good");
    let too_long = event("c").data(vec![0; 2 << 20], "application/octet-stream");
    let results = publisher
        .publish(vec![too_long, event("d"), event("e")])
        .await;
    let kind = |r: &Result<_, annals_bus::PublishError>| r.as_ref().err().map(|e| e.error.kind());
    assert_eq!(kind(&results[0]), Some(ErrorKind::Invalid));
    let numbers: Vec<Option<u64>> = results[1..]
        .iter()
        .map(|r| sequence(&r.as_ref().expect("accepted").event))
        .collect();
    assert_eq!(numbers, [Some(1), Some(2)]);
}

/// Says that it does not know, so many times; what it was given it keeps.
#[derive(Debug)]
struct Doubtful {
    doubts: Mutex<usize>,
    then: ErrorKind,
    got: Mutex<Vec<Message>>,
}

#[async_trait]
impl Bus for Doubtful {
    async fn declare(&self, _: &Topology) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome> {
        let mut doubts = self.doubts.lock();
        let outcome = |_: &Message| match *doubts {
            0 if self.then == ErrorKind::Unknown => Outcome::Bus,
            0 => Outcome::Failed(Error::new(self.then, "refused")),
            _ => Outcome::Failed(Error::new(ErrorKind::Unknown, "lost confirm")),
        };
        let outcomes = batch.iter().map(outcome).collect();
        *doubts = doubts.saturating_sub(1);
        self.got.lock().extend(batch);
        outcomes
    }

    async fn consume(&self, _: &str, _: u32) -> Result<Box<dyn Consumer>> {
        Err(Error::new(ErrorKind::NotFound, "nothing here"))
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn doubtful(doubts: usize, then: ErrorKind) -> Arc<Doubtful> {
    Arc::new(Doubtful {
        doubts: Mutex::new(doubts),
        then,
        got: Mutex::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn an_event_of_unknown_fate_is_sent_again_with_the_same_bytes() {
    let bus = doubtful(2, ErrorKind::Unknown);
    let receipt = publisher(bus.clone()).publish_one(event("a")).await;
    let event = receipt.expect("accepted at last").event;
    let got = bus.got.lock();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|message| message.body == *event.bytes()));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_fate_stays_unknown_is_reported_with_its_bytes_and_keeps_its_number() {
    let bus = doubtful(4, ErrorKind::Unknown);
    let publisher = publisher(bus.clone());
    let failed = publisher.publish_one(event("a")).await;
    let failed = failed.expect_err("nobody knows");
    assert_eq!(failed.error.kind(), ErrorKind::Unknown);
    let unknown = failed.event.expect("there to be sent again");
    assert_eq!(*unknown.bytes(), bus.got.lock()[0].body);
    assert_eq!(bus.got.lock().len(), 4);
    let next = publisher.publish_one(event("b")).await.expect("accepted");
    assert_eq!(
        (sequence(&unknown), sequence(&next.event)),
        (Some(1), Some(2))
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_doubt_does_not_end_the_doubt() {
    let bus = doubtful(1, ErrorKind::NotFound);
    let failed = publisher(bus.clone()).publish_one(event("a")).await;
    let failed = failed.expect_err("refused when sent again");
    assert_eq!(failed.error.kind(), ErrorKind::Unknown);
    assert!(failed.event.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_numbers_is_the_order_on_the_bus() {
    let bus = memory().await;
    let publisher = Arc::new(publisher(bus.clone()));
    let publish = |task: usize| {
        let publisher = publisher.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                let published = publisher.publish_one(event(&format!("{task}-{n}"))).await;
                published.expect("accepted");
            }
        })
    };
    let tasks: Vec<_> = (0..4).map(publish).collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let numbers: Vec<Option<u64>> = archived(&bus)
        .await
        .into_iter()
        .map(|d| sequence(&Event::parse(d.body).expect("an event")))
        .collect();
    assert_eq!(numbers, (1..=400).map(Some).collect::<Vec<_>>());
}
