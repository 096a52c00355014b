//! The sample of real events (`examples/vcs`) through every form an event has, without loss.
//! `ANNALS_SAMPLE=<file.jsonl.zst>` takes another file of the same types.

use annals_core::schema::Catalog;
use annals_core::{Event, binary, json};
use serde_json::Value;

const SAMPLES: [&[u8]; 2] = [
    include_bytes!("../../examples/vcs/events-5000.jsonl.zst"),
    include_bytes!("../../examples/vcs/tags-200.jsonl.zst"),
];

fn texts() -> Vec<Vec<u8>> {
    let packed = match std::env::var("ANNALS_SAMPLE") {
        Ok(path) => vec![std::fs::read(path).expect("the file can be read")],
        Err(_) => SAMPLES.map(<[u8]>::to_vec).into(),
    };
    let unpack = |bytes: Vec<u8>| zstd::decode_all(&bytes[..]).expect("the sample unpacks");
    packed.into_iter().map(unpack).collect()
}

fn catalog() -> Catalog {
    Catalog::from_files([
        (
            "vcs/v1/commit_pushed.proto",
            include_str!("../../examples/vcs/vcs/v1/commit_pushed.proto"),
        ),
        (
            "vcs/v1/tag_created.proto",
            include_str!("../../examples/vcs/vcs/v1/tag_created.proto"),
        ),
    ])
    .expect("the example compiles")
}

fn check(line: &[u8], catalog: &Catalog) -> Event {
    let original: Value = serde_json::from_slice(line).expect("JSON");
    let event = json::decode(line).expect("an event");
    let header = event.header();
    assert_eq!(original["id"], header.id);
    assert_eq!(original["subject"], header.subject.expect("a subject"));
    assert_eq!(original["time"], header.time.expect("a time").to_string());

    let back: Value = serde_json::from_slice(&json::encode(&event).expect("JSON")).expect("JSON");
    assert_eq!(original, back);
    let (properties, body) = binary::encode(&event).expect("binary mode");
    assert_eq!(binary::decode(&properties, &body).expect("binary"), event);

    let payload = header.data.bytes();
    let bytes = catalog
        .json_to_protobuf(header.event_type, payload)
        .unwrap_or_else(|e| panic!("{}: {e}", header.id));
    let text = catalog
        .protobuf_to_json(header.event_type, &bytes)
        .expect("it was made");
    let back: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(original["data"], back);
    event
}

#[test]
fn every_field_of_every_real_event_survives_every_form() {
    let catalog = catalog();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for text in texts() {
        for line in text.split(|&byte| byte == b'\n').filter(|l| !l.is_empty()) {
            let event = check(line, &catalog);
            *seen.entry(event.header().event_type.into()).or_default() += 1;
        }
    }
    assert!(seen.values().all(|&count| count >= 200), "{seen:?}");
    assert_eq!(seen.len(), 2, "both types are in the sample");
}
