//! `annals replay --ids` from outside: what is listed is delivered, byte for byte, and what is
//! not there is told.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Output, Stdio};
use support::{Server, annals, command, expect, frames, json, stderr};

type Key = (String, String);

/// Published bytes by source and id.
fn events(path: &Path) -> BTreeMap<Key, Vec<u8>> {
    let read = frames(path).into_iter().map(|event| {
        let (source, id) = event.header().key();
        ((source.to_owned(), id.to_owned()), event.bytes().to_vec())
    });
    read.collect()
}

/// A platform with 5,200 archived events, and these.
fn history(data: &Path, scratch: &Path) -> (Server, BTreeMap<Key, Vec<u8>>) {
    let server = Server::start(data, &[]);
    for file in [support::sample(), support::tags()] {
        expect(0, data, &["publish", "--from", &file]);
    }
    expect(0, data, &["archive", "seal"]);
    let all = scratch.join("all.binpb");
    expect(0, data, &["replay", "--to", &target(&all)]);
    let all = events(&all);
    assert_eq!(all.len(), 5_200);
    (server, all)
}

fn target(path: &Path) -> String {
    format!("file:{}", path.display())
}

/// A line in one of its three forms. An id alone names one event: ids are unique in the sample.
fn line(form: usize, (source, id): &Key) -> String {
    match form % 3 {
        0 => format!("{source}\t{id}\n"),
        1 => {
            serde_json::json!({ "id": id, "source": source, "data": { "id": 1 } }).to_string()
                + "\n"
        }
        _ => format!("{id}\n"),
    }
}

/// Numbers that repeat from run to run.
fn draw(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) as usize % below
}

fn with_input(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = command(data)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn random_lists_deliver_what_is_listed_to_every_target_with_and_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let (server, all) = history(data, dir.path());
    let keys: Vec<&Key> = all.keys().collect();
    let mut seed = 1;
    let mut server = Some(server);
    for (round, count) in [0, 1, 17, 700, 5_000, 40].into_iter().enumerate() {
        if round == 5 {
            // The rest from the directory.
            assert!(server.take().unwrap().terminate().success());
        }
        let mut expected = BTreeMap::new();
        let mut list = String::from("# a comment\n\n");
        for form in 0..count {
            let key = keys[draw(&mut seed, keys.len())];
            expected.insert(key.clone(), all[key].clone());
            list += &line(form, key);
        }
        let path = dir.path().join(format!("{round}.txt"));
        std::fs::write(&path, &list).unwrap();
        let from = path.to_str().unwrap();
        let found = expected.len() as u64;

        let plan = json(data, &["replay", "--ids", from, "--dry-run"]);
        let counts = (&plan["selected"], &plan["to_deliver"], &plan["missing"]);
        assert_eq!(counts, (&found.into(), &found.into(), &0.into()), "{plan}");
        let binpb = dir.path().join(format!("{round}.binpb"));
        let receipt = json(data, &["replay", "--ids", from, "--to", &target(&binpb)]);
        assert_eq!(receipt["selected"], found);
        assert_eq!(receipt["delivered"], found);
        assert_eq!(frames(&binpb).len() as u64, found, "each once");
        assert!(events(&binpb) == expected, "round {round}");
        let printed = with_input(data, &["replay", "--ids", "-", "--to", "stdout"], &list);
        assert!(printed.status.success(), "{}", stderr(&printed));
        let printed = String::from_utf8(printed.stdout).unwrap();
        let ids: Vec<Value> = printed
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
            .collect();
        let order: Vec<String> = frames(&binpb)
            .iter()
            .map(|e| e.header().id.to_owned())
            .collect();
        assert_eq!(ids, order);
        // What was printed is a list of the same events.
        let again = dir.path().join(format!("{round}-again.binpb"));
        let to = target(&again);
        let ended = with_input(data, &["replay", "--ids", "-", "--to", &to], &printed);
        assert!(ended.status.success(), "{}", stderr(&ended));
        assert!(std::fs::read(again).unwrap() == std::fs::read(&binpb).unwrap());
        if server.is_some() && count > 0 {
            let queue = format!("private:list-{round}");
            let receipt = json(data, &["replay", "--ids", from, "--to", &queue]);
            assert_eq!(receipt["delivered"], found);
        }
    }
}

