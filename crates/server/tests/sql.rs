//! `annals sql`, `annals lake` and `/v1/sql`, from outside.

mod support;

use serde_json::{Value, json as value};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::{Server, annals, command, expect, files, json, root, sample, stderr};

/// Long enough for what is only slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The rows of an answer.
#[track_caller]
fn ask(data: &Path, sql: &str) -> Vec<Value> {
    let rows = json(data, &["sql", "-q", "--rows", "0", sql]);
    rows.as_array().unwrap().clone()
}

/// Asks until an answer is as expected.
fn wait_for(data: &Path, sql: &str, expected: &Value) {
    let began = Instant::now();
    loop {
        let rows = Value::from(ask(data, sql));
        if rows == *expected {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{sql}: {rows}, not {expected}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn push_schemas(data: &Path) {
    let dir = root().join("examples/vcs");
    expect(0, data, &["schema", "push", dir.to_str().unwrap()]);
}

#[test]
fn an_event_is_in_sql_before_any_segment_holds_it_and_once_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--seal-after", "1h", "--convert-after", "1h"]);
    let data = &server.data;
    push_schemas(data);
    expect(0, data, &["publish", "--from", &sample(), "-q"]);
    let count = "SELECT count(*) AS n FROM events";
    let typed = "SELECT count(*) AS n FROM vcs.v1.CommitPushed";
    wait_for(data, count, &value!([{"n": 5000}]));
    let commits = ask(data, typed);
    assert_eq!(json(data, &["archive", "stats"])["ledger_position"], 0);
    for step in ["seal", "convert", "publish", "seal", "convert"] {
        match step {
            "seal" => drop(expect(0, data, &["archive", "seal"])),
            "convert" => drop(expect(0, data, &["lake", "convert"])),
            // The same events again: copies, wherever they lie.
            _ => drop(expect(0, data, &["publish", "--from", &sample(), "-q"])),
        }
        assert_eq!(ask(data, count), [value!({"n": 5000})], "{step}");
        assert_eq!(ask(data, typed), commits, "{step}");
    }
    expect(0, data, &["lake", "status"]);
    assert!(server.terminate().success());
    // Without a server the same.
    assert_eq!(ask(dir.path(), count), [value!({"n": 5000})]);
    assert_eq!(ask(dir.path(), typed), commits);
}

#[test]
fn answers_come_in_every_format_and_say_what_they_cost() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let data = &server.data;
    for n in 0..3 {
        let event = format!("{{\"n\":{n}}}");
        expect(
            0,
            data,
            &[
                "publish",
                "shop.v1.Placed",
                "--id",
                &n.to_string(),
                "-d",
                &event,
            ],
        );
    }
    wait_for(
        data,
        "SELECT count(*) AS n FROM events",
        &value!([{"n": 3}]),
    );
    let sql = "SELECT id, json_get_int(payload_json, 'n') AS n FROM shop.v1.Placed ORDER BY id";
    assert_eq!(
        expect(0, data, &["sql", sql, "-o", "csv"]),
        "id,n\r\n0,0\r\n1,1\r\n2,2\r\n"
    );
    let lines = expect(0, data, &["sql", sql, "-o", "jsonl"]);
    assert_eq!(lines.lines().nth(1), Some(r#"{"id":"1","n":1}"#));
    assert!(expect(0, data, &["sql", sql]).contains("id"));
    let told = stderr(&annals(data, &["sql", sql, "--rows", "2"]));
    assert!(
        told.contains("2 rows, and more") && told.contains("complete to position"),
        "{told}"
    );
    let file = dir.path().join("question.sql");
    std::fs::write(&file, sql).unwrap();
    assert_eq!(
        expect(
            0,
            data,
            &["sql", "-f", file.to_str().unwrap(), "-o", "jsonl"]
        ),
        lines
    );
    let mut piped = command(data);
    piped
        .args(["sql", "-o", "jsonl"])
        .stdin(std::fs::File::open(&file).unwrap());
    assert_eq!(
        String::from_utf8(piped.output().unwrap().stdout).unwrap(),
        lines
    );
    let tables = ask(data, "SHOW TABLES");
    assert!(
        tables
            .iter()
            .any(|t| t.to_string().contains("shop.v1.Placed")),
        "{tables:?}"
    );
}

#[test]
fn what_is_no_question_is_refused_and_the_next_one_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let data = &server.data;
    for (sql, word) in [
        ("DROP TABLE events", "DROP"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE",
        ),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "COPY"),
        ("SELECT 1; SELECT 2", "second statement"),
        ("SELECT * FROM '/etc/passwd'", "/etc/passwd"),
        ("SELECT * FROM evnts", "events"),
        ("SELECT idd FROM events", "id"),
        ("SELEC 1", "SELEC"),
    ] {
        let refused = annals(data, &["sql", sql]);
        let told = stderr(&refused);
        assert!(!refused.status.success(), "{sql}");
        assert!(told.contains(word), "{sql}: {told}");
        assert_eq!(ask(data, "SELECT 1 AS n"), [value!({"n": 1})]);
    }
    let slow =
        "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b";
    let refused = annals(data, &["sql", "--timeout", "300ms", slow]);
    assert!(!refused.status.success());
    assert_eq!(ask(data, "SELECT 1 AS n"), [value!({"n": 1})]);
}

#[test]
fn an_answer_that_fails_at_its_first_row_says_why_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let data = &server.data;
    support::publish(data, "shop.v1.Placed", "a");
    let by_nothing = "SELECT 1 / (n - n) AS x FROM (SELECT count(*) AS n FROM events) AS t";
    for format in ["table", "json", "jsonl", "csv"].iter().cycle().take(40) {
        let failed = annals(data, &["sql", "-o", format, by_nothing]);
        let told = stderr(&failed);
        assert!(!failed.status.success(), "{format}");
        assert!(
            told.to_lowercase().contains("divide by zero"),
            "{format}: {told}"
        );
    }
}

