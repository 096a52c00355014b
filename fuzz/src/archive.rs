//! What the targets of the archive share: one small archive, well made, and everything that reads
//! one, run over objects of any content.

use crate::bucket::{MemoryBucket, Objects};
use annals_archive::archiver::{Batcher, ConsumerId, Limits};
use annals_archive::index::Index;
use annals_archive::reader::{Archive, OnDamage, ReadOptions};
use annals_archive::segment::{SealedSegment, SegmentWriter};
use annals_archive::verify::{VerifyOptions, verify};
use annals_archive::{Bucket, Error, ErrorKind, Ledger};
use annals_bus::Delivery;
use annals_core::event::CONTENT_TYPE;
use annals_core::{Event, EventBuilder, Properties, Selection, Timestamp, TypePattern};
use bytes::Bytes;
use std::cell::Cell;
use std::sync::{Arc, LazyLock, Once};

/// The bus of every archive here.
pub const BUS: &str = "main";
/// A day in November 2026, in microseconds.
const RECEIVED_AT_US: i64 = 1_795_251_600_000_000;
/// Ledger entries of [`objects`].
pub const ENTRIES: u64 = 5;

/// The objects of an archive of a few entries, with its index; among its events are duplicates
/// and a conflict.
pub fn objects() -> &'static Objects {
    static OBJECTS: LazyLock<Objects> = LazyLock::new(|| block_on(make()));
    &OBJECTS
}

async fn make() -> Objects {
    let memory = Arc::new(MemoryBucket::default());
    let bucket: Arc<dyn Bucket> = memory.clone();
    let known = "memory takes it";
    let ledger = Ledger::open(bucket.clone(), BUS).await.expect(known);
    for entry in 0..ENTRIES {
        let first = entry as usize * 6;
        // The last two of the entry before come again, one of them with other bytes.
        let again = [first.saturating_sub(2), first.saturating_sub(1)];
        let mut events: Vec<Event> = (first..first + 8).chain(again).map(event).collect();
        events.push(altered(first));
        let mut segments = Vec::new();
        for sealed in seal(&events, entry + 1) {
            let created = bucket.create(&sealed.segment.name, sealed.bytes).await;
            created.expect(known);
            segments.push(sealed.segment);
        }
        ledger
            .append(segments, RECEIVED_AT_US, "w")
            .await
            .expect(known);
    }
    Index::open_or_rebuild(&ledger).await.expect(known);
    memory.objects()
}

/// The `n`-th event.
pub fn event(n: usize) -> Event {
    let types = ["shop.v1.OrderPlaced", "mail.v2.Sent", "Lonely"];
    let at = Timestamp::from_second(1_700_000_000 + n as i64).expect("in range");
    EventBuilder::new(types[n % 3], "/shop", format!("id-{n}"))
        .and_then(|b| b.time(at).subject(format!("order-{}", n % 4)))
        .and_then(|b| b.attribute("producerid", "p-1"))
        .and_then(|b| b.attribute("producerseq", (n + 1).to_string()))
        .and_then(|b| b.protobuf(vec![8; n]).build())
        .expect("a valid event")
}

fn altered(n: usize) -> Event {
    let builder = EventBuilder::new("mail.v2.Sent", "/shop", format!("id-{n}"));
    let event = builder.and_then(|b| b.protobuf(vec![9]).build());
    event.expect("a valid event")
}

/// Segments of these events, as the archiver makes them.
pub fn seal(events: &[Event], number: u64) -> Vec<SealedSegment> {
    let limits = Limits {
        bytes: 1 << 30,
        per_consumer: 0,
    };
    let from = ConsumerId {
        consumer: 0,
        generation: 1,
    };
    let mut batcher = Batcher::new(BUS, limits);
    for (tag, event) in (1..).zip(events) {
        let properties = Properties::builder()
            .content_type(CONTENT_TYPE)
            .persistent();
        let delivery = Delivery {
            tag,
            redelivered: false,
            exchange: "events".into(),
            routing_key: event.header().event_type.into(),
            properties: properties.build().expect("valid properties"),
            body: event.bytes().clone(),
        };
        batcher.push(from, &delivery, RECEIVED_AT_US + tag as i64);
    }
    let mut writer = SegmentWriter::new().expect("zstd is there");
    let sealed = batcher.take().seal(BUS, number, &mut writer);
    sealed.expect("events can be sealed")
}

