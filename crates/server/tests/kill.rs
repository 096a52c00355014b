//! Kill tests: `annals up` is killed under load, again and again, and loses nothing it confirmed.
//!
//! The publisher is outside, and keeps its own log. Batches are sealed all the time, so that kills
//! meet uploads, ledger entries and index files half done. `ANNALS_KILL_CYCLES` says how often.

mod support;

use annals_bus::{AmqpBus, Bus, Publisher, PublisherOptions};
use annals_core::system::{SystemClock, SystemRandom};
use annals_core::{Event, EventBuilder};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use support::{Server, expect, frames, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const CYCLES: u64 = 50;
/// Events of one call, and calls under way at once: what a kill leaves in doubt.
const BATCH: u64 = 50;
const LANES: u64 = 4;

/// What the publisher wrote down.
#[derive(Default)]
struct Log {
    text: String,
    /// Bytes of what was confirmed, by id.
    confirmed: BTreeMap<String, Vec<u8>>,
    tried: u64,
}

impl Log {
    fn write(&mut self, event: &Event, outcome: &str) {
        let header = event.header();
        let hash = blake3::hash(event.bytes()).to_hex();
        let (source, id) = header.key();
        writeln!(self.text, "{source}\t{id}\t{hash}\t{outcome}").unwrap();
        if outcome == "ok" {
            self.confirmed.insert(id.to_owned(), event.bytes().to_vec());
        }
    }
}

/// What the publisher says while it works.
enum Said {
    Trying(Vec<Event>),
    Confirmed(Vec<Event>),
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_by_kills_under_load() {
    let cycles = std::env::var("ANNALS_KILL_CYCLES").map_or(CYCLES, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut log = Log::default();
    for cycle in 0..cycles {
        // A restart needs no hand: the same command on the same directory.
        let server = Server::start(&data, &["--seal-after", "5ms", "--seal-at", "64KiB"]);
        // A different moment in every cycle, the same in every run.
        let until = 200 + (cycle * 7_919) % 2_000;
        publish_until_killed(server, cycle, until, &mut log).await;
    }
    let server = Server::start(&data, &[]);
    expect(0, &data, &["archive", "seal"]);
    let path = dir.path().join("publish.log");
    std::fs::write(&path, &log.text).unwrap();
    let against = ["archive", "verify", "--against", path.to_str().unwrap()];
    let found = json(&data, &against);
    assert_eq!(found["finding_count"], 0, "{found:#}");

    let replayed = replay(&data, &dir.path().join("all.binpb"));
    let lost = |(id, bytes): &(&String, &Vec<u8>)| {
        replayed.get(*id).is_none_or(|event| event.bytes() != bytes)
    };
    let lost: Vec<_> = log
        .confirmed
        .iter()
        .filter(lost)
        .map(|(id, _)| id)
        .collect();
    let stats = json(&data, &["archive", "stats"]);
    report(cycles, &log, lost.len(), replayed.len(), &stats, &found);
    assert!(
        lost.is_empty(),
        "confirmed, and missing or changed: {lost:?}"
    );
    assert!(log.confirmed.len() as u64 >= cycles * 200);
    assert!(
        replayed.len() as u64 <= log.tried,
        "events nobody published"
    );
    assert_eq!(stats["events"], replayed.len());
    assert_eq!(stats["conflicts"], 0);
    assert!(
        stats["segments"].as_u64().unwrap() >= 4 * cycles,
        "kills never met a seal: {stats:#}"
    );
    assert!(server.terminate().success());
}

/// Replays everything to a file: the events by id, each there once.
fn replay(data: &Path, file: &Path) -> BTreeMap<String, Event> {
    let target = format!("file:{}", file.display());
    expect(0, data, &["replay", "--to", &target]);
    let mut replayed = BTreeMap::new();
    for event in frames(file) {
        let id = event.header().id.to_owned();
        let earlier = replayed.insert(id.clone(), event);
        assert!(earlier.is_none(), "{id} was replayed twice");
    }
    replayed
}

/// Past the test harness, which hides what a test that passes prints.
fn report(cycles: u64, log: &Log, lost: usize, replayed: usize, stats: &Value, found: &Value) {
    let left = found["unregistered"].as_array().map_or(0, Vec::len);
    let mut figures = format!(
        "kills {cycles}, published {}, confirmed {}, of these lost or changed {lost}, replayed \
         {replayed} each once; records {} in {} segments, {} ledger entries, duplicates kept {}, \
         uploads cut off by a kill {left}",
        log.tried,
        log.confirmed.len(),
        stats["records"],
        stats["segments"],
        stats["ledger_position"],
        stats["duplicates"],
    );
    figures.push('\n');
    std::io::stderr().write_all(figures.as_bytes()).unwrap();
}

/// Publishes until `until` events are confirmed, kills the server under it, and writes down what
/// is known.
async fn publish_until_killed(server: Server, cycle: u64, until: u64, log: &mut Log) {
    let bus: Arc<dyn Bus> = Arc::new(
        AmqpBus::connect(&server.amqp_uri(), Default::default())
            .await
            .unwrap(),
    );
    let options = PublisherOptions::of_bus("main", "outside");
    let publisher = Publisher::new(bus, options, Arc::new(SystemClock), Arc::new(SystemRandom));
    let publisher = Arc::new(publisher);
    let (sender, mut said) = mpsc::unbounded_channel();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(publish(publisher.clone(), cycle, lane, sender.clone()));
    }
    drop(sender);
    let mut confirmed = 0;
    while confirmed < until {
        confirmed += hear(said.recv().await.expect("the publisher works"), log);
    }
    server.kill();
    lanes.abort_all();
    while let Some(more) = said.recv().await {
        hear(more, log);
    }
}

fn hear(said: Said, log: &mut Log) -> u64 {
    match said {
        Said::Trying(events) => {
            log.tried += events.len() as u64;
            events.iter().for_each(|event| log.write(event, "unknown"));
            0
        }
        Said::Confirmed(events) => {
            events.iter().for_each(|event| log.write(event, "ok"));
            events.len() as u64
        }
    }
}

async fn publish(
    publisher: Arc<Publisher>,
    cycle: u64,
    lane: u64,
    say: mpsc::UnboundedSender<Said>,
) {
    for batch in (lane..).step_by(LANES as usize) {
        let events: Vec<Event> = (0..BATCH)
            .map(|i| event(cycle, batch * BATCH + i))
            .collect();
        if say.send(Said::Trying(events.clone())).is_err() {
            return;
        }
        let results = publisher.publish_events(events).await;
        let confirmed = results
            .into_iter()
            .filter_map(|r| r.ok())
            .map(|r| r.event)
            .collect();
        if say.send(Said::Confirmed(confirmed)).is_err() {
            return;
        }
    }
}

fn event(cycle: u64, number: u64) -> Event {
    let types = ["shop.v1.OrderPlaced", "shop.v1.OrderPaid", "mail.v1.Sent"];
    EventBuilder::new(
        types[(number % 3) as usize],
        "/outside",
        format!("{cycle}-{number}"),
    )
    .unwrap()
    .subject(format!("o-{}", number % 17))
    .unwrap()
    .time("2026-11-21T09:00:00Z".parse().unwrap())
    .json(format!(
        "{{\"number\":{number},\"padding\":\"{}\"}}",
        "x".repeat(200)
    ))
    .build()
    .unwrap()
}
