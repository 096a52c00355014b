//! The archive from outside: damage is found and named, looking changes nothing.

mod support;

use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use support::{Server, annals, expect, files, json, publish, stderr};

/// A directory that no process serves, with one event in each of `entries` ledger entries.
fn made(data: &Path, entries: usize) {
    let server = Server::start(data, &[]);
    for i in 1..=entries {
        publish(data, "shop.v1.OrderPlaced", &format!("o-{i}"));
        expect(0, data, &["archive", "seal"]);
    }
    assert!(server.terminate().success());
}

fn segment(data: &Path, entry: usize) -> String {
    json(data, &["archive", "ls"])[entry - 1]["segment"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn ledger_file(data: &Path, number: usize) -> PathBuf {
    data.join(format!("bucket/ledger/main/{number:020}.binpb"))
}

/// What verify finds, which has to be something.
#[track_caller]
fn findings(data: &Path, arguments: &[&str]) -> Vec<(String, String)> {
    let arguments = [&["archive", "verify", "-o", "json"], arguments].concat();
    let found: Value = serde_json::from_str(&expect(9, data, &arguments)).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = found["findings"].as_array().unwrap();
    assert_eq!(found["finding_count"], rows.len());
    rows.iter()
        .map(|row| (text(row, "kind"), text(row, "name")))
        .collect()
}

#[test]
fn a_segment_that_is_gone_cut_or_changed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    made(data, 3);
    let name = segment(data, 2);
    let path = data.join("bucket").join(&name);
    let whole = std::fs::read(&path).unwrap();
    #[track_caller]
    fn check(data: &Path, kind: &str, name: &str) {
        let found = findings(data, &[]);
        assert!(
            found
                .iter()
                .all(|f| *f == (kind.to_owned(), name.to_owned())),
            "{found:?}"
        );
        assert!(!found.is_empty());
    }
    std::fs::remove_file(&path).unwrap();
    check(data, "SegmentMissing", &name);
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    check(data, "SegmentDamaged", &name);
    std::fs::write(&path, b"").unwrap();
    check(data, "SegmentDamaged", &name);
    let mut longer = whole.clone();
    longer.push(0);
    std::fs::write(&path, &longer).unwrap();
    check(data, "SegmentDamaged", &name);
    // Of two segments, one in the other's place.
    let other = std::fs::read(data.join("bucket").join(segment(data, 3))).unwrap();
    std::fs::write(&path, other).unwrap();
    assert!(findings(data, &[]).iter().all(|(_, found)| *found == name));

    std::fs::write(&path, &whole).unwrap();
    expect(0, data, &["archive", "verify"]);
}

#[test]
fn a_ledger_entry_that_is_gone_or_changed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    made(data, 3);
    for number in 1..=3 {
        let path = ledger_file(data, number);
        let name = format!("ledger/main/{number:020}.binpb");
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let found = findings(data, &[]);
        let missing = ("LedgerEntryMissing".to_owned(), name.clone());
        assert!(found.contains(&missing), "{number}: {found:?}");

        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 0x40;
        std::fs::write(&path, &changed).unwrap();
        let found = findings(data, &[]);
        assert!(found.iter().any(|(_, n)| *n == name), "{number}: {found:?}");
        std::fs::write(&path, &whole).unwrap();
    }
    expect(0, data, &["archive", "verify"]);
}

#[test]
fn an_event_that_is_gone_is_named_by_a_publish_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    made(data, 3);
    // What a publisher that keeps a log would have: the archive holds the bytes it sent.
    let all = dir.path().join("all.binpb");
    expect(
        0,
        data,
        &["replay", "--to", &format!("file:{}", all.display())],
    );
    let mut log = String::new();
    for event in support::frames(&all) {
        let (source, id) = event.header().key();
        let hash = blake3::hash(event.bytes()).to_hex();
        writeln!(log, "{source}\t{id}\t{hash}\tok").unwrap();
    }
    let path = dir.path().join("publish.log");
    let against = ["--against", path.to_str().unwrap()];
    std::fs::write(&path, &log).unwrap();
    let sound = json(data, &["archive", "verify", against[0], against[1]]);
    assert_eq!(sound["against"], 3, "{sound:#}");

    let ghost = format!("/shop\tghost\t{}\tok\n", blake3::hash(b"x").to_hex());
    std::fs::write(&path, log.clone() + &ghost).unwrap();
    let found = findings(data, &against);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "EventMissing");
    assert!(found[0].1.contains("ghost"), "{found:?}");

    std::fs::write(&path, &log).unwrap();
    std::fs::remove_file(data.join("bucket").join(segment(data, 2))).unwrap();
    let found = findings(data, &against);
    let kinds: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
    assert!(kinds.contains(&"SegmentMissing"), "{found:?}");
    let event = found.iter().find(|(kind, _)| kind == "EventMissing");
    assert!(
        event.is_some_and(|(_, name)| name.contains("o-2")),
        "{found:?}"
    );
}

