//! A history that makes reading its tables hard.

use crate::support::{Server, expect, json, root, sample, tags};
use crate::tests;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json as value};
use std::path::Path;

pub(crate) const SEEN: &str = "zoo.v1.Seen";
/// Events of each revision of the schema.
const SEEN_EACH: u64 = 60;
/// 5,000 commits, 200 tags, what was seen, one that cannot be decoded, and three of no schema.
pub(crate) const EVENTS: u64 = 5_000 + 200 + 2 * SEEN_EACH + 1 + 3;

/// Converted in several steps, with a schema that grows, and tables made anew.
pub(crate) async fn make(server: &Server, dir: &Path) {
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

pub(crate) fn publish(data: &Path, dir: &Path, lines: &str) {
    let path = dir.join("lines.jsonl");
    std::fs::write(&path, lines).unwrap();
    expect(
        0,
        data,
        &["publish", "--from", path.to_str().unwrap(), "-q"],
    );
}

pub(crate) fn convert(data: &Path) {
    expect(0, data, &["archive", "seal"]);
    expect(0, data, &["lake", "convert"]);
}

/// Half the events of a revision, one a line: every field there and not there, some at its bounds.
pub(crate) fn seen(revision: u64, from: u64) -> String {
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
        if n.is_multiple_of(3) {
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
        "alive": n.is_multiple_of(2),
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
        if n.is_multiple_of(2) {
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
