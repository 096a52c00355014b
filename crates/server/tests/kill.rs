//! Kill tests: `annals up` is killed under load, again and again, and loses nothing it confirmed.
//!
//! The publisher is outside, and keeps its own log. `ANNALS_KILL_CYCLES` says how often.

mod support;

use annals_bus::{AmqpBus, Bus, Publisher, PublisherOptions};
use annals_core::system::{SystemClock, SystemRandom};
use annals_core::{Event, EventBuilder};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use support::{Server, expect, frames, json};
use tokio::sync::mpsc;

const BATCH: u64 = 50;

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
    let cycles = std::env::var("ANNALS_KILL_CYCLES").map_or(5, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut log = Log::default();
    for cycle in 0..cycles {
        let server = Server::start(&data, &["--seal-after", "1", "--seal-at", "1"]);
        // A different moment in every cycle, the same in every run.
        let until = 200 + (cycle * 7_919) % 3_000;
        publish_until_killed(server, cycle, until, &mut log).await;
    }
    let server = Server::start(&data, &[]);
    expect(0, &data, &["archive", "seal"]);
    let path = dir.path().join("publish.log");
    std::fs::write(&path, &log.text).unwrap();
    let found = json(
        &data,
        &["archive", "verify", "--against", path.to_str().unwrap()],
    );
    assert_eq!(found["finding_count"], 0, "{found:#}");

    let file = dir.path().join("all.binpb");
    expect(
        0,
        &data,
        &["replay", "--to", &format!("file:{}", file.display())],
    );
    let mut replayed = BTreeMap::new();
    for event in frames(&file) {
        let id = event.header().id.to_owned();
        assert!(
            replayed.insert(id.clone(), event).is_none(),
            "{id} was replayed twice"
        );
    }
    for (id, bytes) in &log.confirmed {
        let event = replayed
            .get(id)
            .unwrap_or_else(|| panic!("confirmed {id} is missing"));
        assert_eq!(event.bytes(), bytes, "{id} has other bytes");
    }
    assert!(log.confirmed.len() as u64 >= cycles * 200);
    assert!(
        replayed.len() as u64 <= log.tried,
        "events nobody published"
    );
    assert!(server.terminate().success());
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
    let (sender, mut said) = mpsc::unbounded_channel();
    let task = tokio::spawn(publish(publisher, cycle, sender));
    let mut confirmed = 0;
    while confirmed < until {
        confirmed += hear(said.recv().await.expect("the publisher works"), log);
    }
    server.kill();
    task.abort();
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

async fn publish(publisher: Publisher, cycle: u64, say: mpsc::UnboundedSender<Said>) {
    for batch in 0.. {
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
