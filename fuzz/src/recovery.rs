//! The broker's start on records whose checksums hold and whose content is anything.
//!
//! The log says only that bytes are those that were appended. What they mean is read again at
//! every start, by the version of annals that starts.

use annals_broker::log::{Entry, Log, LogConfig};
use annals_broker::{
    BindingSpec, Broker, Config, Destination, ExchangeKind, ExchangeSpec, Publish, QueueSpec,
    Recovery, Session, SessionEvent, SessionEvents,
};
use annals_core::Properties;
use annals_core::sim::{SimClock, SimDisk, SimRandom};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/broker";
/// Kinds that the input can name; 0 is a snapshot, the last two are of no version.
const KINDS: u8 = 12;

fn config() -> Config {
    Config {
        log: LogConfig {
            segment_bytes: 16 << 10,
            disk_bytes_max: 16 << 20,
            message_bytes_max: 8 << 10,
            background: false,
            ..LogConfig::default()
        },
        snapshot_every_bytes: 64 << 10,
        ..Config::new(DIR)
    }
}

/// The broker starts or refuses, and what it kept when it closes is there when it starts again.
/// The input is a sequence of entries: kind, length (2 bytes, little endian), payload.
pub fn run(bytes: &[u8]) {
    let disk = SimDisk::new();
    write(&disk, bytes);
    let Some(first) = start_and_close(&disk) else {
        return;
    };
    let again = start_and_close(&disk).expect("what it wrote itself it reads");
    let kept = (again.messages, again.queues) == (first.messages, first.queues);
    let sound = again.lost == 0 && again.damaged.is_empty();
    assert!(kept && sound, "{first:?}, then {again:?}");
}

/// What was found, if the broker started and closed in order.
fn start_and_close(disk: &SimDisk) -> Option<Recovery> {
    let broker = open(disk).ok()?;
    let found = broker.recovery().clone();
    let closed = block_on(broker.close());
    let failed = broker.failed().unwrap_or_default();
    assert!(!failed.contains("panicked"), "{failed}");
    closed.ok().map(|()| found)
}

fn open(disk: &SimDisk) -> annals_core::Result<Broker> {
    let (clock, random) = (SimClock::default(), SimRandom::new(1));
    Broker::open(
        config(),
        Arc::new(disk.clone()),
        Arc::new(clock),
        Arc::new(random),
    )
}

fn write(disk: &SimDisk, mut entries: &[u8]) {
    let log = Log::open(
        Arc::new(disk.clone()),
        Path::new(DIR),
        config().log,
        &mut |_| {},
    );
    let mut log = log.expect("an empty disk takes a log").0;
    while let Some(([kind, low, high], rest)) = entries.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        entries = rest;
        let written = match kind % KINDS {
            0 => log.commit(true).and_then(|()| log.write_snapshot(payload)),
            kind => log.append(kind, &[payload]).map(drop),
        };
        // Too long for a record.
        drop(written);
    }
    let written = log.commit(true).and_then(|()| log.close());
    written.expect("the disk is well");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(future)
}

/// What a broker writes that is used, and the same with its snapshot.
pub fn seeds() -> Vec<Vec<u8>> {
    let disk = SimDisk::new();
    let broker = open(&disk).expect("an empty disk takes a broker");
    block_on(async {
        let (session, mut events) = broker.session();
        use_it(&session, &mut events).await;
    });
    let killed = disk.snapshot();
    block_on(broker.close()).expect("the disk is well");
    [killed, disk].iter().map(entries_of).collect()
}

async fn use_it(session: &Session, events: &mut SessionEvents) {
    let exchange = |name: &str| ExchangeSpec {
        name: name.to_owned(),
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
        passive: false,
        arguments: Bytes::new(),
    };
    let queue = |name: &str| QueueSpec {
        name: name.to_owned(),
        durable: true,
        exclusive: false,
        auto_delete: false,
        passive: false,
        arguments: Bytes::new(),
    };
    let binding = |key: &str, destination| BindingSpec {
        source: "x".to_owned(),
        destination,
        key: key.to_owned(),
        arguments: Bytes::new(),
    };
    let known = "the broker takes it";
    for name in ["x", "y", "z"] {
        session.declare_exchange(exchange(name)).await.expect(known);
    }
    for name in ["q", "r", "s"] {
        session.declare_queue(queue(name)).await.expect(known);
        let bound = binding("a.#", Destination::Queue(name.to_owned()));
        session.bind(bound).await.expect(known);
    }
    let onward = binding("#", Destination::Exchange("y".to_owned()));
    session.bind(onward.clone()).await.expect(known);
    session.unbind(onward).await.expect(known);
    session.delete_exchange("z", false).await.expect(known);
    let message = |confirm| Publish {
        exchange: "x".into(),
        routing_key: "a.b".into(),
        properties: Properties::builder().persistent().build().expect("valid"),
        body: Bytes::from(format!("body {confirm}")),
        mandatory: true,
        confirm,
    };
    session.publish(1, (1..=6).map(message).collect()).await;
    let mut confirmed = 0;
    while confirmed < 6 {
        for event in events.next().await.expect("the session goes on") {
            if let SessionEvent::Confirmed { up_to, .. } = event {
                confirmed = up_to;
            }
        }
    }
    for _ in 0..3 {
        session.get(1, "q", true).await.expect(known);
    }
    session.purge_queue("r").await.expect(known);
    session.delete_queue("s", false, false).await.expect(known);
}

fn entries_of(disk: &SimDisk) -> Vec<u8> {
    let mut out = Vec::new();
    let mut visit = |entry: Entry<'_>| {
        let (kind, payload) = match entry {
            Entry::Snapshot(state) => (0, state),
            Entry::Record(_, kind, payload) => (kind, payload),
        };
        let length = u16::try_from(payload.len()).expect("a small one");
        out.push(kind);
        out.extend(length.to_le_bytes());
        out.extend(payload);
    };
    let disk = Arc::new(disk.clone());
    Log::open(disk, Path::new(DIR), config().log, &mut visit).expect("it was well");
    out
}
