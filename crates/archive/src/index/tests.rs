//! The index against plain lists: whatever the steps it was made in, the same bytes.

use super::*;
use crate::reader::Archive;
use crate::reader::fixture::{Fixture, START_US, event, numbered};
use annals_core::Selection;
use std::collections::{BTreeMap, HashMap};

const TYPES: [&str; 3] = ["shop.v1.Placed", "shop.v1.Paid", "mail.v1.Sent"];

/// Entries of a few events; every third event is one of an entry before, with other bytes now and
/// then.
async fn archive_of(entries: usize) -> Fixture {
    let mut fixture = Fixture::new(4).await;
    for entry in 0..entries {
        seal_entry(&mut fixture, entry).await;
    }
    fixture
}

async fn seal_entry(fixture: &mut Fixture, entry: usize) {
    let day_us = 86_400_000_000;
    let drawn = (0..9).map(|i| {
        let number = if i % 3 == 2 {
            entry * 9 / 2 + i
        } else {
            entry * 9 + i
        };
        let payload = if entry % 5 == 4 { "2" } else { "1" };
        let time = (number % 4 != 0).then_some(START_US - number as i64 * day_us / 3);
        let bytes = event(TYPES[number % 3], &number.to_string(), time, None, payload);
        (bytes, START_US + entry as i64 * day_us / 7)
    });
    let sealed: Vec<_> = drawn.collect();
    fixture.seal(&sealed).await;
}

/// The objects that the newest state names, itself included.
async fn objects(bucket: &Arc<dyn Bucket>, index: &Index) -> BTreeMap<String, Bytes> {
    let mut names = vec![index.store.state_name(index.position())];
    for run in &index.runs {
        names.extend(run.names(&index.store));
    }
    let mut objects = BTreeMap::new();
    for name in names {
        let bytes = bucket.get(&name).await.unwrap();
        objects.insert(name, bytes);
    }
    objects
}

#[tokio::test]
async fn made_entry_by_entry_in_one_go_or_again_it_has_the_same_bytes() {
    for entries in [1, 7, 8, 9, 64, 75] {
        let fixture = archive_of(entries).await;
        let (index, _) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
        let in_one_go = objects(&fixture.bucket, &index).await;
        let mut again = Index::open(fixture.bucket.clone(), "main").await.unwrap();
        let progress = again.rebuild(&fixture.ledger).await.unwrap();
        assert_eq!(progress.events, entries as u64 * 9);
        assert_eq!(
            objects(&fixture.bucket, &again).await,
            in_one_go,
            "{entries} entries"
        );

        let mut stepwise = Fixture::new(4).await;
        for entry in 0..entries {
            seal_entry(&mut stepwise, entry).await;
            let (index, progress) = Index::open_or_rebuild(&stepwise.ledger).await.unwrap();
            assert_eq!(
                (progress.from.0, progress.to.0),
                (entry as u64, entry as u64 + 1)
            );
            assert_eq!(index.position(), stepwise.ledger.head());
        }
        let index = Index::open(stepwise.bucket.clone(), "main").await.unwrap();
        let made = objects(&stepwise.bucket, &index).await;
        assert_eq!(made, in_one_go, "{entries} entries, one by one");
    }
}

