//! Questions that all engines understand, and how they are asked.

use crate::history::{EVENTS, SEEN};
use crate::support::services::{services_dir, skipped};
use crate::support::{json, stderr};
use crate::{lake, tests};
use serde_json::{Value, json as value};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Asks all questions of all tables, of annals and of others.
#[track_caller]
pub(crate) fn check(data: &Path, readers: &[&str]) {
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
pub(crate) fn of_annals(table: &str, sql: &str) -> String {
    sql.replace("{t}", table).replace(['{', '}'], "")
}

/// The answers of another engine.
#[track_caller]
pub(crate) fn ask(
    reader: &str,
    base: &str,
    questions: &[(&str, &str)],
    s3: Value,
) -> Vec<Vec<Value>> {
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
    let told = stderr(&output);
    assert!(output.status.success(), "{reader}: {told}");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    answers.into_iter().map(rows).collect()
}

/// Rows in an order of their own, as nobody was asked for one. An empty map is an empty list: not
/// all engines tell which it is.
pub(crate) fn rows(answer: Value) -> Vec<Value> {
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

/// Those of the engines that are there; the others are named.
pub(crate) fn installed(readers: &[&'static str]) -> Vec<&'static str> {
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

pub(crate) fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new(services_dir().join("python/bin/python"));
    command
        .arg(tests().join("readers/read_lake.py"))
        .args(arguments);
    command
}
