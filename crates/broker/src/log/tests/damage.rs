//! Flipped bits, zeroed pages, cut, lost and exchanged files: named, skipped, kept; never a panic.

use super::*;
use annals_core::{Disk, ErrorKind};
use std::path::PathBuf;

fn segment(number: u32) -> PathBuf {
    Path::new(DIR).join(super::super::files::segment_name(number))
}

/// A log closed in order, its records, and its segments from the oldest on.
fn closed() -> (SimDisk, Vec<Record>, Vec<u32>) {
    let disk = SimDisk::new();
    let mut log = open(&disk).log;
    let mut records = Vec::new();
    for group in 0..60 {
        records.extend((0..3).map(|n| append(&mut log, group * 3 + n)));
        log.commit(true).unwrap();
    }
    let segments = log.segments().map(|segment| segment.number).collect();
    log.close().unwrap();
    (disk.snapshot(), records, segments)
}

/// Opens a damaged log: what it gives was appended, what it does not give lies in a stretch that
/// is named. Returns how many records are lost.
fn lost(disk: &SimDisk, records: &[Record]) -> (usize, Opened) {
    let opened = open(disk);
    let mut found = opened.records.iter().peekable();
    let mut lost = 0;
    for record in records {
        if found.next_if(|next| *next == record).is_some() {
            continue;
        }
        let (lsn, _, payload) = record;
        let (from, to) = (lsn.offset(), lsn.offset() + 12 + payload.len() as u32);
        let named = |damage: &super::super::Damage| {
            let overlaps = damage.offset < to && from < damage.offset + damage.bytes;
            damage.segment == lsn.segment() && (overlaps || damage.bytes == 0)
        };
        let damaged = &opened.recovery.damaged;
        assert!(
            damaged.iter().any(named),
            "{lsn} is lost and not named: {damaged:?}"
        );
        lost += 1;
    }
    assert_eq!(found.next(), None, "nothing else");
    (lost, opened)
}

#[test]
fn a_flipped_bit_costs_at_most_its_record_and_is_named() {
    let (disk, records, segments) = closed();
    let (mut costly, mut flips) = (0, 0);
    for &number in &segments {
        let len = disk.content(&segment(number)).unwrap().len();
        for at in (0..len).step_by(7) {
            let damaged = disk.snapshot();
            damaged.damage(&segment(number), |bytes| bytes[at] ^= 1 << (at % 8));
            let (lost, opened) = lost(&damaged, &records);
            assert!(lost <= 1, "{number} at {at}: {lost} lost");
            costly += lost;
            flips += 1;
            let more = fill(&mut { opened.log }, 1000..1002);
            assert!(open(&damaged).records.ends_with(&more), "the log goes on");
        }
    }
    eprintln!("{flips} flips, {costly} in a record");
    assert!(costly * 2 > flips, "most of a segment is records");
}