/// Verifies, reads, counts, looks up. Nothing panics, every error is one of damage, and an archive
/// that is found sound gives all its readers the same answers.
pub fn read_all_ways(objects: Objects) {
    read_guarded(objects, true);
}

/// The same for an archive whose index may lie under checksums that hold: answers are not compared.
pub fn read_lying(objects: Objects) {
    read_guarded(objects, false);
}

fn read_guarded(objects: Objects, compared: bool) {
    let before = panics();
    block_on(read(Arc::new(MemoryBucket::holding(objects)), compared));
    assert_eq!(panics(), before, "a task panicked");
}

async fn read(bucket: Arc<dyn Bucket>, compared: bool) {
    let verified = verify(bucket.clone(), BUS, &VerifyOptions::default()).await;
    let report = verified.expect("memory can be reached");
    let archive = match Archive::open(bucket, BUS).await {
        Ok(archive) => archive,
        Err(error) => {
            check(&error);
            assert!(!report.is_sound(), "verified, yet: {error}");
            return;
        }
    };
    let all = Selection::all();
    let copies = events(&archive, &all, true, OnDamage::Stop).await;
    let reported = events(&archive, &all, true, OnDamage::Report).await;
    let once = events(&archive, &all, false, OnDamage::Stop).await;
    let narrow = Selection {
        patterns: vec![TypePattern::new("shop.#").expect("a pattern")],
        subject: Some("order-1".parse().expect("a subject")),
        ..Selection::all()
    };
    let narrowed = events(&archive, &narrow, true, OnDamage::Stop).await;
    let counted = archive.count(&all).await;
    let got = archive.get("/shop", "id-3").await;
    if !report.is_sound() || !compared {
        let errors = [copies.err(), reported.err(), once.err(), narrowed.err()];
        errors.iter().flatten().for_each(check);
        counted.map_or_else(|e| check(&e), drop);
        got.map_or_else(|e| check(&e), drop);
        return;
    }
    let copies = copies.expect("verified");
    assert_eq!(copies.len() as u64, report.records, "verified");
    assert_eq!(reported.expect("verified"), copies);
    let expected = copies.iter().filter(|event| {
        let event = Event::parse(Bytes::clone(event)).expect("verified");
        narrow.matches(&event.header(), Timestamp::UNIX_EPOCH)
    });
    assert!(
        expected.eq(&narrowed.expect("verified")),
        "statistics hide an event"
    );
    let once = once.expect("verified");
    assert_eq!(counted.expect("verified"), once.len() as u64);
    let there = copies.iter().any(|event| {
        let event = Event::parse(Bytes::clone(event)).expect("verified");
        event.header().key() == ("/shop", "id-3")
    });
    assert_eq!(got.expect("verified").is_some(), there);
}

async fn events(
    archive: &Archive,
    selection: &Selection,
    duplicates: bool,
    on_damage: OnDamage,
) -> Result<Vec<Bytes>, Error> {
    let options = ReadOptions {
        duplicates,
        on_damage,
        parallelism: 1,
        ..ReadOptions::default()
    };
    let mut events = archive.select(selection, &options).await?;
    let mut found = Vec::new();
    while let Some(batch) = events.next().await? {
        for event in batch.iter() {
            match event {
                Ok(event) => found.push(event.to_bytes()),
                Err(error) if on_damage == OnDamage::Stop => return Err(error),
                Err(error) => panic!("damage was to be left out: {error}"),
            }
        }
    }
    Ok(found)
}

/// Asserts that an error is one of damage.
pub fn check(error: &Error) {
    let damage = [ErrorKind::Corrupt, ErrorKind::NotFound, ErrorKind::Invalid];
    assert!(damage.contains(&error.kind()), "{error:?}");
}

/// Runs to the end, on one thread and those that block.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Panics of this thread so far, those that its runtime swallows included. One on a thread that
/// blocks is an error of the kind [`ErrorKind::Internal`].
fn panics() -> usize {
    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            COUNT.set(COUNT.get() + 1);
            before(panic);
        }));
    });
    COUNT.get()
}
