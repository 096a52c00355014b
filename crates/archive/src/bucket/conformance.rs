//! The suite every [`Bucket`] must pass. Panics with what is wrong.

use super::{Bucket, Created, LIST_MAX};
use annals_core::ErrorKind;
use bytes::Bytes;

/// Runs every check on buckets that `make` gives, each of them empty.
pub async fn check_all<B: Bucket>(mut make: impl FnMut() -> B) {
    create_makes_an_object_once(&make()).await;
    of_many_creators_one_wins(make()).await;
    put_replaces(&make()).await;
    ranges_are_exact(&make()).await;
    what_is_not_there_is_not_found(&make()).await;
    lists_are_in_order_and_in_pages(&make()).await;
    names_that_lead_elsewhere_are_refused(&make()).await;
}

async fn create_makes_an_object_once(bucket: &dyn Bucket) {
    let name = "raw/v1/main/shop.v1/date=2026-11-21/hour=09/1.binpb.zst";
    let first = bucket
        .create(name, Bytes::from_static(b"first"))
        .await
        .unwrap();
    let second = bucket
        .create(name, Bytes::from_static(b"second"))
        .await
        .unwrap();
    assert_eq!((first, second), (Created::Created, Created::AlreadyExists));
    assert_eq!(bucket.get(name).await.unwrap(), "first");
    assert_eq!(bucket.head(name).await.unwrap(), Some(5));
    // Escapes are part of the name, not an encoding of it.
    bucket
        .create("a/%2E%2E", Bytes::from_static(b"x"))
        .await
        .unwrap();
    assert_eq!(bucket.list("a/", None).await.unwrap()[0].name, "a/%2E%2E");
    bucket.create("empty", Bytes::new()).await.unwrap();
    assert_eq!(bucket.get("empty").await.unwrap(), "");
}

async fn of_many_creators_one_wins(bucket: impl Bucket) {
    let create = |i: usize| {
        let bucket = &bucket;
        async move {
            bucket
                .create("l/1", Bytes::from(i.to_string()))
                .await
                .unwrap()
        }
    };
    let made = futures::future::join_all((0..20).map(create)).await;
    let winners: Vec<usize> = (0..20).filter(|&i| made[i] == Created::Created).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(bucket.get("l/1").await.unwrap(), winners[0].to_string());
}

async fn put_replaces(bucket: &dyn Bucket) {
    for content in ["long before", "short"] {
        bucket
            .put("index/v1/x", Bytes::from_static(content.as_bytes()))
            .await
            .unwrap();
        assert_eq!(bucket.get("index/v1/x").await.unwrap(), content);
    }
    for _ in 0..2 {
        bucket.delete("index/v1/x").await.unwrap();
        assert_eq!(bucket.head("index/v1/x").await.unwrap(), None);
    }
    let again = bucket
        .create("index/v1/x", Bytes::from_static(b"x"))
        .await
        .unwrap();
    assert_eq!(again, Created::Created);
}

async fn ranges_are_exact(bucket: &dyn Bucket) {
    bucket
        .create("o", Bytes::from_static(b"0123456789"))
        .await
        .unwrap();
    for (range, expected) in [
        (0..10, "0123456789"),
        (3..5, "34"),
        (9..10, "9"),
        (4..4, ""),
    ] {
        assert_eq!(bucket.get_range("o", range).await.unwrap(), expected);
    }
    for range in [5..11, 10..11, 100..200, 0..u64::MAX] {
        let error = bucket.get_range("o", range.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{range:?}: {error}");
    }
}

async fn what_is_not_there_is_not_found(bucket: &dyn Bucket) {
    bucket
        .create("file", Bytes::from_static(b"x"))
        .await
        .unwrap();
    for name in ["none", "none/at/all", "file/below"] {
        let errors = [
            bucket.get(name).await.map(drop).unwrap_err(),
            bucket.get_range(name, 0..1).await.map(drop).unwrap_err(),
        ];
        assert!(
            errors.iter().all(|e| e.kind() == ErrorKind::NotFound),
            "{name}: {errors:?}"
        );
        assert_eq!(bucket.head(name).await.unwrap(), None);
    }
    assert_eq!(bucket.list("none/", None).await.unwrap(), []);
}

async fn lists_are_in_order_and_in_pages(bucket: &dyn Bucket) {
    // In byte order `-` and `.` come before `/`, and digits after it; by components `/` comes first.
    let mut names = vec![
        "l-/x".to_owned(),
        "l/a-b".into(),
        "l/a.b".into(),
        "l/a/b".into(),
    ];
    names.extend(["l/a/c/d".into(), "l/a0".into(), "l/b".into(), "m".into()]);
    names.extend((0..LIST_MAX).map(|i| format!("l/n/{i:020}")));
    for name in names.iter().rev() {
        bucket
            .create(name, Bytes::from(name.clone()))
            .await
            .unwrap();
    }
    names.sort_unstable();
    let mut by_components = names.clone();
    by_components.sort_unstable_by(|a, b| a.split('/').cmp(b.split('/')));
    assert_ne!(names, by_components);
    for folder in ["", "l/", "l/a/", "l/n/"] {
        let below = |all: &[String]| -> Vec<String> {
            let below = all.iter().filter(|name| name.starts_with(folder));
            below.cloned().collect()
        };
        let mut found: Vec<super::Entry> = Vec::new();
        loop {
            let after = found.last().map(|entry| entry.name.clone());
            let page = bucket.list(folder, after.as_deref()).await.unwrap();
            let len = page.len();
            assert!(len <= LIST_MAX);
            found.extend(page);
            if len < LIST_MAX {
                break;
            }
        }
        let found_names: Vec<_> = found.iter().map(|entry| entry.name.clone()).collect();
        if found_names != below(&by_components) {
            assert_eq!(found_names, below(&names), "below {folder:?}");
        }
        assert!(
            found
                .iter()
                .all(|entry| entry.len == entry.name.len() as u64)
        );
    }
    // `after` need not exist.
    let after = bucket.list("l/", Some("l/a/b/zzz")).await.unwrap();
    assert_eq!(after[0].name, "l/a/c/d");
    assert!(
        bucket.list("l", None).await.is_err(),
        "a folder ends with /"
    );
}

async fn names_that_lead_elsewhere_are_refused(bucket: &dyn Bucket) {
    let long = "x".repeat(256);
    for name in [
        "", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "./a", "a\0b", "a\nb", ".tmp/a", "a\\b",
        &long,
    ] {
        let kind = |result: annals_core::Result<()>| result.unwrap_err().kind();
        let bytes = Bytes::from_static(b"x");
        assert_eq!(
            kind(bucket.create(name, bytes.clone()).await.map(drop)),
            ErrorKind::Invalid
        );
        assert_eq!(kind(bucket.put(name, bytes).await), ErrorKind::Invalid);
        assert_eq!(kind(bucket.get(name).await.map(drop)), ErrorKind::Invalid);
        assert_eq!(kind(bucket.head(name).await.map(drop)), ErrorKind::Invalid);
        assert_eq!(
            kind(bucket.delete(name).await),
            ErrorKind::Invalid,
            "{name:?}"
        );
    }
    assert_eq!(bucket.list("", None).await.unwrap(), []);
}
