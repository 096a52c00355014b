//! Scripted workloads, crashed at every step of the disk, in every legal way that a seed finds.
//!
//! What was acknowledged is there byte for byte, what is there was appended, in order and without
//! a gap, nothing is reported as damaged, and the log can be written and crashed again.

use super::*;
use annals_core::Disk;

/// What the log was told and what it answered, with the disk's step at that time.
#[derive(Default)]
struct Told {
    /// Added to the numbers of records.
    offset: u64,
    records: Vec<Record>,
    /// So many records had been appended.
    appended: Vec<(usize, usize)>,
    /// So many had been acknowledged.
    acknowledged: Vec<(usize, usize)>,
    released: Vec<(usize, u32)>,
}

/// What was last noted at or before `step`.
fn at<T: Copy>(notes: &[(usize, T)], step: usize) -> Option<T> {
    let after = notes.partition_point(|(noted, _)| *noted <= step);
    Some(notes.get(after.checked_sub(1)?)?.1)
}

impl Told {
    fn append(&mut self, disk: &SimDisk, log: &mut Log) {
        let number = self.offset + self.records.len() as u64;
        self.records.push(append(log, number));
        self.appended.push((disk.steps(), self.records.len()));
    }

    fn commit(&mut self, disk: &SimDisk, log: &mut Log, durable: bool) {
        log.commit(durable).unwrap();
        if durable {
            self.acknowledge(disk);
        }
    }

    /// Commits while so many more records are appended, which stay open.
    fn commit_beside(&mut self, disk: &SimDisk, log: &mut Log, durable: bool, more: u64) {
        let sealed = self.records.len();
        let mut commit = log.seal(durable).unwrap();
        (0..more).for_each(|_| self.append(disk, log));
        assert!(commit.run());
        log.committed(commit).unwrap();
        if durable {
            self.acknowledged.push((disk.steps(), sealed));
        }
    }

    fn acknowledge(&mut self, disk: &SimDisk) {
        self.acknowledged.push((disk.steps(), self.records.len()));
    }

    /// Checks what a crash after `step` left, and returns how many records that is.
    fn check(&self, opened: &Opened, step: usize) -> usize {
        let replaced = opened.snapshot.as_ref().map_or(0, |state| {
            u64::from_le_bytes(state.as_slice().try_into().unwrap()) as usize
        });
        let count = replaced + opened.records.len();
        let acknowledged = at(&self.acknowledged, step).unwrap_or(0);
        let appended = at(&self.appended, step).unwrap_or(0);
        assert!(
            opened.recovery.damaged.is_empty(),
            "{:?}",
            opened.recovery.damaged
        );
        assert!(
            count >= acknowledged,
            "{count} of {acknowledged} acknowledged"
        );
        assert!(count <= appended, "{count} of {appended} appended");
        assert_eq!(
            opened.records,
            self.records[replaced..count],
            "byte for byte"
        );
        let gone = |segment| {
            self.released
                .iter()
                .any(|(at, n)| *at <= step && *n == segment)
        };
        let reader = opened.log.reader();
        for (lsn, _, payload) in &self.records[..acknowledged] {
            if !gone(lsn.segment()) {
                assert_eq!(reader.read(*lsn).unwrap(), payload, "{lsn}");
            }
        }
        count
    }
}

/// Runs a workload of `actions` actions; the seed decides which.
fn run(disk: &SimDisk, seed: u64, actions: usize, told: &mut Told) {
    let random = SimRandom::new(seed);
    let mut log = open(disk).log;
    for _ in 0..actions {
        match random.below(40) {
            0..2 => {
                told.commit(disk, &mut log, true);
                log.write_snapshot(&(told.records.len() as u64).to_le_bytes())
                    .unwrap();
            }
            2..4 => {
                let oldest = log.segments().find(|segment| segment.sealed);
                if let Some(oldest) = oldest {
                    told.released.push((disk.steps(), oldest.number));
                    log.release(oldest.number).unwrap();
                }
            }
            4 => {
                log.close().unwrap();
                told.acknowledge(disk);
                log = open(disk).log;
            }
            5 => {
                // Killed: what was written is still there.
                told.commit(disk, &mut log, false);
                drop(log);
                log = open(disk).log;
                told.acknowledge(disk);
            }
            choice => {
                (0..1 + random.below(5)).for_each(|_| told.append(disk, &mut log));
                if random.one_in(2) {
                    told.commit(disk, &mut log, choice > 10);
                } else {
                    told.commit_beside(disk, &mut log, choice > 10, random.below(5));
                }
            }
        }
    }
}