#[tokio::test]
async fn skip_lists_places_and_counts_are_those_of_a_plain_list() {
    let fixture = archive_of(70).await;
    let (index, progress) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let mut first: HashMap<String, (Location, Bytes)> = HashMap::new();
    let mut skips: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut conflicts = Vec::new();
    let mut expected = Counts::default();
    for archived in &fixture.all {
        let header = archived.header();
        let at = Location {
            position: archived.position,
            ordinal: archived.ordinal,
        };
        if let Some((place, bytes)) = first.get(header.id) {
            skips.entry(at.position.0).or_default().push(at.ordinal);
            if *bytes != archived.event {
                conflicts.push(Conflict {
                    first: *place,
                    other: at,
                });
            }
            continue;
        }
        first.insert(header.id.to_owned(), (at, archived.event.clone()));
        let event_type = header.event_type.to_owned();
        let archived_day = tally::day_of_us(archived.received_at_us);
        *expected
            .archived
            .entry((event_type.clone(), archived_day))
            .or_default() += 1;
        let day = header
            .time
            .map(|time| tally::day_of_us(time.as_microsecond()));
        *expected.happened.entry((event_type, day)).or_default() += 1;
    }
    for position in 1..=70 {
        let held = index.skips(Position(position)).await.unwrap();
        assert_eq!(
            held.ordinals(),
            skips.get(&position).map_or(&[][..], |s| s),
            "{position}"
        );
    }
    for (id, (place, _)) in &first {
        assert_eq!(
            index.lookup("/shop", id).await.unwrap(),
            Some(*place),
            "{id}"
        );
    }
    assert_eq!(index.lookup("/shop", "no such").await.unwrap(), None);
    assert_eq!(index.lookup("/sho", "p").await.unwrap(), None);
    assert_eq!(index.counts(), expected);
    assert_eq!(index.counts().total(), first.len() as u64);
    assert_eq!(index.conflicts().collect::<Vec<_>>(), conflicts);
    assert!(!conflicts.is_empty());
    let duplicates: usize = skips.values().map(Vec::len).sum();
    assert_eq!(progress.duplicates, duplicates as u64);
    assert_eq!(progress.conflicts, conflicts.len() as u64);
}

#[tokio::test]
async fn publishing_everything_twice_changes_nothing_derived() {
    let mut fixture = archive_of(10).await;
    let all = Selection::all();
    let (once, _) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let count = archive.count(&all).await.unwrap();
    let mut again: Vec<_> = fixture.selected(&all, false);
    again.reverse();
    for entry in again.chunks(7) {
        let sealed: Vec<_> = entry
            .iter()
            .map(|a| (a.event.clone(), START_US * 2))
            .collect();
        fixture.seal(&sealed).await;
    }
    let (twice, progress) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    assert_eq!(progress.events, count);
    assert_eq!((progress.duplicates, progress.conflicts), (count, 0));
    assert_eq!(twice.counts(), once.counts());
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    assert_eq!(archive.count(&all).await.unwrap(), count);
}

#[tokio::test]
async fn an_overlay_index_equals_a_stored_one_and_writes_nothing() {
    let mut fixture = archive_of(20).await;
    Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    for entry in 20..50 {
        seal_entry(&mut fixture, entry).await;
    }
    let folder = crate::layout::index_folder("main");
    let before = fixture.bucket.list(&folder, None).await.unwrap();
    let mut overlay = Index::open_overlay(fixture.bucket.clone(), "main")
        .await
        .unwrap();
    assert_eq!(overlay.position(), Position(20));
    let head = fixture.ledger.head();
    overlay
        .catch_up_to(&fixture.ledger, head, OnDamage::Stop)
        .await
        .unwrap();
    assert_eq!(fixture.bucket.list(&folder, None).await.unwrap(), before);
    let (stored, _) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    assert_eq!(overlay.counts(), stored.counts());
    for position in (1..=50).map(Position) {
        let skips = overlay.skips(position).await.unwrap();
        assert_eq!(skips, stored.skips(position).await.unwrap());
    }
}

#[tokio::test]
async fn numbers_that_a_producer_left_out_are_gaps() {
    let mut fixture = Fixture::new(4).await;
    for numbers in [[1, 2, 3], [7, 8, 3], [5, 9, 12]] {
        let of = |n| (numbered(TYPES[0], "incarnation", n), START_US);
        fixture.seal(&numbers.map(of)).await;
    }
    let (index, _) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let gap = |first, last| Gap {
        producer: "incarnation".into(),
        first,
        last,
    };
    assert_eq!(
        index.producers().gaps(),
        [gap(4, 4), gap(6, 6), gap(10, 11)]
    );
}

