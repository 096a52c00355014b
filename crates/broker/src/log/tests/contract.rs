//! What the log promises when nothing goes wrong, and when the disk says so.

use super::*;
use annals_core::sim::SimOp;
use annals_core::system::SystemDisk;
use annals_core::{Disk, ErrorKind};
use std::io;

#[test]
fn what_was_committed_is_replayed_in_order_and_can_be_read() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    let records = fill(&mut opened.log, 0..200);
    assert!(opened.log.stats().segments > 3, "the log rolled");
    let reader = opened.log.reader();
    for (lsn, _, payload) in &records {
        assert_eq!(reader.read(*lsn).unwrap(), payload);
    }
    drop(opened);
    let opened = open(&disk);
    assert_eq!(opened.records, records);
    assert!(!opened.recovery.clean && opened.recovery.damaged.is_empty());
    assert_eq!(
        reader.read(records[7].0).unwrap(),
        records[7].2,
        "readers outlive the log"
    );
}

#[test]
fn a_log_closed_in_order_goes_on_where_it_ended() {
    let disk = SimDisk::new();
    let mut records = fill(&mut open(&disk).log, 0..10);
    for round in 0..30 {
        let mut opened = open(&disk);
        assert_eq!(opened.records, records);
        assert_eq!(opened.recovery.clean, round > 0);
        assert_eq!(opened.recovery.torn_bytes, 0);
        records.extend(fill(&mut opened.log, 10 + round * 5..15 + round * 5));
        opened.log.close().unwrap();
    }
}

#[test]
fn one_group_is_one_sync_however_many_records() {
    let mut log = open(&SimDisk::new()).log;
    for number in 0..20 {
        log.append(1, &[&[number; 100]]).unwrap();
    }
    log.commit(true).unwrap();
    let stats = log.stats();
    assert_eq!((stats.groups, stats.fsyncs, stats.records), (1, 1, 20));
    log.commit(true).unwrap();
    assert_eq!(log.stats().fsyncs, 1, "nothing to sync");
    log.append(1, &[]).unwrap();
    log.commit(false).unwrap();
    assert_eq!(log.stats().fsyncs, 1);
    log.commit(true).unwrap();
    assert_eq!(
        log.stats().fsyncs,
        2,
        "what was written before is synced with the next"
    );
}

#[test]
fn only_committed_records_are_read() {
    let mut log = open(&SimDisk::new()).log;
    let (lsn, _, payload) = append(&mut log, 3);
    assert_eq!(
        log.reader().read(lsn).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    log.commit(true).unwrap();
    assert_eq!(log.reader().read(lsn).unwrap(), payload);
}

#[test]
fn runs_are_read_ahead_and_stop_at_the_bound() {
    let disk = SimDisk::new();
    let records = fill(&mut open(&disk).log, 0..300);
    let log = open(&disk).log;
    let lsns: Vec<Lsn> = records.iter().map(|(lsn, ..)| *lsn).collect();
    let read = log.reader().read_run(&lsns, usize::MAX);
    let expected: Vec<_> = records
        .iter()
        .map(|(.., payload)| payload.clone())
        .collect();
    assert_eq!(
        read.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
        expected
    );
    let some = log.reader().read_run(&lsns, 1000);
    let bytes: usize = some
        .iter()
        .map(|payload| payload.as_ref().unwrap().len())
        .sum();
    let last = some.last().unwrap().as_ref().unwrap().len();
    assert!(bytes >= 1000 && bytes - last < 1000);
    assert_eq!(log.reader().read_run(&lsns, 0).len(), 1);
    let backwards: Vec<Lsn> = lsns.iter().rev().copied().collect();
    assert!(
        log.reader()
            .read_run(&backwards, usize::MAX)
            .iter()
            .all(Result::is_ok)
    );
}

#[test]
fn a_snapshot_replaces_the_records_before_it() {
    let disk = SimDisk::new();
    let mut log = open(&disk).log;
    fill(&mut log, 0..50);
    append(&mut log, 50);
    log.write_snapshot(b"first fifty").unwrap();
    log.commit(true).unwrap();
    fill(&mut log, 51..60);
    drop(log);
    let mut opened = open(&disk);
    assert_eq!(opened.snapshot.as_deref(), Some(&b"first fifty"[..]));
    let kinds: Vec<u8> = opened.records.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        (51..61).collect::<Vec<u8>>(),
        "what was open then comes after"
    );
    opened.log.write_snapshot(b"sixty").unwrap();
    drop(opened);
    let opened = open(&disk);
    assert_eq!(opened.snapshot.as_deref(), Some(&b"sixty"[..]));
    assert!(opened.records.is_empty());
}