/// Crashes a workload at every step; returns how many states were checked.
fn crash_everywhere(seed: u64, actions: usize, images: usize) -> usize {
    let disk = SimDisk::new();
    let mut told = Told::default();
    run(&disk, seed, actions, &mut told);
    let mut states = 0;
    for step in 0..=disk.steps() {
        for (number, image) in disk
            .crash_images(step, seed, images)
            .into_iter()
            .enumerate()
        {
            let at = format!("seed {seed} step {step} image {number}");
            let opened = checked(&at, || {
                let opened = open(&image);
                let count = told.check(&opened, step);
                (opened, count)
            });
            states += 1;
            if (step + number).is_multiple_of(19) {
                states += checked(&at, || crash_again(&image, &told, step, opened));
            }
        }
    }
    states
}

/// Goes on with a recovered log, crashes it at every step, and goes on once more.
fn crash_again(disk: &SimDisk, before: &Told, step: usize, opened: (Opened, usize)) -> usize {
    let (Opened { mut log, .. }, count) = opened;
    let acknowledged = at(&before.acknowledged, step).unwrap_or(0);
    let seed = step as u64;
    let records = before.records[..count].to_vec();
    let mut told = Told {
        offset: OTHER,
        records,
        ..Told::default()
    };
    told.released = before
        .released
        .iter()
        .map(|(_, number)| (0, *number))
        .collect();
    (told.appended, told.acknowledged) = (
        vec![(0, count)],
        vec![(0, acknowledged), (disk.steps(), count)],
    );
    let random = SimRandom::new(seed);
    for _ in 0..4 {
        (0..1 + random.below(4)).for_each(|_| told.append(disk, &mut log));
        told.commit(disk, &mut log, random.one_in(2));
    }
    drop(log);
    let mut states = 0;
    // Opening wrote to the disk too: crashes in the middle of recovery are part of it.
    for step in 0..=disk.steps() {
        for image in disk.crash_images(step, seed, 4) {
            let mut opened = open(&image);
            told.check(&opened, step);
            let last = append(&mut opened.log, 1 << 40);
            opened.log.commit(true).unwrap();
            drop(opened);
            assert_eq!(
                open(&image).records.last(),
                Some(&last),
                "the log can be written"
            );
            states += 1;
        }
    }
    states
}

/// Runs a check and says where it was if it fails.
fn checked<T>(at: &str, check: impl FnOnce() -> T) -> T {
    struct Note<'a>(&'a str);
    impl Drop for Note<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("crashed at {}", self.0);
            }
        }
    }
    let _note = Note(at);
    check()
}

