//! `annals replay --sql` from outside: what a question answers with is what is delivered, byte for
//! byte and once, and what is no list of events is refused.
//!
//! `ANNALS_REPLAY_QUERIES` says how many questions are made up; they are the same in every run.

mod support;

use annals_bus::{AmqpBus, Bus, Publisher, PublisherOptions};
use annals_core::system::{SystemClock, SystemRandom};
use annals_core::{Event, EventBuilder};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::services::print_past_capture;
use support::{Server, annals, command, expect, frames, json, root, sample, stderr, tags};

const QUERIES: u64 = 25;
/// Questions asked at a time: as many lists as a server replays at once.
const LANES: u64 = 2;
const PLACED: u64 = 400;

type Key = (String, String);
type Bytes = BTreeMap<Key, Vec<u8>>;

#[tokio::test(flavor = "multi_thread")]
async fn made_up_questions_replay_what_they_answer() {
    let queries = std::env::var("ANNALS_REPLAY_QUERIES").map_or(QUERIES, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let (server, known) = history(data, dir.path()).await;
    let (delivered, empty) = (AtomicU64::new(0), AtomicU64::new(0));
    let ask = |number: u64| {
        let sql = Draw::new(number, &known).question();
        let count = check(data, dir.path(), number, &sql, &known.bytes);
        delivered.fetch_add(count, Ordering::Relaxed);
        empty.fetch_add(u64::from(count == 0), Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let ask = &ask;
            scope.spawn(move || (lane..queries).step_by(LANES as usize).for_each(ask));
        }
    });
    assert!(server.terminate().success());
    // From the directory: the same.
    (queries..queries + 5).for_each(ask);
    let (delivered, empty) = (delivered.into_inner(), empty.into_inner());
    print_past_capture(&format!(
        "{} questions replayed, {delivered} events delivered, {empty} of them had no events",
        queries + 5
    ));
    assert!(delivered > queries && empty < queries / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_given_as_a_list_replays_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let (server, known) = history(data, dir.path()).await;
    expect(0, data, &["archive", "seal"]);
    let sql = "SELECT id, type, source FROM events WHERE time < '2019-01-01' OR subject = 'o-3'";
    let expected = keys(&answer(data, sql));
    assert!(expected.len() > 100);
    let list = dir.path().join("list.jsonl");
    let rows = answer(data, sql);
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&list, &lines).unwrap();
    let asked = dir.path().join("asked.binpb");
    expect(0, data, &["replay", "--sql", sql, "--to", &target(&asked)]);
    same(&asked, &expected, &known.bytes, sql);
    let listed = dir.path().join("listed.binpb");
    let from = list.to_str().unwrap();
    expect(
        0,
        data,
        &["replay", "--ids", from, "--to", &target(&listed)],
    );
    let piped = dir.path().join("piped.binpb");
    let mut child = command(data)
        .args(["replay", "--ids", "-", "--to", &target(&piped)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    for path in [listed, piped] {
        assert!(std::fs::read(path).unwrap() == std::fs::read(&asked).unwrap());
    }
    // Other conditions hold beside it.
    let narrowed = dir.path().join("narrowed.binpb");
    let to = target(&narrowed);
    let types = ["--types", "shop.v1.*", "--to", &to];
    expect(0, data, &[&["replay", "--sql", sql][..], &types].concat());
    let of_shop = expected.iter().filter(|key| key.0 == "/outside");
    same(&narrowed, &of_shop.cloned().collect(), &known.bytes, sql);
    assert!(server.terminate().success());
}

#[test]
fn what_is_no_list_of_events_is_refused_and_replays_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let mut server = Some(Server::start(data, &[]));
    for id in ["a", "b"] {
        support::publish(data, "shop.v1.Placed", id);
    }
    expect(0, data, &["archive", "seal"]);
    let file = dir.path().join("never.binpb");
    let cases = [
        // Without the columns, or with something else in them.
        ("SELECT type, subject FROM events", "no column source"),
        ("SELECT id FROM events", "no column source"),
        ("SELECT source FROM events", "no column id"),
        ("SELECT 1", "no column source"),
        ("SELECT source, NULL AS id FROM events", "no id"),
        (
            "SELECT CASE WHEN id = 'a' THEN source END AS source, id FROM events",
            "no source",
        ),
        ("SELECT 1 AS source, 2 AS id", "row of the answer"),
        ("SELECT source, '' AS id FROM events", "id is empty"),
        // No question, or more than one, or one only together with what is around it.
        ("", "empty"),
        ("SELEC source, id FROM events", "SELEC"),
        ("SELECT source, id FROM evnts", "did you mean events"),
        ("DROP TABLE events", "DROP is refused"),
        ("SELECT source, id FROM events; DROP TABLE events", "second"),
        (
            "SELECT source, id FROM events) AS x; DROP TABLE events --",
            "second",
        ),
        ("SELECT source, id FROM events) AS selected --", ")"),
        ("SELECT source, id FROM events) AS x, (SELECT 1 AS n", ")"),
        (
            "SELECT source, id FROM events) AS a UNION ALL SELECT source, id FROM \
             (SELECT source, id FROM events",
            ")",
        ),
        ("SELECT source, id FROM events /*", "comment"),
        ("SELECT source, id FROM events WHERE id = '", "string"),
        (
            "COPY (SELECT source, id FROM events) TO '/tmp/x.csv'",
            "COPY is refused",
        ),
        (
            "SELECT source, id FROM '/etc/passwd'",
            "no table /etc/passwd",
        ),
        (
            "INSERT INTO events SELECT * FROM events",
            "INSERT is refused",
        ),
        ("SHOW TABLES", "source and id"),
        ("EXPLAIN SELECT source, id FROM events", "source and id"),
    ];
    for served in [true, false] {
        for (sql, word) in cases {
            let to = target(&file);
            let refused = annals(data, &["replay", "--sql", sql, "--to", &to]);
            let said = stderr(&refused);
            assert!(!refused.status.success(), "{sql}: {said}");
            assert!(said.contains(word), "{sql}: {said}");
            assert!(said.contains("columns source and id"), "{sql}: {said}");
            assert!(!file.exists() && refused.stdout.is_empty(), "{sql}");
            assert!(!data.join("bucket/replays").exists(), "{sql}");
        }
        if served {
            // It is still there, and answers.
            let counted = json(data, &["sql", "-q", "SELECT count(*) AS n FROM events"]);
            assert_eq!(counted[0]["n"], 2);
            let all = "SELECT source, id FROM events";
            expect(0, data, &["replay", "--sql", all, "--dry-run"]);
            assert!(server.take().unwrap().terminate().success());
        }
    }
}

#[test]
fn events_of_an_answer_that_are_not_archived_are_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = Server::start(data, &[]);
    support::publish(data, "shop.v1.Placed", "a");
    support::publish(data, "shop.commands.v1.Place", "c");
    let sql = "SELECT source, id FROM events UNION ALL SELECT source, id FROM events \
               UNION ALL SELECT '/nobody', 'none'";
    let file = dir.path().join("found.binpb");
    let arguments = ["replay", "--sql", sql, "--to", &target(&file), "-o", "json"];
    let ended = annals(data, &arguments);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(8), "{said}");
    assert!(
        said.contains("1 of 3 listed") && said.contains("/nobody none"),
        "{said}"
    );
    let receipt: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let counts = ["selected", "delivered", "missing", "commands_left_out"];
    let counts = counts.map(|name| receipt[name].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 1, 1], "{receipt}");
    assert_eq!(frames(&file).len(), 1);
    let none = [
        "replay",
        "--sql",
        "SELECT source, id FROM events WHERE false",
        "--dry-run",
    ];
    expect(0, data, &none);
    expect(3, data, &[&none[..], &["--fail-empty"]].concat());
    assert!(server.terminate().success());
}