#[test]
fn other_conditions_hold_beside_a_list() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let (_server, all) = history(data, dir.path());
    let list: String = all.keys().step_by(7).map(|key| line(0, key)).collect();
    let path = dir.path().join("list");
    std::fs::write(&path, list).unwrap();
    let file = dir.path().join("tags.binpb");
    let (from, to) = (path.to_str().unwrap(), target(&file));
    let types = ["--types", "vcs.v1.TagCreated"];
    let run = ["replay", "--ids", from, "--to", &to, types[0], types[1]];
    let receipt = json(data, &run);
    let tags = |path: &Path| {
        let events = frames(path).into_iter();
        let tags = events.filter(|event| event.header().event_type == "vcs.v1.TagCreated");
        tags.map(|event| event.header().id.to_owned())
            .collect::<Vec<_>>()
    };
    let every_seventh: Vec<&Key> = all.keys().step_by(7).collect();
    let mut expected = tags(&dir.path().join("all.binpb"));
    expected.retain(|id| every_seventh.iter().any(|key| key.1 == *id));
    assert!(!expected.is_empty());
    assert_eq!(tags(&file), expected);
    assert_eq!(receipt["delivered"], expected.len());
    assert_eq!(
        (&receipt["listed"], &receipt["missing"]),
        (&743.into(), &0.into())
    );
}

#[test]
fn what_is_not_archived_is_counted_and_named_and_the_exit_code_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let (server, all) = history(data, dir.path());
    let mut list: String = all.keys().take(5).map(|key| line(0, key)).collect();
    for number in 0..30 {
        let _ = writeln!(list, "/nobody\tnone-{number}\nnone-{number}");
    }
    let path = dir.path().join("list");
    std::fs::write(&path, list).unwrap();
    let check = |to: &str, allow: &[&str], code: i32| {
        let arguments = ["replay", "--ids", path.to_str().unwrap(), "-o", "json"];
        let to: &[&str] = if to.is_empty() {
            &["--dry-run"]
        } else {
            &["--to", to]
        };
        let ended = annals(data, &[&arguments, to, allow].concat());
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(
            said.contains("60 of 65 listed events are not archived"),
            "{said}"
        );
        assert!(
            said.contains("/nobody none-9, none-9, and 40 more"),
            "{said}"
        );
        ended.stdout
    };
    for served in [true, false] {
        for (allow, code) in [(&[][..], 8), (&["--allow-missing"], 0)] {
            let file = dir.path().join(format!("{served}-{code}.binpb"));
            let plan: Value = serde_json::from_slice(&check("", allow, code)).unwrap();
            assert_eq!(
                (&plan["selected"], &plan["to_deliver"]),
                (&65.into(), &5.into())
            );
            let receipt: Value =
                serde_json::from_slice(&check(&target(&file), allow, code)).unwrap();
            let field = |name: &str| receipt[name].as_u64().unwrap();
            assert_eq!((field("selected"), field("missing")), (65, 60));
            assert_eq!(field("selected"), field("delivered") + field("missing"));
            let first = receipt["missing_first"].as_array().unwrap();
            assert_eq!(first.len(), 20);
            assert_eq!(
                first[0],
                serde_json::json!({ "source": "/nobody", "id": "none-0" })
            );
            assert_eq!(first[1], serde_json::json!({ "id": "none-0" }));
            assert_eq!(events(&file).len(), 5);
            let printed = check("stdout", allow, code);
            assert_eq!(printed.iter().filter(|&&byte| byte == b'\n').count(), 5);
        }
        if served {
            // Asked for nothing but what is not there.
            let none = dir.path().join("none");
            std::fs::write(&none, "nobody\n").unwrap();
            let from = none.to_str().unwrap();
            let arguments = ["replay", "--ids", from, "--dry-run", "--allow-missing"];
            expect(0, data, &arguments);
            expect(3, data, &[&arguments[..], &["--fail-empty"]].concat());
        }
    }
    assert!(server.terminate().success());
}