#[test]
fn released_segments_are_recycled_and_never_serve_stale_bytes() {
    let disk = SimDisk::new();
    let mut log = open(&disk).log;
    let records = fill(&mut log, 0..100);
    let reader = log.reader();
    let sealed: Vec<u32> = log
        .segments()
        .filter(|s| s.sealed)
        .map(|s| s.number)
        .collect();
    log.write_snapshot(b"a").unwrap();
    for &number in &sealed {
        log.release(number).unwrap();
        log.release(number).unwrap();
    }
    log.commit(true).unwrap();
    assert_eq!(log.stats().released, 0, "the older kept snapshot is none");
    fill(&mut log, 100..130);
    log.write_snapshot(b"b").unwrap();
    fill(&mut log, 130..160);
    log.write_snapshot(b"c").unwrap();
    assert_eq!(log.stats().released, sealed.len() as u64);
    assert!(
        log.segments()
            .all(|segment| !sealed.contains(&segment.number))
    );
    let later = fill(&mut log, 160..400);
    for (lsn, ..) in &records[..20] {
        assert_eq!(reader.read(*lsn).unwrap_err().kind(), ErrorKind::NotFound);
    }
    drop(log);
    let opened = open(&disk);
    assert_eq!(opened.records, later);
    assert!(opened.recovery.damaged.is_empty());
    let stats = opened.log.stats();
    assert!(stats.disk_bytes < 60 * (8 << 10), "{stats:?}");
}