// --- history ---

/// What is archived, in all the places an event can be: in the lake, in the archive only, and in
/// the archiver's memory.
struct Known {
    bytes: Bytes,
    /// Ids of commits, a part of them.
    ids: Vec<String>,
    subjects: Vec<String>,
}

async fn history(data: &Path, scratch: &Path) -> (Server, Known) {
    let server = Server::start(data, &["--seal-after", "1h", "--convert-after", "1h"]);
    let schemas = root().join("examples/vcs").display().to_string();
    expect(0, data, &["schema", "push", &schemas]);
    expect(0, data, &["publish", "--from", &sample(), "-q"]);
    expect(0, data, &["archive", "seal"]);
    expect(0, data, &["lake", "convert"]);
    expect(0, data, &["publish", "--from", &tags(), "-q"]);
    expect(0, data, &["archive", "seal"]);
    let all = scratch.join("all.binpb");
    expect(0, data, &["replay", "--to", &target(&all)]);
    let mut bytes: Bytes = frames(&all).iter().map(with_key).collect();
    let ids = bytes.keys().map(|key| key.1.clone()).step_by(7).collect();
    let subjects: BTreeSet<String> = frames(&all)
        .iter()
        .filter_map(|event| event.header().subject.map(str::to_owned))
        .collect();
    bytes.extend(publish(&server.amqp_uri()).await.iter().map(with_key));
    assert_eq!(bytes.len() as u64, 5_200 + PLACED);
    let known = Known {
        bytes,
        ids,
        subjects: subjects.into_iter().collect(),
    };
    (server, known)
}

