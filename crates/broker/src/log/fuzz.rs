//! The entry for fuzzing: a log whose bytes were edited is opened, read and written.

use super::{Entry, Log, LogConfig, Lsn};
use annals_core::sim::SimDisk;
use annals_core::{Disk, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

const DIR: &str = "/log";
const SNAPSHOT: &[u8] = b"thirty";

/// Writes a log, changes its files as `edits` say, and opens, reads and writes it again. Each edit
/// is file, kind of edit, position (2 bytes) and value.
///
/// Whatever the edits, no record comes back other than it was written.
pub fn open_edited(edits: &[u8]) {
    static LOG: LazyLock<(SimDisk, BTreeMap<Lsn, u32>)> = LazyLock::new(|| {
        let disk = SimDisk::new();
        let written = write(&disk).expect("an empty disk takes a small log");
        (disk, written)
    });
    let (disk, written) = (LOG.0.snapshot(), &LOG.1);
    let mut files: Vec<_> = disk
        .list(Path::new(DIR))
        .expect("the log's directory")
        .into_iter()
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for edit in edits.chunks_exact(5) {
        let path = &files[usize::from(edit[0]) % files.len()].path;
        let at = usize::from(u16::from_le_bytes([edit[2], edit[3]]));
        let other = &files[usize::from(edit[4]) % files.len()].path;
        match (edit[1] % 6, disk.content(path), disk.content(other)) {
            (4, Some(_), Some(other)) => disk.damage(path, |bytes| *bytes = other),
            (5, Some(_), _) => disk.remove(path).expect("the file is there"),
            (kind, Some(_), _) => disk.damage(path, |bytes| change(bytes, kind, at, edit[4])),
            (_, None, _) => {}
        }
    }
    let mut lsns = Vec::new();
    let opened = open(&disk, &mut |entry| match entry {
        Entry::Snapshot(state) => assert_eq!(state, SNAPSHOT, "another snapshot"),
        Entry::Record(lsn, kind, payload) => {
            let known = written.get(&lsn).map(|number| (1, self::payload(*number)));
            assert_eq!(known, Some((kind, payload.to_vec())), "another record");
            lsns.push(lsn);
        }
    });
    if let Ok(mut log) = opened {
        for lsn in &lsns {
            let read = log.reader().read(*lsn).expect("what was replayed is read");
            assert_eq!(read[..], payload(written[lsn]), "another record");
        }
        let lsn = log.append(9, &[b"more"]).expect("the disk is not full");
        log.commit(true).expect("the disk is well");
        drop(log);
        let mut last = Lsn::default();
        let again = open(&disk, &mut |entry| {
            if let Entry::Record(lsn, ..) = entry {
                last = lsn;
            }
        });
        again.expect("what was opened once opens again");
        assert_eq!(last, lsn, "the log goes on");
    }
}

fn open(disk: &SimDisk, visit: &mut dyn FnMut(Entry<'_>)) -> Result<Log> {
    let config = LogConfig {
        segment_bytes: 4 << 10,
        disk_bytes_max: 1 << 20,
        message_bytes_max: 2 << 10,
        background: false,
        ..LogConfig::default()
    };
    Ok(Log::open(Arc::new(disk.clone()), Path::new(DIR), config, visit)?.0)
}

/// A log of a few segments and a snapshot; its records.
fn write(disk: &SimDisk) -> Result<BTreeMap<Lsn, u32>> {
    let mut log = open(disk, &mut |_| {})?;
    let mut written = BTreeMap::new();
    for number in 0..100_u32 {
        written.insert(log.append(1, &[&payload(number)])?, number);
        log.commit(number % 3 > 0)?;
        if number == 30 {
            log.write_snapshot(SNAPSHOT)?;
        }
    }
    log.close()?;
    Ok(written)
}

fn payload(number: u32) -> Vec<u8> {
    [&number.to_le_bytes()[..], &[7; 90]].concat()
}

fn change(bytes: &mut Vec<u8>, kind: u8, at: usize, value: u8) {
    let at = at % (bytes.len() + 1);
    match kind % 4 {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        2 => bytes[at..]
            .iter_mut()
            .take(usize::from(value))
            .for_each(|byte| *byte = 0),
        _ => bytes.truncate(at.max(bytes.len().saturating_sub(usize::from(value)))),
    }
}
