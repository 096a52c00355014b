//! `annals up` and the verbs that talk to it.

mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use support::{Server, annals, command, expect, json as run_json, sample, stderr};

const LINE: &str = r#"{"specversion":"1.0","id":"ID","source":"/shop","type":"shop.v1.OrderPlaced","subject":"o-1","time":"2026-11-21T09:00:00Z","data":{"total":42}}"#;

fn line(id: &str) -> String {
    LINE.replace("ID", id)
}

#[test]
fn one_process_runs_on_a_directory_and_the_second_is_told_which() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let second = annals(dir.path(), &["up", "--port", "0", "--amqp-port", "0"]);
    assert_eq!(second.status.code(), Some(5));
    let said = stderr(&second);
    assert!(
        said.contains(&format!("process {}", server.pid())),
        "{said}"
    );
    assert!(said.contains("next:"), "{said}");
    assert!(server.terminate().success());
    assert!(Server::start(dir.path(), &[]).terminate().success());
}

#[test]
fn a_busy_port_is_named_with_the_flag_that_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = annals(dir.path(), &["up", "--port", "0", "--amqp-port", &port]);
    assert_eq!(ended.status.code(), Some(5));
    assert!(stderr(&ended).contains("--amqp-port"), "{}", stderr(&ended));
}

#[test]
fn what_is_published_is_archived_at_the_latest_by_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--seal-after", "3600"]);
    let receipt = run_json(
        dir.path(),
        &[
            "publish",
            "shop.v1.OrderPlaced",
            "--id",
            "o-17",
            "--subject",
            "o-17",
            "-d",
            "{\"total\":42}",
            "-a",
            "traceparent=00-x",
        ],
    );
    assert_eq!(receipt["id"], "o-17");
    assert_eq!(receipt["held_by"], "bus");
    assert!(server.terminate().success());

    let events = expect(0, dir.path(), &["archive", "cat", "--subject", "o-17"]);
    let event: Value = serde_json::from_str(&events).unwrap();
    assert_eq!(event["id"], "o-17");
    assert_eq!(event["traceparent"], "00-x");
    assert_eq!(event["data"], json!({"total": 42}));
    expect(
        3,
        dir.path(),
        &["archive", "cat", "--id", "nobody", "--fail-empty"],
    );
}

#[test]
fn without_a_server_verbs_end_with_unreachable_and_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("none");
    for arguments in [
        &["publish", "t", "-d", "1"][..],
        &["publish", "--from", "x.jsonl"],
        &["tail"],
        &["archive", "stats"],
        &["archive", "verify"],
        &["replay", "--dry-run"],
        &["schema", "push", "."],
    ] {
        let ended = annals(&data, arguments);
        let said = stderr(&ended);
        let usage = said.contains("no .proto file");
        assert!(
            ended.status.code() == Some(6) || usage,
            "{arguments:?}: {said}"
        );
        assert!(
            usage || said.contains("next: annals up"),
            "{arguments:?}: {said}"
        );
        assert!(ended.stdout.is_empty(), "{arguments:?}");
    }
    assert!(!data.exists(), "looking makes nothing");
}

#[test]
fn a_file_is_published_with_its_schemas_verified_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let protos = support::root().join("examples/vcs");
    let pushed = run_json(&data, &["schema", "push", protos.to_str().unwrap()]);
    assert_eq!(pushed["revision"], 1);
    let listed = run_json(&data, &["schema", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);

    let report = run_json(&data, &["publish", "--from", &sample()]);
    assert_eq!(
        (&report["published"], &report["bad"]),
        (&json!(5000), &json!(0))
    );
    let report = run_json(&data, &["publish", "--from", &support::tags()]);
    assert_eq!(report["published"], 200);
    expect(0, &data, &["archive", "seal"]);
    let stats = run_json(&data, &["archive", "stats"]);
    assert_eq!(stats["events"], 5200);
    assert_eq!(run_json(&data, &["archive", "verify"])["records"], 5200);
    let planned = run_json(&data, &["replay", "--types", "vcs.#", "--dry-run"]);
    assert_eq!(planned["to_deliver"], 5200);

    let file = dir.path().join("all.binpb");
    let target = format!("file:{}", file.display());
    let receipt = run_json(&data, &["replay", "--to", &target]);
    assert_eq!(receipt["delivered"], 5200);
    let events = support::frames(&file);
    assert_eq!(events.len(), 5200);
    let protobuf = Some("application/protobuf");
    assert!(
        events
            .iter()
            .all(|e| e.header().data_content_type == protobuf)
    );
    expect(5, &data, &["replay", "--to", &target]);

    // A private replay waits in its queue, and adds nothing to the archive.
    let private = run_json(
        &data,
        &[
            "replay",
            "--types",
            "vcs.v1.TagCreated",
            "--to",
            "private:rebuild",
        ],
    );
    assert_eq!(private["delivered"], 200);
    expect(0, &data, &["archive", "seal"]);
    assert_eq!(run_json(&data, &["archive", "stats"])["records"], 5200);
    expect(7, &data, &["replay", "--to", "private:annals.main.archive"]);

    // Shown as JSON by the schema, whether a server runs or not.
    let shown = |_: &str| {
        expect(
            0,
            &data,
            &["archive", "cat", "--types", "vcs.v1.TagCreated", "-n", "1"],
        )
    };
    let served = shown("by the server");
    assert!(served.contains("\"tag\":"), "{served}");
    let lines = expect(
        0,
        &data,
        &["replay", "--types", "vcs.v1.TagCreated", "--to", "stdout"],
    );
    assert_eq!(lines.lines().count() as u64, private["delivered"]);
    assert!(server.terminate().success());
    assert_eq!(shown("from the directory"), served);
}

