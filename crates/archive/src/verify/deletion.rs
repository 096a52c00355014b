//! One record deleted by someone who can write whatever the format allows: it is found and named,
//! however much is rewritten to hide it, as long as one later trace is left.

use super::*;
use crate::layout::SegmentName;
use crate::reader::fixture::{Fixture, START_US, event, numbered};
use crate::record;
use crate::segment::{FrameDecoder, RawFrame, SealedSegment, SegmentWriter, parse_index};
use annals_core::Header;

const ENTRIES: u64 = 3;

/// Three entries of two segments; no index. Producer `p` has numbers 1 to 12.
async fn sound() -> Fixture {
    let mut fixture = Fixture::new(3).await;
    for entry in 0..ENTRIES {
        let mut events = Vec::new();
        for number in entry * 4 + 1..=entry * 4 + 4 {
            events.push((numbered("shop.v1.Placed", "p", number), START_US));
            let id = format!("m-{number}");
            events.push((event("mail.v1.Sent", &id, None, Some("s"), "1"), START_US));
        }
        fixture.seal(&events).await;
    }
    fixture
}

/// Holds the archive against nothing, or against a log of everything once published.
async fn verified(fixture: &Fixture, with_log: bool) -> Vec<(FindingKind, String, String)> {
    let mut log = PublishLog::default();
    for archived in &fixture.all {
        let (source, id) = archived.header().key();
        let hash = *blake3::hash(&archived.event).as_bytes();
        log.add(source, id, hash, Outcome::Ok);
    }
    let options = VerifyOptions {
        against: with_log.then(|| Arc::new(log)),
        closed_world: with_log,
        ..VerifyOptions::default()
    };
    let report = verify(fixture.bucket.clone(), "main", &options).await;
    let findings = report.unwrap().findings.into_iter();
    findings.map(|f| (f.kind, f.name, f.detail)).collect()
}

