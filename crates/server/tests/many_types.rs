//! Two thousand types, each with a table and few events: started, converted and asked.

mod support;

use serde_json::json as value;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};
use support::services::print_past_capture;
use support::{Server, expect, json};

const TYPES: usize = 2_000;
const EVENTS_EACH: usize = 10;
const EVENTS: usize = TYPES * EVENTS_EACH;

#[test]
fn two_thousand_types_have_their_tables_and_their_counts() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let never = ["--seal-after", "1h", "--convert-after", "1h"];
    let server = Server::start(data, &never);
    let schema = dir.path().join("wide.proto");
    std::fs::write(&schema, schemas()).unwrap();
    expect(0, data, &["schema", "push", schema.to_str().unwrap()]);
    let events = dir.path().join("events.jsonl");
    std::fs::write(&events, lines()).unwrap();
    expect(
        0,
        data,
        &["publish", "--from", events.to_str().unwrap(), "-q"],
    );
    expect(0, data, &["archive", "seal"]);
    // Before anything is converted: from the archive.
    the_counts_are_right(data);
    let began = Instant::now();
    let converted = json(data, &["lake", "convert"]);
    let converting = began.elapsed();
    assert_eq!(converted["events"], EVENTS);
    assert_eq!(converted["typed"], EVENTS);
    the_counts_are_right(data);
    assert!(server.terminate().success());

    let (starting, server) = timed(|| Server::start(data, &never));
    let (first, ()) = timed(|| the_events_are_counted(data));
    let (tables, ()) = timed(|| {
        let tables = json(data, &["lake", "tables"]);
        let tables = tables.as_array().unwrap();
        assert_eq!(tables.len(), TYPES + 1);
        let is_right = |rows: &serde_json::Value| *rows == EVENTS_EACH || *rows == EVENTS;
        assert!(
            tables.iter().all(|table| is_right(&table["rows"])),
            "{tables:?}"
        );
    });
    the_counts_are_right(data);
    print_past_capture(&format!(
        "{TYPES} types with {EVENTS_EACH} events each: converted in {converting:.1?}; start to ready \
         {starting:.1?}, first question {first:.1?}, list of tables {tables:.1?}"
    ));
    assert!(server.terminate().success());
}

fn the_events_are_counted(data: &Path) {
    let counted = json(data, &["sql", "-q", "SELECT count(*) AS n FROM events"]);
    assert_eq!(counted, value!([{ "n": EVENTS }]));
}

fn the_counts_are_right(data: &Path) {
    the_events_are_counted(data);
    let by_type = "SELECT n, count(*) AS types FROM \
                   (SELECT type, count(*) AS n FROM events GROUP BY type) AS t GROUP BY n";
    let counted = json(data, &["sql", "-q", by_type]);
    assert_eq!(counted, value!([{ "n": EVENTS_EACH, "types": TYPES }]));
    for number in [0, 7, TYPES - 1] {
        let sql = format!("SELECT count(*) AS n, sum(payload.n) AS s FROM wide.v1.Type{number}");
        let sum: usize = (0..EVENTS_EACH).map(|n| number + n).sum();
        let counted = json(data, &["sql", "-q", &sql]);
        assert_eq!(
            counted,
            value!([{ "n": EVENTS_EACH, "s": sum }]),
            "{number}"
        );
    }
}

fn schemas() -> String {
    let mut text = String::from("syntax = \"proto3\";\npackage wide.v1;\n");
    for number in 0..TYPES {
        writeln!(
            text,
            "message Type{number} {{ int64 n = 1; string name = 2; }}"
        )
        .unwrap();
    }
    text
}

fn lines() -> String {
    let line = |at: usize| {
        let (round, number) = (at / TYPES, at % TYPES);
        let event = value!({
            "specversion": "1.0", "id": format!("{number}-{round}"), "source": "/wide",
            "type": format!("wide.v1.Type{number}"), "subject": format!("s-{round}"),
            "time": "2026-11-21T09:00:00Z", "data": { "n": (number + round).to_string() },
        });
        event.to_string() + "\n"
    };
    (0..EVENTS).map(line).collect()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let done = work();
    (began.elapsed(), done)
}
