//! What SimDisk may and may not forget.

use super::*;
use crate::disk::{Access, Disk};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

const A: &str = "/d/a";

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn contents(disk: &SimDisk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    let images = disk.crash_images(disk.steps(), 1, 200);
    images
        .iter()
        .map(|image| image.content(Path::new(path)))
        .collect()
}

#[test]
fn what_was_synced_with_its_name_survives_every_crash() {
    let disk = disk();
    let file = disk.create(Path::new(A)).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(contents(&disk, A), BTreeSet::from([Some(b"kept".to_vec())]));
}

#[test]
fn a_synced_file_without_a_synced_name_may_be_gone() {
    let disk = disk();
    let file = disk.create(Path::new(A)).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        contents(&disk, A),
        BTreeSet::from([None, Some(b"kept".to_vec())])
    );
}

#[test]
fn unsynced_writes_are_kept_dropped_and_torn_in_any_combination() {
    let disk = disk();
    let file = disk.create(Path::new(A)).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(&[2; 1024], 0).unwrap();
    let seen = contents(&disk, A);
    let of = |a, b| Some([[a; 512], [b; 512]].concat());
    assert_eq!(
        seen,
        BTreeSet::from([of(1, 1), of(1, 2), of(2, 1), of(2, 2)])
    );
}

#[test]
fn an_unsynced_rename_leaves_the_old_or_the_new_name_whole() {
    let disk = disk();
    for (name, byte) in [("/d/old", 1), ("/d/new", 2)] {
        let file = disk.create(Path::new(name)).unwrap();
        file.write_all_at(&[byte], 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.rename(Path::new("/d/new"), Path::new("/d/old"))
        .unwrap();
    assert_eq!(
        contents(&disk, "/d/old"),
        BTreeSet::from([Some(vec![1]), Some(vec![2])])
    );
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(contents(&disk, "/d/old"), BTreeSet::from([Some(vec![2])]));
    assert_eq!(contents(&disk, "/d/new"), BTreeSet::from([None]));
}

#[test]
fn a_failed_sync_may_lose_what_a_later_sync_does_not_bring_back() {
    let mut lost = 0;
    for n in 0..20 {
        let disk = disk();
        let file = disk.create(Path::new(A)).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        for _ in 0..n {
            file.sync_data().unwrap();
        }
        file.write_all_at(b"x", 0).unwrap();
        disk.fail(SimOp::Sync, 1, ErrorKind::Other);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(
            disk.content(Path::new(A)).unwrap(),
            b"x",
            "readers still see it"
        );
        lost += u32::from(contents(&disk, A) == BTreeSet::from([Some(Vec::new())]));
    }
    assert!((1..20).contains(&lost), "lost {lost} of 20");
}

#[test]
fn a_full_disk_takes_what_fits_and_says_so() {
    let disk = disk();
    disk.set_space(Some(10));
    let file = disk.create(Path::new(A)).unwrap();
    file.write_all_at(&[1; 8], 0).unwrap();
    let error = file.write_all_at(&[2; 8], 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.set_len(11).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_all_at(&[3; 8], 0).unwrap();
    disk.remove(Path::new(A)).unwrap();
    disk.create(Path::new(A))
        .unwrap()
        .write_all_at(&[4; 10], 0)
        .unwrap();
}

#[test]
fn the_nth_operation_fails_once() {
    let disk = disk();
    let file = disk.create(Path::new(A)).unwrap();
    disk.fail(SimOp::Write, 2, ErrorKind::Other);
    file.write_all_at(b"ab", 0).unwrap();
    file.write_all_at(b"cd", 0).unwrap_err();
    assert_eq!(
        disk.content(Path::new(A)).unwrap(),
        b"cb",
        "half of it is written"
    );
    file.write_all_at(b"ef", 0).unwrap();
}

#[test]
fn a_lock_is_exclusive_until_dropped() {
    let disk = disk();
    let held = disk.lock(Path::new(A)).unwrap();
    assert_eq!(
        disk.lock(Path::new(A)).err().unwrap().kind(),
        ErrorKind::WouldBlock
    );
    drop(held);
    disk.lock(Path::new(A)).unwrap();
}

#[test]
fn a_handle_for_reading_does_not_write() {
    let disk = disk();
    disk.create(Path::new(A)).unwrap();
    let file = disk.open(Path::new(A), Access::Read).unwrap();
    assert_eq!(
        file.write_all_at(b"x", 0).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
}

#[test]
fn the_same_seed_gives_the_same_numbers_and_images() {
    let numbers = |seed| {
        let random = SimRandom::new(seed);
        [random.next_u64(), random.next_u64()]
    };
    assert_eq!(numbers(3), numbers(3));
    assert_ne!(numbers(3), numbers(4));
    let clock = SimClock::default();
    let before = clock.now();
    clock.advance(Duration::from_secs(2));
    assert_eq!(clock.now().duration_since(before).as_secs(), 2);
}
