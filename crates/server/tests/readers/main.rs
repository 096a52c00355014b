//! The lake, read by others: DuckDB, delta-rs, Polars and Spark answer as `annals sql` does.
//!
//! The tables have all that makes reading them hard: nested columns of every kind, files from before
//! and after a schema grew, files that were removed again, and a checkpoint in the log. Every
//! engine is asked for counts, nulls, least and greatest values, ranges, fields of payloads, and
//! for all rows as they stand.

mod support;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json as value};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::services::{Store, services_dir, skipped};
use support::{Server, expect, files, json, root, sample, tags};

const READERS: [&str; 4] = ["duckdb", "deltalake", "polars", "spark"];
const SEEN: &str = "zoo.v1.Seen";
/// Events of each revision of the schema.
const SEEN_EACH: u64 = 60;
/// 5,000 commits, 200 tags, what was seen, one that cannot be decoded, and three of no schema.
const EVENTS: u64 = 5_000 + 200 + 2 * SEEN_EACH + 1 + 3;

#[tokio::test(flavor = "multi_thread")]
async fn other_engines_answer_as_annals_does() {
    let readers = installed(&READERS);
    if readers.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = Server::start(data, &["--seal-after", "1h", "--convert-after", "1h"]);
    history(&server, dir.path()).await;
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

// --- history ---

/// Converted in several steps, with a schema that grows, and tables made anew.
async fn history(server: &Server, dir: &Path) {
    let data = &server.data;
    // No schema yet: it stays as it is, and will not decode.
    expect(
        0,
        data,
        &["publish", SEEN, "--id", "wrong", "-d", r#"{"nothing":1}"#],
    );
    push_schemas(data, &dir.join("first"), 1);
    let text = zstd::decode_all(std::fs::File::open(sample()).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let commits: Vec<&str> = text.lines().collect();
    publish(data, dir, &commits[..2_000].join("\n"));
    publish(data, dir, &seen(1, 0));
    convert(data);
    foreign(&server.amqp_uri()).await;
    publish(data, dir, &commits[2_000..4_000].join("\n"));
    expect(0, data, &["publish", "--from", &tags(), "-q"]);
    publish(data, dir, &seen(1, SEEN_EACH / 2));
    convert(data);
    push_schemas(data, &dir.join("second"), 2);
    publish(data, dir, &commits[4_000..].join("\n"));
    publish(data, dir, &seen(2, SEEN_EACH));
    publish(data, dir, &seen(2, SEEN_EACH * 3 / 2));
    // Copies of what is there: in no table.
    publish(data, dir, &commits[..500].join("\n"));
    convert(data);
    for table in ["events", "vcs.v1.CommitPushed"] {
        expect(0, data, &["lake", "rebuild", "--table", table]);
    }
}

fn push_schemas(data: &Path, dir: &Path, revision: u64) {
    let text = std::fs::read_to_string(tests().join("readers/seen.proto")).unwrap();
    let text = if revision == 2 {
        text.replace("//2", "")
    } else {
        text
    };
    std::fs::create_dir_all(dir.join("zoo/v1")).unwrap();
    std::fs::write(dir.join("zoo/v1/seen.proto"), text).unwrap();
    let vcs = root().join("examples/vcs/vcs/v1");
    std::fs::create_dir_all(dir.join("vcs/v1")).unwrap();
    for name in ["commit_pushed.proto", "tag_created.proto"] {
        std::fs::copy(vcs.join(name), dir.join("vcs/v1").join(name)).unwrap();
    }
    let pushed = json(data, &["schema", "push", dir.to_str().unwrap()]);
    assert_eq!(pushed["revision"], revision);
}

fn publish(data: &Path, dir: &Path, lines: &str) {
    let path = dir.join("lines.jsonl");
    std::fs::write(&path, lines).unwrap();
    expect(
        0,
        data,
        &["publish", "--from", path.to_str().unwrap(), "-q"],
    );
}

fn convert(data: &Path) {
    expect(0, data, &["archive", "seal"]);
    expect(0, data, &["lake", "convert"]);
}

/// Half the events of a revision, one a line: every field there and not there, some at its bounds.
fn seen(revision: u64, from: u64) -> String {
    let line = |n: u64| {
        let mut event = value!({
            "specversion": "1.0", "id": format!("z-{n}"), "source": "/zoo", "type": SEEN,
            "time": format!("2021-06-{:02}T00:00:00.{:06}Z", n % 28 + 1, n * 7919 % 1_000_000),
            "data": payload(revision, n),
        });
        match n % 6 {
            0 => {}
            1 => event["subject"] = "длинный ".repeat(50).into(),
            rest => event["subject"] = format!("s-{rest}").into(),
        }
        if n % 3 == 0 {
            event["entityversion"] = (u64::MAX - n).to_string().into();
        }
        if n % 4 == 1 {
            event["color"] = "röd".into();
            event["correlationid"] = format!("c-{n}").into();
        }
        event.to_string() + "\n"
    };
    (from..from + SEEN_EACH / 2).map(line).collect()
}

fn payload(revision: u64, n: u64) -> Value {
    let mut payload = value!({
        "name": format!("n-{n} ʒ"),
        "kind": if n % 3 == 1 { "KIND_UNSPECIFIED" } else { "KIND_CAT" },
        "weightNg": (u64::MAX - n).to_string(),
        "seenAt": format!("202{}-01-01T00:00:00.{n:06}Z", n % 7),
        "tags": vec!["a"; n as usize % 3],
        "route": vec![value!({"country": "SE", "lat": n as f64 / 4.0}); n as usize % 2],
        "speed": n as f64 / 8.0,
        "heat": n as f64 / 2.0,
        "alive": n % 2 == 0,
        "asleep": format!("{n}.5s"),
        "marker": {},
        "chip": u32::MAX - n as u32,
        "photo": "AAECgw==",
    });
    let mut set = |every: u64, field: &str, content: Value| {
        if n % every == 1 {
            payload[field] = content;
        }
    };
    set(2, "age", (-(n as i64)).into());
    set(3, "meat", "fish".into());
    set(4, "place", value!({"country": "DK", "lat": -1.5}));
    set(5, "notes", value!({"a": [1, null, "x"], "b": 1.5}));
    set(6, "nickname", "".into());
    set(7, "parent", value!({"name": "parent"}));
    set(2, "counts", value!({"x": n.to_string(), "y": "-5"}));
    set(3, "homes", value!({"2": {"country": "NO"}, "-1": {}}));
    set(11, "speed", "NaN".into());
    set(13, "speed", "-Infinity".into());
    set(15, "seenAt", "1066-10-14T00:00:00Z".into());
    if n % 3 == 2 {
        payload["bowl"] = value!({"grams": n});
    }
    if revision == 2 {
        payload["like"] = value!(vec!["KIND_OWL"; n as usize % 3]);
        payload["nests"] = value!({"b": {"country": "FI"}});
        if n % 2 == 0 {
            payload["tagNo"] = n.to_string().into();
        }
        if n % 4 == 1 {
            payload["place"]["city"] = "København".into();
        }
        if n % 3 == 2 {
            payload["bowl"]["full"] = true.into();
        }
    }
    payload
}

/// From plain clients: what is no event, and events without a schema, without time and subject.
async fn foreign(uri: &str) {
    let connection = Connection::connect(uri, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.unwrap();
    let event = |id: &str| {
        let event = value!({
            "specversion": "1.0", "id": id, "source": "/mail", "type": "mail.v1.Sent",
            "data": {"to": ["ada"]},
        });
        event.to_string()
    };
    for (media_type, body) in [
        ("text/plain", "hello".to_owned()),
        ("application/cloudevents+json", event("m-1")),
        ("application/cloudevents+json", event("m-2")),
    ] {
        let properties = BasicProperties::default().with_content_type(media_type.into());
        let options = BasicPublishOptions::default();
        let exchange = "annals.main".into();
        channel
            .basic_publish(
                exchange,
                "mail.v1.Sent".into(),
                options,
                body.as_bytes(),
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }
    connection.close(200, "bye".into()).await.unwrap();
}

// --- questions ---

/// Asks all questions of all tables, of annals and of others.
#[track_caller]
fn check(data: &Path, readers: &[&str]) {
    let types = "SELECT type, count(*) AS n FROM events GROUP BY type";
    let types = json(data, &["sql", "-q", types]);
    let more = types.to_string().contains("200") && types.to_string().contains("5000");
    assert!(more, "{types}");
    let all = json(data, &["sql", "-q", "SELECT count(*) AS n FROM events"]);
    assert!(all[0]["n"].as_u64().unwrap() >= EVENTS, "{all}");
    let day = json(data, &["sql", "-q", "SELECT max(date) AS day FROM events"]);
    let day = day[0]["day"].as_str().unwrap().to_owned();
    let questions: Vec<(&str, String)> = questions()
        .into_iter()
        .map(|(table, sql)| (table, sql.replace("{day}", &day)))
        .collect();
    let questions: Vec<(&str, &str)> = questions.iter().map(|(t, q)| (*t, q.as_str())).collect();
    let answered = |(table, sql): &(&str, &str)| {
        rows(json(
            data,
            &["sql", "-q", "--rows", "0", &of_annals(table, sql)],
        ))
    };
    let expected: Vec<Vec<Value>> = questions.iter().map(answered).collect();
    let base = lake(data).display().to_string();
    for reader in readers {
        let answers = ask(reader, &base, &questions, Value::Null);
        assert_eq!(answers.len(), questions.len());
        for ((question, expected), answer) in questions.iter().zip(&expected).zip(answers) {
            assert_eq!(answer.len(), expected.len(), "{reader}: {question:?}");
            for (answer, expected) in answer.iter().zip(expected) {
                assert_eq!(answer, expected, "{reader}: {question:?}");
            }
        }
    }
}

/// Tables and questions that all engines understand. `{payload.x}` is a field, `{day}` a day with
/// events.
fn questions() -> Vec<(&'static str, &'static str)> {
    let of_all = [
        "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM {t}",
        "SELECT count(*) - count(subject) AS subject, count(*) - count(time) AS time, \
         count(*) - count(entityversion) AS entityversion FROM {t}",
        "SELECT min(time) AS first, max(time) AS last, min(archived_at) AS since, \
         max(archived_at) AS until, min(position) AS p, max(ordinal) AS o FROM {t}",
        "SELECT subject, count(*) AS n FROM {t} GROUP BY subject",
        "SELECT count(*) AS n FROM {t} WHERE time >= '2021-06-05T00:00:00Z' \
         AND time < '2021-06-20T00:00:00.000001Z'",
        // To the microsecond: statistics, which are in milliseconds, must not hide it.
        "SELECT id FROM {t} WHERE time = '2021-06-06T00:00:00.039595Z'",
        "SELECT count(*) AS n FROM {t} WHERE time > '2021-06-06T00:00:00.039595Z'",
        "SELECT count(*) AS n FROM {t} WHERE date = '{day}'",
        "SELECT count(*) AS n FROM {t} WHERE date < '2020-01-01'",
        "SELECT count(*) AS n FROM {t} WHERE subject = 's-3'",
        "SELECT count(*) AS n FROM {t} WHERE time IS NULL",
        "SELECT * FROM {t}",
    ];
    let tables = ["events", "vcs.v1.CommitPushed", "vcs.v1.TagCreated", SEEN];
    let of_all = tables
        .into_iter()
        .flat_map(|table| of_all.map(|sql| (table, sql)));
    let of_one = [
        (
            "events",
            "SELECT type, count(*) AS n, min(time) AS first FROM {t} GROUP BY type",
        ),
        ("events", "SELECT id FROM {t} WHERE type = 'mail.v1.Sent'"),
        (
            "events",
            "SELECT count(correlationid) AS a, count(undecodable) AS b, count(payload_json) AS c, \
             sum(payload_bytes) AS d FROM {t}",
        ),
        (
            "vcs.v1.CommitPushed",
            "SELECT {payload.repo} AS repo, count(*) AS n, sum({payload.seq}) AS s, \
             max({payload.authored_at}) AS t FROM {t} GROUP BY {payload.repo}",
        ),
        (
            SEEN,
            "SELECT count({payload.age}) AS a, sum({payload.weight_ng}) AS b, \
             count({payload.place.city}) AS c, count({payload.tag_no}) AS d, \
             min({payload.seen_at}) AS e, sum({payload.asleep}) AS f, \
             count({payload.meat}) AS g, count({payload.bowl.full}) AS h, \
             min({payload.place.lat}) AS i FROM {t}",
        ),
        (
            SEEN,
            "SELECT {payload.food} AS food, {payload.kind.name} AS kind, count(*) AS n FROM {t} \
             GROUP BY {payload.food}, {payload.kind.name}",
        ),
        (
            SEEN,
            "SELECT count(*) AS n, count(decode_error) AS wrong FROM {t} WHERE {payload.name} IS NULL",
        ),
        (
            SEEN,
            "SELECT id FROM {t} WHERE {payload.weight_ng} = 18446744073709551602",
        ),
    ];
    of_all.chain(of_one).collect()
}

/// A question as annals is asked it.
fn of_annals(table: &str, sql: &str) -> String {
    sql.replace("{t}", table).replace(['{', '}'], "")
}

/// The answers of another engine.
#[track_caller]
fn ask(reader: &str, base: &str, questions: &[(&str, &str)], s3: Value) -> Vec<Vec<Value>> {
    let path = |table: &str| match table {
        "events" => format!("{base}/events"),
        event_type => format!("{base}/types/{event_type}"),
    };
    let asked = |(table, sql): &(&str, &str)| value!({"path": path(table), "sql": sql});
    let asked: Vec<Value> = questions.iter().map(asked).collect();
    let request = value!({"questions": asked, "s3": s3}).to_string();
    let mut child = script(&[reader])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(request.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let told = support::stderr(&output);
    assert!(output.status.success(), "{reader}: {told}");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    answers.into_iter().map(rows).collect()
}

/// Rows in an order of their own, as nobody was asked for one. An empty map is an empty list: not
/// all engines tell which it is.
fn rows(answer: Value) -> Vec<Value> {
    let Value::Array(mut rows) = answer else {
        panic!("no rows: {answer}");
    };
    rows.iter_mut().for_each(no_empty_maps);
    rows.sort_by_cached_key(Value::to_string);
    rows
}

fn no_empty_maps(value: &mut Value) {
    match value {
        Value::Object(fields) if fields.is_empty() => *value = Value::Array(Vec::new()),
        Value::Object(fields) => fields.values_mut().for_each(no_empty_maps),
        Value::Array(items) => items.iter_mut().for_each(no_empty_maps),
        _ => {}
    }
}

// --- what is installed, what lies there ---

/// Those of the engines that are there; the others are named.
fn installed(readers: &[&'static str]) -> Vec<&'static str> {
    let is_there = |reader: &&&str| {
        let probe = script(&["probe", reader]).output();
        let there = probe.is_ok_and(|output| output.status.success());
        if !there {
            skipped(&format!("the lake read by {reader}"), "readers");
        }
        there
    };
    readers.iter().filter(is_there).copied().collect()
}

fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new(services_dir().join("python/bin/python"));
    command
        .arg(tests().join("readers/read_lake.py"))
        .args(arguments);
    command
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
