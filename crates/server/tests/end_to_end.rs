//! The whole loop — published, archived, converted, asked, replayed, rebuilt, verified — with the
//! archive in a directory and in an object store. What has to come out is counted here, from the
//! sample itself.

mod support;

use serde_json::{Value, json as value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::services::Store;
use support::{frames, root, sample, tags};

const COMMIT: &str = "vcs.v1.CommitPushed";
const TAG: &str = "vcs.v1.TagCreated";

#[test]
fn the_whole_loop_in_a_directory() {
    the_whole_loop(&Store::of_no_service(), &[]);
}

#[test]
fn the_whole_loop_in_an_object_store() {
    if let Some(store) = Store::of_service("the whole loop in an object store") {
        the_whole_loop(&store, &["--bucket", &store.bucket()]);
    }
}

/// `bucket`: which one the platform is told to use, if any.
fn the_whole_loop(store: &Store, bucket: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let never = ["--seal-after", "1h", "--convert-after", "1h"];
    let server = store.up(data, &[bucket, &never].concat());
    let schemas = root().join("examples/vcs").display().to_string();
    store.expect(0, data, &["schema", "push", &schemas]);

    let published = [lines(&sample()), lines(&tags())];
    for (file, events) in [sample(), tags()].iter().zip(&published) {
        let report = store.json(data, &["publish", "--from", file, "-q"]);
        assert_eq!(report["published"], events.len());
        store.expect(0, data, &["archive", "seal"]);
        let converted = store.json(data, &["lake", "convert"]);
        assert_eq!(converted["events"], events.len());
        assert_eq!(converted["typed"], events.len());
    }
    let all: Vec<&Value> = published.iter().flatten().collect();
    the_answers_are_right(store, data, &all);
    the_tables_are_whole(store, data);

    assert!(server.terminate());
    the_answers_are_right(store, data, &all);
    let server = store.up(data, &never);
    the_answers_are_right(store, data, &all);

    the_replays_are_right(store, data, dir.path(), &all);
    let rebuilt = store.json(data, &["lake", "rebuild"]);
    let rows: Vec<[&Value; 3]> = rebuilt
        .as_array()
        .unwrap()
        .iter()
        .map(|row| ["table", "rows", "rows_before"].map(|name| &row[name]))
        .collect();
    let row = |table: &str, n: usize| [value!(table), value!(n), value!(n)];
    let expected = [row("events", 5_200), row(COMMIT, 5_000), row(TAG, 200)];
    assert_eq!(rows, expected.each_ref().map(|row| row.each_ref()));
    the_answers_are_right(store, data, &all);
    the_tables_are_whole(store, data);

    let found = store.json(data, &["archive", "verify"]);
    assert_eq!(found["finding_count"], 0, "{found:#}");
    assert_eq!(found["records"], 5_200, "{found:#}");
    assert!(server.terminate());
}

/// SQL counts what the files have.
#[track_caller]
fn the_answers_are_right(store: &Store, data: &Path, all: &[&Value]) {
    for column in ["type", "subject"] {
        let sql = format!("SELECT {column} AS k, count(*) AS n FROM events GROUP BY {column}");
        let counted = store.json(data, &["sql", "-q", &sql]);
        let counted: BTreeMap<String, u64> = counted
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (text(&row["k"]), row["n"].as_u64().unwrap()))
            .collect();
        assert_eq!(
            counted,
            count_by(all, |event| text(&event[column])),
            "{column}"
        );
    }
    let sql =
        format!("SELECT payload.repo AS k, count(*) AS n FROM {COMMIT} GROUP BY payload.repo");
    let counted = store.json(data, &["sql", "-q", &sql]);
    let commits: Vec<&Value> = all
        .iter()
        .copied()
        .filter(|e| e["type"] == COMMIT)
        .collect();
    let repos = count_by(&commits, |event| text(&event["data"]["repo"]));
    assert_eq!(counted.as_array().unwrap().len(), repos.len());
    for row in counted.as_array().unwrap() {
        assert_eq!(row["n"], repos[&text(&row["k"])], "{row}");
    }
}

#[track_caller]
fn the_tables_are_whole(store: &Store, data: &Path) {
    let status = store.json(data, &["lake", "status"]);
    assert_eq!(status["position"], status["ledger_position"], "{status:#}");
    assert_eq!(status["conflicts"], value!([]), "{status:#}");
    let tables = store.json(data, &["lake", "tables"]);
    let rows: Vec<(String, u64)> = tables
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["table"]), row["rows"].as_u64().unwrap()))
        .collect();
    let expected = [("events", 5_200), (COMMIT, 5_000), (TAG, 200)];
    assert_eq!(rows, expected.map(|(table, n)| (table.to_owned(), n)));
}

/// Everything, and what a question selects: each with a receipt.
fn the_replays_are_right(store: &Store, data: &Path, dir: &Path, all: &[&Value]) {
    let replay = |name: &str, selection: &[&str]| {
        let path = dir.join(name);
        let target = format!("file:{}", path.display());
        let receipt = store.json(data, &[&["replay", "--to", &target], selection].concat());
        assert_eq!(receipt["completed"], true, "{receipt:#}");
        assert_eq!(receipt["selected"], receipt["delivered"], "{receipt:#}");
        let events = frames(&path);
        assert_eq!(receipt["delivered"], events.len(), "{receipt:#}");
        (path, events)
    };
    let (_, events) = replay("all.binpb", &[]);
    let mut ids: Vec<&str> = events.iter().map(|event| event.header().id).collect();
    let mut expected: Vec<&str> = all
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);

    let subject = "tokio-rs/axum";
    let question = format!("SELECT source, id FROM {COMMIT} WHERE subject = '{subject}'");
    let (asked, events) = replay("asked.binpb", &["--sql", &question]);
    let is_asked = |event: &&&Value| event["subject"] == subject && event["type"] == COMMIT;
    let count = all.iter().filter(is_asked).count();
    assert!(
        count > 0 && events.len() == count,
        "{} of {count}",
        events.len()
    );
    let selection = ["--subject", subject, "--types", COMMIT];
    let (selected, _) = replay("selected.binpb", &selection);
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    assert!(
        read(asked) == read(selected),
        "asked for in SQL or in flags: the same"
    );
}

/// The events of a file of the sample.
fn lines(file: &str) -> Vec<Value> {
    let bytes = zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    events.collect()
}

fn count_by(events: &[&Value], of: impl Fn(&Value) -> String) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(of(event)).or_default() += 1;
    }
    counts
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
