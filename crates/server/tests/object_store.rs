//! The platform with its archive in an object store: the real binary against a real server that
//! speaks S3, through a line that can be cut; and against stores that no archive may be kept in.

mod support;

use annals_bus::{AmqpBus, Bus, Publisher, PublisherOptions};
use annals_core::system::{SystemClock, SystemRandom};
use annals_core::{Event, EventBuilder};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use support::services::{Running, Store, up};

// --- the whole loop ---

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_loop_in_an_object_store_survives_a_kill_and_is_read_from_outside() {
    let Some(store) = Store::of_service("the whole loop in an object store") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let bucket = store.bucket();
    let server = store.up(data, &["--bucket", &bucket, "--seal-at", "64KiB"]);
    store.expect(0, data, &["publish", "--from", &support::sample()]);
    let published = publish(&server.amqp_uri(), 0..500).await;
    // Some of it is archived, some on its way, some in the broker's log only.
    server.kill();

    // The directory remembers where its bucket is.
    let server = store.up(data, &[]);
    store.expect(0, data, &["archive", "seal"]);
    let verified = store.json(data, &["archive", "verify"]);
    assert_eq!(verified["finding_count"], 0, "{verified:#}");
    let stats = store.json(data, &["archive", "stats"]);
    assert_eq!(stats["events"], 5_500, "{stats:#}");
    let replayed = dir.path().join("replayed.binpb");
    store.replay(data, &[], &replayed);
    same_bytes(&replayed, &published, 5_500);
    assert!(server.terminate());
    assert!(!data.join("bucket").exists(), "nothing is kept beside");

    // Without a server, from the directory that remembers; and from one that knows nothing.
    let elsewhere = &dir.path().join("elsewhere");
    for (data, from) in [(data, &[][..]), (elsewhere, &["--bucket", &bucket])] {
        let found = store.json(data, &[&["archive", "verify"], from].concat());
        assert_eq!(found["finding_count"], 0, "{found:#}");
        assert_eq!(found["events"], verified["events"]);
        let again = store.json(data, &[&["archive", "stats"], from].concat());
        assert_eq!(again["events"], 5_500);
        let path = dir.path().join("again.binpb");
        store.replay(data, from, &path);
        let (before, after) = (std::fs::read(&replayed), std::fs::read(&path));
        assert!(before.unwrap() == after.unwrap(), "the same bytes in order");
        std::fs::remove_file(&path).unwrap();
    }
    assert!(!elsewhere.exists(), "reading leaves nothing behind");
    let doctor = store.json(data, &["doctor", "--port", "0", "--amqp-port", "0"]);
    let verdict = |name: &str| {
        let checks = doctor.as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == name).unwrap();
        check["verdict"].clone()
    };
    assert_eq!(
        (verdict("store"), verdict("archive")),
        ("ok".into(), "ok".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_a_while_holds_up_no_publisher_and_loses_nothing() {
    let Some(mut store) = Store::of_service("a store that is away for a while") else {
        return;
    };
    let line = Line::to(store.address());
    store.set("AWS_ENDPOINT_URL", &line.url());
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let server = store.up(data, &["--bucket", &store.bucket(), "--seal-after", "10ms"]);
    let mut published = publish(&server.amqp_uri(), 0..100).await;
    store.expect(0, data, &["archive", "seal"]);

    line.cut();
    published.extend(publish(&server.amqp_uri(), 100..200).await);
    // Who asks for history is told that the store is away.
    let refused = store.run(data, &["archive", "verify"]);
    assert_eq!(refused.status.code(), Some(6), "{}", said(&refused));

    line.mend();
    published.extend(publish(&server.amqp_uri(), 200..300).await);
    store.expect(0, data, &["archive", "seal"]);
    let found = store.json(data, &["archive", "verify"]);
    assert_eq!(found["finding_count"], 0, "{found:#}");
    let path = dir.path().join("replayed.binpb");
    store.replay(data, &[], &path);
    same_bytes(&path, &published, 300);
    assert!(server.terminate());
}

#[test]
fn wrong_keys_are_refused_at_start_by_name() {
    let Some(mut store) = Store::of_service("wrong keys are refused") else {
        return;
    };
    store.set("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let dir = tempfile::tempdir().unwrap();
    let bucket = store.bucket();
    let ended = store.run(dir.path(), &up(&["--bucket", &bucket]));
    assert_eq!(ended.status.code(), Some(7), "{}", said(&ended));
    assert!(said(&ended).contains(&bucket), "{}", said(&ended));
    assert!(!said(&ended).contains("not-the-secret"), "{}", said(&ended));
}

#[test]
fn the_page_on_object_stores_works_as_it_is_written() {
    let Some(store) = Store::of_service("the page on object stores") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let examples = support::root().join("examples").canonicalize().unwrap();
    std::os::unix::fs::symlink(examples, dir.path().join("examples")).unwrap();
    let path = support::root().join("docs/guide/object-store.md");
    let page = std::fs::read_to_string(path)
        .unwrap()
        .replace("s3://events/shop", &store.bucket())
        .replace("http://127.0.0.1:8333", &store.env["AWS_ENDPOINT_URL"]);
    let blocks = page.split("```sh\n").skip(1);
    let mut server = None;
    let mut printed = String::new();
    for block in blocks.map(|rest| rest.split("```").next().unwrap()) {
        let mut shell = store.shell(dir.path());
        if block.starts_with("annals up") {
            let child = shell.args(["-euc", &format!("exec {} -o jsonl", block.trim())]);
            server = Some(Running::ready(child));
            continue;
        }
        let output = shell.args(["-euxc", block]).output().unwrap();
        assert!(output.status.success(), "{block}\n{}", said(&output));
        printed += &String::from_utf8(output.stdout).unwrap();
    }
    assert!(printed.contains("verdict       intact"), "{printed}");
    assert!(printed.contains("creates once"), "{printed}");
    assert!(server.expect("the page starts one").terminate());
}

// --- stores that no archive may be kept in; no service is needed for these ---

#[test]
fn a_store_that_creates_a_name_twice_is_refused_by_name_and_reason() {
    let endpoint = answering(|request| match request {
        r if r.starts_with("PUT ") => ("200 OK", ""),
        _ => ("204 No Content", ""),
    });
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--bucket", "s3://events/shop", "--s3-endpoint", &endpoint];
    let ended = Store::of_no_service().run(dir.path(), &up(&arguments));
    assert_eq!(ended.status.code(), Some(4), "{}", said(&ended));
    for part in ["s3://events/shop", &endpoint, "create-only", "next: "] {
        assert!(said(&ended).contains(part), "{part}: {}", said(&ended));
    }
    // Neither a broker's log nor a bucket was begun there.
    assert!(!dir.path().join("broker").exists());
    assert!(!dir.path().join("bucket.json").exists());
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let endpoint = answering(|_| {
        let body = "<Error><Code>NoSuchBucket</Code></Error>";
        ("404 Not Found", body)
    });
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--bucket", "s3://nowhere", "--s3-endpoint", &endpoint];
    let ended = Store::of_no_service().run(dir.path(), &up(&arguments));
    assert_eq!(ended.status.code(), Some(4), "{}", said(&ended));
    let told = said(&ended);
    assert!(
        told.contains("s3://nowhere") && told.contains("is not there"),
        "{told}"
    );
}

#[test]
fn a_store_that_does_not_answer_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let endpoint = format!("http://{}", free.unwrap());
    let arguments = ["--bucket", "s3://events", "--s3-endpoint", &endpoint];
    let ended = Store::of_no_service().run(dir.path(), &up(&arguments));
    assert_eq!(ended.status.code(), Some(6), "{}", said(&ended));
    assert!(said(&ended).contains(&endpoint), "{}", said(&ended));
}

// --- which bucket a directory has ---

#[test]
fn a_directory_keeps_the_bucket_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let store = Store::of_no_service();
    let at = |name: &str| format!("file:{}", dir.path().join(name).display());
    let (first, second) = (at("first"), at("second"));
    let server = store.up(data, &["--bucket", &first]);
    support::publish(data, "shop.v1.OrderPlaced", "o-1");
    assert!(server.terminate());
    assert!(dir.path().join("first/ledger").is_dir());
    assert!(!data.join("bucket").exists());

    let refused = store.run(data, &up(&["--bucket", &second]));
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains(&first), "{}", said(&refused));
    // The same one again, or none named: it goes on.
    for arguments in [&["--bucket", &first][..], &[]] {
        assert!(store.up(data, arguments).terminate());
        let stats = store.json(data, &["archive", "stats"]);
        assert_eq!(stats["events"], 1);
    }
    let stats = store.json(
        &dir.path().join("other"),
        &["archive", "stats", "--bucket", &first],
    );
    assert_eq!(stats["events"], 1);

    // Also where it began with the one inside it.
    let inside = &dir.path().join("inside");
    let server = store.up(inside, &[]);
    support::publish(inside, "shop.v1.OrderPlaced", "o-1");
    assert!(server.terminate());
    let refused = store.run(inside, &up(&["--bucket", &second]));
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
}