#[test]
fn the_disk_bound_leaves_a_reserve_and_releasing_makes_room_again() {
    let disk = SimDisk::new();
    let config = LogConfig {
        disk_bytes_max: 10 * (8 << 10),
        ..small()
    };
    let mut log = try_open(&disk, &config).unwrap().log;
    let message = [7; 2000];
    while log.room().publish >= 2100 {
        log.append(1, &[&message]).unwrap();
        log.commit(true).unwrap();
        assert!(log.stats().disk_bytes <= config.disk_bytes_max);
    }
    assert!(log.room().reserve > 7000, "acks go on");
    assert_eq!(
        log.append(1, &[&[0; 4000]]).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let sealed: Vec<u32> = log
        .segments()
        .filter(|s| s.sealed)
        .map(|s| s.number)
        .collect();
    log.write_snapshot(b"state").unwrap();
    for number in sealed {
        log.release(number).unwrap();
    }
    log.commit(true).unwrap();
    assert!(log.room().publish > 8000, "{:?}", log.room());
    assert!(log.stats().disk_bytes <= config.disk_bytes_max);
}

#[test]
fn a_full_disk_refuses_appends_and_goes_on_when_there_is_space() {
    let disk = SimDisk::new();
    disk.set_space(Some(5 * (8 << 10)));
    let mut log = open(&disk).log;
    let mut kept = Vec::new();
    let refused = loop {
        match log.append(1, &[&[9; 1500]]) {
            Ok(lsn) => kept.push(lsn),
            Err(error) => break error,
        }
        log.commit(true).unwrap();
    };
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(log.room().publish, 0);
    assert_eq!(
        log.write_snapshot(&[1; 9000]).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    disk.set_space(None);
    log.commit(true).unwrap();
    assert!(log.room().publish > 0);
    kept.push(log.append(1, &[&[9; 1500]]).unwrap());
    log.write_snapshot(&[1; 9000]).unwrap();
    log.commit(true).unwrap();
    drop(log);
    let opened = open(&disk);
    assert!(
        kept.iter()
            .all(|lsn| opened.log.reader().read(*lsn).unwrap() == [9; 1500][..])
    );
}

#[test]
fn a_snapshot_that_frees_segments_finds_room_on_a_full_disk() {
    for snapshots in 0..3 {
        let disk = SimDisk::new();
        disk.set_space(Some(8 * (8 << 10)));
        let mut log = open(&disk).log;
        for _ in 0..snapshots {
            fill(&mut log, 0..1);
            log.write_snapshot(b"early").unwrap();
        }
        while log.has_room(1500) {
            log.append(1, &[&[9; 1500]]).unwrap();
            log.commit(true).unwrap();
        }
        // Now the disk has not a byte left: its space is no more than what lies on it.
        let ballast = disk.create(Path::new("/ballast")).unwrap();
        assert!(ballast.write_all_at(&[0; 64 << 10], 0).is_err());
        let full = |log: &mut Log| log.write_snapshot(&[1; 6000]).unwrap_err().kind();
        assert_eq!(
            full(&mut log),
            ErrorKind::Unavailable,
            "nothing would be won"
        );
        let sealed: Vec<u32> = log
            .segments()
            .filter(|s| s.sealed)
            .map(|s| s.number)
            .collect();
        assert!(sealed.len() > 2);
        for number in sealed {
            log.release(number).unwrap();
        }
        log.commit(true).unwrap();
        log.write_snapshot(&[1; 6000]).unwrap();
        assert!(log.has_spare());
        let kept = log.append(1, &[b"kept"]).unwrap();
        log.commit(true).unwrap();
        drop(log);
        let opened = open(&disk);
        assert_eq!(opened.snapshot.as_deref(), Some(&[1; 6000][..]));
        assert_eq!(opened.log.reader().read(kept).unwrap(), &b"kept"[..]);
    }
}

#[test]
fn a_failed_write_or_sync_is_final() {
    for op in [SimOp::Write, SimOp::Sync] {
        for nth in 1..30 {
            let disk = SimDisk::new();
            let mut log = open(&disk).log;
            disk.fail(op, nth, io::ErrorKind::Other);
            let mut kept = 0;
            let failed = (0..).find_map(|number| {
                log.append(1, &[&payload(number)]).ok()?;
                let done = log.commit(true);
                kept += u64::from(done.is_ok());
                done.err()
            });
            assert!(failed.is_some());
            assert_eq!(log.append(1, &[]).unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(log.commit(true).unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(
                log.write_snapshot(b"x").unwrap_err().kind(),
                ErrorKind::Closed
            );
            drop(log);
            let opened = open(&disk);
            assert!(opened.records.len() as u64 >= kept);
            // What was lost by the sync is in memory still: the start must write it again.
            for image in disk.crash_images(disk.steps(), nth, 20) {
                assert_eq!(open(&image).records, opened.records);
            }
        }
    }
}

#[test]
fn a_second_open_is_refused_until_the_first_is_gone() {
    let disk = SimDisk::new();
    let first = open(&disk);
    let refused = try_open(&disk, &small()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(
        refused.to_string(),
        "log /data/log is open in another process"
    );
    drop(first);
    open(&disk);
}

#[test]
fn bounds_that_cannot_hold_are_refused() {
    let refused = |config: LogConfig| try_open(&SimDisk::new(), &config).err().unwrap().kind();
    assert_eq!(
        refused(LogConfig {
            message_bytes_max: 8 << 10,
            ..small()
        }),
        ErrorKind::Invalid
    );
    assert_eq!(
        refused(LogConfig {
            disk_bytes_max: 16 << 10,
            ..small()
        }),
        ErrorKind::Invalid
    );
    assert_eq!(
        refused(LogConfig {
            spare_segments: 1,
            ..small()
        }),
        ErrorKind::Invalid
    );
    let mut log = open(&SimDisk::new()).log;
    assert_eq!(log.append(0, &[]).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(log.release(1).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_group_larger_than_its_memory_is_written_in_parts() {
    let disk = SimDisk::new();
    let config = LogConfig {
        segment_bytes: 16 << 20,
        disk_bytes_max: 1 << 30,
        message_bytes_max: 1 << 20,
        ..small()
    };
    let mut log = try_open(&disk, &config).unwrap().log;
    let lsns: Vec<Lsn> = (0..40)
        .map(|n| log.append(1, &[&[n; 300 << 10]]).unwrap())
        .collect();
    log.commit(true).unwrap();
    assert_eq!((log.stats().groups, log.stats().fsyncs), (1, 1));
    drop(log);
    let opened = try_open(&disk, &config).unwrap();
    assert_eq!(
        opened
            .records
            .iter()
            .map(|(lsn, ..)| *lsn)
            .collect::<Vec<_>>(),
        lsns
    );
}

#[test]
fn on_a_real_disk_spares_come_from_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        background: true,
        ..small()
    };
    let open = |count: &mut u64| {
        let disk = Arc::new(SystemDisk);
        let mut visit = |entry: Entry<'_>| *count += u64::from(matches!(entry, Entry::Record(..)));
        Log::open(disk, &dir.path().join("log"), config.clone(), &mut visit).unwrap()
    };
    let mut count = 0;
    let (mut log, _) = open(&mut count);
    let mut acked = 0;
    for round in 0..20 {
        for _ in 0..40 {
            log.append(1, &[&payload(acked)]).unwrap();
            acked += 1;
        }
        log.commit(true).unwrap();
        let sealed: Vec<u32> = log
            .segments()
            .filter(|s| s.sealed)
            .map(|s| s.number)
            .collect();
        if round % 5 == 4 {
            log.write_snapshot(&acked.to_le_bytes()).unwrap();
            sealed
                .into_iter()
                .for_each(|number| log.release(number).unwrap());
        }
    }
    let after = log.append(1, &[b"last"]).unwrap();
    log.commit(true).unwrap();
    assert!(log.stats().released > 0);
    drop(log);
    let (log, recovery) = open(&mut count);
    assert_eq!((count, recovery.damaged.len()), (1, 0));
    assert_eq!(log.reader().read(after).unwrap(), &b"last"[..]);
}
