//! Listed events against a plain search of all there is, and how much is read to find them.

use super::*;
use crate::Bucket;
use crate::bucket::{self, Created};
use crate::reader::fixture::{Fixture, START_US};
use annals_core::EventBuilder;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashSet;

const TYPES: [&str; 3] = ["shop.v1.Placed", "shop.v1.Paid", "mail.v1.Sent"];

fn event(event_type: &str, source: &str, id: &str) -> Bytes {
    let builder = EventBuilder::new(event_type, source, id).unwrap();
    builder.json(b"{}").build().unwrap().bytes().clone()
}

/// Ten entries; ids 0..60 of three sources, some of an id in two or three, some twice.
async fn archive_of(sources: usize) -> Fixture {
    let mut fixture = Fixture::new(4).await;
    for entry in 0..10 {
        let drawn = (0..12).map(|i| {
            let number = (entry * 7 + i * 5) % 60;
            let source = format!("/s-{}", (entry + i) % sources);
            let sent = event(TYPES[i % 3], &source, &format!("id-{number}"));
            (sent, START_US + entry as i64)
        });
        let sealed: Vec<_> = drawn.collect();
        fixture.seal(&sealed).await;
    }
    fixture
}

fn set(pairs: &[(&str, &str)], ids: &[&str]) -> Arc<EventSet> {
    let mut events = EventSet::new();
    for (source, id) in pairs {
        events.insert(source, id).unwrap();
    }
    for id in ids {
        events.insert_id(id).unwrap();
    }
    Arc::new(events)
}

fn of(events: &Arc<EventSet>) -> Selection {
    Selection {
        events: Some(Arc::clone(events)),
        ..Selection::all()
    }
}

/// Where the listed events lie, by looking at all.
fn expected(fixture: &Fixture, events: &Arc<EventSet>, until: Position) -> Vec<Location> {
    let selected = fixture.selected(&of(events), false);
    let location = |archived: &crate::reader::fixture::Archived| Location {
        position: archived.position,
        ordinal: archived.ordinal,
    };
    let all = selected.iter().map(location);
    all.filter(|location| location.position <= until).collect()
}

#[tokio::test]
async fn listed_events_are_located_as_a_plain_search_finds_them() {
    for sources in [3, 1100] {
        let mut fixture = archive_of(sources).await;
        if sources > 1000 {
            // More sources than the index tells of: ids alone are found by reading.
            let sealed: Vec<_> = (0..sources)
                .map(|n| (event(TYPES[0], &format!("/s-{n}"), "id-1"), START_US))
                .collect();
            fixture.seal(&sealed).await;
        }
        Index::open_or_rebuild(&fixture.ledger).await.unwrap();
        for until in [4, fixture.ledger.head().0].map(Position) {
            let archive = Archive::pinned_at(fixture.ledger.clone(), until)
                .await
                .unwrap();
            let index = archive.index(OnDamage::Stop).await.unwrap();
            assert_eq!(index.sources().is_some(), sources == 3);
            for events in [
                set(&[], &[]),
                set(
                    &[("/s-0", "id-5"), ("/s-1", "none"), ("/s-2", "id-10")],
                    &[],
                ),
                set(&[("/s-0", "id-5")], &["id-5", "id-6", "nobody", "id-7"]),
                set(&[], &["id-1"]),
            ] {
                let located = archive.locate_all(&events).await.unwrap();
                let places: Vec<_> = located.locations().collect();
                assert_eq!(
                    places,
                    expected(&fixture, &events, until),
                    "{until} {events:?}"
                );
                let counted = archive.count(&of(&events)).await.unwrap();
                assert_eq!(counted, located.len() as u64);
                // What is missing is what no event of its own was found for.
                let missing: Vec<_> = (0..events.len())
                    .filter(|&n| {
                        let (source, id) = events.get(n);
                        let one = match source {
                            Some(source) => set(&[(source, id)], &[]),
                            None => set(&[], &[id]),
                        };
                        expected(&fixture, &one, until).is_empty()
                    })
                    .collect();
                assert_eq!(located.missing().collect::<Vec<_>>(), missing);
            }
        }
    }
}

#[tokio::test]
async fn an_id_is_located_under_every_source_and_several_are_told_of() {
    let fixture = archive_of(3).await;
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let mut several = 0;
    let names: Vec<String> = (0..60).map(|n| format!("id-{n}")).collect();
    for id in &names {
        let places = archive.locate_id(id).await.unwrap();
        assert_eq!(
            places,
            expected(&fixture, &set(&[], &[id]), archive.position()),
            "{id}"
        );
        several += usize::from(places.len() > 1);
        for source in ["/s-0", "/s-1", "/s-2"] {
            let place = archive.locate(source, id).await.unwrap();
            let one = expected(&fixture, &set(&[(source, id)], &[]), archive.position());
            assert_eq!(place, one.first().copied());
        }
    }
    let ids: Vec<&str> = names.iter().map(String::as_str).collect();
    let located = archive.locate_all(&set(&[], &ids)).await.unwrap();
    assert!(several > 3);
    assert_eq!(located.several(), several);
    assert_eq!(archive.locate("/s-0", "none").await.unwrap(), None);
    assert_eq!(archive.locate_id("none").await.unwrap(), []);
}

