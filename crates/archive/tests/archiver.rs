//! What is confirmed is archived, byte for byte, and nothing is acknowledged before it is.

mod support;

use annals_archive::archiver::{Archiver, Config, Known, NothingKnown};
use annals_archive::bucket::{Bucket, DirectoryBucket, StoreBucket};
use annals_archive::{Ledger, Position, Result};
use annals_bus::{Bus, MemoryBus};
use annals_core::envelope::CloudEvent;
use annals_core::properties::REPLAY_ID;
use annals_core::sim::{SimClock, SimDisk, SimOp};
use annals_core::{ErrorKind, Properties, Timestamp, binary, json};
use async_trait::async_trait;
use prost::Message;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use support::*;

/// A bus, a bucket and a clock to archive with.
struct Rig {
    bus: Arc<MemoryBus>,
    bucket: Arc<dyn Bucket>,
    clock: Arc<SimClock>,
    known: Arc<dyn Known>,
    config: Config,
}

impl Rig {
    async fn new() -> Self {
        Self::with(Arc::new(StoreBucket::memory())).await
    }

    async fn with(bucket: Arc<dyn Bucket>) -> Self {
        Self {
            bus: bus().await,
            bucket,
            clock: Arc::default(),
            known: Arc::new(NothingKnown),
            config: Config {
                batch_age: Duration::from_secs(2),
                ..Config::of_bus(BUS)
            },
        }
    }

    async fn start(&self) -> Archiver {
        self.start_on(Ledger::open(Arc::clone(&self.bucket), BUS).await.unwrap())
    }

    fn start_on(&self, ledger: Ledger) -> Archiver {
        let bus: Arc<dyn Bus> = Arc::new(self.bus.connect());
        let (known, clock) = (Arc::clone(&self.known), Arc::clone(&self.clock));
        Archiver::start(bus, ledger, known, clock, self.config.clone()).unwrap()
    }

    async fn publish(&self, numbers: std::ops::Range<usize>) {
        publish(&*self.bus, numbers.map(|n| message(&event(n))).collect()).await;
    }

    async fn read(&self) -> Vec<Archived> {
        read_all(&self.bucket, BUS).await.unwrap()
    }

    /// Waits until the archiver has received so many deliveries.
    async fn until_received(&self, archiver: &Archiver, received: u64) {
        while archiver.stats().received < received {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(archiver.stats().received, received);
    }

    /// Waits, in virtual time, until the queue holds this.
    async fn until_depth(&self, depth: (usize, usize)) {
        for _ in 0..10_000 {
            if support::depth(&self.bus) == depth {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "the queue never held {depth:?} but {:?}",
            support::depth(&self.bus)
        );
    }
}

fn expected_ids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("id-{n:06}")).collect()
}

#[tokio::test(start_paused = true)]
async fn all_that_is_confirmed_is_archived_byte_for_byte_in_order_of_arrival() {
    let mut rig = Rig::new().await;
    rig.config.consumers = 1;
    rig.config.batch_bytes = 100_000;
    let archiver = rig.start().await;
    rig.publish(0..3000).await;
    rig.until_depth((0, 0)).await;
    rig.publish(3000..3100).await;
    rig.until_received(&archiver, 3100).await;
    archiver.seal().await.unwrap();
    let stats = archiver.stats();
    archiver.stop().await.unwrap();
    assert_eq!(depth(&rig.bus), (0, 0));

    let archived = rig.read().await;
    let bytes: Vec<_> = archived.iter().map(|record| record.event.clone()).collect();
    let published: Vec<_> = (0..3100).map(|n| event(n).bytes().clone()).collect();
    assert!(
        bytes == published,
        "the archive differs from what was published"
    );
    assert!(
        archived.last().unwrap().position > Position(1),
        "several batches were made"
    );
    let app = Properties::builder().app_id("shop").build().unwrap();
    assert!(
        archived
            .iter()
            .all(|r| r.properties == app.bytes() && r.undecodable.is_empty())
    );
    assert_eq!(
        (stats.received, stats.archived, stats.undecodable),
        (3100, 3100, 0)
    );
    assert_eq!(stats.position, archived.last().unwrap().position);
    assert_eq!(
        (
            stats.open_records,
            stats.open_oldest_us,
            stats.sealing_oldest_us
        ),
        (0, None, None)
    );
}