/// A segment as its writer would have made it without the record of an id; `renumbered`: with the
/// ordinals of the others moved up.
async fn without(
    fixture: &Fixture,
    stated: &wire::Segment,
    id: &str,
    renumbered: bool,
) -> SealedSegment {
    let bytes = fixture.bucket.get(&stated.name).await.unwrap();
    let index = parse_index(&bytes, stated.length).unwrap();
    let mut decoder = FrameDecoder::new().unwrap();
    let mut writer = SegmentWriter::new().unwrap();
    let (mut scratch, mut left_out) = (Vec::new(), None);
    for described in &index.frames {
        let range = described.offset as usize..(described.offset + described.length) as usize;
        let raw = decoder.decode(described, &bytes[range]).unwrap();
        let mut frame = RawFrame::default();
        for record in record::iter(&raw) {
            let mut record = record.unwrap();
            let header = Header::scan(record.event).unwrap();
            if header.id == id {
                left_out = Some(record.ordinal);
                continue;
            }
            if renumbered && left_out.is_some_and(|ordinal| record.ordinal > ordinal) {
                record.ordinal -= 1;
            }
            frame.push(&header, &record, &mut scratch);
        }
        if !frame.is_empty() {
            writer.push(&described.r#type, frame).unwrap();
        }
    }
    assert!(left_out.is_some(), "{id} is in {}", stated.name);
    let name = SegmentName::parse(&stated.name).unwrap();
    writer.finish("main", &name.folder, name.hour, name.number)
}

/// The segment of an entry that holds a package.
async fn segment_of(fixture: &Fixture, position: Position, package: &str) -> wire::Segment {
    let entry = fixture.ledger.read(position).await.unwrap().entry;
    let mut segments = entry.segments.into_iter();
    segments.find(|s| s.package == package).unwrap()
}

fn kinds_and_names(found: &[(FindingKind, String, String)]) -> Vec<(FindingKind, &str)> {
    found.iter().map(|(k, name, _)| (*k, &name[..])).collect()
}

#[tokio::test]
async fn a_segment_written_anew_without_one_record_is_named_and_so_is_the_record() {
    let fixture = sound().await;
    assert_eq!(verified(&fixture, true).await, []);
    for number in 1..=12_u64 {
        let position = Position(number.div_ceil(4));
        let stated = segment_of(&fixture, position, "shop.v1").await;
        let whole = fixture.bucket.get(&stated.name).await.unwrap();
        for renumbered in [false, true] {
            let id = format!("p-{number}");
            let made = without(&fixture, &stated, &id, renumbered).await;
            fixture.bucket.put(&stated.name, made.bytes).await.unwrap();
            let found = verified(&fixture, true).await;
            let back = fixture.bucket.put(&stated.name, whole.clone());
            back.await.unwrap();
            let found = kinds_and_names(&found);
            assert_eq!(found[0], (FindingKind::SegmentDamaged, &stated.name[..]));
            let event = format!("/shop {id}");
            assert!(
                found.contains(&(FindingKind::EventMissing, &event)),
                "{found:?}"
            );
            // The producer's last number has none after it that would show the gap.
            let gap = found.contains(&(FindingKind::ProducerGap, "p"));
            assert_eq!(gap, number < 12, "{number}: {found:?}");
        }
    }
    assert_eq!(verified(&fixture, true).await, []);
}

#[tokio::test]
async fn the_gap_that_one_record_leaves_is_named_by_producer_and_number() {
    let fixture = sound().await;
    let stated = segment_of(&fixture, Position(2), "shop.v1").await;
    let made = without(&fixture, &stated, "p-7", false).await;
    fixture.bucket.put(&stated.name, made.bytes).await.unwrap();
    let found = verified(&fixture, false).await;
    let gap = "numbers 7..=7 are missing".to_owned();
    assert!(
        found.contains(&(FindingKind::ProducerGap, "p".to_owned(), gap)),
        "{found:?}"
    );
}

/// Exchanges a segment for the one written anew, and the entry for one that names it.
async fn hide(fixture: &Fixture, position: Position, stated: &wire::Segment, made: SealedSegment) {
    fixture.bucket.delete(&stated.name).await.unwrap();
    let name = &made.segment.name;
    fixture.bucket.put(name, made.bytes).await.unwrap();
    let mut entry = fixture.ledger.read(position).await.unwrap().entry;
    let segment = entry.segments.iter_mut().find(|s| s.name == stated.name);
    *segment.unwrap() = made.segment;
    let name = layout::ledger_name("main", position.0);
    let forged = ledger::encode(&entry).0;
    fixture.bucket.put(&name, forged).await.unwrap();
}

#[tokio::test]
async fn an_entry_rewritten_to_hide_the_record_breaks_the_chain_behind_it() {
    for (position, renumbered) in [(1, false), (1, true), (2, false), (2, true)] {
        let fixture = sound().await;
        let position = Position(position);
        let stated = segment_of(&fixture, position, "shop.v1").await;
        let id = format!("p-{}", position.0 * 4 - 1);
        let made = without(&fixture, &stated, &id, renumbered).await;
        hide(&fixture, position, &stated, made).await;
        let found = verified(&fixture, false).await;
        let found = kinds_and_names(&found);
        let next = layout::ledger_name("main", position.0 + 1);
        assert!(
            found.contains(&(FindingKind::ChainBroken, &next)),
            "{found:?}"
        );
        // Whatever the ledger was made to say, the numbers of the producer are not dense.
        assert!(
            found.contains(&(FindingKind::ProducerGap, "p")),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn a_last_entry_rewritten_to_hide_the_record_is_not_the_one_the_index_was_made_from() {
    let fixture = sound().await;
    Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let last = Position(ENTRIES);
    let stated = segment_of(&fixture, last, "mail.v1").await;
    // The last to arrive, and without a number: neither ordinals nor numbers tell.
    let made = without(&fixture, &stated, "m-12", false).await;
    hide(&fixture, last, &stated, made).await;
    let found = verified(&fixture, false).await;
    let entry = layout::ledger_name("main", last.0);
    assert!(
        kinds_and_names(&found).contains(&(FindingKind::ChainBroken, &entry)),
        "{found:?}"
    );
}
