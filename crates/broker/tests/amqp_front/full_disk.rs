//! A disk that is really full: a file system of 64 MiB, mounted for the test, and nothing but
//! AMQP clients. Skipped, loudly, where mounting is not allowed.

use super::rust_client::{channel_with_confirms, connect, declare};
use super::server::Server;
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, Event};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const BALLAST_BYTES: usize = 16 << 20;

/// A small file system of its own, in memory; gone with this.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m", "annals-test"]);
        let mounted = mount.arg(directory.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        // Past the capture of test output: nobody is to take this for a pass.
        let message = "SKIPPED: a_real_disk_that_is_full: mounting a tmpfs needs root\n";
        let told = std::io::stderr().write_all(message.as_bytes());
        told.expect("stderr takes text");
        None
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have files open there.
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

async fn start(log: &Path) -> Server {
    Server::start_with(|config, _| {
        config.directory = log.to_owned();
        config.log.segment_bytes = 4 << 20;
        config.log.message_bytes_max = 1 << 20;
        config.snapshot_every_bytes = 16 << 20;
    })
    .await
}

/// A message's body: its number, and what makes it long.
fn body(number: u32) -> Vec<u8> {
    let mut body = vec![(number % 251) as u8; 20_000 + (number % 7) as usize * 1_000];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body
}

fn number(body_: &[u8]) -> u32 {
    let number = u32::from_be_bytes(body_[..4].try_into().expect("four bytes"));
    assert!(
        body_ == body(number),
        "message {number} is not as published"
    );
    number
}

/// Publishes one; whether it was confirmed.
async fn publish(channel: &Channel, number: u32) -> bool {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let (options, body) = (BasicPublishOptions::default(), body(number));
    let sent = channel.basic_publish("".into(), "q".into(), options, &body, properties);
    match sent.await.expect("sends").await.expect("an answer") {
        Confirmation::Ack(_) => true,
        Confirmation::Nack(_) => false,
        Confirmation::NotRequested => panic!("confirms are on"),
    }
}

/// Publishes until one is refused; the numbers of those that were not.
async fn publish_until_refused(channel: &Channel, first: u32) -> BTreeSet<u32> {
    let mut confirmed = BTreeSet::new();
    for number in first..first + 10_000 {
        if !publish(channel, number).await {
            return confirmed;
        }
        confirmed.insert(number);
    }
    panic!("the disk never fills");
}

async fn until(connection: &Connection, blocked: bool) {
    let mut events = connection.events_listener();
    while connection.status().blocked() != blocked {
        match events.next().await.expect("the connection stays") {
            Event::Error(error) => panic!("{error}"),
            _ => continue,
        }
    }
}

/// All that is in the queue, left there.
async fn queued(server: &Server) -> BTreeSet<u32> {
    let connection = connect(server).await;
    let channel = connection.create_channel().await.expect("opens");
    let mut numbers = BTreeSet::new();
    let get = || channel.basic_get("q".into(), BasicGetOptions::default());
    while let Some(message) = get().await.expect("gets") {
        assert!(numbers.insert(number(&message.data)), "one comes twice");
    }
    connection.close(200, "".into()).await.expect("closes");
    numbers
}

/// What a process killed now would find at its next start.
async fn queued_after_a_kill(log: &Path) -> BTreeSet<u32> {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(log).expect("lists") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        // A spare that is being prepared may be gone by now.
        if name.to_string_lossy().ends_with(".tmp") {
            continue;
        }
        std::fs::copy(entry.path(), copy.path().join(name)).expect("copies");
    }
    let server = start(copy.path()).await;
    assert_eq!(server.broker.recovery().lost, 0);
    assert!(server.broker.recovery().damaged.is_empty());
    let numbers = queued(&server).await;
    server.stop().await;
    numbers
}

/// Takes this many from the queue, in order, and acks them.
async fn consume_and_ack(server: &Server, count: usize) -> BTreeSet<u32> {
    // On a connection of its own: one that is blocked sends no acks.
    let connection = connect(server).await;
    let channel = connection.create_channel().await.expect("opens");
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("q".into(), "".into(), options, FieldTable::default());
    let mut consumer = consumer.await.expect("consumes");
    let mut numbers = BTreeSet::new();
    while numbers.len() < count {
        let delivery = consumer.next().await.expect("more").expect("a delivery");
        numbers.insert(number(&delivery.data));
        let acked = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
        acked.await.expect("acks");
    }
    connection.close(200, "".into()).await.expect("closes");
    numbers
}

#[tokio::test]
async fn a_real_disk_that_is_full_refuses_publishes_until_there_is_room_and_loses_nothing() {
    let Some(disk) = Mounted::new() else {
        return;
    };
    std::fs::write(disk.ballast(), vec![0; BALLAST_BYTES]).expect("there is room");
    let server = start(&disk.log()).await;
    let connection = connect(&server).await;
    let channel = channel_with_confirms(&connection).await;
    declare(&channel, "q").await;

    let mut expected = publish_until_refused(&channel, 0).await;
    let full = expected.len();
    assert!(full * 20_000 > 16 << 20, "full after {full} messages");
    until(&connection, true).await;
    assert!(server.broker.stats().blocked);
    assert_eq!(queued_after_a_kill(&disk.log()).await, expected);

    // Acks make room.
    let acked = consume_and_ack(&server, full * 2 / 3).await;
    assert_eq!(acked, expected.iter().copied().take(acked.len()).collect());
    expected.retain(|number| !acked.contains(number));
    until(&connection, false).await;
    let more = publish_until_refused(&channel, 100_000).await;
    let (acked, taken) = (acked.len(), more.len());
    assert!(taken > full / 4, "{taken} of {full} after {acked} acks");
    expected.extend(more);
    until(&connection, true).await;

    // A restart on a full disk finds all of it.
    drop((channel, connection));
    server.stop().await;
    let server = start(&disk.log()).await;
    assert_eq!(server.broker.recovery().lost, 0);
    assert_eq!(queued(&server).await, expected);

    // Others make room.
    let connection = connect(&server).await;
    let channel = channel_with_confirms(&connection).await;
    expected.extend(publish_until_refused(&channel, 200_000).await);
    until(&connection, true).await;
    std::fs::remove_file(disk.ballast()).expect("is there");
    until(&connection, false).await;
    let more = publish_until_refused(&channel, 300_000).await;
    assert!(more.len() * 20_000 > BALLAST_BYTES / 2, "{}", more.len());
    expected.extend(more);
    assert_eq!(queued_after_a_kill(&disk.log()).await, expected);

    assert_eq!(consume_and_ack(&server, expected.len()).await, expected);
    until(&connection, false).await;
    assert!(publish(&channel, 400_000).await);
    drop((channel, connection));
    server.stop().await;
    let server = start(&disk.log()).await;
    assert_eq!(queued(&server).await, BTreeSet::from([400_000]));
    server.stop().await;
}
