//! What verbs print: every verb in every format, and how each ends.

mod support;

use serde_json::Value;
use std::process::{Output, Stdio};
use support::{Server, annals, command, expect, frames, json, publish, stderr};

/// Verbs that list or report, with what they need.
const VERBS: [&[&str]; 13] = [
    &["archive", "ls"],
    &["archive", "stats"],
    &["archive", "stats", "--by-day"],
    &["archive", "cat"],
    &["archive", "verify"],
    &["archive", "seal"],
    &["schema", "list"],
    &["tail", "--since", "-1h", "--stop-at-end"],
    &["replay", "--dry-run"],
    &["replay", "--to", "private"],
    &["publish", "vcs.v1.TagCreated", "-d", "{}"],
    &["doctor"],
    &["version"],
];

#[test]
fn every_verb_prints_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Server::start(data, &[]);
    let protos = support::root().join("examples/vcs");
    expect(0, data, &["schema", "push", protos.to_str().unwrap()]);
    publish(data, "vcs.v1.TagCreated", "one");
    publish(data, "=cmd.v1.Formula", "two");
    expect(0, data, &["archive", "seal"]);
    for verb in VERBS {
        let in_format = |format: &str| expect(0, data, &[verb, &["-o", format]].concat());
        let parsed = serde_json::from_str::<Value>(&in_format("json"));
        assert!(
            parsed.is_ok_and(|v| v.is_array() || v.is_object()),
            "{verb:?}"
        );
        let lines = in_format("jsonl");
        assert!(!lines.is_empty(), "{verb:?}");
        for line in lines.lines() {
            let parsed = serde_json::from_str::<Value>(line);
            assert!(parsed.is_ok_and(|v| v.is_object()), "{verb:?}: {line}");
        }
        let csv = in_format("csv");
        let header = csv.lines().next().unwrap();
        let named = |c: char| c.is_ascii_lowercase() || "_,".contains(c);
        assert!(header.chars().all(named), "{verb:?}: {header}");
        let formula = csv
            .lines()
            .flat_map(|l| l.split(','))
            .any(|cell| cell.starts_with('='));
        assert!(!formula, "{verb:?}: {csv}");
        let table = in_format("table");
        assert!(
            table.lines().all(|line| !line.starts_with('{')),
            "{verb:?}: {table}"
        );
        assert!(!table.trim().is_empty(), "{verb:?}");
    }
    assert!(server.terminate().success());
}

#[test]
fn data_goes_to_standard_output_and_all_else_to_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let _server = Server::start(data, &[]);
    publish(data, "shop.v1.OrderPlaced", "one");
    let tail = ["tail", "--since", "-1h", "-n", "1", "-o", "jsonl"];
    let ended = annals(data, &tail);
    assert_eq!(String::from_utf8(ended.stdout).unwrap().lines().count(), 1);
    for verb in VERBS.iter().filter(|verb| verb[0] != "doctor") {
        let ended = annals(data, &[*verb, &["-q"]].concat());
        assert_eq!(stderr(&ended), "", "{verb:?}");
    }
    let refused = annals(
        data,
        &["archive", "cat", "--id", "no", "--fail-empty", "-q"],
    );
    assert_eq!(stderr(&refused), "error: no event matched\n");
}

#[test]
fn each_exit_code_means_what_the_help_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let bad = dir.path().join("bad.jsonl");
    std::fs::write(&bad, "nonsense\n").unwrap();
    let bad = bad.to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let server = Server::start(data, &[]);
    publish(data, "shop.v1.OrderPlaced", "one");
    expect(0, data, &["archive", "seal"]);
    for (code, arguments) in [
        (0, &["--help"][..]),
        (0, &["--version"]),
        (0, &["replay", "--help"]),
        (2, &[]),
        (2, &["nonsense"]),
        (2, &["publish"]),
        (2, &["publish", "t", "-a", "no-equals-sign"]),
        (2, &["up", "--seal-after", "1d"]),
        (3, &["archive", "cat", "--types", "nobody", "--fail-empty"]),
        (3, &["publish", "--from", "no-such-file.jsonl"]),
        (3, &["schema", "push", empty]),
        (4, &["publish", "t", "-d", "no JSON"]),
        (4, &["publish", "t", "--id", ""]),
        (4, &["publish", "--from", bad]),
        (4, &["schema", "push", bad]),
        (5, &["up", "--port", "0", "--amqp-port", "0"]),
        (6, &["tail", "--server", "http://127.0.0.1:1"]),
        (6, &["publish", "t", "--amqp", "amqp://127.0.0.1:1/%2f"]),
        (7, &["replay", "--to", "private:annals.main.archive"]),
        (8, &["publish", "--from", bad, "--keep-going"]),
    ] {
        let ended = annals(data, arguments);
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(code == 0, said.is_empty(), "{arguments:?}: {said}");
    }
    assert!(server.terminate().success());
    let segment = json(data, &["archive", "ls"])[0]["segment"].clone();
    std::fs::remove_file(data.join("bucket").join(segment.as_str().unwrap())).unwrap();
    expect(9, data, &["archive", "verify"]);
}