#[test]
fn an_id_of_several_events_selects_them_all_and_the_plan_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let _server = Server::start(data, &[]);
    for (source, id) in [("/a", "x"), ("/b", "x"), ("/b", "y")] {
        let arguments = [
            "publish",
            "shop.v1.Done",
            "--source",
            source,
            "--id",
            id,
            "-d",
            "{}",
        ];
        expect(0, data, &arguments);
    }
    expect(0, data, &["archive", "seal"]);
    let list = data.join("list");
    std::fs::write(&list, "x\n/b\tx\ny\n").unwrap();
    let plan = json(
        data,
        &["replay", "--ids", list.to_str().unwrap(), "--dry-run"],
    );
    assert_eq!((&plan["listed"], &plan["selected"]), (&3.into(), &3.into()));
    assert_eq!(plan["ids_of_several_events"], 1);
    let one = with_input(data, &["replay", "--ids", "-", "--to", "stdout"], "/b\tx\n");
    let line: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!((&line["source"], &line["id"]), (&"/b".into(), &"x".into()));
}

#[test]
fn a_malformed_line_is_named_and_nothing_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let (server, _) = history(data, dir.path());
    let file = dir.path().join("never.binpb");
    let to = target(&file);
    let cases = [
        ("a\n{\"source\":\"/s\"}\n", "line 2: "),
        ("# c\n\n/s\tb\tc\n", "line 3: "),
        ("{", "line 1: "),
        ("\n\t\n/s\t\n", "line 3: "),
    ];
    for (list, place) in cases {
        let ended = with_input(data, &["replay", "--ids", "-", "--to", &to], list);
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(4), "{list:?}: {said}");
        assert!(said.contains(place), "{list:?}: {said}");
        assert!(!file.exists() && ended.stdout.is_empty());
    }
    let missing = dir.path().join("no such list");
    let ended = annals(
        data,
        &["replay", "--ids", missing.to_str().unwrap(), "--dry-run"],
    );
    assert_eq!(ended.status.code(), Some(3));
    assert!(stderr(&ended).contains("no such list"));
    // Whoever speaks to the server himself is told the same.
    let bodies = [
        ("{}\na\n/s\tb\tc\n", "422", "line 2: "),
        ("nonsense\na\n", "422", "first line"),
        ("{}\na", "200", "\"listed\":1"),
    ];
    for (body, status, reason) in bodies {
        let answer = post_list(&server, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(reason), "{answer}");
    }
}

/// Posts a request and its list as they stand; the whole answer.
fn post_list(server: &Server, body: &str) -> String {
    let address = std::fs::read(server.data.join("annals.json")).unwrap();
    let address: Value = serde_json::from_slice(&address).unwrap();
    let port = address["http_port"].as_u64().unwrap() as u16;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/replays HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_list_of_a_hundred_thousand_lines_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let (server, all) = history(data, dir.path());
    let mut list = String::new();
    let mut known = all.keys();
    for number in 0..100_000 {
        match known.next().filter(|_| number % 19 != 0) {
            Some(key) => list += &line(number, key),
            None => list += &format!("/nobody\t0195a8f0-0000-7000-8000-{number:012}\n"),
        }
    }
    let path = dir.path().join("list");
    std::fs::write(&path, &list).unwrap();
    let mut server = Some(server);
    for name in ["served.binpb", "alone.binpb"] {
        let file = dir.path().join(name);
        let from = path.to_str().unwrap();
        let to = target(&file);
        let arguments = ["replay", "--ids", from, "--to", &to, "--allow-missing"];
        let receipt = json(data, &arguments);
        let delivered = events(&file);
        assert_eq!(receipt["listed"], 100_000);
        assert_eq!(receipt["delivered"], delivered.len());
        let count = |name: &str| receipt[name].as_u64().unwrap();
        assert_eq!(count("selected"), count("delivered") + count("missing"));
        assert_eq!(count("selected"), 100_000);
        let listed = all
            .iter()
            .enumerate()
            .filter(|(number, _)| number % 19 != 0);
        let expected: BTreeMap<Key, Vec<u8>> = listed
            .map(|(_, (key, bytes))| (key.clone(), bytes.clone()))
            .collect();
        assert!(delivered == expected);
        if let Some(server) = server.take() {
            assert!(server.terminate().success());
        }
    }
}
