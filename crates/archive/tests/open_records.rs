//! What the archiver has received is readable at once: in the ledger or among the open records,
//! never in both, never in neither.

mod support;

use annals_archive::archiver::{Archiver, Config, NothingKnown, OpenRecords};
use annals_archive::bucket::{Bucket, StoreBucket};
use annals_archive::reader::{Archive, Batch, EventRef, Location, ReadOptions};
use annals_archive::{Ledger, Position};
use annals_bus::{Bus, MemoryBus, Message};
use annals_core::event::CONTENT_TYPE;
use annals_core::sim::SimClock;
use annals_core::{ErrorKind, Properties, Selection, json};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use support::*;

const AGE: Duration = Duration::from_secs(2);

struct Rig {
    bus: Arc<MemoryBus>,
    connection: Arc<MemoryBus>,
    bucket: Arc<FaultyBucket>,
    archiver: Arc<Archiver>,
}

impl Rig {
    /// One consumer, so that what is received is a prefix of what is published.
    async fn new(batch_bytes: usize) -> Self {
        let bucket = FaultyBucket::new(Arc::new(StoreBucket::memory()), Vec::new());
        let config = Config {
            batch_bytes,
            batch_age: AGE,
            consumers: 1,
            ..Config::of_bus(BUS)
        };
        let bus = bus().await;
        let ledger = Ledger::open(bucket.clone(), BUS).await.unwrap();
        let clock = Arc::new(SimClock::default());
        let connection = Arc::new(bus.connect());
        let archiver = Archiver::start(
            connection.clone(),
            ledger,
            Arc::new(NothingKnown),
            clock,
            config,
        )
        .unwrap();
        Self {
            bus,
            connection,
            bucket,
            archiver: Arc::new(archiver),
        }
    }

