//! Kill tests of the lake: `annals up` is killed while it converts under load, again and again, and
//! the lake is what the archive says, each event once.
//!
//! Batches are sealed and converted all the time, so that kills meet files, commits and states half
//! done. `ANNALS_LAKE_KILL_CYCLES` says how often.

mod support;

use annals_core::{Event, EventBuilder};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use support::outside::{Log, publish_until_killed, replay_all};
use support::services::print_past_capture;
use support::{Server, annals, expect, files, json, stderr};

const CYCLES: u64 = 10;
const SCHEMA: &str = r#"syntax = "proto3"; package shop.v1;
message OrderPlaced { int64 number = 1; string padding = 2; repeated string items = 3; }
message OrderPaid { int64 number = 1; string padding = 2; }
"#;
const TABLES: [&str; 3] = ["events", "shop.v1.OrderPlaced", "shop.v1.OrderPaid"];

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_killed_while_it_converts_is_the_archive_each_event_once() {
    let cycles = std::env::var("ANNALS_LAKE_KILL_CYCLES").map_or(CYCLES, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let mut log = Log::default();
    let mut met = Met::default();
    for cycle in 0..cycles {
        let sealing = ["--seal-after", "5ms", "--seal-at", "64KiB"];
        let server = Server::start(data, &[&sealing[..], &["--convert-after", "1ms"]].concat());
        if cycle == 0 {
            let path = dir.path().join("shop.proto");
            std::fs::write(&path, SCHEMA).unwrap();
            expect(0, data, &["schema", "push", path.to_str().unwrap()]);
        }
        // Whatever was cut off, and while it is being mended.
        each_once(data);
        let until = 200 + (cycle * 7_919) % 2_000;
        publish_until_killed(server, cycle, until, event, &mut log).await;
        met.look(data);
    }
    let server = Server::start(data, &["--convert-after", "1h"]);
    expect(0, data, &["archive", "seal"]);
    expect(0, data, &["lake", "convert"]);
    expect(0, data, &["lake", "status"]);

    let replayed = replay_all(data, &dir.path().join("all.binpb"));
    let lost = log.lost(&replayed);
    assert!(lost.is_empty(), "confirmed, and lost or changed: {lost:?}");
    let before = rows_of_tables(data);
    let in_lake: BTreeSet<Key> = before["events"].iter().map(|row| key(row)).collect();
    let in_archive: BTreeSet<Key> = replayed.values().map(key_of_event).collect();
    assert_eq!(before["events"].len(), in_lake.len(), "an event twice");
    assert!(
        in_lake == in_archive,
        "{}",
        difference(&in_lake, &in_archive)
    );
    for table in &TABLES[1..] {
        let of_type = in_archive.iter().filter(|key| key.2 == *table).count();
        let ids: BTreeSet<Key> = before[table].iter().map(|row| key(row)).collect();
        assert_eq!(
            (ids.len(), before[table].len()),
            (of_type, of_type),
            "{table}"
        );
    }

    // What killed converters made is what one that nobody kills makes.
    let rebuilt = json(data, &["lake", "rebuild"]);
    for table in rebuilt.as_array().unwrap() {
        assert_eq!(table["rows"], table["rows_before"], "{table}");
    }
    let after = rows_of_tables(data);
    for table in TABLES {
        assert!(before[table] == after[table], "{table} was another one");
    }
    let stats = json(data, &["archive", "stats"]);
    print_past_capture(&format!(
        "kills {cycles}, published {}, confirmed {}, of these lost or changed 0; in the archive {} \
         distinct, {} copies, {} ledger entries; in the lake {} rows, each event once, rebuilt the \
         same; commits of the events' table {}; kills that left files without a commit {}, types' \
         tables ahead of the events' {}",
        log.tried,
        log.confirmed.len(),
        replayed.len(),
        stats["duplicates"],
        stats["ledger_position"],
        before["events"].len(),
        met.commits,
        met.files,
        met.ahead,
    ));
    assert!(
        met.commits >= cycles,
        "conversion was hardly ever under way"
    );
    assert!(server.terminate().success());
}

type Key = (String, String, String);

/// No event is there twice, at any moment.
fn each_once(data: &Path) {
    for table in TABLES {
        let sql = format!("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM {table}");
        let counts = json(data, &["sql", "-q", &sql]);
        assert_eq!(counts[0]["n"], counts[0]["ids"], "{table}");
    }
}

/// All rows of all tables, as text, none of them from anywhere but the lake.
fn rows_of_tables(data: &Path) -> BTreeMap<&'static str, Vec<String>> {
    let rows_of = |table: &'static str| {
        let sql = format!("SELECT * FROM {table} ORDER BY position, ordinal");
        let asked = ["sql", "--rows", "0", "-o", "jsonl", &sql];
        let answer = annals(data, &asked);
        let told = stderr(&answer);
        assert!(answer.status.success(), "{told}");
        assert!(told.contains(" 0 rows not yet in the lake"), "{told}");
        let text = String::from_utf8(answer.stdout).unwrap();
        (table, text.lines().map(str::to_owned).collect())
    };
    TABLES.into_iter().map(rows_of).collect()
}

