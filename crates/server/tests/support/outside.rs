//! A publisher outside the platform, that keeps its own log of what it published and what was
//! confirmed, and kills the platform under its load.

use super::{Server, expect, frames};
use annals_bus::{AmqpBus, Bus, Publisher, PublisherOptions};
use annals_core::Event;
use annals_core::system::{SystemClock, SystemRandom};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Events of one call, and calls under way at once: what a kill leaves in doubt.
const BATCH: u64 = 50;
const LANES: u64 = 4;

/// Makes the event of a cycle and a number.
pub type MakeEvent = fn(u64, u64) -> Event;

/// What the publisher wrote down.
#[derive(Default)]
pub struct Log {
    /// As `archive verify --against` reads it.
    pub text: String,
    /// Bytes of what was confirmed, by id.
    pub confirmed: BTreeMap<String, Vec<u8>>,
    pub tried: u64,
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

    fn hear(&mut self, said: Said) -> u64 {
        match said {
            Said::Trying(events) => {
                self.tried += events.len() as u64;
                events.iter().for_each(|event| self.write(event, "unknown"));
                0
            }
            Said::Confirmed(events) => {
                events.iter().for_each(|event| self.write(event, "ok"));
                events.len() as u64
            }
        }
    }

    /// What was confirmed and is not among these, or not with its bytes.
    pub fn lost(&self, replayed: &BTreeMap<String, Event>) -> Vec<&String> {
        let is_lost = |(id, bytes): &(&String, &Vec<u8>)| {
            replayed.get(*id).is_none_or(|event| event.bytes() != bytes)
        };
        let lost = self.confirmed.iter().filter(is_lost);
        lost.map(|(id, _)| id).collect()
    }
}

/// What the publisher says while it works.
enum Said {
    Trying(Vec<Event>),
    Confirmed(Vec<Event>),
}

/// Publishes until `until` events are confirmed, kills the server under it, and writes down what
/// is known.
pub async fn publish_until_killed(
    server: Server,
    cycle: u64,
    until: u64,
    event: MakeEvent,
    log: &mut Log,
) {
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
        let event = move |number| event(cycle, number);
        lanes.spawn(publish(publisher.clone(), lane, event, sender.clone()));
    }
    drop(sender);
    let mut confirmed = 0;
    while confirmed < until {
        confirmed += log.hear(said.recv().await.expect("the publisher works"));
    }
    server.kill();
    lanes.abort_all();
    while let Some(more) = said.recv().await {
        log.hear(more);
    }
}

async fn publish(
    publisher: Arc<Publisher>,
    lane: u64,
    event: impl Fn(u64) -> Event,
    say: mpsc::UnboundedSender<Said>,
) {
    for batch in (lane..).step_by(LANES as usize) {
        let events: Vec<Event> = (0..BATCH).map(|i| event(batch * BATCH + i)).collect();
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

/// Replays everything to a file: the events by id, each there once.
pub fn replay_all(data: &Path, file: &Path) -> BTreeMap<String, Event> {
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