/// Events whose bytes are known from outside.
async fn publish(uri: &str) -> Vec<Event> {
    let bus: Arc<dyn Bus> = Arc::new(AmqpBus::connect(uri, Default::default()).await.unwrap());
    let options = PublisherOptions::of_bus("main", "outside");
    let publisher = Publisher::new(bus, options, Arc::new(SystemClock), Arc::new(SystemRandom));
    let event = |number| {
        let event_type = ["shop.v1.Placed", "shop.v1.Paid"][number as usize % 2];
        EventBuilder::new(event_type, "/outside", format!("o'{number}"))
            .unwrap()
            .subject(format!("o-{}", number % 17))
            .unwrap()
            .time("2026-11-21T09:00:00Z".parse().unwrap())
            .json(format!("{{\"number\":{number}}}"))
            .build()
            .unwrap()
    };
    let results = publisher
        .publish_events((0..PLACED).map(event).collect())
        .await;
    results
        .into_iter()
        .map(|result| result.unwrap().event)
        .collect()
}

fn with_key(event: &Event) -> (Key, Vec<u8>) {
    let (source, id) = event.header().key();
    ((source.to_owned(), id.to_owned()), event.bytes().to_vec())
}

// --- one question ---

/// Asks, replays, and compares; how many events it was.
#[track_caller]
fn check(data: &Path, scratch: &Path, number: u64, sql: &str, known: &Bytes) -> u64 {
    let expected = keys(&answer(data, sql));
    let file = scratch.join(format!("{number}.binpb"));
    let receipt = json(data, &["replay", "--sql", sql, "--to", &target(&file)]);
    assert_eq!(receipt["delivered"], expected.len(), "{sql}");
    assert_eq!(receipt["selected"], receipt["delivered"], "{sql}");
    same(&file, &expected, known, sql);
    std::fs::remove_file(file).unwrap();
    expected.len() as u64
}

/// The file has these events, each once, with the bytes they have.
#[track_caller]
fn same(file: &Path, expected: &BTreeSet<Key>, known: &Bytes, sql: &str) {
    let events: Vec<(Key, Vec<u8>)> = frames(file).iter().map(with_key).collect();
    let delivered: BTreeSet<Key> = events.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(delivered.len(), events.len(), "each once: {sql}");
    assert!(
        delivered == *expected,
        "{sql}: {} for {}",
        delivered.len(),
        expected.len()
    );
    for (key, bytes) in events {
        assert!(known[&key] == bytes, "{key:?}: {sql}");
    }
}

#[track_caller]
fn answer(data: &Path, sql: &str) -> Vec<Value> {
    let rows = json(data, &["sql", "-q", "--rows", "0", sql]);
    rows.as_array().unwrap().clone()
}

fn keys(rows: &[Value]) -> BTreeSet<Key> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let key = |row: &Value| (text(row, "source"), text(row, "id"));
    rows.iter().map(key).collect()
}

fn target(path: &Path) -> String {
    format!("file:{}", path.display())
}

// --- questions ---

/// Makes up questions; of a number always the same.
struct Draw<'a> {
    seed: u64,
    known: &'a Known,
}

impl<'a> Draw<'a> {
    fn new(number: u64, known: &'a Known) -> Self {
        let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        Self { seed, known }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.seed >> 33) % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn question(&mut self) -> String {
        let inner = match self.below(8) {
            0 => self.joined(),
            1 => format!(
                "{} UNION ALL {}",
                self.plain("source, id"),
                self.plain("source, id")
            ),
            2 => {
                let plain = self.plain("source, id, time");
                format!("WITH some AS ({plain}) SELECT id, source FROM some -- the list")
            }
            3 => self.plain("DISTINCT source, id"),
            4 => format!("SELECT type AS x, * FROM ({})", self.plain("*, 1 AS one")),
            _ => self.plain("source, id, subject"),
        };
        let end = self.one_of(&["", ";", " ; \n", "\n"]);
        // A comment would hide what comes after it on its line.
        let end = if inner.contains("--") { "" } else { end };
        inner + end
    }