/// Source, id and, in the table of all events, type of a row.
fn key(row: &str) -> Key {
    let row: Value = serde_json::from_str(row).unwrap();
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("source"), text("id"), text("type"))
}

fn key_of_event(event: &Event) -> Key {
    let header = event.header();
    let (source, id) = header.key();
    (
        source.to_owned(),
        id.to_owned(),
        header.event_type.to_owned(),
    )
}

fn difference(lake: &BTreeSet<Key>, archive: &BTreeSet<Key>) -> String {
    let only = |a: &BTreeSet<Key>, b| a.difference(b).take(5).cloned().collect::<Vec<_>>();
    format!(
        "lake {} archive {}; only in the lake {:?}, only in the archive {:?}",
        lake.len(),
        archive.len(),
        only(lake, archive),
        only(archive, lake)
    )
}

/// What kills met, by what they left.
#[derive(Default)]
struct Met {
    /// Commits of the events' table so far.
    commits: u64,
    /// Kills after which there were new files that no commit names.
    files: u64,
    /// Kills after which a type's table had come further than the events'.
    ahead: u64,
    unnamed: usize,
}

impl Met {
    fn look(&mut self, data: &Path) {
        let lake = data.join("bucket/lake/v1/main");
        let mut unnamed = 0;
        let mut marks = Vec::new();
        for table in TABLES {
            let folder = match table {
                "events" => lake.join(table),
                _ => lake.join("types").join(table),
            };
            if !folder.join("_delta_log").exists() {
                continue;
            }
            let found = files(&folder);
            let is = |path: &Path, ending| path.extension().is_some_and(|e| e == ending);
            let commits: Vec<_> = found.iter().filter(|(path, _)| is(path, "json")).collect();
            if table == "events" {
                self.commits = commits.len() as u64;
            }
            let named: String = commits
                .iter()
                .map(|(_, bytes)| String::from_utf8_lossy(bytes))
                .collect();
            let data_files = found.keys().filter(|path| is(path, "parquet"));
            let is_unnamed = |path: &&std::path::PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy();
                !name.contains("checkpoint") && !named.contains(&*name)
            };
            unnamed += data_files.filter(is_unnamed).count();
            let last = commits.last().map(|(_, bytes)| mark_of(bytes));
            marks.push(last.unwrap_or_default());
        }
        self.files += u64::from(unnamed > self.unnamed);
        self.unnamed = unnamed;
        let events = marks.first().copied().unwrap_or_default();
        self.ahead += u64::from(marks.iter().any(|mark| *mark > events));
    }
}

/// The ledger entry a commit says its table has come to.
fn mark_of(commit: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(commit);
    let actions = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let marks = actions.filter_map(|action| action["txn"]["version"].as_u64());
    marks.max().unwrap_or_default()
}

fn event(cycle: u64, number: u64) -> Event {
    let types = ["shop.v1.OrderPlaced", "shop.v1.OrderPaid", "mail.v1.Sent"];
    let id = format!("{cycle}-{number}");
    EventBuilder::new(types[(number % 3) as usize], "/outside", id)
        .unwrap()
        .subject(format!("o-{}", number % 17))
        .unwrap()
        .time("2026-11-21T09:00:00Z".parse().unwrap())
        .json(format!(
            "{{\"number\":{number},\"padding\":\"{}\"}}",
            "x".repeat(200)
        ))
        .build()
        .unwrap()
}