#[tokio::test(start_paused = true)]
async fn several_consumers_archive_everything_once() {
    let mut rig = Rig::new().await;
    rig.config.consumers = 4;
    rig.config.prefetch = 64;
    let archiver = rig.start().await;
    rig.publish(0..2000).await;
    rig.until_depth((0, 0)).await;
    archiver.stop().await.unwrap();
    let mut found = ids(&rig.read().await);
    found.sort_unstable();
    assert_eq!(found, expected_ids(0..2000));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_sealed_by_age_without_further_events() {
    let rig = Rig::new().await;
    let archiver = rig.start().await;
    let begun = tokio::time::Instant::now();
    rig.publish(0..10).await;
    let mut positions = archiver.positions();
    positions.changed().await.unwrap();
    assert_eq!(*positions.borrow(), Position(1));
    assert!(
        begun.elapsed() >= rig.config.batch_age,
        "not before its age"
    );
    assert_eq!(ids(&rig.read().await), expected_ids(0..10));
}

#[tokio::test(start_paused = true)]
async fn a_small_prefetch_does_not_wait_for_the_age_of_a_batch() {
    let mut rig = Rig::new().await;
    rig.config.consumers = 1;
    rig.config.prefetch = 10;
    rig.config.batch_age = Duration::from_secs(3600);
    let archiver = rig.start().await;
    let begun = tokio::time::Instant::now();
    rig.publish(0..200).await;
    rig.until_depth((0, 0)).await;
    assert!(begun.elapsed() < rig.config.batch_age);
    drop(archiver);
    assert_eq!(ids(&rig.read().await), expected_ids(0..200));
}

#[tokio::test(start_paused = true)]
async fn an_hour_that_changes_seals_so_that_no_segment_spans_two() {
    let mut rig = Rig::new().await;
    rig.config.consumers = 1;
    rig.config.batch_age = Duration::from_secs(3600);
    let at = |text: &str| rig.clock.set(text.parse::<Timestamp>().unwrap());
    at("2026-11-21T09:59:59.999999Z");
    let archiver = rig.start().await;
    rig.publish(0..5).await;
    rig.until_received(&archiver, 5).await;
    at("2026-11-21T10:00:00Z");
    rig.publish(5..10).await;
    rig.until_received(&archiver, 10).await;
    // A clock that goes back makes another batch, not a batch in two hours.
    at("2026-11-21T09:00:00Z");
    rig.publish(10..15).await;
    rig.until_received(&archiver, 15).await;
    archiver.stop().await.unwrap();
    let archived = rig.read().await;
    assert_eq!(ids(&archived), expected_ids(0..15));
    for (record, hour) in archived.iter().zip(
        ["hour=09", "hour=10", "hour=09"]
            .iter()
            .flat_map(|h| [h; 5]),
    ) {
        assert!(record.segment.contains(hour), "{}", record.segment);
        assert!(record.segment.contains("date=2026-11-21"));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_while_the_ledger_cannot_be_written_and_all_is_when_it_can() {
    let faulty = FaultyBucket::new(Arc::new(StoreBucket::memory()), Vec::new());
    for folder in ["raw/", "ledger/"] {
        let rig = Rig::with(Arc::clone(&faulty) as Arc<dyn Bucket>).await;
        let before = rig.read().await.len();
        faulty.faults.lock().extend([(folder, Fault::Before); 30]);
        let archiver = rig.start().await;
        rig.publish(0..100).await;
        let now = tokio::time::Instant::now();
        while faulty.faults.lock().len() > 25 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(
            depth(&rig.bus),
            (0, 100),
            "{folder}: acknowledged too early"
        );
        assert_eq!(rig.read().await.len(), before);
        faulty.faults.lock().clear();
        rig.until_depth((0, 0)).await;
        assert!(now.elapsed() > Duration::from_secs(1), "tries are spaced");
        archiver.stop().await.unwrap();
        assert_eq!(rig.read().await.len(), before + 100);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_bucket_is_down_memory_and_unsettled_deliveries_stay_bounded() {
    let faulty = FaultyBucket::new(Arc::new(StoreBucket::memory()), Vec::new());
    *faulty.down.lock() = true;
    let mut rig = Rig::with(Arc::clone(&faulty) as Arc<dyn Bucket>).await;
    rig.config.consumers = 2;
    rig.config.prefetch = 100;
    rig.config.batch_bytes = 10_000;
    let archiver = rig.start().await;
    rig.publish(0..5000).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let (ready, unsettled) = depth(&rig.bus);
    assert!(unsettled <= 200, "{unsettled} unsettled");
    assert_eq!(ready + unsettled, 5000);
    assert!(archiver.stats().open_bytes <= 11_000);
    *faulty.down.lock() = false;
    rig.until_depth((0, 0)).await;
    archiver.stop().await.unwrap();
    assert_eq!(rig.read().await.len(), 5000);
}

#[tokio::test(start_paused = true)]
async fn errors_before_and_after_the_effect_leave_each_event_once() {
    use Fault::{After, Before};
    for first in [Before, After] {
        for second in [Before, After] {
            for third in [Before, After] {
                let faults = vec![
                    ("raw/", first),
                    ("raw/", second),
                    ("raw/", third),
                    ("ledger/", first),
                    ("ledger/", second),
                    ("ledger/", third),
                ];
                let faulty = FaultyBucket::new(Arc::new(StoreBucket::memory()), faults);
                let rig = Rig::with(Arc::clone(&faulty) as Arc<dyn Bucket>).await;
                let archiver = rig.start().await;
                rig.publish(0..20).await;
                rig.until_depth((0, 0)).await;
                archiver.stop().await.unwrap();
                assert!(faulty.faults.lock().is_empty());
                let archived = rig.read().await;
                assert_eq!(ids(&archived), expected_ids(0..20));
                assert_eq!(archived[0].position, Position(1));
                let names: HashSet<_> = faulty.creates.lock().iter().cloned().collect();
                // Five types in four packages, and the entry: tried again under the same names.
                assert_eq!(names.len(), 5, "{names:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_made_but_answered_with_an_error_is_registered_once_though_others_look_ahead() {
    let faults = vec![("ledger/", Fault::After); 3];
    let faulty = FaultyBucket::new(Arc::new(StoreBucket::memory()), faults);
    let rig = Rig::with(Arc::clone(&faulty) as Arc<dyn Bucket>).await;
    let ledger = Ledger::open(Arc::clone(&rig.bucket), BUS).await.unwrap();
    let others = ledger.clone();
    let archiver = rig.start_on(ledger);
    rig.publish(0..20).await;
    for left in [2, 1, 0] {
        while faulty.faults.lock().len() > left {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(others.refresh().await.unwrap(), Position(1));
        assert_eq!(depth(&rig.bus), (0, 20), "nobody knows yet");
    }
    rig.until_depth((0, 0)).await;
    archiver.stop().await.unwrap();
    assert_eq!(ids(&rig.read().await), expected_ids(0..20));
    assert_eq!(others.refresh().await.unwrap(), Position(1));
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_it_leaves_duplicates_only() {
    let mut rig = Rig::new().await;
    rig.config.batch_bytes = 5_000;
    rig.config.prefetch = 64;
    rig.publish(0..1500).await;
    for yields in 0..60 {
        let archiver = rig.start().await;
        for _ in 0..yields * 7 {
            tokio::task::yield_now().await;
        }
        drop(archiver);
    }
    let archiver = rig.start().await;
    rig.until_depth((0, 0)).await;
    archiver.stop().await.unwrap();
    let found = ids(&rig.read().await);
    let distinct: HashSet<_> = found.iter().cloned().collect();
    assert_eq!(distinct, expected_ids(0..1500).into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn two_archivers_share_a_queue_and_a_ledger() {
    let mut rig = Rig::new().await;
    rig.config.batch_bytes = 5_000;
    rig.config.prefetch = 40;
    let archivers = [rig.start().await, rig.start().await];
    rig.publish(0..1000).await;
    rig.until_depth((0, 0)).await;
    for archiver in archivers {
        archiver.stop().await.unwrap();
    }
    let mut found = ids(&rig.read().await);
    found.sort_unstable();
    assert_eq!(found, expected_ids(0..1000));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_body_is_archived_with_its_bytes() {
    let rig = Rig::new().await;
    let with_type = |media: &str| Properties::builder().content_type(media).build().unwrap();
    let json = json::encode(&event(0)).unwrap();
    let (binary_properties, binary_body) = binary::encode(&event(1)).unwrap();
    let half_binary = Properties::builder()
        .header("cloudEvents_id", "x")
        .build()
        .unwrap();
    let messages = vec![
        foreign("a", with_type("application/cloudevents+json"), json.clone()),
        foreign("b", binary_properties, binary_body.clone()),
        foreign("c", with_type("text/plain"), &b"hello"[..]),
        foreign("d", Properties::none(), &b""[..]),
        foreign(
            "e",
            with_type("application/cloudevents+protobuf"),
            &b"\xff\xff"[..],
        ),
        foreign("f", half_binary.clone(), &b"{}"[..]),
    ];
    let archiver = rig.start().await;
    publish(&*rig.bus, messages).await;
    rig.until_received(&archiver, 6).await;
    archiver.seal().await.unwrap();
    rig.until_depth((0, 0)).await;
    assert_eq!(archiver.stats().undecodable, 4);
    archiver.stop().await.unwrap();

    let archived = rig.read().await;
    assert_eq!(archived.len(), 6);
    assert_eq!(ids(&archived)[..2], ["id-000000", "id-000001"]);
    assert_eq!(archived[0].original.as_deref(), Some(&json[..]));
    assert_eq!(archived[1].original.as_ref(), Some(&binary_body));
    let bodies = [&b"hello"[..], b"", b"\xff\xff", b"{}"];
    for (record, body) in archived[2..].iter().zip(bodies) {
        assert!(
            record.segment.starts_with("raw/v1/main/unknown/"),
            "{}",
            record.segment
        );
        assert!(!record.undecodable.is_empty());
        let event = annals_core::Event::parse(record.event.clone()).unwrap();
        assert_eq!(event.header().data.bytes(), body);
        let decoded = CloudEvent::decode(&record.event[..]).unwrap();
        assert_eq!(decoded.r#type, "annals.archive.v1.Undecodable");
        assert_eq!(decoded.source, "/annals/archive/main");
    }
    assert_eq!(
        archived[5].properties,
        half_binary.bytes(),
        "kept whole where it is no event"
    );
}

#[derive(Debug)]
struct OneReplay;

#[async_trait]
impl Known for OneReplay {
    async fn is_our_replay(&self, id: &str) -> Result<bool> {
        match id {
            "broken" => Err(annals_core::Error::new(ErrorKind::Unavailable, "no index")),
            _ => Ok(id == "ours"),
        }
    }
    async fn is_archived(&self, source: &str, id: &str) -> Result<bool> {
        Ok(source == "/shop" && id == "id-000000")
    }
}

#[tokio::test(start_paused = true)]
async fn a_replayed_delivery_is_discarded_only_if_it_is_ours_and_archived() {
    let mut rig = Rig::new().await;
    rig.known = Arc::new(OneReplay);
    let archiver = rig.start().await;
    let replayed = |n: usize, replay: &str| {
        let mut message = message(&event(n));
        message.properties = Properties::builder()
            .content_type(annals_core::event::CONTENT_TYPE)
            .header(REPLAY_ID, replay)
            .build()
            .unwrap();
        message
    };
    let messages = vec![
        replayed(0, "ours"),
        replayed(1, "ours"),
        replayed(0, "other"),
        replayed(0, "broken"),
    ];
    publish(&*rig.bus, messages).await;
    rig.until_received(&archiver, 4).await;
    archiver.seal().await.unwrap();
    rig.until_depth((0, 0)).await;
    // A batch of nothing but discarded deliveries is acknowledged, without an entry.
    publish(&*rig.bus, vec![replayed(0, "ours")]).await;
    rig.until_received(&archiver, 5).await;
    archiver.seal().await.unwrap();
    rig.until_depth((0, 0)).await;
    let stats = archiver.stats();
    assert_eq!(
        (
            stats.replayed_discarded,
            stats.replayed_archived,
            stats.archived
        ),
        (2, 3, 3)
    );
    assert_eq!(stats.entries, 1);
    archiver.stop().await.unwrap();
    let archived = rig.read().await;
    assert_eq!(ids(&archived), ["id-000001", "id-000000", "id-000000"]);
    let kept = Properties::parse(archived[0].properties.clone()).unwrap();
    assert_eq!(kept.header(REPLAY_ID).unwrap().as_str(), Some("ours"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_the_archiver_and_acknowledges_nothing() {
    let disk = SimDisk::new();
    let bucket = DirectoryBucket::open(Arc::new(disk.clone()), "/bucket").unwrap();
    let rig = Rig::with(Arc::new(bucket)).await;
    let mut archiver = rig.start().await;
    disk.fail(SimOp::Sync, 1, std::io::ErrorKind::Other);
    rig.publish(0..50).await;
    let error = archiver.ended().await;
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    rig.until_depth((50, 0)).await;
    assert!(archiver.seal().await.is_err());
    assert!(
        archiver.stop().await.is_ok(),
        "the error was given by ended()"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_closes_ends_the_archiver() {
    let rig = Rig::new().await;
    let ledger = Ledger::open(Arc::clone(&rig.bucket), BUS).await.unwrap();
    let connection = Arc::new(rig.bus.connect());
    let bus: Arc<dyn Bus> = connection.clone();
    let mut archiver = Archiver::start(
        bus,
        ledger,
        Arc::new(NothingKnown),
        rig.clock.clone(),
        rig.config.clone(),
    )
    .unwrap();
    connection.close().await.unwrap();
    assert_eq!(archiver.ended().await.kind(), ErrorKind::Closed);
}
