//! The reader against a naive filter over the same events, and against damage.

use super::fixture::{Archived, Fixture, Meanwhile, START_US, event};
use super::*;
use annals_core::{EventId, EventSet, Range, Subject, TimeAxis, Timestamp, TypePattern};
use bytes::Bytes;
use futures::FutureExt as _;
use proptest::prelude::*;
use std::collections::HashMap;

const TYPES: [&str; 4] = ["shop.v1.Placed", "shop.v1.Paid", "mail.v1.Sent", "Lonely"];

async fn read(archive: &Archive, selection: &Selection, options: &ReadOptions) -> Vec<Archived> {
    let mut events = archive.select(selection, options).await.unwrap();
    let mut read = Vec::new();
    while let Some(batch) = events.next().await.unwrap() {
        for event in batch.iter() {
            let event = event.unwrap();
            assert_eq!(event.location.position, batch.position());
            assert_eq!(event.record().unwrap().event, event.event);
            read.push(Archived {
                position: event.location.position,
                ordinal: event.location.ordinal,
                event: event.to_bytes(),
                received_at_us: event.received_at_us,
            });
        }
    }
    read
}

/// The same in pieces, put in order.
async fn read_pieces(
    archive: &Archive,
    selection: &Selection,
    options: &ReadOptions,
) -> Vec<Archived> {
    let options = ReadOptions {
        in_pieces: true,
        ..options.clone()
    };
    let mut events = archive.select(selection, &options).await.unwrap();
    let (mut read, mut last) = (Vec::new(), Position(0));
    while let Some(batch) = events.next().await.unwrap() {
        assert!(batch.position() >= std::mem::replace(&mut last, batch.position()));
        for event in batch.iter() {
            let event = event.unwrap();
            read.push(Archived {
                position: event.location.position,
                ordinal: event.location.ordinal,
                event: event.to_bytes(),
                received_at_us: event.received_at_us,
            });
        }
    }
    read.sort_by_key(|event| (event.position, event.ordinal));
    read
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// (type, id, event time, subject, payload) in small ranges, so that much coincides.
type Drawn = (usize, u8, Option<u8>, Option<u8>, u8);

fn drawn_event(drawn: &Drawn) -> Bytes {
    let (event_type, id, time, subject, payload) = drawn;
    let time = time.map(|t| START_US + i64::from(t) * 1000);
    let subject = subject.map(|s| format!("s-{s}"));
    event(
        TYPES[*event_type],
        &format!("id-{id}"),
        time,
        subject.as_deref(),
        &payload.to_string(),
    )
}

fn drawn_entries() -> impl Strategy<Value = Vec<Vec<Drawn>>> {
    let drawn = (
        0..TYPES.len(),
        0u8..30,
        prop::option::weighted(0.8, 0u8..20),
        prop::option::weighted(0.8, 0u8..4),
        0u8..3,
    );
    prop::collection::vec(prop::collection::vec(drawn, 0..12), 0..11)
}

fn event_set(listed: &[(Option<&str>, u8)]) -> Arc<EventSet> {
    let mut events = EventSet::new();
    for (source, id) in listed {
        let id = format!("id-{id}");
        let added = match source {
            Some(source) => events.insert(source, &id),
            None => events.insert_id(&id),
        };
        added.unwrap();
    }
    Arc::new(events)
}

fn drawn_selection() -> impl Strategy<Value = Selection> {
    let patterns = prop::sample::subsequence(
        vec![
            "shop.#",
            "shop.v1.Paid",
            "*.v1.Sent",
            "Lonely",
            "#.Placed",
            "none",
        ],
        0..3,
    );
    let instant = || prop::option::of((0i64..20).prop_map(|t| time_of(START_US + t * 1000)));
    let ids = prop::option::weighted(0.2, prop::collection::hash_set(0u8..30, 0..6));
    let listed = (
        prop::sample::select(vec![Some("/shop"), Some("/other"), None]),
        0u8..35,
    );
    let events = prop::option::weighted(0.4, prop::collection::vec(listed, 0..12));
    (
        patterns,
        instant(),
        instant(),
        any::<bool>(),
        prop::option::weighted(0.3, 0u8..5),
        ids,
        events,
    )
        .prop_map(
            |(patterns, from, until, archive, subject, ids, events)| Selection {
                patterns: patterns
                    .into_iter()
                    .map(|p| TypePattern::new(p).unwrap())
                    .collect(),
                range: Range { from, until },
                axis: if archive {
                    TimeAxis::Archive
                } else {
                    TimeAxis::Event
                },
                subject: subject.map(|s| Subject::new(format!("s-{s}")).unwrap()),
                ids: ids.map(|ids| {
                    ids.into_iter()
                        .map(|id| EventId::new(format!("id-{id}")).unwrap())
                        .collect()
                }),
                events: events.map(|events| event_set(&events)),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_reader_gives_what_a_naive_filter_gives(
        entries in drawn_entries(),
        selection in drawn_selection(),
        duplicates: bool,
        stored_until in 0usize..11,
        from in 0u64..6,
        to in prop::option::of(0u64..11),
    ) {
        runtime().block_on(async {
            let mut fixture = Fixture::new(3).await;
            for (number, entry) in entries.iter().enumerate() {
                let received = |at: usize| START_US + (number * 2 + at / 6) as i64 * 1000;
                let drawn = entry.iter().enumerate();
                let sealed: Vec<_> = drawn.map(|(at, d)| (drawn_event(d), received(at))).collect();
                fixture.seal(&sealed).await;
                if number == stored_until {
                    let (_, done) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
                    assert_eq!(done.to, fixture.ledger.head());
                }
            }
            let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
            let options = ReadOptions {
                duplicates,
                from_position: Position(from),
                to_position: to.map(Position),
                ..ReadOptions::default()
            };
            let mut expected = fixture.selected(&selection, duplicates);
            if !duplicates {
                assert_eq!(archive.count(&selection).await.unwrap(), expected.len() as u64);
            }
            let until = to.unwrap_or(u64::MAX);
            expected.retain(|a| (from..=until).contains(&a.position.0));
            assert_eq!(read(&archive, &selection, &options).await, expected);
            assert_eq!(read_pieces(&archive, &selection, &options).await, expected);
        });
    }
}

#[tokio::test]
async fn events_of_one_subject_keep_their_order_across_types_and_packages() {
    let mut fixture = Fixture::new(4).await;
    for entry in 0..3 {
        let sealed: Vec<_> = (0..60)
            .map(|i| {
                let subject = format!("s-{}", i % 3);
                let id = format!("{entry}-{i:03}");
                (
                    event(TYPES[i % 4], &id, None, Some(&subject), "1"),
                    START_US,
                )
            })
            .collect();
        fixture.seal(&sealed).await;
    }
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let mut last: HashMap<String, String> = HashMap::new();
    let all = read(&archive, &Selection::all(), &ReadOptions::default()).await;
    for archived in &all {
        let header = archived.header();
        let subject = header.subject.unwrap().to_owned();
        let before = last.insert(subject, header.id.to_owned());
        assert!(before.is_none_or(|before| *before < *header.id));
    }
    assert_eq!(all.len(), 180);
}

#[tokio::test]
async fn a_pinned_archive_sees_the_same_history_until_it_is_refreshed() {
    let mut fixture = Fixture::new(4).await;
    fixture
        .seal(&[(event(TYPES[0], "a", None, None, "1"), START_US)])
        .await;
    let mut archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let all = Selection::all();
    assert_eq!(archive.count(&all).await.unwrap(), 1);
    let again = [(event(TYPES[0], "a", None, None, "1"), START_US)];
    fixture.seal(&again).await;
    fixture
        .seal(&[(event(TYPES[1], "b", None, None, "1"), START_US)])
        .await;
    let (_, progress) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    assert_eq!((progress.events, progress.duplicates), (3, 1));
    assert_eq!(read(&archive, &all, &ReadOptions::default()).await.len(), 1);
    assert!(archive.get("/shop", "b").await.unwrap().is_none());
    assert_eq!(archive.refresh().await.unwrap(), Position(3));
    assert_eq!(read(&archive, &all, &ReadOptions::default()).await.len(), 2);
    let both = ReadOptions {
        duplicates: true,
        ..ReadOptions::default()
    };
    assert_eq!(read(&archive, &all, &both).await.len(), 3);
}

#[tokio::test]
async fn an_event_is_got_by_source_and_id_with_its_first_bytes() {
    let mut fixture = Fixture::new(2).await;
    for entry in 0..20 {
        let id = |i| format!("{}", entry * 5 + i);
        let sealed: Vec<_> = (0..10)
            .map(|i| {
                (
                    event(TYPES[i % 4], &id(i), None, None, &entry.to_string()),
                    START_US + 7,
                )
            })
            .collect();
        fixture.seal(&sealed).await;
    }
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    for first in fixture.selected(&Selection::all(), false) {
        let found = archive
            .get("/shop", first.header().id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.event, first.event);
        assert_eq!(
            found.location,
            Location {
                position: first.position,
                ordinal: first.ordinal
            }
        );
        assert_eq!(
            found.received_at,
            Timestamp::from_microsecond(START_US + 7).unwrap()
        );
        assert_eq!(found.record().unwrap().delivery.exchange, "annals");
    }
    assert!(archive.get("/shop", "none").await.unwrap().is_none());
    assert!(archive.get("/other", "1").await.unwrap().is_none());
}

#[tokio::test]
async fn an_index_that_is_replaced_while_a_reader_catches_up_is_opened_again() {
    let mut fixture = Fixture::new(4).await;
    let sealed = |n: usize| [(event(TYPES[0], &n.to_string(), None, None, "1"), START_US)];
    for n in 0..9 {
        fixture.seal(&sealed(n)).await;
    }
    let (mut index, _) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    for n in 9..16 {
        fixture.seal(&sealed(n)).await;
    }
    let base = fixture.bucket.clone();
    // Two states on, what the first named is joined to other runs, and removed.
    let happens = async move {
        index.catch_up(&fixture.ledger).await.unwrap();
        fixture.seal(&sealed(16)).await;
        index.catch_up(&fixture.ledger).await.unwrap();
    };
    let bucket = Meanwhile::at_a_segment(base, happens.boxed());
    let archive = Archive::open(Arc::new(bucket), "main").await.unwrap();
    let all = read(&archive, &Selection::all(), &ReadOptions::default()).await;
    assert_eq!(all.len(), 16);
}

#[tokio::test]
async fn a_listing_made_while_entries_are_appended_shows_no_hole() {
    let mut fixture = Fixture::new(4).await;
    let base = fixture.bucket.clone();
    let happens = async move {
        for n in 0..3 {
            let sealed = [(event(TYPES[0], &n.to_string(), None, None, "1"), START_US)];
            fixture.seal(&sealed).await;
        }
    };
    let bucket = Meanwhile::at_a_listing(base, happens.boxed(), 2);
    let ledger = Ledger::open(Arc::new(bucket), "main").await.unwrap();
    assert_eq!(ledger.head(), Position(3));
}

/// Three entries of two segments; returns the names of the second entry's.
async fn damageable() -> (Fixture, Vec<String>) {
    let mut fixture = Fixture::new(2).await;
    for entry in 0..3 {
        let sealed: Vec<_> = (0..8)
            .map(|i| {
                (
                    event(TYPES[1 + i % 2], &format!("{entry}-{i}"), None, None, "1"),
                    START_US,
                )
            })
            .collect();
        fixture.seal(&sealed).await;
    }
    let entry = fixture.ledger.read(Position(2)).await.unwrap().entry;
    let names = entry
        .segments
        .into_iter()
        .map(|segment| segment.name)
        .collect();
    (fixture, names)
}

async fn read_all(fixture: &Fixture, on_damage: OnDamage) -> (usize, Result<Vec<Damage>>) {
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let options = ReadOptions {
        duplicates: true,
        on_damage,
        ..ReadOptions::default()
    };
    let mut events = archive.select(&Selection::all(), &options).await.unwrap();
    let mut count = 0;
    loop {
        match events.next().await {
            Ok(None) => return (count, Ok(events.damage())),
            Err(error) => return (count, Err(error)),
            Ok(Some(batch)) => {
                for event in batch.iter() {
                    let event = event.unwrap();
                    let archived = Archived {
                        position: event.location.position,
                        ordinal: event.location.ordinal,
                        event: event.to_bytes(),
                        received_at_us: event.received_at_us,
                    };
                    assert!(
                        fixture.all.contains(&archived),
                        "served what was not archived"
                    );
                    count += 1;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_missing_segment_stops_the_reader_by_name_or_is_left_out_and_reported() {
    let (fixture, names) = damageable().await;
    fixture.bucket.delete(&names[0]).await.unwrap();
    let (count, stopped) = read_all(&fixture, OnDamage::Stop).await;
    let error = stopped.unwrap_err();
    assert_eq!(error.kind(), annals_core::ErrorKind::Corrupt);
    let error = error.to_string();
    assert!(
        error.contains("ledger entry 2") && error.contains(&names[0]),
        "{error}"
    );
    assert_eq!(count, 8);
    let (count, damage) = read_all(&fixture, OnDamage::Report).await;
    let damage = damage.unwrap();
    assert_eq!(count, 20);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].segment.as_deref(), Some(names[0].as_str()));
}

#[tokio::test]
async fn no_flipped_byte_of_a_segment_is_ever_served() {
    let (fixture, names) = damageable().await;
    let sound = fixture.bucket.get(&names[1]).await.unwrap();
    for at in 0..sound.len() {
        let mut flipped = sound.to_vec();
        flipped[at] ^= 1 << (at % 8);
        fixture.bucket.put(&names[1], flipped.into()).await.unwrap();
        let (count, stopped) = read_all(&fixture, OnDamage::Stop).await;
        let error = stopped
            .expect_err("a flipped byte was not noticed")
            .to_string();
        assert!(error.contains(&names[1]), "byte {at}: {error}");
        assert_eq!(count, 8);
    }
}