#[test]
fn a_flipped_bit_is_never_served_to_a_reader() {
    let (disk, records, _) = closed();
    for (lsn, _, payload) in &records {
        let damaged = disk.snapshot();
        let at = lsn.offset() as usize + 12 + payload.len() / 2;
        let opened = open(&damaged);
        damaged.damage(&segment(lsn.segment()), |bytes| bytes[at] ^= 4);
        assert_eq!(
            opened.log.reader().read(*lsn).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        let run = opened
            .log
            .reader()
            .read_run(&records.iter().map(|r| r.0).collect::<Vec<_>>(), 1 << 20);
        let broken = run.iter().filter(|payload| payload.is_err()).count();
        assert_eq!((run.len(), broken), (records.len(), 1));
    }
}

#[test]
fn a_zeroed_sector_is_named_unless_it_takes_the_end_with_it() {
    let (disk, records, segments) = closed();
    let mut costly = 0;
    for &number in &segments {
        for from in (0..8 << 10).step_by(512) {
            let damaged = disk.snapshot();
            damaged.damage(&segment(number), |bytes| bytes[from..][..512].fill(0));
            // Nothing after the last record and the closing mark is left to prove them.
            let end = open(&disk.snapshot()).recovery.end;
            if number == end.segment() && (from..from + 512).contains(&(end.offset() as usize - 1))
            {
                assert!(!open(&damaged).recovery.clean);
                continue;
            }
            costly += lost(&damaged, &records).0;
        }
    }
    assert!(costly > 100, "{costly}");
}

#[test]
fn a_segment_cut_anywhere_is_named() {
    let (disk, records, segments) = closed();
    for &number in &segments {
        for len in (0..8 << 10).step_by(37) {
            let damaged = disk.snapshot();
            damaged.damage(&segment(number), |bytes| bytes.truncate(len));
            let (_, opened) = lost(&damaged, &records);
            assert!(
                opened
                    .recovery
                    .damaged
                    .iter()
                    .any(|damage| damage.segment == number)
            );
        }
    }
}

#[test]
fn lost_and_exchanged_segments_are_named() {
    let (disk, records, segments) = closed();
    for &number in &segments[..segments.len() - 1] {
        let damaged = disk.snapshot();
        damaged.remove(&segment(number)).unwrap();
        let (lost, _) = lost(&damaged, &records);
        assert!(lost > 3);
    }
    let damaged = disk.snapshot();
    let aside = Path::new("/data/log/aside");
    damaged.rename(&segment(2), aside).unwrap();
    damaged.rename(&segment(3), &segment(2)).unwrap();
    damaged.rename(aside, &segment(3)).unwrap();
    let opened = open(&damaged);
    let named: Vec<u32> = opened
        .recovery
        .damaged
        .iter()
        .map(|damage| damage.segment)
        .collect();
    assert!(named.contains(&2) && named.contains(&3), "{named:?}");
    assert!(opened.records.iter().all(|record| records.contains(record)));
}

#[test]
fn a_damaged_segment_is_kept_for_ever() {
    let (disk, _, segments) = closed();
    disk.damage(&segment(segments[1]), |bytes| bytes[700] ^= 1);
    let before = disk.content(&segment(segments[1]));
    for round in 0..4 {
        let mut log = open(&disk).log;
        for _ in 0..3 {
            fill(&mut log, round * 100..round * 100 + 30);
            log.write_snapshot(b"state").unwrap();
            let sealed: Vec<u32> = log
                .segments()
                .filter(|s| s.sealed)
                .map(|s| s.number)
                .collect();
            sealed
                .into_iter()
                .for_each(|number| log.release(number).unwrap());
            log.commit(true).unwrap();
        }
        assert!(log.stats().released > 0);
    }
    assert_eq!(disk.content(&segment(segments[1])), before);
    assert_eq!(disk.content(&segment(segments[0])), None);
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_one_before() {
    let disk = SimDisk::new();
    let mut log = open(&disk).log;
    fill(&mut log, 0..30);
    log.write_snapshot(b"older").unwrap();
    let between = fill(&mut log, 30..60);
    log.write_snapshot(b"newer").unwrap();
    drop(log);
    let names = disk.list(Path::new(DIR)).unwrap();
    let mut snapshots: Vec<_> = names.into_iter().map(|entry| entry.path).collect();
    snapshots.retain(|path| path.extension().is_some_and(|e| e == "snapshot"));
    let newest = snapshots.last().unwrap();
    let len = disk.content(newest).unwrap().len();
    for at in 0..len {
        let damaged = disk.snapshot();
        damaged.damage(newest, |bytes| bytes[at] ^= 0x10);
        let opened = open(&damaged);
        assert_eq!(opened.snapshot.as_deref(), Some(&b"older"[..]));
        assert_eq!(opened.records, between);
        assert_eq!(opened.recovery.damaged.len(), 1);
    }
    for len in 0..len {
        let damaged = disk.snapshot();
        damaged.damage(newest, |bytes| bytes.truncate(len));
        assert_eq!(open(&damaged).snapshot.as_deref(), Some(&b"older"[..]));
    }
}

#[test]
fn stored_bytes_that_only_look_like_records_are_not() {
    // A message that carries a copy of the log's own bytes, torn so that only the copy remains.
    let disk = SimDisk::new();
    let mut log = open(&disk).log;
    let records = fill(&mut log, 0..3);
    let copy = disk.content(&segment(1)).unwrap()[64..1500].to_vec();
    log.append(1, &[&copy]).unwrap();
    let before = disk.steps();
    log.commit(false).unwrap();
    for image in disk.crash_images(before + 1, 3, 300) {
        let opened = open(&image);
        assert!(opened.records.len() <= records.len() + 1);
        assert!(opened.records.starts_with(&records));
    }
}

#[test]
fn whatever_the_directory_holds_opening_it_does_not_panic() {
    for seed in 0..400 {
        let random = SimRandom::new(seed);
        let mut edits = vec![0; 64 + random.below(200) as usize];
        random.fill(&mut edits);
        super::super::fuzz::open_edited(&edits);
    }
}

#[test]
fn damage_at_the_end_is_named_at_every_start() {
    let (disk, records, segments) = closed();
    let (lsn, ..) = records.last().unwrap();
    let last = segment(*segments.last().unwrap());
    disk.damage(&last, |bytes| bytes[lsn.offset() as usize + 13] ^= 1);
    for _ in 0..3 {
        // Not closed in order: the mark that proved the record goes with the rest of the segment.
        assert_eq!(lost(&disk, &records).0, 1);
    }
}
