//! One record deleted from the archive by rewriting its segment, every checksum in it valid:
//! `annals archive verify` names the segment, the producer's missing number, and with a publish
//! log the event. A rewritten ledger entry breaks the chain.

mod support;

use annals_archive::bucket::{Bucket, DirectoryBucket};
use annals_archive::layout::SegmentName;
use annals_archive::segment::{RawFrame, SealedSegment, Segment, SegmentWriter};
use annals_archive::{Ledger, Position, ledger, record, wire};
use annals_core::Header;
use annals_core::system::SystemDisk;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use support::{Server, expect};

/// Three entries of one segment with three events each, numbered 1 to 9 by one producer; a log of
/// what was published, made before anything is deleted.
fn made(data: &Path, log: &Path) {
    let server = Server::start(data, &[]);
    for entry in 0..3 {
        let lines = (1..=3).map(|n| {
            let event = json!({
                "specversion": "1.0",
                "type": "shop.v1.OrderPlaced",
                "source": "/shop",
                "id": format!("o-{}", entry * 3 + n),
                "producerid": "till",
                "producerseq": (entry * 3 + n).to_string(),
                "data": {},
            });
            format!("{event}\n")
        });
        let file = data.join("events.jsonl");
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        expect(0, data, &["publish", "--from", file.to_str().unwrap()]);
        expect(0, data, &["archive", "seal"]);
    }
    assert!(server.terminate().success());
    let all = data.join("all.binpb");
    let to = format!("file:{}", all.display());
    expect(0, data, &["replay", "--to", &to]);
    let mut lines = String::new();
    for event in support::frames(&all) {
        let (source, id) = event.header().key();
        let hash = blake3::hash(event.bytes()).to_hex();
        writeln!(lines, "{source}\t{id}\t{hash}\tok").unwrap();
    }
    std::fs::write(log, lines).unwrap();
}

/// The archive's objects, written to behind its back.
struct Forger {
    bucket: Arc<dyn Bucket>,
    ledger: Ledger,
}

impl Forger {
    async fn at(data: &Path) -> Self {
        let bucket = DirectoryBucket::open(Arc::new(SystemDisk), data.join("bucket"));
        let bucket: Arc<dyn Bucket> = Arc::new(bucket.unwrap());
        let ledger = Ledger::open(bucket.clone(), "main").await.unwrap();
        Self { bucket, ledger }
    }

    async fn segment(&self, position: u64) -> wire::Segment {
        let entry = self.ledger.read(Position(position)).await.unwrap().entry;
        assert_eq!(entry.segments.len(), 1);
        entry.segments.into_iter().next().unwrap()
    }

    /// The segment as its writer would have made it without one event; ordinals stay dense.
    async fn without(&self, stated: &wire::Segment, id: &str) -> SealedSegment {
        let open = Segment::open(self.bucket.clone(), &stated.name, stated.length);
        let segment = open.await.unwrap();
        let mut writer = SegmentWriter::new().unwrap();
        let (mut scratch, mut left_out) = (Vec::new(), 0);
        for (number, described) in segment.index().frames.iter().enumerate() {
            let raw = segment.read_frame(number).await.unwrap();
            let mut frame = RawFrame::default();
            for record in record::iter(&raw) {
                let mut record = record.unwrap();
                let header = Header::scan(record.event).unwrap();
                if header.id == id {
                    left_out += 1;
                    continue;
                }
                record.ordinal -= left_out;
                frame.push(&header, &record, &mut scratch);
            }
            writer.push(&described.r#type, frame).unwrap();
        }
        assert_eq!(left_out, 1);
        let name = SegmentName::parse(&stated.name).unwrap();
        writer.finish("main", &name.folder, name.hour, name.number)
    }
}

/// What verify finds, which has to be something, and that it ends with 9.
#[track_caller]
fn findings(data: &Path, arguments: &[&str]) -> Vec<(String, String, String)> {
    let arguments = [&["archive", "verify", "-o", "json"], arguments].concat();
    let found: Value = serde_json::from_str(&expect(9, data, &arguments)).unwrap();
    let rows = found["findings"].as_array().unwrap().iter();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.map(|row| (text(row, "kind"), text(row, "name"), text(row, "detail")))
        .collect()
}

#[track_caller]
fn has(found: &[(String, String, String)], kind: &str, name: &str, detail: &str) {
    let is = |f: &&(String, String, String)| f.0 == kind && f.1 == name && f.2.contains(detail);
    assert!(found.iter().any(|f| is(&f)), "no {kind} {name}: {found:#?}");
}

#[tokio::test]
async fn a_record_left_out_of_a_rewritten_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path(), dir.path().join("publish.log"));
    made(data, &log);
    let against = ["--against", log.to_str().unwrap()];
    expect(0, data, &["archive", "verify", against[0], against[1]]);

    let forger = Forger::at(data).await;
    let stated = forger.segment(2).await;
    let made = forger.without(&stated, "o-5").await;
    forger.bucket.put(&stated.name, made.bytes).await.unwrap();

    let found = findings(data, &[]);
    has(&found, "SegmentDamaged", &stated.name, "ledger entry 2");
    has(&found, "ProducerGap", "till", "numbers 5..=5 are missing");
    assert!(!found.iter().any(|f| f.0 == "EventMissing"), "{found:#?}");
    let found = findings(data, &against);
    has(&found, "SegmentDamaged", &stated.name, "");
    has(&found, "EventMissing", "/shop o-5", "not in the archive");
    let missing = found.iter().filter(|f| f.0 == "EventMissing").count();
    assert_eq!(missing, 1, "only the one: {found:#?}");
}

#[tokio::test]
async fn a_ledger_entry_rewritten_as_well_breaks_the_chain() {
    for entry in [2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let (data, log) = (dir.path(), dir.path().join("publish.log"));
        made(data, &log);
        let forger = Forger::at(data).await;
        let stated = forger.segment(entry).await;
        // The last of all its producer's numbers in entry 3: no gap tells of it.
        let id = format!("o-{}", entry * 3);
        let made = forger.without(&stated, &id).await;
        forger.bucket.delete(&stated.name).await.unwrap();
        let put = forger.bucket.put(&made.segment.name, made.bytes);
        put.await.unwrap();
        let mut forged = forger.ledger.read(Position(entry)).await.unwrap().entry;
        forged.segments = vec![made.segment];
        let name = format!("ledger/main/{entry:020}.binpb");
        let file = ledger::encode(&forged).0;
        forger.bucket.put(&name, file).await.unwrap();

        let found = findings(data, &[]);
        match entry {
            2 => {
                let next = "ledger/main/00000000000000000003.binpb";
                has(&found, "ChainBroken", next, "does not chain to entry 2");
                has(&found, "ProducerGap", "till", "numbers 6..=6 are missing");
            }
            // None after it chains to it: the index knows what it was.
            _ => has(&found, "ChainBroken", &name, "the index was made from it"),
        }
        let found = findings(data, &["--against", log.to_str().unwrap()]);
        has(&found, "EventMissing", &format!("/shop {id}"), "");
    }
}