#[tokio::test]
async fn other_conditions_hold_beside_a_list_and_copies_are_read_when_asked_for() {
    let fixture = archive_of(3).await;
    let archive = Archive::open(fixture.bucket.clone(), "main").await.unwrap();
    let events = set(
        &[("/s-0", "id-5"), ("/s-1", "id-12")],
        &["id-20", "id-35", "id-0"],
    );
    let paid = Selection {
        patterns: vec!["shop.v1.Paid".parse().unwrap()],
        ..of(&events)
    };
    for selection in [of(&events), paid] {
        for duplicates in [false, true] {
            let expected = fixture.selected(&selection, duplicates);
            assert!(!expected.is_empty());
            let options = ReadOptions {
                duplicates,
                ..ReadOptions::default()
            };
            let mut read = archive.select(&selection, &options).await.unwrap();
            let mut found = Vec::new();
            while let Some(batch) = read.next().await.unwrap() {
                found.extend(batch.iter().map(|e| e.unwrap().to_bytes()));
            }
            let bytes: Vec<_> = expected
                .into_iter()
                .map(|archived| archived.event)
                .collect();
            assert_eq!(found, bytes, "{selection:?} {duplicates}");
            if !duplicates {
                let count = archive.count(&selection).await.unwrap();
                assert_eq!(count, bytes.len() as u64);
            }
        }
    }
}

#[tokio::test]
async fn a_long_list_is_looked_up_in_steps() {
    let mut events = EventSet::new();
    for n in 0..9 {
        events.insert_id(&format!("id-{n}")).unwrap();
        events.insert("/s", &format!("id-{n}")).unwrap();
    }
    let sources = ["/a".to_owned(), "/b".to_owned(), "/c".to_owned()];
    // Whatever the steps, every event is asked under every source once.
    let (mut next, mut asked) = ((0, 0), Vec::new());
    while next.0 < events.len() {
        let step = Step::take(&events, &sources, next, 4);
        assert!(step.keys.len() <= 4 && !step.keys.is_empty());
        asked.extend(step.keys.iter().map(|key| (key.number, key.key)));
        next = step.next;
    }
    asked.sort_unstable();
    let whole = Step::take(&events, &sources, (0, 0), 1000);
    let mut all: Vec<_> = whole.keys.iter().map(|key| (key.number, key.key)).collect();
    all.sort_unstable();
    assert_eq!(asked, all);
    assert_eq!(all.len(), 9 * 3 + 9);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    // Without any source there is nothing to ask for.
    let none = Step::take(&events, &[], (0, 0), 1000);
    assert_eq!((none.keys.len(), none.next.0), (9, 18));
}

/// Counts what is read of segments and of the ledger.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Bucket>,
    read: Mutex<(u64, usize)>,
}

impl Counting {
    fn note(&self, name: &str, bytes: Result<Bytes>) -> Result<Bytes> {
        let mut read = self.read.lock();
        match &bytes {
            Ok(bytes) if name.starts_with("raw/") => read.0 += bytes.len() as u64,
            Ok(_) if name.starts_with("ledger/") => read.1 += 1,
            _ => {}
        }
        bytes
    }
}

#[async_trait]
impl Bucket for Counting {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        self.inner.create(name, bytes).await
    }
    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.put(name, bytes).await
    }
    async fn get(&self, name: &str) -> Result<Bytes> {
        self.note(name, self.inner.get(name).await)
    }
    async fn get_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.note(name, self.inner.get_range(name, range).await)
    }
    async fn head(&self, name: &str) -> Result<Option<u64>> {
        self.inner.head(name).await
    }
    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<bucket::Entry>> {
        self.inner.list(folder, after).await
    }
    async fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name).await
    }
}

#[tokio::test]
async fn of_a_large_archive_only_the_entries_and_frames_that_hold_listed_events_are_read() {
    let mut fixture = Fixture::new(64).await;
    for entry in 0..40 {
        let drawn = (0..1000).map(|i| {
            // Bytes that do not compress away.
            let id = blake3::hash(&[entry, (i % 256) as u8, (i / 256) as u8]).to_hex();
            (event("shop.v1.Placed", "/s", &id), START_US)
        });
        let sealed: Vec<_> = drawn.collect();
        fixture.seal(&sealed).await;
    }
    Index::open_or_rebuild(&fixture.ledger).await.unwrap();
    let base: Arc<dyn Bucket> = fixture.bucket.clone();
    let counting = Arc::new(Counting {
        inner: base,
        read: Mutex::default(),
    });
    let archive = Archive::open(counting.clone(), "main").await.unwrap();
    archive.index(OnDamage::Stop).await.unwrap();
    let read = async |selection: &Selection| {
        *counting.read.lock() = (0, 0);
        let options = ReadOptions::default();
        let mut events = archive.select(selection, &options).await.unwrap();
        let mut count = 0;
        while let Some(batch) = events.next().await.unwrap() {
            count += batch.len();
        }
        let read = *counting.read.lock();
        (count, read)
    };
    let (count, (all, entries)) = read(&Selection::all()).await;
    assert_eq!((count, entries), (40_000, 40));
    let mut three = EventSet::new();
    for at in [5_500, 5_501, 20_700] {
        let archived = &fixture.all[at];
        three.insert("/s", archived.header().id).unwrap();
    }
    let (count, (bytes, entries)) = read(&of(&Arc::new(three))).await;
    assert_eq!((count, entries), (3, 2));
    assert!(bytes < all / 15, "{bytes} of {all} bytes were read");
}
