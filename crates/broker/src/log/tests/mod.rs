//! The log against its contract, against crashes, and against damage.

mod contract;
mod crash;
mod damage;

use super::{Entry, Log, LogConfig, Lsn, Recovery};
use annals_core::sim::{SimDisk, SimRandom};
use annals_core::{Random, Result};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/data/log";

/// Small enough that a few dozen records roll and recycle.
fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 10,
        disk_bytes_max: 1 << 20,
        message_bytes_max: 3 << 10,
        tail_bytes_max: 16 << 10,
        background: false,
        salt: 0x5EED,
        ..LogConfig::default()
    }
}

/// A replayed or appended record.
type Record = (Lsn, u8, Vec<u8>);

/// An open log, and what opening it gave.
struct Opened {
    log: Log,
    recovery: Recovery,
    snapshot: Option<Vec<u8>>,
    records: Vec<Record>,
}

fn try_open(disk: &SimDisk, config: &LogConfig) -> Result<Opened> {
    let (mut snapshot, mut records) = (None, Vec::new());
    let mut visit = |entry: Entry<'_>| match entry {
        Entry::Snapshot(state) => {
            assert!(
                records.is_empty() && snapshot.is_none(),
                "one snapshot, and first"
            );
            snapshot = Some(state.to_vec());
        }
        Entry::Record(lsn, kind, payload) => records.push((lsn, kind, payload.to_vec())),
    };
    let disk = Arc::new(disk.clone());
    let (log, recovery) = Log::open(disk, Path::new(DIR), config.clone(), &mut visit)?;
    assert_eq!(recovery.records, records.len() as u64);
    Ok(Opened {
        log,
        recovery,
        snapshot,
        records,
    })
}

fn open(disk: &SimDisk) -> Opened {
    try_open(disk, &small()).unwrap()
}

/// Numbers from here on have the payload lengths of those from 0 on, and other bytes: their
/// records come to lie exactly where those lay.
const OTHER: u64 = 1 << 32;

/// A payload that tells its number, of a length that the number decides.
fn payload(number: u64) -> Vec<u8> {
    let random = SimRandom::new(number % OTHER);
    let len = match random.below(20) {
        0 => 0,
        1 => random.below(3000),
        _ => random.below(200),
    };
    let mut bytes = vec![0; len as usize];
    SimRandom::new(number).fill(&mut bytes);
    bytes.splice(..0, number.to_le_bytes());
    bytes
}

/// Appends the record of a number, in two parts.
fn append(log: &mut Log, number: u64) -> Record {
    let (kind, payload) = (1 + (number % 255) as u8, payload(number));
    let (head, rest) = payload.split_at(payload.len() / 3);
    let lsn = log.append(kind, &[head, rest]).unwrap();
    (lsn, kind, payload)
}

/// Appends and commits records one by one.
fn fill(log: &mut Log, numbers: std::ops::Range<u64>) -> Vec<Record> {
    let one = |number| {
        let record = append(log, number);
        log.commit(true).unwrap();
        record
    };
    numbers.map(one).collect()
}
