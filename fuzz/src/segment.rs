//! Segments: any bytes, and any content under checksums that hold.

use crate::archive::{BUS, block_on, event, read_all_ways, seal};
use crate::bucket::MemoryBucket;
use annals_archive::layout::{Hour, SegmentName};
use annals_archive::segment::{FrameDecoder, parse_index};
use annals_archive::{Bucket, Ledger, record, wire};
use annals_core::Event;
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// Bytes behind an encoded index: its length, its checksum, a magic.
const MAGIC: &[u8; 8] = b"ANSEGIX1";

/// No segment panics, and one that verifies reads the same every way. The first byte says what
/// the rest is: a segment; or (length of 2 bytes, index, frames) whose checksums are made to hold;
/// or the same with records instead of compressed frames.
pub fn run(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    let segment = match form % 3 {
        0 => Some(rest.to_vec()),
        1 => parts(rest).map(|(index, frames)| checked(index, frames)),
        _ => parts(rest).map(|(index, records)| compressed(index, records)),
    };
    let Some(segment) = segment else {
        return;
    };
    read(&segment);
    let index = parse_index(&segment, segment.len() as u64);
    read_all_ways(block_on(register(&segment, index.unwrap_or_default())));
}

fn parts(bytes: &[u8]) -> Option<(wire::SegmentIndex, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (index, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((wire::SegmentIndex::decode(index).ok()?, rest))
}

fn checked(mut index: wire::SegmentIndex, frames: &[u8]) -> Vec<u8> {
    for frame in &mut index.frames {
        let end = frame.offset.checked_add(frame.length);
        let range = usize::try_from(frame.offset)
            .ok()
            .zip(end.and_then(|end| end.try_into().ok()));
        if let Some(bytes) = range.and_then(|(start, end)| frames.get(start..end)) {
            frame.crc32c = crc32c::crc32c(bytes);
        }
    }
    with_index(frames.to_vec(), &index)
}

fn compressed(mut index: wire::SegmentIndex, mut records: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in &mut index.frames {
        let length = usize::try_from(frame.raw_length).unwrap_or(usize::MAX);
        let (raw, rest) = records.split_at(length.min(records.len()));
        records = rest;
        let bytes = zstd::bulk::compress(raw, 1).expect("zstd is there");
        frame.offset = out.len() as u64;
        frame.length = bytes.len() as u64;
        frame.raw_length = raw.len() as u64;
        frame.crc32c = crc32c::crc32c(&bytes);
        out.extend(bytes);
    }
    index.count = index
        .frames
        .iter()
        .map(|frame| u64::from(frame.count))
        .sum();
    with_index(out, &index)
}

fn with_index(mut out: Vec<u8>, index: &wire::SegmentIndex) -> Vec<u8> {
    let index = index.encode_to_vec();
    out.extend(0x184d_2a50_u32.to_le_bytes());
    out.extend((index.len() as u32 + 16).to_le_bytes());
    out.extend(&index);
    out.extend((index.len() as u32).to_le_bytes());
    out.extend(crc32c::crc32c(&index).to_le_bytes());
    out.extend(MAGIC);
    out
}

/// As a reader of one segment does.
fn read(segment: &[u8]) {
    let Ok(index) = parse_index(segment, segment.len() as u64) else {
        return;
    };
    let mut decoder = FrameDecoder::new().expect("zstd is there");
    for frame in &index.frames {
        let range = frame.offset as usize..(frame.offset + frame.length) as usize;
        let compressed = segment.get(range).expect("an index that is taken fits");
        if let Ok(raw) = decoder.decode(frame, compressed) {
            assert_eq!(raw.len() as u64, frame.raw_length);
            record::iter(&raw).for_each(drop);
        }
    }
}

/// An archive of this one segment, whose ledger says of it what its index says.
async fn register(segment: &[u8], index: wire::SegmentIndex) -> crate::bucket::Objects {
    let memory = Arc::new(MemoryBucket::default());
    let bucket: Arc<dyn Bucket> = memory.clone();
    let hash = blake3::hash(segment);
    let name = SegmentName {
        bus: BUS.to_owned(),
        folder: annals_archive::layout::encode(&index.package),
        hour: Hour::of_us(1_795_251_600_000_000),
        number: 1,
        count: index.count,
        hash: *hash.as_bytes().first_chunk().expect("32 bytes"),
    };
    let listed = wire::Segment {
        name: name.to_string(),
        hash: Bytes::copy_from_slice(hash.as_bytes()),
        length: segment.len() as u64,
        package: index.package,
        count: index.count,
        types: summaries(index.frames),
    };
    let object = Bytes::copy_from_slice(segment);
    bucket
        .put(&listed.name, object)
        .await
        .expect("memory takes it");
    let ledger = Ledger::open(bucket, BUS).await.expect("an empty ledger");
    let appended = ledger
        .append(vec![listed], 1_795_251_600_000_000, "w")
        .await;
    appended.expect("memory takes it");
    memory.objects()
}

fn summaries(frames: Vec<wire::Frame>) -> Vec<wire::TypeSummary> {
    let mut summaries: Vec<wire::TypeSummary> = Vec::new();
    for frame in frames {
        if summaries
            .last()
            .is_none_or(|last| last.r#type != frame.r#type)
        {
            summaries.push(wire::TypeSummary {
                r#type: frame.r#type,
                ..wire::TypeSummary::default()
            });
        }
        let summary = summaries.last_mut().expect("one was pushed");
        summary.count = summary.count.saturating_add(frame.count.into());
        for (sum, range) in [
            (&mut summary.event_time, frame.event_time),
            (&mut summary.received_at, frame.received_at),
        ] {
            let Some(range) = range else { continue };
            let sum = sum.get_or_insert(range);
            sum.first_us = sum.first_us.min(range.first_us);
            sum.last_us = sum.last_us.max(range.last_us);
        }
    }
    summaries
}

/// A segment in each form.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let events: Vec<Event> = (0..9).map(event).collect();
    for sealed in seal(&events, 1) {
        let segment = &sealed.bytes;
        let index = parse_index(segment, segment.len() as u64).expect("well made");
        let mut decoder = FrameDecoder::new().expect("zstd is there");
        let (mut frames, mut records) = (Vec::new(), Vec::new());
        for frame in &index.frames {
            let compressed = &segment[frame.offset as usize..][..frame.length as usize];
            frames.extend_from_slice(compressed);
            records.extend(decoder.decode(frame, compressed).expect("well made"));
        }
        let index = index.encode_to_vec();
        let length = (index.len() as u16).to_le_bytes();
        seeds.push([&[0], &segment[..]].concat());
        seeds.push([&[1], &length[..], &index, &frames].concat());
        seeds.push([&[2], &length[..], &index, &records].concat());
    }
    seeds
}