#[test]
fn a_bucket_that_was_named_and_holds_nothing_is_not_called_intact() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    for name in ["empty", "none"] {
        let bucket = format!("file:{}", dir.path().join(name).display());
        for verb in ["verify", "stats", "ls", "cat"] {
            let arguments = ["archive", verb, "--bucket", &bucket];
            let ended = Store::of_no_service().run(dir.path(), &arguments);
            assert_eq!(ended.status.code(), Some(6), "{verb}: {}", said(&ended));
            assert!(said(&ended).contains(&bucket), "{}", said(&ended));
        }
    }
    assert!(!dir.path().join("none").exists());
}

#[test]
fn a_directory_whose_note_of_its_bucket_is_damaged_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of_no_service();
    let (data, first) = (dir.path().join("data"), dir.path().join("first"));
    let first = format!("file:{}", first.display());
    assert!(store.up(&data, &["--bucket", &first]).terminate());
    std::fs::write(data.join("bucket.json"), "{").unwrap();
    for verb in [&up(&[])[..], &["archive", "stats"]] {
        let ended = store.run(&data, verb);
        assert_eq!(ended.status.code(), Some(4), "{}", said(&ended));
        assert!(said(&ended).contains("bucket.json"), "{}", said(&ended));
    }
    assert!(!data.join("bucket").exists());
}