#[test]
fn bad_data_for_a_schema_is_refused_by_the_name_of_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let _server = Server::start(data, &[]);
    let protos = support::root().join("examples/vcs");
    let pushed = json(data, &["schema", "push", protos.to_str().unwrap()]);
    assert_eq!(
        (&pushed["revision"], &pushed["types"]),
        (&1.into(), &2.into())
    );
    let listed = json(data, &["schema", "list"]);
    assert_eq!(listed[1]["type"], "vcs.v1.TagCreated");
    assert_eq!(listed[1]["file"], "vcs/v1/tag_created.proto");

    let tag = r#"{"repo":"a/b","tag":"v1"}"#;
    expect(
        0,
        data,
        &["publish", "vcs.v1.TagCreated", "--id", "t-1", "-d", tag],
    );
    // A type without a schema stays JSON, byte for byte.
    let text = "{\"total\" : 42.0}";
    expect(
        0,
        data,
        &["publish", "shop.v1.OrderPlaced", "--id", "o-1", "-d", text],
    );
    expect(0, data, &["archive", "seal"]);
    let file = dir.path().join("all.binpb");
    let target = format!("file:{}", file.display());
    expect(0, data, &["replay", "--to", &target]);
    let events = frames(&file);
    let media = |i: usize| events[i].header().data_content_type;
    assert_eq!(media(0), Some("application/protobuf"));
    assert_eq!(events[0].header().data.bytes(), b"\x0a\x03a/b\x12\x02v1");
    assert_eq!(media(1), Some("application/json"));
    assert_eq!(events[1].header().data.bytes(), text.as_bytes());

    let wrong = annals(
        data,
        &["publish", "vcs.v1.TagCreated", "-d", r#"{"tagg":"v1"}"#],
    );
    assert_eq!(wrong.status.code(), Some(4));
    assert!(stderr(&wrong).contains("tagg"), "{}", stderr(&wrong));
    let broken = dir.path().join("broken.proto");
    std::fs::write(&broken, "syntax = \"proto3\"; message {").unwrap();
    let refused = annals(data, &["schema", "push", broken.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(
        stderr(&refused).contains("broken.proto"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(json(data, &["schema", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn a_signal_stops_a_server_cleanly_with_all_it_confirmed_archived() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let server = Server::start(data, &["--seal-after", "1h"]);
        expect(0, data, &["publish", "--from", &support::sample()]);
        let ended = server.stop(signal);
        assert!(ended.success(), "{signal}: {ended}");
        assert!(!data.join("annals.json").exists(), "{signal}");
        let stats = json(data, &["archive", "stats"]);
        assert_eq!(stats["events"], 5_000, "{signal}");
        assert_eq!(stats["duplicates"], 0, "{signal}");
    }
}

#[test]
fn payloads_come_from_files_and_standard_input_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let _server = Server::start(data, &[]);
    let file = dir.path().join("order.json");
    std::fs::write(&file, r#"{"total":1}"#).unwrap();
    let argument = format!("@{}", file.display());
    expect(0, data, &["publish", "t.A", "-d", &argument]);
    let fed = |arguments: &[&str], input: &str| -> Output {
        use std::io::Write as _;
        let mut child = command(data)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    assert!(
        fed(&["publish", "t.B", "-d", "-"], r#"{"total":2}"#)
            .status
            .success()
    );
    // What cat prints is what publish reads.
    expect(0, data, &["archive", "seal"]);
    let kept = expect(0, data, &["archive", "cat"]);
    assert_eq!(kept.lines().count(), 2);
    assert!(fed(&["publish", "--from", "-"], &kept).status.success());
    expect(0, data, &["archive", "seal"]);
    let stats = json(data, &["archive", "stats"]);
    assert_eq!(
        (&stats["events"], &stats["records"]),
        (&2.into(), &4.into())
    );
    assert_eq!(stats["conflicts"], 0, "published again, the same bytes");
}
