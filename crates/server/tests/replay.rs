//! `annals replay` from outside: what a plan counts is what every target gets.

mod support;

use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use support::{Server, annals, expect, frames, json, publish, stderr};

const COMMAND: &str = "shop.commands.v1.PlaceOrder";

fn target(path: &Path) -> String {
    format!("file:{}", path.display())
}

#[test]
fn a_dry_run_counts_what_every_target_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = Server::start(data, &[]);
    for file in [support::sample(), support::tags()] {
        expect(0, data, &["publish", "--from", &file]);
    }
    expect(0, data, &["archive", "seal"]);
    let selections: [&[&str]; 7] = [
        &[],
        &["--types", "vcs.#"],
        &["--types", "*.*.TagCreated,vcs.v1.Nothing"],
        &["--subject", "tokio-rs/axum"],
        &[
            "--range",
            "2020-01-01..2021-01-01",
            "--types",
            "vcs.v1.CommitPushed",
        ],
        &["--id", "tag-8627178e8ff1cfbf,nobody"],
        &["--types", "shop.#"],
    ];
    let mut counts = BTreeSet::new();
    for (i, selection) in selections.iter().enumerate() {
        let run = |extra: &[&str]| json(data, &[&["replay"], *selection, extra].concat());
        let planned = run(&["--dry-run"])["to_deliver"].as_u64().unwrap();
        counts.insert(planned);
        let binpb = dir.path().join(format!("{i}.binpb"));
        let jsonl = dir.path().join(format!("{i}.jsonl"));
        let queue = format!("private:q{i}");
        for to in [&target(&binpb), &target(&jsonl), &queue] {
            let receipt = run(&["--to", to]);
            assert_eq!(receipt["delivered"], planned, "{selection:?} to {to}");
            assert_eq!(receipt["completed"], true);
        }
        let printed = expect(
            0,
            data,
            &[&["replay", "--to", "stdout"], *selection].concat(),
        );
        let file = std::fs::read_to_string(&jsonl).unwrap();
        assert_eq!(file.lines().count() as u64, planned, "{selection:?}");
        assert_eq!(printed, file, "{selection:?}");
        let events = frames(&binpb);
        assert_eq!(events.len() as u64, planned, "{selection:?}");
        for (event, line) in events.iter().zip(file.lines()) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["id"], event.header().id);
        }
    }
    assert_eq!(counts.len(), 6, "the selections differ: {counts:?}");
    assert!(counts.contains(&0) && counts.contains(&1) && counts.contains(&5_200));
    assert!(server.terminate().success());
    // The same from the directory.
    let planned = json(data, &["replay", "--types", "vcs.#", "--dry-run"]);
    assert_eq!(planned["to_deliver"], 5_200);
    let again = dir.path().join("again.binpb");
    expect(0, data, &["replay", "--to", &target(&again)]);
    let first = std::fs::read(dir.path().join("0.binpb")).unwrap();
    assert!(std::fs::read(again).unwrap() == first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_replay_reaches_its_queue_marked_and_byte_for_byte_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = Server::start(data, &[]);
    for i in 0..20 {
        publish(data, "shop.v1.OrderPlaced", &format!("o-{i}"));
    }
    expect(0, data, &["archive", "seal"]);
    let file = dir.path().join("all.binpb");
    expect(0, data, &["replay", "--to", &target(&file)]);
    let receipt = json(data, &["replay", "--to", "private:rebuild"]);
    assert_eq!(receipt["delivered"], 20);
    let replay = receipt["replay"].as_str().unwrap();

    let connection = Connection::connect(&server.amqp_uri(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel
        .basic_consume("rebuild".into(), "".into(), options, none)
        .await
        .unwrap();
    for event in frames(&file) {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.data, event.bytes().as_ref());
        assert_eq!(delivery.routing_key.as_str(), "shop.v1.OrderPlaced");
        assert_eq!(
            delivery.exchange.as_str(),
            format!("annals.main.replay.{replay}")
        );
        let headers = delivery.properties.headers().clone().unwrap();
        let mark = headers.inner().get("annals-replay-id");
        assert_eq!(mark, Some(&AMQPValue::LongString(replay.into())));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    connection.close(200, "bye".into()).await.unwrap();
    expect(0, data, &["archive", "seal"]);
    assert_eq!(json(data, &["archive", "stats"])["records"], 20);
}

#[test]
fn commands_are_replayed_only_when_they_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let _server = Server::start(data, &[]);
    publish(data, COMMAND, "c-1");
    publish(data, "shop.v1.ShipOrderCommand", "c-2");
    publish(data, "shop.v1.OrderPlaced", "e-1");
    expect(0, data, &["archive", "seal"]);
    #[track_caller]
    fn check(data: &Path, selection: &[&str], ids: &[&str], left_out: u64) {
        let plan = json(data, &[&["replay", "--dry-run"], selection].concat());
        assert_eq!(plan["to_deliver"], ids.len(), "{selection:?}");
        assert_eq!(plan["commands_left_out"], left_out, "{selection:?}");
        let lines = expect(
            0,
            data,
            &[&["replay", "--to", "stdout"], selection].concat(),
        );
        let id = |line| serde_json::from_str::<Value>(line).unwrap()["id"].clone();
        let replayed: Vec<Value> = lines.lines().map(id).collect();
        assert_eq!(replayed, ids, "{selection:?}");
    }
    check(data, &[], &["e-1"], 2);
    check(data, &["--types", "shop.#"], &["e-1"], 2);
    check(data, &["--types", "shop.commands.v1.*"], &[], 1);
    check(data, &["--types", COMMAND], &["c-1"], 0);
    let both = format!("#,{COMMAND}");
    check(data, &["--types", &both], &["c-1", "e-1"], 1);
    // They were archived as anything else, and can be looked at.
    let shown = expect(0, data, &["archive", "cat"]);
    assert_eq!(shown.lines().count(), 3);
}

#[test]
fn a_replay_that_cannot_be_says_why_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = Server::start(data, &[]);
    publish(data, "shop.v1.OrderPlaced", "o-1");
    expect(0, data, &["archive", "seal"]);
    let check = |code: i32, arguments: &[&str], reason: &str| {
        let ended = annals(data, &[&["replay"], arguments].concat());
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
        assert!(ended.stdout.is_empty(), "{arguments:?}");
    };
    let there = dir.path().join("there.binpb");
    std::fs::write(&there, b"mine").unwrap();
    check(5, &["--to", &target(&there)], "already exists");
    assert_eq!(std::fs::read(&there).unwrap(), b"mine");
    let other = dir.path().join("events.txt");
    check(4, &["--to", &target(&other)], ".jsonl");
    let nowhere = dir.path().join("no/such/dir.binpb");
    check(3, &["--to", &target(&nowhere)], "no/such");
    check(7, &["--to", "private:annals.main.archive"], "archive");
    check(2, &["--to", "production"], "a target is");
    check(2, &[], "--to");
    check(2, &["--to", "stdout", "--rate", "0"], "rate");
    check(4, &["--to", "stdout", "--range", "soon"], "soon");
    check(2, &["--to", "stdout", "--axis", "sideways"], "axis");
    let empty = ["--types", "nobody", "--to", "stdout", "--fail-empty"];
    check(3, &empty, "no event matched");
    assert!(server.terminate().success());
    check(6, &["--to", "private:q"], "needs the broker");
    let made: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(made.len(), 2, "the directory and the file: {made:?}");
}