#[test]
fn whatever_a_crash_leaves_the_acknowledged_records_are_intact() {
    let seeds = std::env::var("CRASH_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let states: usize = (0..seeds).map(|seed| crash_everywhere(seed, 60, 8)).sum();
    eprintln!("{states} states after a crash");
    assert!(states > 5000 * seeds as usize, "{states}");
}

#[test]
fn a_crash_while_the_log_is_created_leaves_a_log_that_opens() {
    let disk = SimDisk::new();
    let records = fill(&mut open(&disk).log, 0..3);
    for step in 0..=disk.steps() {
        for image in disk.crash_images(step, 1, 30) {
            let opened = open(&image);
            assert!(records.starts_with(&opened.records));
        }
    }
}

#[test]
fn a_group_that_reached_the_next_segment_alone_is_not_taken_for_acknowledged() {
    let disk = SimDisk::new();
    let mut log = open(&disk).log;
    let acknowledged = fill(&mut log, 0..30);
    for number in 30..120 {
        append(&mut log, number);
    }
    let before = disk.steps();
    log.commit(false).unwrap();
    let mut cut = 0;
    for step in before..=disk.steps() {
        for image in disk.crash_images(step, 9, 200) {
            let opened = open(&image);
            assert!(opened.records.starts_with(&acknowledged));
            assert!(
                opened.recovery.damaged.is_empty(),
                "{:?}",
                opened.recovery.damaged
            );
            cut += usize::from(opened.recovery.torn_bytes > 0);
        }
    }
    assert!(cut > 10, "some groups were torn: {cut}");
}

#[test]
fn an_interrupted_preparation_is_cleared_away() {
    let disk = SimDisk::new();
    drop(open(&disk));
    disk.create(Path::new("/data/log/0000000009.tmp")).unwrap();
    disk.create(Path::new("/data/log/snapshot.tmp")).unwrap();
    drop(open(&disk));
    let names = disk.list(Path::new(DIR)).unwrap();
    assert!(
        names
            .iter()
            .all(|entry| entry.path.extension().is_some_and(|e| e != "tmp"))
    );
}

#[test]
fn a_crash_right_after_a_recovery_reports_no_damage() {
    let disk = SimDisk::new();
    let first = fill(&mut open(&disk).log, 0..3);
    let mut opened = open(&disk);
    let before = disk.steps();
    append(&mut opened.log, 3);
    opened.log.commit(false).unwrap();
    for step in before..=disk.steps() {
        for image in disk.crash_images(step, 5, 100) {
            let opened = open(&image);
            assert!(opened.records.starts_with(&first));
            assert_eq!(opened.recovery.damaged, []);
        }
    }
}

#[test]
fn what_an_unacknowledged_group_left_is_never_taken_up_by_a_later_one() {
    for closed in [false, true] {
        let disk = SimDisk::new();
        let mut log = open(&disk).log;
        fill(&mut log, 0..3);
        match closed {
            true => log.close().unwrap(),
            false => drop(log),
        }
        let mut log = open(&disk).log;
        for number in 3..30 {
            append(&mut log, number);
        }
        let before = disk.steps();
        log.commit(false).unwrap();
        for image in disk.crash_images(before + 1, 11, 400) {
            let mut opened = open(&image);
            // What the torn group left may count; what lies behind its first gap may not.
            let known = opened.records.len();
            let added = append(&mut opened.log, OTHER + known as u64);
            opened.log.commit(true).unwrap();
            drop(opened);
            let again = open(&image);
            assert_eq!(again.records.len(), known + 1);
            assert_eq!(again.records.last(), Some(&added));
            assert!(again.recovery.damaged.is_empty());
        }
    }
}

#[test]
fn a_segment_that_an_unacknowledged_group_reached_does_not_end_the_one_before_it() {
    let disk = SimDisk::new();
    let mut log = open(&disk).log;
    let first = fill(&mut log, 0..3);
    // The second does not fit behind the first: much of the segment stays free, and the next one
    // says so.
    let before = disk.steps();
    for _ in 0..4 {
        log.append(1, &[&[1; 2900]]).unwrap();
    }
    log.commit(false).unwrap();
    let mut rolled = 0;
    for image in disk.crash_images(before + 2, 4, 40) {
        let mut opened = open(&image);
        let mut records = opened.records.clone();
        assert!(records.starts_with(&first));
        let active = opened.log.segments().last().unwrap().number;
        let mut notes = vec![(image.steps(), records.len())];
        for number in 0..100 {
            let payload = [number; 120];
            records.push((
                opened.log.append(7, &[&payload]).unwrap(),
                7,
                payload.to_vec(),
            ));
            opened.log.commit(true).unwrap();
            notes.push((image.steps(), records.len()));
        }
        rolled += usize::from(opened.log.segments().last().unwrap().number > active);
        drop(opened);
        for step in (notes[0].0..=image.steps()).step_by(3) {
            for again in image.crash_images(step, 8, 3) {
                let found = open(&again);
                assert!(records.starts_with(&found.records));
                assert!(found.records.len() >= at(&notes, step).unwrap());
                assert!(found.recovery.damaged.is_empty());
            }
        }
    }
    assert_eq!(rolled, 40);
}