    async fn publish(&self, messages: Vec<Message>) {
        let received = self.archiver.stats().received + messages.len() as u64;
        publish(&*self.bus, messages).await;
        while self.archiver.stats().received < received {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn open(&self, selection: &Selection) -> OpenRecords {
        self.archiver.open_records(selection).await.unwrap()
    }

    async fn archive(&self) -> Archive {
        let bucket: Arc<dyn Bucket> = self.bucket.clone();
        Archive::open(bucket, BUS).await.unwrap()
    }

    /// All copies in entries up to a position.
    async fn raw(&self, until: Position) -> Vec<Row> {
        let options = ReadOptions {
            duplicates: true,
            to_position: Some(until),
            ..ReadOptions::default()
        };
        let archive = self.archive().await;
        let mut events = archive.select(&Selection::all(), &options).await.unwrap();
        let mut rows = Vec::new();
        while let Some(batch) = events.next().await.unwrap() {
            rows.extend(rows_of(&batch));
        }
        rows
    }
}

/// Where a record lies, its event, the whole record as text, when it was received.
type Row = (Location, Bytes, String, i64);

fn rows_of(batch: &Batch) -> Vec<Row> {
    let row = |event: EventRef<'_>| {
        let record = format!("{:?}", event.record().unwrap());
        let bytes = event.to_bytes();
        assert_eq!(event.record().unwrap().event, &bytes[..]);
        (event.location, bytes, record, event.received_at_us)
    };
    batch.iter().map(|event| row(event.unwrap())).collect()
}

fn messages(numbers: impl IntoIterator<Item = usize>) -> Vec<Message> {
    numbers.into_iter().map(|n| message(&event(n))).collect()
}

fn of_types(patterns: &[&str]) -> Selection {
    Selection {
        patterns: patterns.iter().map(|p| p.parse().unwrap()).collect(),
        ..Selection::all()
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_can_be_read_as_soon_as_it_is_received_and_nothing_is_sealed_for_it() {
    let rig = Rig::new(64 << 20).await;
    let none = rig.open(&Selection::all()).await;
    assert_eq!((none.after(), none.batch().len()), (Position(0), 0));
    rig.publish(messages(0..1000)).await;
    let open = rig.open(&Selection::all()).await;
    assert_eq!(open.after(), Position(0));
    let bytes: Vec<_> = rows_of(open.batch()).into_iter().map(|row| row.1).collect();
    let published: Vec<_> = (0..1000).map(|n| event(n).bytes().clone()).collect();
    assert!(bytes == published, "in order of arrival, byte for byte");
    assert_eq!(rig.archiver.stats().entries, 0);
    assert_eq!(depth(&rig.bus), (0, 1000), "nothing is acknowledged for it");
    rig.archiver.seal().await.unwrap();
    // What was answered stays; the next answer goes on from the entry.
    assert_eq!(open.batch().len(), 1000);
    let next = rig.open(&Selection::all()).await;
    assert_eq!((next.after(), next.batch().len()), (Position(1), 0));
}

#[tokio::test(start_paused = true)]
async fn open_records_are_those_of_the_entry_to_come_whatever_their_bodies() {
    let rig = Rig::new(64 << 20).await;
    let with_type = |media: &str| Properties::builder().content_type(media).build().unwrap();
    let json = json::encode(&event(7)).unwrap();
    rig.publish(messages(0..5)).await;
    rig.archiver.seal().await.unwrap();
    let mut some = messages(10..60);
    some.insert(3, foreign("a", with_type("text/plain"), &b"hello"[..]));
    some.insert(9, foreign("b", with_type(CONTENT_TYPE), &b"\xff\xff"[..]));
    some.push(foreign(
        "c",
        with_type("application/cloudevents+json"),
        json,
    ));
    rig.publish(some).await;
    let open = rig.open(&Selection::all()).await;
    let shop = rig.open(&of_types(&["shop.#"])).await;
    let undecodable = rig
        .open(&of_types(&["annals.archive.v1.Undecodable"]))
        .await;
    let one = Selection {
        subject: Some("order-3".parse().unwrap()),
        ..of_types(&["mail.v2.Sent"])
    };
    let one = rig.open(&one).await;
    rig.archiver.seal().await.unwrap();
    let entry: Vec<_> = rig.raw(Position(2)).await.split_off(5);
    assert_eq!(entry.len(), 53);
    assert!(rows_of(open.batch()) == entry);
    let of = |wanted: &dyn Fn(&annals_core::Header<'_>) -> bool| -> Vec<Row> {
        let wanted = |row: &&Row| wanted(&annals_core::Header::scan(&row.1).unwrap());
        entry.iter().filter(wanted).cloned().collect()
    };
    assert!(rows_of(shop.batch()) == of(&|h| h.event_type.starts_with("shop.")));
    let made = of(&|h| h.event_type == "annals.archive.v1.Undecodable");
    assert_eq!(made.len(), 2);
    assert!(rows_of(undecodable.batch()) == made);
    let sent = of(&|h| h.event_type == "mail.v2.Sent" && h.subject == Some("order-3"));
    assert!(!sent.is_empty() && rows_of(one.batch()) == sent);
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_full_and_frames_being_filled_are_read_alike() {
    let rig = Rig::new(64 << 20).await;
    // 5 types, several frames of 1 MiB each.
    rig.publish(messages(0..30_000)).await;
    let open = rig.open(&Selection::all()).await;
    assert_eq!(open.batch().len(), 30_000);
    for (n, row) in rows_of(open.batch()).into_iter().enumerate() {
        assert_eq!(row.0.ordinal as usize, n);
        assert!(row.1 == event(n).bytes(), "event {n}");
    }
    rig.archiver.seal().await.unwrap();
    assert!(rig.raw(Position(1)).await == rows_of(open.batch()));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_being_sealed_is_waited_for_and_what_comes_meanwhile_is_open() {
    let rig = Rig::new(64 << 20).await;
    *rig.bucket.down.lock() = true;
    rig.publish(messages(0..3)).await;
    let archiver = rig.archiver.clone();
    let sealing = tokio::spawn(async move { archiver.seal().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Whoever gives up leaves nothing behind.
    for _ in 0..3 {
        let waited = tokio::time::timeout(AGE, rig.open(&Selection::all())).await;
        assert!(waited.is_err(), "the batch is neither durable nor open");
    }
    let archiver = rig.archiver.clone();
    let asking = tokio::spawn(async move { archiver.open_records(&Selection::all()).await });
    *rig.bucket.down.lock() = false;
    sealing.await.unwrap().unwrap();
    rig.publish(messages(3..7)).await;
    assert_eq!(asking.await.unwrap().unwrap().after(), Position(1));
    let open = rig.open(&Selection::all()).await;
    assert_eq!((open.after(), open.batch().len()), (Position(1), 4));
}

#[tokio::test(start_paused = true)]
async fn an_archiver_that_has_ended_says_so() {
    let rig = Rig::new(64 << 20).await;
    rig.connection.close().await.unwrap();
    let error = loop {
        match rig.archiver.open_records(&Selection::all()).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_archived_already_or_open_twice_is_left_out_by_the_skip_list() {
    let rig = Rig::new(64 << 20).await;
    rig.publish(messages(0..100)).await;
    rig.archiver.seal().await.unwrap();
    rig.publish(messages((50..150).chain(120..130))).await;
    let open = rig.open(&Selection::all()).await;
    let archive = rig.archive().await;
    let skips = archive.distinct(open.batch()).await.unwrap();
    let expected: Vec<u32> = (0..50).chain(100..110).collect();
    assert_eq!(skips.ordinals(), expected);
    // The batch is archived meanwhile, and half of what comes next is known.
    rig.archiver.seal().await.unwrap();
    assert_eq!(archive.distinct(open.batch()).await.unwrap(), skips);
    let later = rig.archive().await;
    assert_eq!(later.distinct(open.batch()).await.unwrap().len(), 110);
    rig.publish(messages(140..160)).await;
    let next = rig.open(&Selection::all()).await;
    let skips = later.distinct(next.batch()).await.unwrap();
    assert_eq!(skips.ordinals(), (0..10).collect::<Vec<u32>>());
    // An archive pinned before the entry the records follow cannot tell.
    let error = archive.distinct(next.batch()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("refresh"), "{error}");
}

#[derive(Debug, Clone)]
enum Step {
    Publish(usize),
    /// Publishes again what was published so long ago.
    Again(usize, usize),
    Wait(u64),
    Seal,
    Fault(&'static str, Fault),
    Ask,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::Before), Just(Fault::After)];
    let folder = prop_oneof![Just("raw/"), Just("ledger/")];
    prop_oneof![
        3 => (1usize..40).prop_map(Step::Publish),
        1 => (1usize..60, 1usize..30).prop_map(|(back, count)| Step::Again(back, count)),
        2 => (0u64..3000).prop_map(Step::Wait),
        1 => Just(Step::Seal),
        1 => (folder, fault).prop_map(|(folder, fault)| Step::Fault(folder, fault)),
        4 => Just(Step::Ask),
    ]
}

/// One answer, and what was known around it.
struct Asked {
    received_before: usize,
    open: OpenRecords,
}

async fn drive(steps: Vec<Step>, batch_bytes: usize) {
    let rig = Rig::new(batch_bytes).await;
    let mut published = Vec::new();
    let mut asking = Vec::new();
    for step in steps {
        match step {
            Step::Publish(count) => {
                let numbers = published.len()..published.len() + count;
                publish(&*rig.bus, messages(numbers.clone())).await;
                published.extend(numbers);
            }
            Step::Again(back, count) => {
                let from = published.len().saturating_sub(back);
                let again: Vec<usize> = published[from..].iter().copied().take(count).collect();
                publish(&*rig.bus, messages(again.clone())).await;
                published.extend(again);
            }
            Step::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Step::Seal => {
                let archiver = rig.archiver.clone();
                asking.push(tokio::spawn(async move {
                    archiver.seal().await.unwrap();
                    None
                }));
            }
            Step::Fault(folder, fault) => rig.bucket.faults.lock().push((folder, fault)),
            Step::Ask => {
                let archiver = rig.archiver.clone();
                asking.push(tokio::spawn(async move {
                    let received_before = archiver.stats().received as usize;
                    let open = archiver.open_records(&Selection::all()).await.unwrap();
                    Some(Asked {
                        received_before,
                        open,
                    })
                }));
            }
        }
    }
    let mut answers = Vec::new();
    for asked in asking {
        answers.extend(asked.await.unwrap());
    }
    while rig.archiver.stats().received < published.len() as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.archiver.seal().await.unwrap();
    let all = rig.raw(Position(u64::MAX)).await;
    let bytes: Vec<_> = all.iter().map(|row| row.1.clone()).collect();
    let sent: Vec<_> = published
        .iter()
        .map(|&n| event(n).bytes().clone())
        .collect();
    assert!(bytes == sent, "the archive is what was published");
    for asked in answers {
        check(&rig, &asked, &all).await;
    }
}

/// Entries up to the answer's position and then the answer: the archive so far, without a hole or
/// a copy; and by the skip list every event once, whatever was archived in between.
async fn check(rig: &Rig, asked: &Asked, all: &[Row]) {
    let open = &asked.open;
    let mut seen: Vec<_> = all
        .iter()
        .filter(|row| row.0.position <= open.after())
        .cloned()
        .collect();
    seen.extend(rows_of(open.batch()));
    assert!(seen.len() >= asked.received_before, "an event is missing");
    assert!(
        seen == all[..seen.len()],
        "a hole, a copy, or another place"
    );

    let mut first: BTreeMap<Bytes, Location> = BTreeMap::new();
    for row in &seen {
        first.entry(row.1.clone()).or_insert(row.0);
    }
    let archive = rig.archive().await;
    let skips = archive.distinct(open.batch()).await.unwrap();
    let rows = rows_of(open.batch());
    let kept: HashMap<_, _> = rows
        .iter()
        .filter(|row| !skips.contains(row.0.ordinal))
        .map(|row| (row.1.clone(), row.0))
        .collect();
    // The archive is pinned at its end, where all that is open here was archived since.
    assert_eq!(kept.len(), 0);
    let bucket: Arc<dyn Bucket> = rig.bucket.clone();
    let ledger = Ledger::open(bucket, BUS).await.unwrap();
    let pinned = Archive::pinned_at(ledger, open.after()).await.unwrap();
    let skips = pinned.distinct(open.batch()).await.unwrap();
    for row in &rows {
        let is_first = first[&row.1] == row.0;
        assert_eq!(skips.contains(row.0.ordinal), !is_first, "{:?}", row.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn under_concurrent_seals_no_record_is_missing_or_twice(
        steps in prop::collection::vec(step(), 1..40),
        batch_bytes in prop_oneof![Just(1_000usize), Just(6_000), Just(64 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(drive(steps, batch_bytes));
    }
}
