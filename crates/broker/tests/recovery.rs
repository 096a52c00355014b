//! What a restart keeps, what a crash may take, what a full or failing disk does.

mod harness;

use annals_broker::{Config, ExchangeKind, QueueSpec, SessionEvent, Settle};
use annals_core::Disk;
use annals_core::sim::{SimDisk, SimOp, SimRandom};
use harness::*;
use std::collections::BTreeMap;
use std::sync::Arc;

#[tokio::test]
async fn a_restart_keeps_what_is_durable_in_order() {
    let disk = SimDisk::new();
    let broker = open(&disk);
    let mut first = client(&broker);
    let s = &first.session;
    s.declare_exchange(exchange("x", ExchangeKind::Topic))
        .await
        .unwrap();
    s.declare_queue(queue("q")).await.unwrap();
    s.declare_queue(QueueSpec {
        exclusive: true,
        ..queue("mine")
    })
    .await
    .unwrap();
    s.declare_queue(QueueSpec {
        durable: false,
        ..queue("transient")
    })
    .await
    .unwrap();
    s.bind(binding("x", "q", "a.#")).await.unwrap();
    s.bind(binding("x", "mine", "#")).await.unwrap();
    let batch = (0..6).map(|n| message("q", n.to_string())).collect();
    first.publish(batch).await;
    let passing = annals_broker::Publish {
        properties: annals_core::Properties::none(),
        ..message("q", "passing")
    };
    first.publish(vec![passing]).await;
    first.session.consume(consumer("q", "c", 3)).await.unwrap();
    first.deliveries(3).await;
    first.session.settle(1, vec![ack(2)]).await;
    first.deliveries(1).await;
    broker.close().await.unwrap();

    let broker = open(&disk);
    assert_eq!(broker.recovery().messages, 5);
    assert_eq!(broker.recovery().lost, 0);
    let mut second = client(&broker);
    for gone in ["mine", "transient"] {
        let spec = QueueSpec {
            passive: true,
            ..queue(gone)
        };
        assert_eq!(
            second.session.declare_queue(spec).await.unwrap_err().code,
            404
        );
    }
    let through = annals_broker::Publish {
        exchange: "x".into(),
        routing_key: "a.b".into(),
        ..message("", "routed")
    };
    assert_eq!(second.publish(vec![through]).await, 1);
    let left = second.drain("q").await;
    let left: Vec<_> = left
        .iter()
        .map(|(d, b)| (b.as_str(), d.redelivered))
        .collect();
    // 0, 2, 3 were delivered and not settled; 4, 5 never were.
    assert_eq!(
        left,
        [
            ("0", true),
            ("2", true),
            ("3", true),
            ("4", false),
            ("5", false),
            ("routed", false)
        ]
    );
}

