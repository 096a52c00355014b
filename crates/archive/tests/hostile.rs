//! Hostile names stay in their directory; damaged and lying bytes are named errors, within bounds,
//! and never a panic.

mod support;

use annals_archive::archiver::{Batcher, ConsumerId, Limits};
use annals_archive::bucket::{Bucket, DirectoryBucket, check_name};
use annals_archive::layout::{self, SegmentName};
use annals_archive::record::RecordRef;
use annals_archive::segment::{FrameDecoder, SealedSegment, SegmentWriter, parse_index};
use annals_archive::{ErrorKind, Ledger, Position, Result, ledger, record, wire};
use annals_bus::Delivery;
use annals_core::system::SystemDisk;
use annals_core::{Event, EventBuilder};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use std::sync::Arc;
use support::*;

/// A time within one hour of the archive.
const NOW_US: i64 = 1_795_251_600_000_000;

fn seal(events: &[Event]) -> Vec<SealedSegment> {
    let mut batcher = batcher();
    push(&mut batcher, events);
    batcher
        .take()
        .seal(BUS, 1, &mut SegmentWriter::new().unwrap())
        .unwrap()
}

fn batcher() -> Batcher {
    Batcher::new(
        BUS,
        Limits {
            bytes: 1 << 30,
            per_consumer: 0,
        },
    )
}

/// Pushes events until the batch is due; how many went in.
fn push(batcher: &mut Batcher, events: &[Event]) -> usize {
    let from = ConsumerId {
        consumer: 0,
        generation: 1,
    };
    for (tag, event) in (1..).zip(events) {
        if batcher.is_due(NOW_US) {
            return tag as usize - 1;
        }
        let message = message(event);
        let delivery = Delivery {
            tag,
            redelivered: false,
            exchange: message.exchange,
            routing_key: message.routing_key,
            properties: message.properties,
            body: message.body,
        };
        batcher.push(from, &delivery, NOW_US);
    }
    events.len()
}

#[test]
fn a_flood_of_types_fills_a_batch_whose_ledger_entry_can_be_read() {
    let name = |n| format!("{}{n:06}.T", "p".repeat(240));
    let long = "s".repeat(1024);
    let events: Vec<Event> = (0..5_000)
        .map(|n| EventBuilder::new(name(n), &long, "1").unwrap())
        .map(|e| e.attribute("producerid", "d".repeat(20_000)).unwrap())
        .map(|e| e.attribute("producerseq", "1").unwrap().build().unwrap())
        .collect();
    let mut batcher = batcher();
    let taken = push(&mut batcher, &events);
    assert_eq!(taken, 4096, "one segment each");
    let sealed = seal(&events[..taken]);
    let described = sealed
        .iter()
        .map(|s| s.segment.encoded_len())
        .sum::<usize>();
    assert!(described < 8 << 20, "{described} bytes in the entry");
}

#[tokio::test]
async fn hostile_types_never_leave_their_directory() {
    let long = [
        "x".repeat(255),
        "ü.".repeat(85),
        format!("{}.T", "é".repeat(126)),
    ];
    let mut types = vec![
        "..",
        ".",
        "...",
        "/",
        "a/b.T",
        "../../etc.T",
        "/etc/passwd",
        "a\\b.T",
        "_.T",
        "unknown.T",
        "~.T",
        "%2E%2E.T",
        "C:.T",
        " .T",
        "-.T",
        ".tmp.T",
        "größe.v1.Maß",
        "date=1/hour=2.T",
    ];
    types.extend(long.iter().map(String::as_str));
    let events: Vec<_> = types
        .iter()
        .map(|t| EventBuilder::new(t, "/shop", "1").unwrap().build().unwrap())
        .collect();
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("bucket");
    let bucket: Arc<dyn Bucket> =
        Arc::new(DirectoryBucket::open(Arc::new(SystemDisk), &root).unwrap());
    let mut segments = Vec::new();
    for sealed in seal(&events) {
        check_name(&sealed.segment.name).unwrap();
        let name = SegmentName::parse(&sealed.segment.name).unwrap();
        assert!(sealed.segment.name.starts_with(&layout::raw_folder(BUS)));
        assert_ne!(
            name.folder,
            layout::UNKNOWN,
            "that is for bodies that are no event"
        );
        bucket
            .create(&sealed.segment.name, sealed.bytes)
            .await
            .unwrap();
        segments.push(sealed.segment);
    }
    let ledger = Ledger::open(Arc::clone(&bucket), BUS).await.unwrap();
    ledger.append(segments, 0, "w").await.unwrap();
    let archived = read_all(&bucket, BUS).await.unwrap();
    assert_eq!(archived.len(), events.len());
    for (record, event) in archived.iter().zip(&events) {
        assert_eq!(record.event, event.bytes());
    }
    let names = |dir: &std::path::Path| -> Vec<_> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(outside.path()), ["bucket"]);
    assert_eq!(names(&root), [".tmp", "ledger", "raw"]);
    assert_eq!(names(&root.join("raw/v1")), ["main"]);
}