    fn plain(&mut self, columns: &str) -> String {
        let tables = [
            "events",
            "events",
            "vcs.v1.CommitPushed",
            "TagCreated",
            "shop.v1.Placed",
        ];
        let mut table = self.one_of(&tables).to_owned();
        if columns.contains('*') && !columns.contains("DISTINCT") {
            // `type` is a column of this one only.
            table = "events".to_owned();
        } else if self.below(9) == 0 {
            table = "latest('vcs.v1.CommitPushed')".to_owned();
        }
        let mut sql = format!("SELECT {columns} FROM {table}");
        for n in 0..self.below(3) {
            let word = if n == 0 {
                "WHERE"
            } else {
                self.one_of(&["AND", "AND", "OR"])
            };
            let condition = self.condition(&table);
            write!(sql, " {word} {condition}").unwrap();
        }
        if self.below(3) == 0 && !columns.contains('*') {
            let limit = self.below(300);
            // A total order: what is cut off is no accident.
            write!(sql, " ORDER BY id, source LIMIT {limit}").unwrap();
            return format!("SELECT * FROM ({sql}) AS first");
        }
        sql
    }

    fn condition(&mut self, table: &str) -> String {
        let year = 2010 + self.below(17);
        let subject = self.subject();
        match self.below(if table.contains("CommitPushed") {
            12
        } else {
            9
        }) {
            0 => format!("subject = '{subject}'"),
            1 => format!("subject IN ('{subject}', '{}', 'nobody')", self.subject()),
            2 => format!(
                "time >= '{year}-03-01' AND time < '{}-01-01'",
                year + self.below(3)
            ),
            3 => format!("id IN ({})", self.ids()),
            4 => format!("(id LIKE '{:x}%' OR id LIKE 'tag-%')", self.below(16)),
            5 => format!("position <= {}", 1 + self.below(3)),
            6 => format!("source <> '/vcs/{subject}'"),
            7 if table == "events" => {
                let types = ["vcs.v1.TagCreated", "shop.v1.Paid", "vcs.v1.CommitPushed"];
                format!("type = '{}'", self.one_of(&types))
            }
            7 => "false".to_owned(),
            8 => format!("ordinal % {} = 1", 2 + self.below(40)),
            9 => format!("payload.seq BETWEEN {} AND 90", self.below(60)),
            10 => "cardinality(payload.parents) > 1".to_owned(),
            _ => "payload.subject ILIKE '%fix%'".to_owned(),
        }
    }

    fn joined(&mut self) -> String {
        let subject = self.subject();
        match self.below(4) {
            0 => "SELECT c.source, c.id FROM vcs.v1.CommitPushed c \
                  JOIN vcs.v1.TagCreated t ON c.payload.sha = t.payload.sha"
                .to_owned(),
            1 => format!(
                "SELECT t.source, t.id FROM vcs.v1.TagCreated t JOIN events e \
                 ON e.subject = t.subject AND e.time > t.time WHERE e.subject = '{subject}'"
            ),
            2 => format!(
                "SELECT source, id FROM events WHERE subject IN \
                 (SELECT subject FROM vcs.v1.TagCreated WHERE subject <> '{subject}') \
                 AND ordinal % 7 = {}",
                self.below(7)
            ),
            _ => "SELECT e.source, e.id FROM events e LEFT JOIN shop.v1.Placed p ON e.id = p.id \
                  AND e.source = p.source WHERE p.id IS NULL AND e.type LIKE 'shop.%'"
                .to_owned(),
        }
    }

    fn subject(&mut self) -> String {
        let known = self.known;
        match self.below(4) {
            0 => format!("o-{}", self.below(20)),
            _ => known.subjects[self.below(known.subjects.len() as u64) as usize].clone(),
        }
    }

    /// Ids as a list in SQL, some of which nobody has.
    fn ids(&mut self) -> String {
        let known = self.known;
        let mut ids = Vec::new();
        for _ in 0..1 + self.below(60) {
            ids.push(match self.below(5) {
                0 => format!("'o''{}'", self.below(2 * PLACED)),
                1 => "'nobody'".to_owned(),
                _ => {
                    let at = self.below(known.ids.len() as u64) as usize;
                    format!("'{}'", known.ids[at])
                }
            });
        }
        ids.join(", ")
    }
}
