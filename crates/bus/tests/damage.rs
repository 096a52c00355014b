//! A record of the broker's log that is damaged while the broker runs: the messages around it are
//! delivered, and it is neither delivered nor settled, whatever is acknowledged around it.
#![cfg(feature = "embedded")]

use annals_broker::{Broker, Config};
use annals_bus::{Bus, Consumer, Delivery, LocalBus, Message, Queue, Settle, Tags, Topology};
use annals_core::Properties;
use annals_core::sim::{SimDisk, SimOp};
use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const QUEUE: &str = "archive";

/// A broker that reads every message from the disk.
fn open(directory: &Path) -> Broker {
    let mut config = Config::new(directory);
    config.log.tail_bytes_max = 0;
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    Broker::open(config, Arc::new(SystemDisk), clock, random).unwrap()
}

/// Long enough that records do not lie in one stretch of the disk that is read at once.
fn body(number: usize) -> String {
    format!("<message {number:04}>{}", "x".repeat(2_000))
}

async fn bus_with_queue(broker: &Broker) -> LocalBus {
    let bus = LocalBus::new(broker);
    let topology = Topology {
        queues: vec![Queue::durable(QUEUE)],
        ..Topology::default()
    };
    bus.declare(&topology).await.unwrap();
    bus
}

async fn publish(bus: &dyn Bus, numbers: std::ops::Range<usize>) {
    let messages = numbers.map(|number| Message {
        exchange: "".into(),
        routing_key: QUEUE.into(),
        properties: Properties::builder().persistent().build().unwrap(),
        body: body(number).into(),
        mandatory: true,
    });
    for outcome in bus.publish(messages.collect()).await {
        outcome.into_result().unwrap();
    }
}

/// Flips a byte of a message where the log has it.
fn damage(directory: &Path, number: usize) {
    let wanted = format!("<message {number:04}>");
    let mut found = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Spares that are being prepared are renamed meanwhile.
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes
            .windows(wanted.len())
            .position(|window| window == wanted.as_bytes());
        if let Some(at) = at {
            bytes[at + 3] ^= 1;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..at + 4], at as u64).unwrap();
            found += 1;
        }
    }
    assert_eq!(found, 1, "message {number} lies in one place");
}

/// Takes so many deliveries.
async fn take(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(consumer.next().await.unwrap().expect("it goes on"));
    }
    assert_eq!(taken.len(), count);
    taken
}

fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    let number = |delivery: &Delivery| std::str::from_utf8(&delivery.body[9..13]).unwrap().parse();
    deliveries.iter().map(|d| number(d).unwrap()).collect()
}

/// Waits until the queues hold so many messages, and so many of them are set aside.
async fn until(broker: &Broker, messages: u64, unreadable: u64) {
    for _ in 0..10_000 {
        let stats = broker.stats();
        if (stats.messages, stats.unreadable) == (messages, unreadable) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!(
        "never {messages} and {unreadable}, but {:?}",
        broker.stats()
    );
}

#[tokio::test]
async fn a_record_damaged_while_the_broker_runs_holds_up_nothing_and_is_never_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    let bus = bus_with_queue(&broker).await;
    publish(&bus, 0..300).await;
    damage(directory.path(), 0);
    damage(directory.path(), 150);
    let sound: Vec<usize> = (0..300).filter(|n| ![0, 150].contains(n)).collect();

    let mut consumer = bus.consume(QUEUE, 1_000).await.unwrap();
    let taken = take(&mut *consumer, 298).await;
    assert_eq!(numbers(&taken), sound);
    until(&broker, 300, 2).await;

    // One by one, up to one before the damage, and up to one after it.
    consumer.settle(Settle::Ack, Tags::One(2)).await.unwrap();
    consumer.settle(Settle::Ack, Tags::UpTo(100)).await.unwrap();
    until(&broker, 300 - 99, 2).await;
    for unread in [Tags::One(1), Tags::One(151), Tags::UpTo(151)] {
        assert!(consumer.settle(Settle::Ack, unread).await.is_err());
    }
    let last = taken.last().unwrap().tag;
    consumer
        .settle(Settle::Ack, Tags::UpTo(last))
        .await
        .unwrap();
    until(&broker, 2, 2).await;

    // What comes later comes, and its acks leave the damaged ones alone.
    publish(&bus, 300..320).await;
    let taken = take(&mut *consumer, 20).await;
    assert_eq!(numbers(&taken), (300..320).collect::<Vec<_>>());
    let last = taken.last().unwrap().tag;
    consumer
        .settle(Settle::Ack, Tags::UpTo(last))
        .await
        .unwrap();
    until(&broker, 2, 2).await;

    // Back in the queue, and set aside again by whoever consumes next.
    consumer.cancel().await.unwrap();
    until(&broker, 2, 0).await;
    let mut consumer = bus.consume(QUEUE, 1_000).await.unwrap();
    publish(&bus, 320..321).await;
    assert_eq!(numbers(&take(&mut *consumer, 1).await), [320]);
    until(&broker, 3, 2).await;
    drop(consumer);
    until(&broker, 3, 0).await;
}

