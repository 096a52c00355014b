//! What a restart keeps, what a crash may take, what a full or failing disk does.

mod harness;

use annals_broker::{Config, ExchangeKind, QueueSpec, SessionEvent, Settle};
use annals_core::sim::{SimDisk, SimOp, SimRandom};
use harness::*;
use std::collections::{BTreeMap, BTreeSet};
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
async fn no_crash_takes_a_confirmed_message_or_brings_back_a_stranger() {
    let disk = SimDisk::new();
    let broker = open(&disk);
    let mut client = client(&broker);
    client.session.declare_queue(queue("q")).await.unwrap();
    client.session.consume(consumer("q", "c", 8)).await.unwrap();
    // What was confirmed and what an ack was sent for, by the disk's step at that time.
    let mut log = vec![(disk.steps(), BTreeSet::new(), BTreeSet::new())];
    let (mut confirmed, mut acked) = (BTreeSet::new(), BTreeSet::new());
    let mut number = 0;
    for round in 0..30 {
        let batch: Vec<_> = (0..round % 5 + 1)
            .map(|_| {
                number += 1;
                message("q", format!("{number:04}{}", ".".repeat(number % 700)))
            })
            .collect();
        let names: Vec<String> = batch
            .iter()
            .map(|m| text(&m.body)[..4].to_owned())
            .collect();
        let count = batch.len();
        assert_eq!(client.publish(batch).await, count);
        confirmed.extend(names);
        log.push((disk.steps(), confirmed.clone(), acked.clone()));
        let got = client.deliveries(count).await;
        for (delivered, message) in &got {
            if delivered.tag % 3 != 0 {
                acked.insert(text(&message.body)[..4].to_owned());
            }
        }
        // The rest goes back, and comes again at once.
        log.push((disk.steps(), confirmed.clone(), acked.clone()));
        for (delivered, _) in got {
            let how = if delivered.tag % 3 == 0 {
                Settle::Reject
            } else {
                Settle::Ack
            };
            if how == Settle::Ack || round < 10 {
                if how == Settle::Reject {
                    continue;
                }
                client
                    .session
                    .settle(1, vec![settlement(delivered.tag, false, how)])
                    .await;
            } else {
                client
                    .session
                    .settle(1, vec![settlement(delivered.tag, false, Settle::Ack)])
                    .await;
            }
        }
        if round < 10 {
            // Unsettled ones take all credit in the end: settle the first of them.
            client
                .session
                .settle(1, vec![settlement(0, true, Settle::Reject)])
                .await;
        }
        client.ready("q").await;
        // All that was given out is settled by now, and may be gone.
        acked = confirmed.clone();
    }
    let end = disk.steps();
    for step in (0..=end).step_by(7) {
        let at = log.iter().rposition(|(at, ..)| *at <= step);
        // Sent before the step after this one, so possibly on the disk.
        let sent = log
            .iter()
            .position(|(at, ..)| *at > step)
            .unwrap_or(log.len() - 1);
        for image in disk.crash_images(step, step as u64, 4) {
            let broker = open(&image);
            let recovery = broker.recovery();
            assert_eq!(
                (recovery.lost, &recovery.damaged),
                (0, &vec![]),
                "step {step}"
            );
            let Some(at) = at else { continue };
            let client = harness::client(&broker);
            let left: BTreeSet<String> = client
                .drain("q")
                .await
                .into_iter()
                .map(|(_, b)| b[..4].to_owned())
                .collect();
            let (_, confirmed, _) = &log[at];
            let may_be_gone: BTreeSet<String> = log[sent].1.clone();
            let settled = &log[(sent + 1).min(log.len() - 1)].2;
            for name in confirmed {
                assert!(
                    left.contains(name) || settled.contains(name),
                    "{name} was confirmed at step {step} and is lost"
                );
            }
            drop(may_be_gone);
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_until_acks_make_room() {
    let config = || Config {
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
    loop {
        if let Some(SessionEvent::Unblocked) = first.event().await {
            break;
        }
    }
    assert_eq!(first.publish(vec![message("q", "again")]).await, 1);
    assert_eq!(broker.failed(), None);
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
    assert!(broker.close().await.is_err());
    drop((first, broker));
    let again = open(&disk);
    let second = client(&again);
    let left = second.drain("q").await;
    assert_eq!(left[0].1, "kept");
}

/// A queue as it should be, by message number.
#[derive(Debug, Clone, Default)]
struct Expected {
    ready: BTreeMap<u64, bool>,
    held: BTreeMap<u64, u64>,
}

#[tokio::test]
async fn any_sequence_of_steps_agrees_with_a_simple_model() {
    for seed in 0..30 {
        run_model(seed).await;
    }
}

async fn run_model(seed: u64) {
    let random = SimRandom::new(seed);
    let disk = SimDisk::new();
    let mut broker = open(&disk);
    let mut current = client(&broker);
    let mut expected = Expected::default();
    let mut number = 0;
    current.session.declare_queue(queue("q")).await.unwrap();
    for step in 0..150 {
        match random.below(100) {
            0..40 => {
                let count = random.below(6) + 1;
                let names = number..number + count;
                number += count;
                let batch = names
                    .clone()
                    .map(|n| {
                        message(
                            "q",
                            format!("{n} {}", ".".repeat(random.below(500) as usize)),
                        )
                    })
                    .collect();
                assert_eq!(current.publish(batch).await as u64, count);
                expected.ready.extend(names.map(|n| (n, false)));
            }
            40..65 => {
                let got = current.session.get(9, "q", false).await.unwrap();
                let first = expected.ready.pop_first();
                match (got, first) {
                    (Some((delivered, left)), Some((name, redelivered))) => {
                        let body = delivered.load(&broker.reader()).unwrap().body;
                        let body = text(&body);
                        assert_eq!(
                            body.split(' ').next(),
                            Some(name.to_string().as_str()),
                            "seed {seed} step {step}"
                        );
                        assert_eq!(
                            delivered.redelivered, redelivered,
                            "seed {seed} step {step} {name}"
                        );
                        assert_eq!(left as usize, expected.ready.len());
                        expected.held.insert(delivered.tag, name);
                    }
                    (got, first) => {
                        assert_eq!((got, first), (None, None), "seed {seed} step {step}");
                    }
                }
            }
            65..92 => {
                let nth = random.below(expected.held.len().max(1) as u64) as usize;
                let Some(&tag) = expected.held.keys().nth(nth) else {
                    continue;
                };
                let multiple = random.one_in(3);
                let how = [Settle::Ack, Settle::Requeue, Settle::Reject][random.below(3) as usize];
                current
                    .session
                    .settle(9, vec![settlement(tag, multiple, how)])
                    .await;
                let settled: Vec<u64> = expected
                    .held
                    .keys()
                    .copied()
                    .filter(|t| *t == tag || multiple && *t < tag)
                    .collect();
                for tag in settled {
                    let name = expected.held.remove(&tag).unwrap();
                    if how == Settle::Requeue {
                        expected.ready.insert(name, true);
                    }
                }
            }
            92..96 => {
                current.session.close_channel(9).await;
                let back = std::mem::take(&mut expected.held);
                expected
                    .ready
                    .extend(back.into_values().map(|name| (name, true)));
            }
            _ => {
                let next = if random.one_in(2) {
                    // Nothing is in the air: a crash that keeps all equals a kill.
                    current.ready("q").await;
                    disk_after_kill(&disk)
                } else {
                    broker.close().await.unwrap();
                    disk.clone()
                };
                let clean = broker.stats().sessions == 0;
                let _ = clean;
                restart(&mut broker, &mut current, &mut expected, next).await;
                return finish(current, expected, seed).await;
            }
        }
    }
    finish(current, expected, seed).await;
}

fn disk_after_kill(disk: &SimDisk) -> SimDisk {
    disk.snapshot()
}

async fn restart(
    broker: &mut annals_broker::Broker,
    current: &mut Client,
    expected: &mut Expected,
    disk: SimDisk,
) {
    *broker = open(&disk);
    *current = client(broker);
    let back = std::mem::take(&mut expected.held);
    expected
        .ready
        .extend(back.into_values().map(|name| (name, true)));
}

async fn finish(client: Client, expected: Expected, seed: u64) {
    if !expected.held.is_empty() {
        client.session.close_channel(9).await;
    }
    let mut all: BTreeMap<u64, bool> = expected.ready;
    all.extend(expected.held.into_values().map(|name| (name, true)));
    let left = client.drain("q").await;
    let names: Vec<u64> = left
        .iter()
        .map(|(_, body)| body.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(
        names,
        all.keys().copied().collect::<Vec<_>>(),
        "seed {seed}"
    );
    for ((delivered, body), redelivered) in left.iter().zip(all.values()) {
        // After a kill more may be flagged than were delivered, never fewer.
        assert!(delivered.redelivered || !redelivered, "seed {seed}: {body}");
    }
}
