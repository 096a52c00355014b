//! `annals tour`: the main job, on the sample and, where it is there, on the whole data file.

mod support;

use std::path::{Path, PathBuf};
use support::{annals, expect, json, root, stderr};

#[test]
fn the_tour_ends_well_and_says_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let steps = json(dir.path(), &["tour", "-q"]);
    let names: Vec<&str> = steps
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["step"].as_str().unwrap())
        .collect();
    for step in [
        "publish", "archive", "verify", "replay", "subject", "private", "repeat", "stop",
    ] {
        assert!(names.contains(&step), "{names:?}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "it uses a directory of its own"
    );
}

#[test]
fn the_tour_warns_of_nothing_and_ends_with_what_to_do_next() {
    let dir = tempfile::tempdir().unwrap();
    let ended = annals(dir.path(), &["tour"]);
    let said = stderr(&ended);
    assert!(ended.status.success(), "{said}");
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    for step in [
        "annals up",
        "annals publish",
        "annals tail",
        "annals replay",
    ] {
        assert!(said.contains(step), "{said}");
    }
    let quiet = annals(dir.path(), &["tour", "-q"]);
    assert_eq!(stderr(&quiet), "");
}

#[test]
fn a_kept_tour_can_be_looked_at_without_a_server_and_damage_in_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("tour");
    expect(
        0,
        dir.path(),
        &["tour", "--keep", "--dir", data.to_str().unwrap()],
    );
    look_around(&data, 5_000);
    let again = annals(dir.path(), &["tour", "--dir", data.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(5), "{}", stderr(&again));
}

#[test]
fn the_whole_data_file_comes_back_byte_for_byte() {
    let Some(file) = data_file() else {
        eprintln!("SKIPPED: no data file; name it with ANNALS_DATA_FILE");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("tour");
    let (file, data_text) = (file.to_str().unwrap(), data.to_str().unwrap());
    expect(
        0,
        dir.path(),
        &["tour", "--keep", "--dir", data_text, "--from", file],
    );
    look_around(&data, 232_985);
}

fn data_file() -> Option<PathBuf> {
    let named = std::env::var_os("ANNALS_DATA_FILE").map(PathBuf::from);
    let file = named.unwrap_or_else(|| root().join("../shared/data/vcs-events.jsonl.zst"));
    file.is_file().then_some(file)
}

/// What the tour left: published twice, so twice as many records as events.
fn look_around(data: &Path, events: u64) {
    let stats = json(data, &["archive", "stats"]);
    assert_eq!(stats["events"], events);
    assert_eq!(stats["records"], 2 * events);
    assert_eq!(stats["conflicts"], 0);
    assert_eq!(json(data, &["archive", "verify"])["finding_count"], 0);

    let replayed = support::frames(&data.join("replayed.binpb"));
    let ids: std::collections::BTreeSet<_> = replayed.iter().map(|e| e.header().id).collect();
    assert_eq!(ids.len() as u64, events);

    let segments = json(data, &["archive", "ls"]);
    let segment = segments[0]["segment"].as_str().unwrap();
    let path = data.join("bucket").join(segment);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let found = expect(9, data, &["archive", "verify"]);
    assert!(found.contains(segment), "{found}");
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let found = expect(9, data, &["archive", "verify"]);
    assert!(found.contains(segment), "{found}");
    let out = data.join("never.binpb");
    let refused = annals(
        data,
        &["replay", "--to", &format!("file:{}", out.display())],
    );
    assert!(!refused.status.success());
    assert!(!out.exists(), "damage is never served");
    std::fs::write(&path, &bytes).unwrap();
    expect(0, data, &["archive", "verify"]);
}
