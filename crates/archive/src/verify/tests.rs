//! Whatever is deleted or flipped is found and named; what is sound gives no finding.

use super::*;
use crate::reader::fixture::{Fixture, Meanwhile, START_US, event, numbered};
use annals_core::Header;
use futures::FutureExt as _;

/// Three entries, two segments each, and a stored index.
async fn sound() -> Fixture {
    let mut fixture = Fixture::new(3).await;
    for entry in 0..3u64 {
        let sealed: Vec<_> = (0..8)
            .map(|i| {
                let number = entry * 4 + i / 2 + 1;
                let bytes = match i % 2 {
                    0 => numbered("shop.v1.Placed", "incarnation", number),
                    _ => event(
                        "mail.v1.Sent",
                        &number.to_string(),
                        Some(START_US),
                        Some("s"),
                        "1",
                    ),
                };
                (bytes, START_US + i as i64)
            })
            .collect();
        fixture.seal(&sealed).await;
    }
    Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    fixture
}

async fn verified(fixture: &Fixture) -> Report {
    verify(fixture.bucket.clone(), "main", &VerifyOptions::default())
        .await
        .unwrap()
}

async fn names(fixture: &Fixture) -> Vec<String> {
    let listed = fixture.bucket.list("", None).await.unwrap();
    listed.into_iter().map(|entry| entry.name).collect()
}

/// The names that findings are about.
fn named(report: &Report) -> Vec<&str> {
    report
        .findings
        .iter()
        .map(|finding| finding.name.as_str())
        .collect()
}

#[tokio::test]
async fn an_entry_appended_and_indexed_meanwhile_is_no_finding() {
    let mut fixture = sound().await;
    let base = fixture.bucket.clone();
    let happens = async move {
        let late = numbered("shop.v1.Placed", "incarnation", 13);
        fixture.seal(&[(late, START_US)]).await;
        Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    };
    let bucket = Arc::new(Meanwhile::at_a_segment(base, happens.boxed()));
    let report = verify(bucket, "main", &VerifyOptions::default()).await;
    assert_eq!(report.unwrap().findings, []);
}

#[tokio::test]
async fn an_entry_that_a_listing_leaves_out_is_checked_all_the_same() {
    let fixture = sound().await;
    let nothing = async {}.boxed();
    let bucket = Meanwhile::at_a_listing(fixture.bucket.clone(), nothing, 2);
    let report = verify(Arc::new(bucket), "main", &VerifyOptions::default()).await;
    let report = report.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.records, fixture.all.len() as u64);
}

#[tokio::test]
async fn a_ledger_entry_deleted_from_the_middle_is_damage_to_a_reader() {
    let fixture = sound().await;
    let name = layout::ledger_name("main", 2);
    fixture.bucket.delete(&name).await.unwrap();
    let mut entries = fixture.ledger.entries(Position(0), Position(3));
    entries.next().await.unwrap().unwrap();
    let error = entries.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&name), "{error}");
}

#[tokio::test]
async fn a_sound_archive_has_no_findings() {
    let fixture = sound().await;
    let report = verified(&fixture).await;
    assert_eq!(report.findings, []);
    assert!(report.is_sound());
    assert_eq!(
        (report.entries, report.segments, report.records),
        (3, 6, 24)
    );
    assert_eq!((report.producers, report.unregistered.len()), (1, 0));
}

#[tokio::test]
async fn every_deleted_object_is_found_and_named() {
    let fixture = sound().await;
    let names = names(&fixture).await;
    assert_eq!(names.len(), 3 + 6 + 7, "ledger, segments, index: {names:?}");
    let newest_state = names.iter().rfind(|name| name.contains("/state/")).unwrap();
    for name in names.iter().filter(|name| *name != newest_state) {
        let bytes = fixture.bucket.get(name).await.unwrap();
        fixture.bucket.delete(name).await.unwrap();
        let report = verified(&fixture).await;
        assert!(
            named(&report).contains(&name.as_str()),
            "{name}: {:?}",
            report.findings
        );
        fixture.bucket.put(name, bytes).await.unwrap();
    }
    assert!(verified(&fixture).await.is_sound());
}