/// Reads all there is of a segment.
fn read(segment: &[u8]) -> Result<usize> {
    let index = parse_index(segment, segment.len() as u64)?;
    let mut decoder = FrameDecoder::new()?;
    let mut records = 0;
    for frame in &index.frames {
        let end = (frame.offset + frame.length) as usize;
        let raw = decoder.decode(frame, &segment[frame.offset as usize..end])?;
        for record in record::iter(&raw) {
            record?;
            records += 1;
        }
    }
    Ok(records)
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_segment_is_found() {
    let events: Vec<_> = (0..20).map(|n| event(n * 5)).collect();
    let segment = seal(&events)[0].bytes.to_vec();
    assert_eq!(read(&segment).unwrap(), 20);
    for bit in 0..segment.len() * 8 {
        let mut flipped = segment.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = read(&flipped).expect_err("a flipped bit was not found");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error}");
    }
    for cut in 0..segment.len() {
        for part in [&segment[..cut], &segment[segment.len() - cut..]] {
            let error = read(part).expect_err("a cut was not found");
            assert_eq!(
                error.kind(),
                ErrorKind::Corrupt,
                "{cut} bytes left: {error}"
            );
        }
    }
    for more in [&b"\0"[..], b"x", &segment] {
        assert!(
            read(&[&segment[..], more].concat()).is_err(),
            "bytes behind the index"
        );
        assert!(
            read(&[more, &segment[..]].concat()).is_err(),
            "bytes before the first frame"
        );
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_ledger_entry_is_found() {
    let segments = seal(&[event(0), event(1)])
        .into_iter()
        .map(|s| s.segment)
        .collect();
    let entry = wire::LedgerEntry {
        bus: BUS.into(),
        number: 5,
        previous: Bytes::from_static(&[1; 32]),
        written_at_us: 1,
        writer: "w".into(),
        segments,
    };
    let (file, _) = ledger::encode(&entry);
    assert_eq!(
        ledger::decode(&file, BUS, Position(5)).unwrap().entry,
        entry
    );
    let check = |bytes: Vec<u8>, what: &str| {
        let error = ledger::decode(&bytes.into(), BUS, Position(5)).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    };
    for bit in 0..file.len() * 8 {
        let mut flipped = file.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        check(flipped, &format!("bit {bit}"));
    }
    for cut in 0..file.len() {
        check(file[..cut].to_vec(), &format!("{cut} bytes left"));
    }
    assert!(
        ledger::decode(&file, BUS, Position(6)).is_err(),
        "under another number"
    );
    assert!(
        ledger::decode(&file, "other", Position(5)).is_err(),
        "of another bus"
    );
    let short = wire::LedgerEntry {
        previous: Bytes::from_static(&[1; 31]),
        ..entry
    };
    check(ledger::encode(&short).0.to_vec(), "a hash of 31 bytes");
}

#[test]
fn a_flipped_bit_in_a_record_never_panics() {
    let event = event(2);
    let mut bytes = Vec::new();
    RecordRef {
        event: event.bytes(),
        original: Some(b"x"),
        ..RecordRef::default()
    }
    .encode_into(&mut bytes);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        for record in record::iter(&flipped) {
            assert!(
                record.map_or_else(|e| e.kind() == ErrorKind::Corrupt, |_| true),
                "bit {bit}"
            );
        }
    }
    for bad in [
        &b""[..],
        b"\x12\x00",                         // no event
        b"\x0a\x00\x0a\x00",                 // two events
        b"\x0a\x05abc",                      // cut
        b"\x0a\x00\x08\x01",                 // event as a number
        b"\x0a\x00\x20\xff\xff\xff\xff\x7f", // ordinal over 32 bits
        b"\x0a\x00\x12\x02\x0a\x05",         // cut inside the delivery
        b"\x0a\x00\x12\x03\x0a\x01\xff",     // exchange is not UTF-8
        b"\x0a\x00\x0b\x0c",                 // group
        b"\x0a\x00\x00\x00",                 // field 0
    ] {
        assert_eq!(
            RecordRef::scan(bad).unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{bad:?}"
        );
    }
    // Fields that are not known yet are passed over.
    let later =
        b"\x0a\x00\x78\x05\x7d\x01\x02\x03\x04\x79\x01\x02\x03\x04\x05\x06\x07\x08\x7a\x01x";
    assert_eq!(
        RecordRef::scan(later).unwrap(),
        RecordRef {
            event: b"",
            ..RecordRef::default()
        }
    );
}

#[test]
fn bombs_and_lengths_that_lie_take_no_memory() {
    let zeros = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert!(zeros.len() < 10_000, "64 MiB in {} bytes", zeros.len());
    let frame = |raw_length: u64, compressed: &[u8]| wire::Frame {
        length: compressed.len() as u64,
        raw_length,
        crc32c: crc32c::crc32c(compressed),
        ..wire::Frame::default()
    };
    let mut decoder = FrameDecoder::new().unwrap();
    // The index promises less, more, and more than any frame may have.
    for raw_length in [0, 1000, (64 << 20) - 1, (64 << 20) + 1, 1 << 40, u64::MAX] {
        let error = decoder
            .decode(&frame(raw_length, &zeros), &zeros)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{raw_length}: {error}");
    }
    // A frame that does not state its length, and one whose header lies about it.
    let streamed = zstd::stream::encode_all(&[7; 1000][..], 1).unwrap();
    assert!(decoder.decode(&frame(1000, &streamed), &streamed).is_err());
    let mut lying = zstd::bulk::compress(&[7; 1000], 1).unwrap();
    let stated = lying
        .windows(2)
        .position(|w| w == (1000u16 - 256).to_le_bytes())
        .unwrap();
    lying[stated..stated + 2].copy_from_slice(&(500u16 - 256).to_le_bytes());
    assert!(decoder.decode(&frame(500, &lying), &lying).is_err());

    let sealed = seal(&[event(0)]).remove(0);
    for index_len in [u32::MAX, 1 << 30, 65 << 20] {
        let mut bytes = sealed.bytes.to_vec();
        let at = bytes.len() - 16;
        bytes[at..at + 4].copy_from_slice(&index_len.to_le_bytes());
        assert_eq!(
            parse_index(&bytes, bytes.len() as u64).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(
            parse_index(&bytes, u64::MAX).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
}

#[test]
fn an_index_whose_frames_do_not_fill_the_segment_is_refused() {
    let sealed = seal(&[event(0), event(1), event(5)]);
    let shop = &sealed[0].bytes;
    let index = parse_index(shop, shop.len() as u64).unwrap();
    let frames_end = index.frames.iter().map(|f| f.length).sum::<u64>() as usize;
    let with = |change: &dyn Fn(&mut wire::SegmentIndex)| {
        let mut index = index.clone();
        change(&mut index);
        let index = index.encode_to_vec();
        let mut bytes = shop[..frames_end].to_vec();
        bytes.extend_from_slice(&0x184d_2a50_u32.to_le_bytes());
        bytes.extend_from_slice(&(index.len() as u32 + 16).to_le_bytes());
        bytes.extend_from_slice(&index);
        bytes.extend_from_slice(&(index.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        bytes.extend_from_slice(b"ANSEGIX1");
        parse_index(&bytes, bytes.len() as u64)
    };
    assert_eq!(with(&|_| {}).unwrap(), index);
    let refused: [&dyn Fn(&mut wire::SegmentIndex); 8] = [
        &|i| i.count += 1,
        &|i| i.frames[0].offset = 1,
        &|i| i.frames[1].offset -= 1,
        &|i| i.frames[1].length += 1,
        &|i| i.frames[1].length = u64::MAX,
        &|i| i.frames[0].length = 0,
        &|i| i.frames[0].count = 0,
        &|i| drop(i.frames.pop()),
    ];
    for (number, change) in refused.iter().enumerate() {
        assert_eq!(
            with(change).unwrap_err().kind(),
            ErrorKind::Corrupt,
            "change {number}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        length in any::<u64>(),
    ) {
        let _ = RecordRef::scan(&bytes);
        for record in record::iter(&bytes) {
            let _ = record;
        }
        let mut tail = bytes.clone();
        tail.extend_from_slice(b"ANSEGIX1");
        let _ = parse_index(&tail, length);
        let _ = parse_index(&tail, tail.len() as u64);
        let _ = ledger::decode(&bytes.clone().into(), BUS, Position(1));
        let _ = SegmentName::parse(&String::from_utf8_lossy(&bytes));
        let _ = layout::decode(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_text_is_one_component_and_comes_back(text in "\\PC{0,80}") {
        let component = layout::encode(&text);
        prop_assert!(check_name(&component).is_ok(), "{component}");
        if component.contains('~') {
            prop_assert_eq!(layout::decode(&component), None);
        } else {
            prop_assert_eq!(layout::decode(&component), Some(text));
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was(
        event in prop::collection::vec(any::<u8>(), 0..300),
        original in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        properties in prop::collection::vec(any::<u8>(), 0..300),
        text in "\\PC{0,40}",
        received_at_us in any::<i64>(),
        redelivered in any::<bool>(),
        ordinal in any::<u32>(),
    ) {
        let delivery = record::DeliveryRef {
            exchange: &text,
            routing_key: &text,
            properties: &properties,
            received_at_us,
            redelivered,
            undecodable: &text,
        };
        let record = RecordRef { event: &event, delivery, original: original.as_deref(), ordinal };
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        let read: Vec<_> = record::iter(&bytes).map(Result::unwrap).collect();
        prop_assert_eq!(read, vec![record]);
    }
}
