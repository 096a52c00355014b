//! What strangers publish: names made to be paths, and bodies that are no events.

mod support;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::collections::BTreeSet;
use std::path::{Component, Path};
use support::{Server, annals, expect, files, json, stderr};

#[test]
fn no_type_leaves_its_directory_and_all_come_back() {
    let outside = tempfile::tempdir().unwrap();
    let data = outside.path().join("data");
    let server = Server::start(&data, &[]);
    let longest = "x".repeat(255);
    let wide = "é".repeat(127);
    let deep = "../".repeat(85);
    let types = [
        "..",
        ".",
        "../../../etc/passwd",
        "/etc/passwd",
        "a/b.c",
        "a/../../b.c",
        "..\\..\\x",
        "%2e%2e.x",
        "%2F.x",
        "_",
        "_.x",
        "unknown",
        "unknown.x",
        "date=2026-11-21.x",
        "CON.x",
        "a b.c",
        "漢字.v1.事",
        "-rf",
        "=cmd.x",
        "a.",
        &longest,
        &wide,
        &deep,
    ];
    for (i, event_type) in types.iter().enumerate() {
        let id = i.to_string();
        expect(
            0,
            &data,
            &["publish", "--id", &id, "-d", "{}", "--", event_type],
        );
    }
    expect(0, &data, &["archive", "seal"]);
    let stats = json(&data, &["archive", "stats"]);
    let kept: BTreeSet<&str> = stats["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["type"].as_str().unwrap())
        .collect();
    assert_eq!(kept, BTreeSet::from(types));
    assert_eq!(json(&data, &["archive", "verify"])["finding_count"], 0);
    assert!(server.terminate().success());

    let mut packages = BTreeSet::new();
    for name in files(outside.path()).keys() {
        let below = name
            .strip_prefix("data")
            .expect("nothing beside the directory");
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        assert!(below.components().all(plain), "{name:?}");
        if let Ok(segment) = below.strip_prefix("bucket/raw/v1/main") {
            let parts: Vec<_> = segment.iter().map(|p| p.to_str().unwrap()).collect();
            assert_eq!(parts.len(), 4, "{name:?}: package, date, hour, segment");
            assert!(parts[1].starts_with("date=") && parts[2].starts_with("hour="));
            packages.insert(parts[0].to_owned());
        }
    }
    // Types without a dot share a package; no two packages share a folder.
    let asked = types
        .iter()
        .map(|t| t.rsplit_once('.').map_or("", |(p, _)| p));
    assert_eq!(
        packages.len(),
        asked.collect::<BTreeSet<_>>().len(),
        "{packages:?}"
    );
    assert!(!packages.contains("unknown"), "{packages:?}");
}

#[test]
fn names_that_are_too_long_or_hold_control_characters_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _server = Server::start(&dir.path().join("data"), &[]);
    let data = dir.path().join("data");
    for event_type in [&"x".repeat(256), "", "a\nb", "a\u{1b}[31mb"] {
        let ended = annals(&data, &["publish", event_type, "-d", "{}"]);
        assert_eq!(ended.status.code(), Some(4), "{event_type:?}");
        let said = stderr(&ended);
        assert!(said.contains("type"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    // An argument cannot hold NUL; a file can.
    let file = dir.path().join("nul.jsonl");
    let line = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a\u0000b"}"#;
    std::fs::write(&file, line).unwrap();
    let ended = annals(&data, &["publish", "--from", file.to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(4));
    assert!(
        stderr(&ended).contains("line 1: type"),
        "{}",
        stderr(&ended)
    );
    expect(0, &data, &["archive", "seal"]);
    assert_eq!(json(&data, &["archive", "stats"])["events"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_events_are_kept_under_unknown_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let connection = Connection::connect(&server.amqp_uri(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.unwrap();
    let plain = BasicProperties::default();
    let claims = |media: &str| BasicProperties::default().with_content_type(media.into());
    send(
        &channel,
        "shop.v1.OrderPlaced",
        b"\xff\x00garbage",
        plain.clone(),
    )
    .await;
    send(&channel, "../../etc", b"", plain.clone()).await;
    let protobuf = claims("application/cloudevents+protobuf");
    send(&channel, "a.b", b"\x0a\xff\xff\xff\xff\x0f", protobuf).await;
    send(
        &channel,
        "a.b",
        b"{\"specversion\":",
        claims("application/cloudevents+json"),
    )
    .await;
    send(&channel, "a.b", b"{}", claims("application/json")).await;
    // The same message twice is one, as an event is.
    send(&channel, "shop.v1.OrderPlaced", b"\xff\x00garbage", plain).await;
    let whole = br#"{"specversion":"1.0","id":"1","source":"/s","type":"shop.v1.OrderPlaced"}"#;
    send(
        &channel,
        "a.b",
        whole,
        claims("application/cloudevents+json; charset=utf-8"),
    )
    .await;
    connection.close(200, "bye".into()).await.unwrap();

    expect(0, &data, &["archive", "seal"]);
    let stats = json(&data, &["archive", "stats"]);
    assert_eq!(stats["undecodable"], 5, "{stats:#}");
    assert_eq!(
        (&stats["records"], &stats["events"]),
        (&7.into(), &6.into())
    );
    assert_eq!(json(&data, &["archive", "verify"])["finding_count"], 0);
    let kept = expect(
        0,
        &data,
        &["archive", "cat", "--types", "annals.archive.v1.Undecodable"],
    );
    assert_eq!(kept.lines().count(), 5);
    // The body, byte for byte.
    assert!(kept.contains("\"data_base64\":\"/wBnYXJiYWdl\""), "{kept}");
    let table = expect(0, &data, &["archive", "stats", "-o", "table"]);
    assert!(table.contains("undecodable      5"), "{table}");
    assert!(server.terminate().success());
    for name in files(&data.join("bucket/raw/v1/main")).keys() {
        let package = name.iter().next().unwrap();
        assert!(package == Path::new("unknown") || package == Path::new("shop.v1"));
    }
}

async fn send(channel: &Channel, key: &str, body: &[u8], properties: BasicProperties) {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let sent = channel
        .basic_publish("annals.main".into(), key.into(), options, body, properties)
        .await
        .unwrap();
    assert_eq!(sent.await.unwrap(), Confirmation::Ack(None));
}
