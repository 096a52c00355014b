//! The byte formats: what was once written is read for ever. Golden files are made once, by
//! `ANNALS_GOLDEN=write cargo test -p annals-archive --test format`, and never again.

mod support;

use annals_archive::archiver::{Batcher, ConsumerId, Limits};
use annals_archive::bucket::{Bucket, StoreBucket};
use annals_archive::record::{DeliveryRef, RecordRef};
use annals_archive::segment::{FrameDecoder, SealedSegment, SegmentWriter, parse_index};
use annals_archive::{Ledger, Position, ledger, record, wire};
use annals_bus::Delivery;
use annals_core::Properties;
use bytes::Bytes;
use prost::Message;
use std::path::PathBuf;
use std::sync::Arc;
use support::*;

/// 2026-11-21T09:00:00.000001Z
const RECEIVED_US: i64 = 1_795_251_600_000_001;

fn delivery(tag: u64, message: annals_bus::Message) -> Delivery {
    Delivery {
        tag,
        redelivered: tag.is_multiple_of(3),
        exchange: message.exchange,
        routing_key: message.routing_key,
        properties: message.properties,
        body: message.body,
    }
}

/// Twelve events of five types, and a body that is none.
fn sealed() -> Vec<SealedSegment> {
    let mut batcher = Batcher::new(
        BUS,
        Limits {
            bytes: 1 << 20,
            per_consumer: 0,
        },
    );
    let from = ConsumerId {
        consumer: 0,
        generation: 1,
    };
    for n in 0..12 {
        batcher.push(
            from,
            &delivery(n as u64, message(&event(n))),
            RECEIVED_US + n as i64,
        );
    }
    let text = Properties::builder()
        .content_type("text/plain")
        .build()
        .unwrap();
    batcher.push(
        from,
        &delivery(13, foreign("greeting", text, &b"hello"[..])),
        RECEIVED_US + 13,
    );
    batcher
        .take()
        .seal(BUS, 1, &mut SegmentWriter::new().unwrap())
        .unwrap()
}