#[test]
fn a_bucket_s_name_that_leads_elsewhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (bucket, code) in [
        ("s3://", 2),
        ("events", 2),
        ("http://store/events", 2),
        ("s3://../x", 4),
        ("s3://events/a/../b", 4),
        ("s3://events//b", 4),
    ] {
        let ended = Store::of_no_service().run(dir.path(), &up(&["--bucket", bucket]));
        assert_eq!(
            ended.status.code(),
            Some(code),
            "{bucket}: {}",
            said(&ended)
        );
    }
    let server = ["tail", "--bucket", "s3://events"];
    let ended = Store::of_no_service().run(dir.path(), &server);
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
}

// --- helpers ---

fn said(output: &Output) -> String {
    support::stderr(output)
}

/// Publishes events with these numbers from outside; what was confirmed, by id.
async fn publish(uri: &str, numbers: std::ops::Range<u32>) -> BTreeMap<String, Event> {
    let bus: Arc<dyn Bus> = Arc::new(AmqpBus::connect(uri, Default::default()).await.unwrap());
    let options = PublisherOptions::of_bus("main", "outside");
    let publisher = Publisher::new(bus, options, Arc::new(SystemClock), Arc::new(SystemRandom));
    let results = publisher.publish_events(numbers.map(event).collect()).await;
    let confirmed = results.into_iter().map(|result| result.unwrap().event);
    confirmed
        .map(|event| (event.header().id.to_owned(), event))
        .collect()
}

fn event(number: u32) -> Event {
    EventBuilder::new("shop.v1.OrderPlaced", "/outside", format!("o-{number}"))
        .unwrap()
        .subject(format!("s-{}", number % 17))
        .unwrap()
        .time("2026-11-21T09:00:00Z".parse().unwrap())
        .json(format!("{{\"number\":{number}}}"))
        .build()
        .unwrap()
}

/// The file holds `all` events, among them every one that was published, byte for byte.
#[track_caller]
fn same_bytes(path: &Path, published: &BTreeMap<String, Event>, all: usize) {
    let events = support::frames(path);
    assert_eq!(events.len(), all);
    let outside = events.iter().filter(|e| e.header().source == "/outside");
    let found: BTreeMap<_, _> = outside.map(|e| (e.header().id.to_owned(), e)).collect();
    assert_eq!(found.len(), published.len());
    for (id, event) in published {
        assert!(found[id].bytes() == event.bytes(), "{id}");
    }
}

/// A line to a server that can be cut and mended.
struct Line {
    address: SocketAddr,
    state: Arc<Mutex<LineState>>,
}

#[derive(Default)]
struct LineState {
    is_cut: bool,
    ends: Vec<TcpStream>,
}

impl Line {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(LineState::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = shared.lock().unwrap();
                if state.is_cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    state.ends.push(from.try_clone().unwrap());
                    std::thread::spawn(move || carry(from, to));
                }
            }
        });
        Self { address, state }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_cut = true;
        for end in state.ends.drain(..) {
            // It may have been closed by either side.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.state.lock().unwrap().is_cut = false;
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    // It ends with either side.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// A server that answers every request as it is told to; its URL.
fn answering(answer: impl Fn(&str) -> (&'static str, &'static str) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Some(request) = read_request(&client) else {
                continue;
            };
            let (status, body) = answer(&request);
            let head = format!("HTTP/1.1 {status}\r\netag: \"1\"\r\nconnection: close\r\n");
            let rest = format!("content-length: {}\r\n\r\n{body}", body.len());
            // Who asked may have gone.
            let _ = client.write_all((head + &rest).as_bytes());
        }
    });
    url
}

/// The first line of a request; its body is read and forgotten.
fn read_request(client: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(client);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    Some(first)
}