#[tokio::test]
async fn every_flipped_byte_of_every_object_is_found_and_named() {
    let fixture = sound().await;
    for name in names(&fixture).await {
        let bytes = fixture.bucket.get(&name).await.unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            fixture.bucket.put(&name, flipped.into()).await.unwrap();
            let report = verified(&fixture).await;
            assert!(named(&report).contains(&name.as_str()), "{name} byte {at}");
        }
        fixture.bucket.put(&name, bytes).await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_exchanged_for_another_valid_one_breaks_the_chain() {
    let fixture = sound().await;
    let mut entry = fixture.ledger.read(Position(2)).await.unwrap().entry;
    entry.written_at_us += 1;
    let name = layout::ledger_name("main", 2);
    fixture
        .bucket
        .put(&name, ledger::encode(&entry).0)
        .await
        .unwrap();
    let report = verified(&fixture).await;
    let kinds: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.kind, f.name.clone()))
        .collect();
    assert_eq!(
        kinds,
        [(FindingKind::ChainBroken, layout::ledger_name("main", 3))]
    );
}

#[tokio::test]
async fn a_segment_no_entry_names_is_listed_and_is_no_damage() {
    let fixture = sound().await;
    let entry = fixture.ledger.read(Position(1)).await.unwrap().entry;
    let bytes = fixture.bucket.get(&entry.segments[0].name).await.unwrap();
    let left = entry.segments[0].name.replace("hour=22", "hour=21");
    assert_ne!(left, entry.segments[0].name);
    fixture.bucket.put(&left, bytes).await.unwrap();
    let report = verified(&fixture).await;
    assert!(report.is_sound());
    assert_eq!(report.unregistered, [left]);
}

#[tokio::test]
async fn numbers_missing_of_a_producer_are_named() {
    let mut fixture = Fixture::new(3).await;
    let of = |n| (numbered("shop.v1.Placed", "incarnation", n), START_US);
    fixture.seal(&[of(1), of(2), of(7)]).await;
    fixture.seal(&[of(4), of(8)]).await;
    let report = verified(&fixture).await;
    let found: Vec<_> = report.findings.iter().map(Finding::to_string).collect();
    let gap = |numbers| format!("ProducerGap: incarnation: numbers {numbers} are missing");
    assert_eq!(found, [gap("3..=3"), gap("5..=6")]);
}

fn line(event: &[u8], outcome: &str) -> String {
    let header = Header::scan(event).unwrap();
    let hash = blake3::hash(event).to_hex();
    format!("{}\t{}\t{hash}\t{outcome}\n", header.source, header.id)
}

#[tokio::test]
async fn the_archive_is_held_against_a_publish_log() {
    let mut fixture = Fixture::new(3).await;
    let of = |id: &str| event("shop.v1.Placed", id, None, None, "1");
    let sealed = [
        "there", "again", "maybe", "stray", "refused", "altered", "there",
    ];
    fixture.seal(&sealed.map(|id| (of(id), START_US))).await;
    let altered = event("shop.v1.Placed", "altered", None, None, "2");
    let log = [
        "# a comment\n\n".to_owned(),
        line(&of("there"), "ok"),
        line(&of("again"), "failed"),
        line(&of("again"), "ok"),
        line(&of("maybe"), "unknown"),
        line(&of("never arrived"), "unknown"),
        line(&of("lost"), "ok"),
        line(&of("refused"), "failed"),
        line(&altered, "ok"),
    ]
    .concat();
    let mut found = Vec::new();
    for closed_world in [false, true] {
        let against = Some(Arc::new(PublishLog::parse(&log).unwrap()));
        let options = VerifyOptions {
            against,
            closed_world,
            ..VerifyOptions::default()
        };
        let report = verify(fixture.bucket.clone(), "main", &options)
            .await
            .unwrap();
        assert_eq!(report.against, 8);
        let kinds = report
            .findings
            .iter()
            .map(|f| (f.kind, f.name.replace("/shop ", "")));
        found.push(kinds.collect::<Vec<_>>());
    }
    let open_world = [
        (FindingKind::EventUnexpected, "refused".to_owned()),
        (FindingKind::EventAltered, "altered".to_owned()),
        (FindingKind::EventMissing, "altered".to_owned()),
        (FindingKind::EventMissing, "lost".to_owned()),
    ];
    assert_eq!(found[0], open_world);
    assert_eq!(
        found[1][0],
        (FindingKind::EventUnexpected, "stray".to_owned())
    );
    assert_eq!(found[1][1..], open_world);
}

#[test]
fn a_bad_line_of_a_publish_log_is_named() {
    let good = line(&event("shop.v1.Placed", "a", None, None, "1"), "ok");
    for bad in [
        "x",
        "a\tb\tc\tok",
        &good.trim_end().replace("ok", "okay"),
        &good.replace('\t', " "),
    ] {
        let error = PublishLog::parse(&format!("{good}{bad}\n")).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