#[test]
fn a_message_in_a_map_that_has_grown_a_field_is_read_from_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = Server::start(data, &["--seal-after", "1h", "--convert-after", "1h"]);
    let push = |home: &str| {
        let text = format!(
            "syntax = \"proto3\"; package moving.v1; message Home {{ {home} }} \
             message Moved {{ string name = 1; map<string, Home> homes = 2; }}"
        );
        let path = dir.path().join("moved.proto");
        std::fs::write(&path, text).unwrap();
        expect(0, data, &["schema", "push", path.to_str().unwrap()]);
    };
    let publish = |id: &str, event: &str| {
        expect(
            0,
            data,
            &["publish", "moving.v1.Moved", "--id", id, "-d", event],
        );
        expect(0, data, &["archive", "seal"]);
        expect(0, data, &["lake", "convert"]);
    };
    push("string country = 1;");
    publish("a", r#"{"name":"x","homes":{"k":{"country":"SE"}}}"#);
    push("string country = 1; string city = 2;");
    publish(
        "b",
        r#"{"name":"y","homes":{"k":{"country":"NO","city":"Oslo"}}}"#,
    );
    let names = "SELECT id, payload.name AS name FROM moving.v1.Moved ORDER BY id";
    let expected = [
        value!({"id": "a", "name": "x"}),
        value!({"id": "b", "name": "y"}),
    ];
    assert_eq!(ask(data, names), expected);
    let homes = "SELECT payload.homes AS homes FROM moving.v1.Moved ORDER BY id";
    let expected = [
        value!({"homes": {"k": {"country": "SE", "city": null}}}),
        value!({"homes": {"k": {"country": "NO", "city": "Oslo"}}}),
    ];
    assert_eq!(ask(data, homes), expected);
    assert!(server.terminate().success());
}

#[test]
fn the_ten_questions_of_the_guide_have_answers() {
    let page = std::fs::read_to_string(root().join("docs/guide/asking-history.md")).unwrap();
    let questions: Vec<&str> = page
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(questions.len(), 10);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("tour");
    expect(
        0,
        dir.path(),
        &["tour", "-q", "--dir", data.to_str().unwrap()],
    );
    for sql in questions {
        assert!(!ask(&data, sql).is_empty(), "{sql}");
    }
}

#[test]
fn tables_made_anew_have_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("tour");
    expect(
        0,
        dir.path(),
        &["tour", "-q", "--dir", data.to_str().unwrap()],
    );
    let sql = "SELECT * FROM vcs.v1.CommitPushed ORDER BY position, ordinal";
    let before = ask(&data, sql);
    assert!(before.len() > 4000);
    let rebuilt = json(&data, &["lake", "rebuild"]);
    for table in rebuilt.as_array().unwrap() {
        assert_eq!(table["rows"], table["rows_before"], "{table}");
    }
    assert_eq!(ask(&data, sql), before);
    // Nothing left of the lake: the archive is enough, and the lake is made again.
    std::fs::remove_dir_all(data.join("bucket/lake")).unwrap();
    assert_eq!(ask(&data, sql), before);
    expect(0, &data, &["lake", "convert"]);
    assert!(files(&data.join("bucket/lake")).len() > 4);
    assert_eq!(ask(&data, sql), before);
    expect(0, &data, &["lake", "status"]);
}

#[test]
fn the_whole_data_file_is_counted_as_its_description_says() {
    let Some(file) = data_file() else {
        eprintln!("SKIPPED: no data file; name it with ANNALS_DATA_FILE");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Server::start(data, &["--convert-after", "5s"]);
    push_schemas(data);
    expect(
        0,
        data,
        &["publish", "--from", file.to_str().unwrap(), "-q"],
    );
    expect(0, data, &["archive", "seal"]);
    expect(0, data, &["lake", "convert"]);
    check_whole(data);
    let tables = json(data, &["lake", "tables"]);
    let tables = tables.as_array().unwrap();
    let files: u64 = tables.iter().map(|t| t["files"].as_u64().unwrap()).sum();
    eprintln!("Parquet files after the import: {files}");
    assert!(files <= 50, "{tables:?}");
    assert!(server.terminate().success());
    check_whole(data);
}

fn check_whole(data: &Path) {
    let by_type = "SELECT type, count(*) AS n FROM events GROUP BY type ORDER BY n";
    assert_eq!(
        ask(data, by_type),
        [
            value!({"type": "vcs.v1.TagCreated", "n": 1789}),
            value!({"type": "vcs.v1.CommitPushed", "n": 231_196}),
        ]
    );
    let by_subject = "SELECT subject, count(*) AS n FROM events GROUP BY subject ORDER BY n DESC";
    let subjects = ask(data, by_subject);
    let counts: Vec<u64> = subjects.iter().map(|s| s["n"].as_u64().unwrap()).collect();
    assert_eq!(
        counts,
        [82909, 45142, 21781, 19943, 18208, 16678, 12491, 8184, 7649]
    );
    let disorder = "SELECT count(*) AS n FROM (SELECT time, lag(time) OVER \
        (PARTITION BY subject ORDER BY position, ordinal) AS before FROM events) WHERE time < before";
    assert_eq!(ask(data, disorder), [value!({"n": 24_423})]);
}

fn data_file() -> Option<PathBuf> {
    let named = std::env::var_os("ANNALS_DATA_FILE").map(PathBuf::from);
    let beside = root().join("../shared/data/vcs-events.jsonl.zst");
    named.or(Some(beside)).filter(|path| path.exists())
}
