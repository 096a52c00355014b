//! The sample that comes with annals: 5,000 commits and tags of open-source projects, and their
//! schemas.

use crate::exit::Result;
use crate::ingest::Ingest;
use annals_core::{Event, Result as CoreResult};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

/// The events in CloudEvents JSON, one a line, compressed by zstd.
pub const EVENTS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/vcs/events-5000.jsonl.zst"
));

const SCHEMAS: [(&str, &str); 2] = [
    (
        "vcs/v1/commit_pushed.proto",
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../examples/vcs/vcs/v1/commit_pushed.proto"
        )),
    ),
    (
        "vcs/v1/tag_created.proto",
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../examples/vcs/vcs/v1/tag_created.proto"
        )),
    ),
];

/// The schemas, by the name they are imported by.
pub fn schemas() -> BTreeMap<String, String> {
    SCHEMAS
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
}

/// The events, as a publisher sends them.
pub fn events(ingest: &Ingest) -> Result<Vec<Event>> {
    let lines = BufReader::new(zstd::Decoder::new(EVENTS)?).split(b'\n');
    let lines: Vec<Vec<u8>> = lines.collect::<std::io::Result<_>>()?;
    let events = lines.iter().map(|line| ingest.event(line));
    Ok(events.collect::<CoreResult<Vec<_>>>()?)
}