#[tokio::test]
async fn any_damaged_object_is_named_and_the_index_made_anew() {
    let fixture = archive_of(10).await;
    let (sound, _) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let objects = objects(&fixture.bucket, &sound).await;
    assert_eq!(
        objects.len(),
        7,
        "a state; a run of eight, two of one, with a part each"
    );
    for (name, bytes) in &objects {
        for at in (0..bytes.len()).step_by(17).chain([bytes.len() - 1]) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x20;
            fixture.bucket.put(name, flipped.into()).await.unwrap();
            let damage = Index::damage(fixture.bucket.clone(), "main").await.unwrap();
            let named: Vec<_> = damage.iter().map(|(name, _)| name).collect();
            assert_eq!(named, [name], "byte {at}");
        }
        fixture.bucket.delete(name).await.unwrap();
        if !name.contains("/state/") {
            let damage = Index::damage(fixture.bucket.clone(), "main").await.unwrap();
            assert_eq!(damage[0].0, *name);
        }
        fixture.bucket.put(name, bytes.clone()).await.unwrap();
    }
    // The state, and the newest run with its rows, are read by every opening and lookup.
    for name in objects.keys() {
        fixture
            .bucket
            .put(name, Bytes::from_static(b"nonsense"))
            .await
            .unwrap();
        let opened = Index::open(fixture.bucket.clone(), "main").await;
        let looked_up = match &opened {
            Ok(index) => index.lookup("/shop", "0").await.map(drop),
            Err(_) => Ok(()),
        };
        let error = opened
            .map(drop)
            .and(looked_up)
            .map_or_else(|e| e.to_string(), |()| String::new());
        assert!(
            error.is_empty() || error.contains(name.as_str()),
            "{name}: {error}"
        );
        let mut index = match Index::open_or_rebuild(&fixture.ledger).await {
            Ok((index, _)) => index,
            Err(error) => panic!("{name}: {error}"),
        };
        index.rebuild(&fixture.ledger).await.unwrap();
        assert_eq!(
            self::objects(&fixture.bucket, &index).await,
            objects,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_damaged_index_found_while_catching_up_is_made_anew() {
    let mut fixture = archive_of(10).await;
    let (sound, _) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let part = sound.runs[0].part_name(&sound.store, 0);
    fixture
        .bucket
        .put(&part, Bytes::from_static(b"nonsense"))
        .await
        .unwrap();
    seal_entry(&mut fixture, 10).await;
    let (index, progress) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    assert!(progress.rebuilt.unwrap().contains(&part));
    assert_eq!(
        (progress.from.0, progress.to.0, index.position().0),
        (0, 11, 11)
    );
    assert!(
        Index::damage(fixture.bucket.clone(), "main")
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_index_of_the_format_before_is_not_read_and_goes_when_the_new_one_is_made() {
    let fixture = archive_of(10).await;
    let old = crate::layout::old_index_folder("main");
    for name in ["state/00000000000000000009.binpb", "runs/x.rows"] {
        let name = format!("{old}{name}");
        let nonsense = Bytes::from_static(b"in words of its own");
        fixture.bucket.put(&name, nonsense).await.unwrap();
    }
    // Who may not write makes it up in memory, and removes nothing.
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let distinct = fixture.selected(&Selection::all(), false).len() as u64;
    assert_eq!(archive.count(&Selection::all()).await.unwrap(), distinct);
    assert_eq!(fixture.bucket.list(&old, None).await.unwrap().len(), 2);
    let (index, progress) = Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    assert_eq!((progress.from.0, progress.to.0), (0, 10));
    assert_eq!(index.counts().total(), distinct);
    assert_eq!(index.sources(), Some(["/shop".to_owned()].into()));
    assert_eq!(fixture.bucket.list(&old, None).await.unwrap(), []);
}

#[tokio::test]
async fn the_index_of_another_ledger_is_made_anew() {
    let one = archive_of(3).await;
    Index::open_or_rebuild(&one.ledger).await.unwrap();
    let mut other = Fixture::new(4).await;
    for entry in [2, 1, 0, 3] {
        seal_entry(&mut other, entry).await;
    }
    let folder = crate::layout::index_folder("main");
    for object in one.bucket.list(&folder, None).await.unwrap() {
        let bytes = one.bucket.get(&object.name).await.unwrap();
        other.bucket.put(&object.name, bytes).await.unwrap();
    }
    let (index, progress) = Index::open_or_rebuild(&other.ledger).await.unwrap();
    assert!(progress.rebuilt.unwrap().contains("another ledger"));
    assert_eq!(
        index.counts().total(),
        other.selected(&Selection::all(), false).len() as u64
    );
}