#[test]
fn a_running_server_finds_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    made(data, 2);
    let name = segment(data, 1);
    let server = Server::start(data, &[]);
    std::fs::remove_file(data.join("bucket").join(&name)).unwrap();
    assert_eq!(
        findings(data, &[]),
        [("SegmentMissing".to_owned(), name.clone())]
    );
    // Damage is never served as if it were all: the verb that meets it says what is missing.
    let ended = annals(data, &["archive", "cat"]);
    assert!(!ended.status.success());
    assert!(!stderr(&ended).is_empty());
    let out = data.join("never.binpb");
    let ended = annals(
        data,
        &["replay", "--to", &format!("file:{}", out.display())],
    );
    assert_eq!(ended.status.code(), Some(9), "{}", stderr(&ended));
    assert!(stderr(&ended).contains(&name), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("next: annals archive verify"));
    assert!(!out.exists());
    assert!(server.terminate().success());
}

#[test]
fn a_streamed_answer_that_meets_damage_names_the_segment_and_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    made(data, 3);
    let name = segment(data, 2);
    let path = data.join("bucket").join(&name);
    let whole = std::fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 4] ^= 0x40;
    let server = Server::start(data, &[]);
    for damaged in [None, Some(changed)] {
        match &damaged {
            None => std::fs::remove_file(&path).unwrap(),
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        }
        for verb in [
            &["archive", "cat"][..],
            &["replay", "--to", "stdout"],
            &["tail", "--since", "2020-01-01", "--stop-at-end"],
        ] {
            let ended = annals(data, verb);
            let told = stderr(&ended);
            assert_eq!(ended.status.code(), Some(9), "{verb:?}: {told}");
            assert!(told.contains(&name), "{verb:?}: {told}");
            assert!(
                told.contains("next: annals archive verify"),
                "{verb:?}: {told}"
            );
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(expect(0, data, &["archive", "cat"]).lines().count(), 3);
    assert!(server.terminate().success());
}

#[test]
fn the_index_is_derived_and_may_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    made(data, 3);
    let before = json(data, &["archive", "stats"]);
    std::fs::remove_dir_all(data.join("bucket/index")).unwrap();
    assert_eq!(json(data, &["archive", "stats"]), before);
    expect(0, data, &["archive", "verify"]);
    assert!(Server::start(data, &[]).terminate().success());
    assert_eq!(json(data, &["archive", "stats"]), before);
}

#[test]
fn without_a_server_the_directory_is_read_and_nothing_in_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Server::start(data, &[]);
    let protos = support::root().join("examples/vcs");
    expect(0, data, &["schema", "push", protos.to_str().unwrap()]);
    expect(0, data, &["publish", "--from", &support::tags()]);
    assert!(server.terminate().success());
    let before = files(data);
    for arguments in [
        &["archive", "ls"][..],
        &["archive", "stats", "--by-day"],
        &["archive", "cat", "-n", "5"],
        &["archive", "verify"],
        &["schema", "list"],
        &["replay", "--dry-run"],
        &["doctor", "--port", "0", "--amqp-port", "0"],
    ] {
        let printed = expect(0, data, arguments);
        assert!(!printed.is_empty(), "{arguments:?}");
        assert!(files(data) == before, "{arguments:?} changed the directory");
    }
    // A replay adds its register, and touches nothing that was there.
    expect(0, data, &["replay", "--to", "stdout"]);
    let after = files(data);
    assert!(
        before
            .iter()
            .all(|(name, bytes)| after.get(name) == Some(bytes))
    );
}

#[test]
fn doctor_is_content_with_a_sound_directory_and_names_damage() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    made(data, 3);
    let ports = ["--port", "0", "--amqp-port", "0"];
    let checks = json(data, &[&["doctor"], &ports[..]].concat());
    let archive = |checks: &Value| {
        let rows = checks.as_array().unwrap();
        let row = rows.iter().find(|row| row["check"] == "archive").unwrap();
        row.clone()
    };
    assert_eq!(archive(&checks)["verdict"], "ok", "{checks:#}");
    let name = segment(data, 2);
    for (path, named) in [
        (ledger_file(data, 2), "00000000000000000002.binpb"),
        (data.join("bucket").join(&name), name.as_str()),
    ] {
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let damaged = [&["doctor", "-o", "json"], &ports[..]].concat();
        let checks: Value = serde_json::from_str(&expect(1, data, &damaged)).unwrap();
        let row = archive(&checks);
        assert_eq!(row["verdict"], "fail", "{row:#}");
        assert_eq!(row["next"], "annals archive verify");
        assert!(row["detail"].as_str().unwrap().contains(named), "{row:#}");
        std::fs::write(&path, whole).unwrap();
    }
    expect(0, data, &[&["doctor"], &ports[..]].concat());
}