fn golden(name: &str, made: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("ANNALS_GOLDEN").is_some_and(|v| v == "write") && !path.exists() {
        std::fs::write(&path, made).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_record_is_the_bytes_it_always_was() {
    let event = event(3);
    let original = RecordRef {
        event: event.bytes(),
        delivery: DeliveryRef {
            exchange: "annals.main",
            routing_key: "Lonely",
            properties: &[0x00, 0x08, 4, b's', b'h', b'o', b'p'],
            received_at_us: RECEIVED_US,
            redelivered: true,
            undecodable: "why",
        },
        original: Some(b"{}"),
        ordinal: 300,
    };
    let mut made = Vec::new();
    original.encode_into(&mut made);
    RecordRef {
        original: Some(b""),
        ordinal: 0,
        ..original
    }
    .encode_into(&mut made);
    assert_eq!(golden("record.bin", &made), made);
    let read: Vec<_> = record::iter(&made).map(Result::unwrap).collect();
    assert_eq!(read[0], original);
    assert_eq!((read[1].original, read[1].ordinal), (Some(&b""[..]), 0));
}

#[test]
fn any_protobuf_library_reads_a_record_as_we_do() {
    let segments = sealed();
    let mut seen = 0;
    for sealed in &segments {
        let index = parse_index(&sealed.bytes, sealed.bytes.len() as u64).unwrap();
        for frame in &index.frames {
            let compressed = &sealed.bytes[frame.offset as usize..][..frame.length as usize];
            let raw = FrameDecoder::new()
                .unwrap()
                .decode(frame, compressed)
                .unwrap();
            for bytes in annals_core::frame::iter(&raw) {
                let bytes = bytes.unwrap();
                let ours = RecordRef::scan(bytes).unwrap();
                let theirs = wire::Record::decode(bytes).unwrap();
                let delivery = theirs.delivery.unwrap();
                assert_eq!(theirs.event.unwrap().encode_to_vec(), ours.event);
                assert_eq!(theirs.ordinal, ours.ordinal);
                assert_eq!(delivery.exchange, ours.delivery.exchange);
                assert_eq!(delivery.routing_key, ours.delivery.routing_key);
                assert_eq!(delivery.properties, ours.delivery.properties);
                assert_eq!(delivery.received_at_us, ours.delivery.received_at_us);
                assert_eq!(delivery.redelivered, ours.delivery.redelivered);
                assert_eq!(delivery.undecodable, ours.delivery.undecodable);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 13);
}

#[test]
fn a_segment_of_old_is_read_and_a_new_one_says_the_same() {
    let segments = sealed();
    let names: Vec<_> = segments
        .iter()
        .map(|s| s.segment.package.as_str())
        .collect();
    assert_eq!(names, ["%75nknown", "_", "mail.v2", "shop.v1", "unknown"]);
    let shop = &segments[3];
    let old = golden("segment.binpb.zst", &shop.bytes);
    // Compressed bytes may change with the library; what they say may not.
    assert_eq!(contents(&old), contents(&shop.bytes));
    assert_eq!(
        zstd::decode_all(&old[..]).unwrap(),
        zstd::decode_all(&shop.bytes[..]).unwrap()
    );
    let index = parse_index(&old, old.len() as u64).unwrap();
    let types: Vec<_> = index
        .frames
        .iter()
        .map(|f| (f.r#type.as_str(), f.count))
        .collect();
    assert_eq!(
        types,
        [("shop.v1.OrderPaid", 3), ("shop.v1.OrderPlaced", 3)]
    );
    let time = index.frames[0].event_time.unwrap();
    assert_eq!(
        (time.first_us, time.last_us),
        (1_700_000_001_000_000, 1_700_000_011_000_000)
    );
}

/// An index without what depends on compression, and the decompressed frames.
fn contents(segment: &[u8]) -> (wire::SegmentIndex, Vec<Bytes>) {
    let mut index = parse_index(segment, segment.len() as u64).unwrap();
    let mut decoder = FrameDecoder::new().unwrap();
    let mut raw = Vec::new();
    for frame in &mut index.frames {
        let compressed = &segment[frame.offset as usize..][..frame.length as usize];
        raw.push(decoder.decode(frame, compressed).unwrap());
        (frame.offset, frame.length, frame.crc32c) = (0, 0, 0);
    }
    (index, raw)
}

#[test]
fn the_same_batch_makes_the_same_bytes() {
    let (one, two) = (sealed(), sealed());
    assert!(
        one.iter()
            .zip(&two)
            .all(|(a, b)| a.bytes == b.bytes && a.segment == b.segment)
    );
}

#[tokio::test]
async fn a_ledger_entry_is_the_bytes_it_always_was() {
    let bucket: Arc<dyn Bucket> = Arc::new(StoreBucket::memory());
    let ledger = Ledger::open(Arc::clone(&bucket), BUS).await.unwrap();
    let segments = vec![wire::Segment {
        name: "raw/v1/main/shop.v1/date=2026-11-21/hour=09/x".into(),
        hash: Bytes::from_static(&[7; 32]),
        length: 1234,
        package: "shop.v1".into(),
        count: 3,
        types: vec![wire::TypeSummary {
            r#type: "shop.v1.OrderPaid".into(),
            count: 3,
            event_time: Some(wire::TimeRange {
                first_us: -5,
                last_us: 5,
            }),
            received_at: Some(wire::TimeRange {
                first_us: 1,
                last_us: 2,
            }),
            producers: vec![wire::ProducerInterval {
                producer: "p".into(),
                first: 1,
                last: 3,
            }],
        }],
    }];
    for number in 1..=2 {
        let entry = ledger
            .append(segments.clone(), RECEIVED_US, "archiver-1")
            .await
            .unwrap();
        assert_eq!(entry.position, Position(number));
    }
    let name = "ledger/main/00000000000000000002.binpb";
    let made = bucket.get(name).await.unwrap();
    assert_eq!(golden("ledger.binpb", &made), made);
    let read = ledger::decode(&made, BUS, Position(2)).unwrap();
    assert_eq!(
        read.entry.previous,
        ledger.read(Position(1)).await.unwrap().hash[..]
    );
    assert_eq!(read.hash, ledger.head_hash());
}

#[tokio::test]
async fn a_ledger_is_read_from_any_position_and_checks_its_chain() {
    use futures::TryStreamExt;
    let bucket: Arc<dyn Bucket> = Arc::new(StoreBucket::memory());
    let ledger = Ledger::open(Arc::clone(&bucket), BUS).await.unwrap();
    for _ in 0..70 {
        ledger.append(Vec::new(), RECEIVED_US, "a").await.unwrap();
    }
    let read = async |after: u64, until: u64| -> Result<Vec<u64>, annals_core::Error> {
        let entries: Vec<_> = ledger
            .entries(Position(after), Position(until))
            .try_collect()
            .await?;
        Ok(entries.iter().map(|e| e.position.0).collect())
    };
    for (after, until) in [(0, 70), (0, 1), (3, 5), (69, 70), (70, 70), (0, 0), (20, 4)] {
        assert_eq!(
            read(after, until).await.unwrap(),
            (after + 1..=until).collect::<Vec<_>>()
        );
    }
    assert!(read(69, 71).await.is_err(), "there is no entry 71");
    assert_eq!(
        Ledger::open(Arc::clone(&bucket), BUS).await.unwrap().head(),
        Position(70)
    );

    // An entry replaced by another, valid in itself, breaks the chain behind it.
    let mut changed = ledger.read(Position(7)).await.unwrap().entry;
    changed.writer = "forger".into();
    let name = annals_archive::layout::ledger_name(BUS, 7);
    bucket.put(&name, ledger::encode(&changed).0).await.unwrap();
    for (after, until) in [(0, 70), (7, 8), (6, 9)] {
        let error = read(after, until).await.unwrap_err();
        assert!(error.to_string().contains("chain"), "{error}");
    }
    assert_eq!(read(0, 7).await.unwrap().len(), 7);
    assert_eq!(read(8, 70).await.unwrap().len(), 62);

    // A missing one is an error for readers, and a writer does not fill the hole.
    for missing in [7, 40, 64, 69] {
        let name = annals_archive::layout::ledger_name(BUS, missing);
        let kept = bucket.get(&name).await.unwrap();
        bucket.delete(&name).await.unwrap();
        assert!(read(8, 70).await.is_err() || missing == 7);
        let opened = Ledger::open(Arc::clone(&bucket), BUS).await;
        match opened {
            Err(error) => assert!(error.to_string().contains("missing"), "{error}"),
            Ok(ledger) => assert_eq!(ledger.head(), Position(70), "without {missing}"),
        }
        bucket.put(&name, kept).await.unwrap();
    }
}

#[tokio::test]
async fn writers_that_race_for_a_number_all_end_up_in_the_chain() {
    let bucket: Arc<dyn Bucket> = Arc::new(StoreBucket::memory());
    let mut writers = Vec::new();
    for writer in 0..8 {
        let ledger = Ledger::open(Arc::clone(&bucket), BUS).await.unwrap();
        writers.push(tokio::spawn(async move {
            for _ in 0..10 {
                ledger
                    .append(Vec::new(), RECEIVED_US, &format!("w{writer}"))
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read_all(&bucket, BUS).await.unwrap(), []);
    assert_eq!(
        Ledger::open(bucket, BUS).await.unwrap().head(),
        Position(80)
    );
}