#[tokio::test]
async fn what_is_requeued_around_a_damaged_record_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    let bus = bus_with_queue(&broker).await;
    publish(&bus, 0..10).await;
    damage(directory.path(), 4);
    let mut consumer = bus.consume(QUEUE, 100).await.unwrap();
    let taken = take(&mut *consumer, 9).await;
    let last = taken.last().unwrap().tag;
    consumer
        .settle(Settle::Requeue, Tags::UpTo(last))
        .await
        .unwrap();
    let again = take(&mut *consumer, 9).await;
    assert_eq!(numbers(&again), [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert!(again.iter().all(|delivery| delivery.redelivered));
    until(&broker, 10, 1).await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_tried_once_more_then_set_aside_and_comes_with_the_next_consumer()
{
    let directory = tempfile::tempdir().unwrap();
    let broker = open(directory.path());
    let bus = bus_with_queue(&broker).await;
    publish(&bus, 0..5).await;
    let (log, away) = (directory.path(), directory.path().with_extension("away"));
    std::fs::rename(log, &away).unwrap();
    let mut consumer = bus.consume(QUEUE, 100).await.unwrap();
    tokio::select! {
        taken = consumer.next() => panic!("{taken:?}"),
        () = until(&broker, 5, 5) => {}
    }
    std::fs::rename(&away, log).unwrap();
    drop(consumer);
    until(&broker, 5, 0).await;
    let mut consumer = bus.consume(QUEUE, 100).await.unwrap();
    let taken = take(&mut *consumer, 5).await;
    assert_eq!(numbers(&taken), [0, 1, 2, 3, 4]);
    consumer
        .settle(Settle::Ack, Tags::UpTo(taken[4].tag))
        .await
        .unwrap();
    until(&broker, 0, 0).await;
}

#[tokio::test]
async fn what_cannot_be_read_for_a_while_comes_later() {
    let mut config = Config::new("/broker");
    config.log.tail_bytes_max = 0;
    config.log.background = false;
    let disk = SimDisk::new();
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let broker = Broker::open(config, Arc::new(disk.clone()), clock, random).unwrap();
    let bus = bus_with_queue(&broker).await;
    publish(&bus, 0..3).await;
    // More than two tries of all three.
    (1..=15).for_each(|nth| disk.fail(SimOp::Read, nth, std::io::ErrorKind::Other));
    let mut consumer = bus.consume(QUEUE, 100).await.unwrap();
    let mut came = Vec::new();
    while came.len() < 3 {
        tokio::select! {
            taken = consumer.next() => came.extend(numbers(&taken.unwrap().unwrap())),
            () = until(&broker, 3, 3) => panic!("set aside"),
        }
    }
    came.sort_unstable();
    assert_eq!(came, [0, 1, 2]);
    assert_eq!(broker.stats().unreadable, 0);
}
