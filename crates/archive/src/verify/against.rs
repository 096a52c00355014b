//! [`PublishLog`]: what publishers say they published, to be held against the archive.
//!
//! One line per attempt to publish, tab-separated:
//!
//! ```text
//! source<TAB>id<TAB>BLAKE3 of the event's bytes, 64 hex digits<TAB>ok|unknown|failed
//! ```
//!
//! `ok`: the publish was confirmed, the event must be there with these bytes. `unknown`: it may be
//! there. `failed`: nothing left the publisher, it must not be there. An event tried again has
//! several lines; its best outcome counts. Empty lines and lines that start with `#` say nothing.

use super::{Finding, FindingKind};
use annals_core::{Error, Header, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// How an attempt to publish ended, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing was sent.
    Failed,
    /// It may have arrived.
    Unknown,
    /// The bus has it.
    Ok,
}

/// A publish log in memory: about 150 bytes per event.
#[derive(Debug, Default)]
pub struct PublishLog {
    /// By source, NUL, id: the bytes tried, nearly always one.
    tried: HashMap<Box<[u8]>, Vec<Tried>>,
    lines: u64,
}

#[derive(Debug)]
struct Tried {
    hash: [u8; 32],
    outcome: Outcome,
    archived: AtomicBool,
}

impl PublishLog {
    /// Reads a log. An error names the line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut log = Self::default();
        for (at, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || Error::invalid(format!("line {} of the publish log: {line:?}", at + 1));
            let fields: Vec<&str> = line.split('\t').collect();
            let [source, id, hash, outcome] = fields[..] else {
                return Err(bad());
            };
            let hash = blake3::Hash::from_hex(hash).map_err(|e| bad().caused_by(e))?;
            let outcome = match outcome {
                "ok" => Outcome::Ok,
                "unknown" => Outcome::Unknown,
                "failed" => Outcome::Failed,
                _ => return Err(bad()),
            };
            log.add(source, id, *hash.as_bytes(), outcome);
        }
        Ok(log)
    }

    /// Adds an attempt.
    pub fn add(&mut self, source: &str, id: &str, hash: [u8; 32], outcome: Outcome) {
        self.lines += 1;
        let mut key = Vec::with_capacity(source.len() + id.len() + 1);
        crate::segment::put_id_key(source, id, &mut key);
        let tried = self.tried.entry(key.into()).or_default();
        match tried.iter_mut().find(|tried| tried.hash == hash) {
            Some(again) => again.outcome = again.outcome.max(outcome),
            None => tried.push(Tried {
                hash,
                outcome,
                archived: AtomicBool::new(false),
            }),
        }
    }

    /// Attempts in it.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Holds an archived event against the log and remembers that it is there.
    pub(super) fn hold(
        &self,
        header: &Header<'_>,
        event: &[u8],
        closed_world: bool,
    ) -> Option<Finding> {
        let mut key = Vec::new();
        crate::segment::put_id_key(header.source, header.id, &mut key);
        let name = || format!("{} {}", header.source, header.id);
        let finding = |kind, detail: &str| {
            Some(Finding {
                kind,
                name: name(),
                detail: detail.into(),
            })
        };
        let Some(tried) = self.tried.get(&key[..]) else {
            let detail = "it is archived, the log has no attempt to publish it";
            return closed_world
                .then(|| finding(FindingKind::EventUnexpected, detail))
                .flatten();
        };
        let hash = blake3::hash(event);
        match tried.iter().find(|tried| tried.hash == *hash.as_bytes()) {
            None => finding(
                FindingKind::EventAltered,
                "its bytes are none that were published",
            ),
            Some(tried) => {
                tried.archived.store(true, Ordering::Relaxed);
                let failed = tried.outcome == Outcome::Failed;
                let detail = "it is archived, its publish failed";
                failed
                    .then(|| finding(FindingKind::EventUnexpected, detail))
                    .flatten()
            }
        }
    }

    /// Names every event published that was held against nothing; in order of names.
    pub(super) fn missing(&self, mut found: impl FnMut(Finding)) {
        let is_missing = |tried: &&Tried| {
            tried.outcome == Outcome::Ok && !tried.archived.load(Ordering::Relaxed)
        };
        let mut missing: Vec<&[u8]> = Vec::new();
        for (key, tried) in &self.tried {
            missing.extend(tried.iter().filter(is_missing).map(|_| &key[..]));
        }
        missing.sort_unstable();
        for key in missing {
            found(Finding {
                kind: FindingKind::EventMissing,
                name: String::from_utf8_lossy(key).replacen('\0', " ", 1),
                detail: "its publish succeeded, it is not in the archive".into(),
            });
        }
    }
}
