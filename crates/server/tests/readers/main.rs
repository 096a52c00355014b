//! The lake, read by others: DuckDB, delta-rs, Polars and Spark answer as `annals sql` does.
//!
//! The tables have all that makes reading them hard: nested columns of every kind, files from before
//! and after a schema grew, files that were removed again, and a checkpoint in the log. Every
//! engine is asked for counts, nulls, least and greatest values, ranges, fields of payloads, and
//! for all rows as they stand.

mod history;
mod questions;
#[path = "../support/mod.rs"]
mod support;

use history::{SEEN, convert, publish, seen};
use questions::{ask, check, installed, of_annals, rows};
use serde_json::{Value, json as value};
use std::path::{Path, PathBuf};
use support::services::Store;
use support::{Server, expect, files, json, root, sample, tags};

const READERS: [&str; 4] = ["duckdb", "deltalake", "polars", "spark"];

#[tokio::test(flavor = "multi_thread")]
async fn other_engines_answer_as_annals_does() {
    let readers = installed(&READERS);
    if readers.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = Server::start(data, &["--seal-after", "1h", "--convert-after", "1h"]);
    history::make(&server, dir.path()).await;
    assert!(removals(data, "events") > 0 && removals(data, "types/vcs.v1.CommitPushed") > 0);
    assert_eq!(files_of(data, SEEN), 3, "of both revisions");
    check(data, &readers);

    // A table whose log is read from a checkpoint, which names files of before and after it.
    for _ in 0..50 {
        expect(0, data, &["lake", "rebuild", "--table", SEEN]);
    }
    publish(data, dir.path(), &seen(2, 200));
    convert(data);
    assert!(removals(data, &format!("types/{SEEN}")) > 0);
    let log = files(&lake(data).join(format!("types/{SEEN}/_delta_log")));
    let is_checkpoint = |path: &PathBuf| path.to_string_lossy().contains(".checkpoint");
    assert!(log.keys().any(is_checkpoint), "{:?}", log.keys());
    let of_delta = readers.iter().filter(|reader| **reader != "spark");
    check(data, &of_delta.copied().collect::<Vec<_>>());
    assert!(server.terminate().success());
}

#[test]
fn other_engines_read_a_lake_in_an_object_store_where_it_lies() {
    let readers = installed(&["duckdb", "deltalake", "polars"]);
    let Some(store) = Store::of_service("a lake in an object store, read by others") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = store.up(data, &["--bucket", &store.bucket()]);
    let schemas = root().join("examples/vcs").display().to_string();
    store.expect(0, data, &["schema", "push", &schemas]);
    for file in [tags(), sample()] {
        store.expect(0, data, &["publish", "--from", &file, "-q"]);
        store.expect(0, data, &["archive", "seal"]);
        store.expect(0, data, &["lake", "convert"]);
    }
    let base = format!("{}/lake/v1/main", store.bucket());
    let questions: Vec<(&str, &str)> = [
        (
            "events",
            "SELECT type, count(*) AS n FROM {t} GROUP BY type",
        ),
        (
            "events",
            "SELECT min(time) AS first, max(time) AS last FROM {t}",
        ),
        (
            "vcs.v1.CommitPushed",
            "SELECT subject, sum({payload.seq}) AS s FROM {t} GROUP BY subject",
        ),
        (
            "vcs.v1.TagCreated",
            "SELECT * FROM {t} WHERE subject = 'tokio-rs/axum'",
        ),
    ]
    .into();
    let expected: Vec<Vec<Value>> = questions
        .iter()
        .map(|(table, sql)| {
            rows(store.json(data, &["sql", "-q", "--rows", "0", &of_annals(table, sql)]))
        })
        .collect();
    assert_eq!(
        expected[0],
        [
            value!({"type": "vcs.v1.TagCreated", "n": 200}),
            value!({"type": "vcs.v1.CommitPushed", "n": 5000}),
        ]
    );
    for reader in readers {
        let answers = ask(reader, &base, &questions, value!(store.env));
        for ((question, expected), answer) in questions.iter().zip(&expected).zip(answers) {
            assert_eq!(&answer, expected, "{reader}: {question:?}");
        }
    }
    assert!(server.terminate());
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn lake(data: &Path) -> PathBuf {
    data.join("bucket/lake/v1/main")
}

/// How many files a table's log removes.
fn removals(data: &Path, table: &str) -> usize {
    let log = files(&lake(data).join(table).join("_delta_log"));
    let commits = log
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "json"));
    commits
        .map(|(_, bytes)| {
            String::from_utf8_lossy(bytes)
                .matches("{\"remove\":")
                .count()
        })
        .sum()
}

fn files_of(data: &Path, table: &str) -> u64 {
    let tables = json(data, &["lake", "tables"]);
    let rows = tables.as_array().unwrap();
    let row = rows.iter().find(|row| row["table"] == table).unwrap();
    row["files"].as_u64().unwrap()
}