#[test]
fn bad_lines_are_named_and_passed_over_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _server = Server::start(&data, &[]);
    let file = dir.path().join("events.jsonl");
    let text = [&line("1"), "nonsense", &line("2"), "{}"].join("\n");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();

    let stopped = annals(&data, &["publish", "--from", file, "-o", "json"]);
    assert_eq!(stopped.status.code(), Some(4));
    assert!(stderr(&stopped).contains("line 2"), "{}", stderr(&stopped));
    let report: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!(report["published"], 1);

    let passed = annals(
        &data,
        &["publish", "--from", file, "--keep-going", "-o", "json"],
    );
    assert_eq!(passed.status.code(), Some(8));
    let report: Value = serde_json::from_slice(&passed.stdout).unwrap();
    assert_eq!(
        (&report["published"], &report["bad"]),
        (&json!(2), &json!(2))
    );
    assert!(stderr(&passed).contains("line 4"), "{}", stderr(&passed));
}

#[test]
fn tail_shows_history_then_what_comes_live_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let publish = |id: &str| {
        expect(
            0,
            dir.path(),
            &["publish", "shop.v1.OrderPlaced", "--id", id, "-d", "{}"],
        );
    };
    publish("before");
    let mut tail = command(dir.path())
        .args(["tail", "shop.#", "--since", "-1h", "-n", "3", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next_id = || {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(next_id(), "before");
    expect(
        0,
        dir.path(),
        &["publish", "mail.v1.Sent", "--id", "other", "-d", "{}"],
    );
    publish("live-1");
    publish("live-2");
    assert_eq!(
        (next_id(), next_id()),
        ("live-1".to_owned(), "live-2".to_owned())
    );
    assert!(tail.wait().unwrap().success());
    drop(server);
}

#[test]
fn the_api_refuses_what_it_cannot_take_as_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let address: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("annals.json")).unwrap()).unwrap();
    let port = u16::try_from(address["http_port"].as_u64().unwrap()).unwrap();
    #[track_caller]
    fn check(port: u16, request: &str, media_type: &str, body: &str, status: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media_type}\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
        if !status.starts_with('2') {
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }
    const ONE: &str = "application/cloudevents+json";
    const BATCH: &str = "application/cloudevents-batch+json";
    check(port, "POST /v1/events", ONE, &line("1"), "202");
    check(
        port,
        "POST /v1/events",
        BATCH,
        &format!("[{},{}]", line("2"), line("3")),
        "202",
    );
    check(port, "POST /v1/events", ONE, "{}", "422");
    check(
        port,
        "POST /v1/events",
        BATCH,
        &format!("[{},{{}}]", line("4")),
        "422",
    );
    check(port, "POST /v1/events", "text/plain", "x", "415");
    check(port, "GET /v1/nothing", ONE, "", "404");
    check(port, "GET /v1/archive/events?colour=red", ONE, "", "422");
    expect(0, dir.path(), &["archive", "seal"]);
    // The bad batch was refused whole.
    assert_eq!(run_json(dir.path(), &["archive", "stats"])["events"], 3);
    drop(server);
}

#[test]
fn a_reader_that_closes_the_pipe_ends_a_verb_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    expect(0, dir.path(), &["publish", "--from", &sample()]);
    expect(0, dir.path(), &["archive", "seal"]);
    let mut cat = command(dir.path())
        .args(["archive", "cat"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::with_capacity(64, cat.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.starts_with('{'));
    let ended = cat.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert_eq!(stderr(&ended), "");
    drop(server);
}

#[test]
fn doctor_finds_a_healthy_machine_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let checks = run_json(dir.path(), &["doctor"]);
    let verdicts: Vec<_> = checks
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["verdict"])
        .collect();
    assert!(
        verdicts.len() >= 5 && verdicts.iter().all(|v| *v == "ok"),
        "{checks:#}"
    );
    drop(server);
}