#[tokio::test]
async fn a_restart_finds_what_snapshots_and_rewrites_left() {
    let disk = SimDisk::new();
    let broker = open(&disk);
    let mut first = client(&broker);
    first.session.declare_queue(queue("slow")).await.unwrap();
    first.session.declare_queue(queue("fast")).await.unwrap();
    first
        .session
        .consume(consumer("fast", "c", 0))
        .await
        .unwrap();
    // A few messages stay, among many that pass.
    for round in 0..40 {
        first
            .publish(vec![message("slow", format!("slow {round}"))])
            .await;
        let batch = (0..40)
            .map(|_| message("fast", vec![b'.'; 1_000]))
            .collect();
        first.publish(batch).await;
        first.deliveries(40).await;
        first
            .session
            .settle(1, vec![settlement(0, true, Settle::Ack)])
            .await;
    }
    let stats = broker.stats();
    assert!(stats.snapshots > 2, "{stats:?}");
    assert!(stats.rewritten > 0, "{stats:?}");
    assert!(stats.segments < 20, "{stats:?}");
    let slow: Vec<String> = (0..40).map(|round| format!("slow {round}")).collect();
    for image in disk.crash_images(disk.steps(), 3, 3) {
        let broker = open(&image);
        assert_eq!(
            (broker.recovery().lost, &broker.recovery().damaged),
            (0, &vec![])
        );
        let client = client(&broker);
        let left = client.drain("slow").await;
        assert_eq!(left.into_iter().map(|(_, b)| b).collect::<Vec<_>>(), slow);
    }
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_start_with_many_messages_reads_back_few_records() {
    const MESSAGES: u64 = 100_000;
    let disk = SimDisk::new();
    let broker = open(&disk);
    let mut first = client(&broker);
    first.session.declare_queue(queue("q")).await.unwrap();
    for _ in 0..MESSAGES / 500 {
        let batch = (0..500).map(|_| message("q", "a body")).collect();
        first.publish(batch).await;
    }
    let killed = open(&disk.snapshot());
    let recovery = killed.recovery();
    assert_eq!((recovery.messages, recovery.lost), (MESSAGES, 0));
    assert!(recovery.records < MESSAGES / 4, "{recovery:?}");
}

#[tokio::test]
async fn a_consumer_that_never_acks_is_reported_and_the_log_stays_within_its_bound() {
    let disk = SimDisk::new();
    let mut config = config();
    config.log.disk_bytes_max = 2 << 20;
    let broker = open_with(config, Arc::new(disk.clone()));
    let mut first = client(&broker);
    first.session.declare_queue(queue("held")).await.unwrap();
    first.session.declare_queue(queue("fast")).await.unwrap();
    let holder = client(&broker);
    let spec = consumer("held", "never acks", 0);
    holder.session.consume(spec).await.unwrap();
    let spec = consumer("fast", "c", 0);
    first.session.consume(spec).await.unwrap();
    let mut reported = 0;
    // One of a hundred messages is held, so that each segment has one.
    for round in 0..1_000 {
        let body = vec![b'.'; 1_000];
        let batch: Vec<_> = (0..40).map(|_| message("fast", body.clone())).collect();
        let taken = first.publish(batch).await;
        first.deliveries(taken).await;
        let all = vec![settlement(0, true, Settle::Ack)];
        first.session.settle(1, all).await;
        first.publish(vec![message("held", "held")]).await;
        let stats = broker.stats();
        assert!(stats.segments * (64 << 10) <= 2 << 20, "{stats:?}");
        reported = stats.sparse_segments;
        if stats.blocked {
            assert!(round > 20);
            break;
        }
    }
    assert!(broker.stats().blocked, "a bound without effect");
    assert!(reported > 10, "{reported}");
    // Its end gives back what it held; once that is purged, the log has its segments.
    drop(holder);
    let held = first.session.purge_queue("held").await.unwrap();
    assert!(held > 10, "{held}");
    first.session.declare_queue(queue("q")).await.unwrap();
    until_taken(&mut first).await;
}

#[tokio::test]
async fn no_crash_takes_a_confirmed_message_or_brings_back_a_stranger() {
    let disk = SimDisk::new();
    let broker = open(&disk);
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    client.session.consume(consumer("q", "c", 0)).await.unwrap();
    // By the disk's step: how many messages were sent, confirmed, and (odd ones) acked by then.
    let mut history = vec![(disk.steps(), Told::default())];
    let mut told = Told::default();
    for round in 0..40 {
        let batch: Vec<_> = (told.sent..told.sent + round % 5 + 1)
            .map(|n| message("q", format!("{n} {}", ".".repeat(n as usize * 7 % 900))))
            .collect();
        let count = batch.len();
        told.sent += count as u64;
        history.push((disk.steps(), told));
        assert_eq!(client.publish(batch).await, count);
        told.confirmed = told.sent;
        history.push((disk.steps(), told));
        let got = client.deliveries(count).await;
        told.acked = told.sent;
        history.push((disk.steps(), told));
        let odd = |body: &bytes::Bytes| number(&text(body)) % 2 == 1;
        let acks = got.iter().filter(|(_, message)| odd(&message.body));
        let acks = acks.map(|(delivered, _)| ack(delivered.tag)).collect();
        client.session.settle(1, acks).await;
        client.ready("q").await;
    }
    for step in history[0].0..=disk.steps() {
        let before = history.iter().rfind(|(at, _)| *at <= step).unwrap().1;
        for image in disk.crash_images(step, step as u64, 3) {
            let broker = open(&image);
            let recovery = broker.recovery();
            assert_eq!(
                (recovery.lost, &recovery.damaged),
                (0, &vec![]),
                "step {step}"
            );
            let client = harness::client(&broker);
            let left = client.drain("q").await;
            let left: Vec<u64> = left.iter().map(|(_, body)| number(body)).collect();
            assert!(left.is_sorted_by(|a, b| a < b), "step {step}: {left:?}");
            assert!(
                left.last().is_none_or(|n| *n < before.sent),
                "step {step}: {left:?}"
            );
            for n in 0..before.confirmed {
                let may_be_gone = n % 2 == 1 && n < before.acked;
                let is_there = left.binary_search(&n).is_ok();
                assert!(is_there || may_be_gone, "step {step}: {n} is lost");
            }
        }
    }
}

/// Numbers below these were sent, confirmed, acked if odd.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    sent: u64,
    confirmed: u64,
    acked: u64,
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_until_acks_make_room() {
    // With snapshots that come of themselves, and with none but those that make room.
    for snapshot_every_bytes in [256 << 10, 64 << 20] {
        fill_and_ack(snapshot_every_bytes).await;
    }
}

async fn fill_and_ack(snapshot_every_bytes: u64) {
    let config = || Config {
        snapshot_every_bytes,
        log: annals_broker::log::LogConfig {
            disk_bytes_max: 640 << 10,
            ..config().log
        },
        ..config()
    };
    let disk = SimDisk::new();
    let broker = open_with(config(), Arc::new(disk.clone()));
    let mut first = client(&broker);
    first.session.declare_queue(queue("q")).await.unwrap();
    let mut taken = 0;
    loop {
        let batch: Vec<_> = (0..10).map(|_| message("q", vec![b'.'; 4_000])).collect();
        let count = first.publish(batch).await;
        taken += count;
        if count < 10 {
            break;
        }
        assert!(taken < 1_000, "the disk never fills");
    }
    assert!(broker.stats().blocked);
    loop {
        if let Some(SessionEvent::Blocked(_)) = first.event().await {
            break;
        }
    }
    // Topology and acks go on.
    first.session.declare_queue(queue("other")).await.unwrap();
    first.session.consume(consumer("q", "c", 0)).await.unwrap();
    first.deliveries(taken).await;
    first
        .session
        .settle(1, vec![settlement(0, true, Settle::Ack)])
        .await;
    until_unblocked(&mut first).await;
    assert_eq!(first.publish(vec![message("q", "again")]).await, 1);
    assert_eq!(broker.failed(), None);
}

#[tokio::test]
async fn a_disk_that_others_fill_refuses_publishes_until_acks_or_they_make_room() {
    let disk = SimDisk::new();
    let broker = open(&disk);
    let mut first = client(&broker);
    first.session.declare_queue(queue("q")).await.unwrap();
    for round in 0..3 {
        disk.set_space(Some((round + 9) * (64 << 10)));
        let mut taken = 0;
        loop {
            let batch: Vec<_> = (0..10).map(|_| message("q", vec![b'.'; 4_000])).collect();
            let count = first.publish(batch).await;
            taken += count;
            if count < 10 {
                break;
            }
            assert!(taken < 1_000, "the disk never fills");
        }
        assert!(taken > 10, "round {round}");
        let left = open(&disk.crash_images(disk.steps(), 1, 1)[0]);
        assert_eq!(left.recovery().messages as usize, taken);
        assert_eq!(left.recovery().lost, 0);
        drop(left);
        fill(&disk, &format!("/ballast-{round}"));
        if round == 1 {
            disk.set_space(None);
            until_taken(&mut first).await;
            taken += 1;
        }
        let spec = consumer("q", "c", 0);
        first.session.consume(spec).await.unwrap();
        first.deliveries(taken).await;
        let all = vec![settlement(0, true, Settle::Ack)];
        first.session.settle(1, all).await;
        until_taken(&mut first).await;
        first.deliveries(1).await;
        let all = vec![settlement(0, true, Settle::Ack)];
        first.session.settle(1, all).await;
        first.session.cancel(1, "c").await.unwrap();
    }
    assert_eq!(broker.failed(), None);
    broker.close().await.unwrap();
    let again = open(&disk);
    assert_eq!((again.recovery().messages, again.recovery().lost), (0, 0));
}

/// Takes what is left of the disk, to the last byte.
fn fill(disk: &SimDisk, name: &str) {
    let ballast = disk.create(std::path::Path::new(name)).unwrap();
    let mut len = 0;
    for step in (0..20).rev().map(|power| 1_usize << power) {
        while ballast.write_all_at(&vec![0; step], len).is_ok() {
            len += step as u64;
        }
    }
    assert!(len > 0, "nothing was left");
}

async fn until_taken(client: &mut Client) {
    for _ in 0..1_000 {
        if client.publish(vec![message("q", "again")]).await == 1 {
            return;
        }
    }
    panic!("publishes are refused for ever");
}

async fn until_unblocked(client: &mut Client) {
    while !matches!(client.event().await, Some(SessionEvent::Unblocked)) {}
}

#[tokio::test]
async fn a_failed_sync_is_the_end() {
    let disk = SimDisk::new();
    let broker = open(&disk);
    let mut first = client(&broker);
    first.session.declare_queue(queue("q")).await.unwrap();
    first.publish(vec![message("q", "kept")]).await;
    disk.fail(SimOp::Sync, 1, std::io::ErrorKind::Other);
    let lost = annals_broker::Publish {
        confirm: 2,
        ..message("q", "unknown")
    };
    first.session.publish(1, vec![lost]).await;
    let event = first.event().await;
    assert!(matches!(event, Some(SessionEvent::Closed(_))), "{event:?}");
    assert!(broker.ended().await.is_some());
    // A session opened now is told so too, and does not wait for ever.
    let (_late, mut events) = broker.session();
    let told = events.next().await.expect("one event");
    assert!(matches!(told[..], [SessionEvent::Closed(_)]), "{told:?}");
    assert!(broker.close().await.is_err());
    drop((first, broker));
    let again = open(&disk);
    let second = client(&again);
    let left = second.drain("q").await;
    assert_eq!(left[0].1, "kept");
}

#[tokio::test]
async fn nothing_of_a_large_group_is_told_if_its_sync_fails() {
    let disk = SimDisk::new();
    let mut config = config();
    // Large groups are committed beside the engine then.
    config.log.background = true;
    let broker = open_with(config, Arc::new(disk.clone()));
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    client.session.consume(consumer("q", "c", 0)).await.unwrap();
    let numbered = |from: u64| {
        let publish = |n| annals_broker::Publish {
            confirm: n,
            ..message("q", n.to_string())
        };
        (from..from + 100).map(publish).collect()
    };
    // More than one: a spare that is being prepared may take the first.
    (1..=64).for_each(|nth| disk.fail(SimOp::Sync, nth, std::io::ErrorKind::Other));
    client.session.publish(1, numbered(1)).await;
    client.session.publish(1, numbered(101)).await;
    // Answered, in whatever group it is.
    let declared = client.session.declare_queue(queue("late")).await;
    assert!(declared.is_err(), "{declared:?}");
    loop {
        match client.event().await.expect("it ends with a word") {
            SessionEvent::Closed(_) => break,
            // Failing to prepare a spare, it may have taken the disk for full.
            SessionEvent::Blocked(_) | SessionEvent::Nacked { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    assert!(broker.ended().await.is_some());
}

/// A queue as it should be, by message number.
#[derive(Debug, Clone, Default)]
struct Expected {
    /// Whether it is flagged redelivered.
    ready: BTreeMap<u64, bool>,
    /// By delivery tag.
    held: BTreeMap<u64, u64>,
    /// There was a kill: more may be flagged than were delivered, never fewer.
    is_lax: bool,
}

impl Expected {
    fn give_back(&mut self) {
        let back = std::mem::take(&mut self.held);
        self.ready
            .extend(back.into_values().map(|name| (name, true)));
    }

    #[track_caller]
    fn check_flag(&self, expected: bool, flagged: bool, at: &str) {
        assert!(flagged == expected || self.is_lax && flagged, "{at}");
    }
}

#[tokio::test]
async fn any_sequence_of_steps_agrees_with_a_simple_model() {
    for seed in 0..40 {
        run_model(seed).await;
    }
}

async fn run_model(seed: u64) {
    let random = SimRandom::new(seed);
    let mut disk = SimDisk::new();
    let mut broker = open(&disk);
    let mut current = client(&broker);
    let mut expected = Expected::default();
    let mut names = 0..0;
    current.session.declare_queue(queue("q")).await.unwrap();
    for step in 0..300 {
        let at = format!("seed {seed} step {step}");
        match random.below(100) {
            0..40 => {
                names = names.end..names.end + random.below(6) + 1;
                let body = |n| format!("{n} {}", ".".repeat(random.below(500) as usize));
                let batch: Vec<_> = names.clone().map(|n| message("q", body(n))).collect();
                let count = batch.len();
                assert_eq!(current.publish(batch).await, count, "{at}");
                expected.ready.extend(names.clone().map(|n| (n, false)));
            }
            40..65 => get(&current, &mut expected, &at).await,
            65..90 => settle(&current, &mut expected, &random).await,
            90..95 => {
                current.session.close_channel(9).await;
                expected.give_back();
            }
            _ => {
                if random.one_in(2) {
                    // What was settled is written before an answer to something sent after it.
                    current.ready("q").await;
                    disk = disk.snapshot();
                    expected.is_lax = true;
                } else {
                    broker.close().await.unwrap();
                }
                broker = open(&disk);
                current = client(&broker);
                expected.give_back();
            }
        }
    }
    current.session.close_channel(9).await;
    expected.give_back();
    let left = current.drain("q").await;
    let left: Vec<_> = left
        .iter()
        .map(|(d, b)| (number(b), d.redelivered))
        .collect();
    let names = left.iter().map(|(n, _)| *n);
    assert!(names.eq(expected.ready.keys().copied()), "seed {seed}");
    for ((name, flagged), redelivered) in left.iter().zip(expected.ready.values()) {
        expected.check_flag(*redelivered, *flagged, &format!("seed {seed}: {name}"));
    }
}

async fn get(current: &Client, expected: &mut Expected, at: &str) {
    let got = current.session.get(9, "q", false).await.unwrap();
    let Some((name, redelivered)) = expected.ready.pop_first() else {
        return assert_eq!(got, None, "{at}");
    };
    let (delivered, left) = got.expect(at);
    let message = delivered.load(&current.broker.reader()).unwrap();
    assert_eq!(number(&text(&message.body)), name, "{at}");
    assert_eq!(left as usize, expected.ready.len(), "{at}");
    expected.check_flag(redelivered, delivered.redelivered, at);
    expected.held.insert(delivered.tag, name);
}

async fn settle(current: &Client, expected: &mut Expected, random: &SimRandom) {
    let nth = random.below(expected.held.len().max(1) as u64) as usize;
    let Some(&tag) = expected.held.keys().nth(nth) else {
        return;
    };
    let multiple = random.one_in(3);
    let how = [Settle::Ack, Settle::Requeue, Settle::Reject][random.below(3) as usize];
    let batch = vec![settlement(tag, multiple, how)];
    current.session.settle(9, batch).await;
    let first = if multiple { 0 } else { tag };
    let settled: Vec<u64> = expected
        .held
        .range(first..=tag)
        .map(|(tag, _)| *tag)
        .collect();
    for tag in settled {
        let name = expected.held.remove(&tag).unwrap();
        if how == Settle::Requeue {
            expected.ready.insert(name, true);
        }
    }
}

/// The number a body starts with.
fn number(body: &str) -> u64 {
    body.split(' ').next().unwrap().parse().unwrap()
}
