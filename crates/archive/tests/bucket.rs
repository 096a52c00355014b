//! Every bucket passes the conformance suite, and a directory stays right when syncs fail, when
//! space runs out and when several processes share it.

use annals_archive::bucket::{Bucket, Created, DirectoryBucket, StoreBucket, conformance};
use annals_core::ErrorKind;
use annals_core::disk::Disk;
use annals_core::sim::{SimDisk, SimOp};
use annals_core::system::SystemDisk;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::Arc;

fn sim_bucket(disk: &SimDisk) -> DirectoryBucket {
    DirectoryBucket::open(Arc::new(disk.clone()), "/bucket").unwrap()
}

#[tokio::test]
async fn a_directory_on_the_system_conforms() {
    let root = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check_all(|| {
        number += 1;
        let root = root.path().join(number.to_string());
        DirectoryBucket::open(Arc::new(SystemDisk), root).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_directory_on_a_simulated_disk_conforms() {
    conformance::check_all(|| sim_bucket(&SimDisk::new())).await;
}

#[tokio::test]
async fn an_object_store_conforms() {
    conformance::check_all(StoreBucket::memory).await;
}

#[tokio::test]
async fn a_failed_sync_stops_the_bucket_for_good() {
    for op in [SimOp::Sync, SimOp::SyncDir] {
        let disk = SimDisk::new();
        let bucket = sim_bucket(&disk);
        bucket
            .create("a/1", Bytes::from_static(b"x"))
            .await
            .unwrap();
        disk.fail(op, 1, io::ErrorKind::Other);
        for name in ["a/2", "a/2", "b/1"] {
            let error = bucket
                .create(name, Bytes::from_static(b"x"))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed, "{op:?} {name}: {error}");
        }
        let put = bucket.put("d", Bytes::from_static(b"x")).await;
        assert_eq!(put.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(bucket.get("a/1").await.unwrap(), "x", "reading goes on");
    }
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_under_the_final_name_and_heals() {
    let disk = SimDisk::new();
    let bucket = sim_bucket(&disk);
    disk.set_space(Some(100));
    let large = Bytes::from(vec![7; 1000]);
    let error = bucket.create("a/1", large.clone()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(bucket.list("", None).await.unwrap(), []);
    disk.set_space(None);
    assert_eq!(
        bucket.create("a/1", large.clone()).await.unwrap(),
        Created::Created
    );
    assert_eq!(bucket.get("a/1").await.unwrap(), large);
}

#[tokio::test]
async fn every_step_that_fails_is_an_error_and_the_next_try_succeeds_or_the_bucket_stops() {
    for op in [
        SimOp::Write,
        SimOp::SetLen,
        SimOp::Sync,
        SimOp::Open,
        SimOp::Name,
        SimOp::SyncDir,
    ] {
        for nth in 1..12 {
            let disk = SimDisk::new();
            let bucket = sim_bucket(&disk);
            disk.fail(op, nth, io::ErrorKind::Other);
            let bytes = Bytes::from_static(b"whole");
            let mut made = bucket.create("a/b/1", bytes.clone()).await;
            if made.as_ref().is_err_and(|e| e.kind() != ErrorKind::Closed) {
                made = bucket.create("a/b/1", bytes.clone()).await;
            }
            if made.is_ok() {
                for image in disk.crash_images(disk.steps(), nth, 8) {
                    assert_eq!(
                        image.content(Path::new("/bucket/a/b/1")).as_deref(),
                        Some(&bytes[..])
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn processes_that_share_a_directory_do_not_touch_each_other_and_clean_after_the_dead() {
    let disk = SimDisk::new();
    let (one, two) = (sim_bucket(&disk), sim_bucket(&disk));
    one.create("a", Bytes::from_static(b"1")).await.unwrap();
    two.create("b", Bytes::from_static(b"2")).await.unwrap();
    let left = Path::new("/bucket/.tmp/0/left");
    disk.create(left).unwrap();
    two.create("c", Bytes::from_static(b"3")).await.unwrap();
    assert!(disk.content(left).is_some(), "its owner lives");
    drop(one);
    let three = sim_bucket(&disk);
    three.create("d", Bytes::from_static(b"4")).await.unwrap();
    assert!(disk.content(left).is_none(), "its owner is dead");
    assert_eq!(three.list("", None).await.unwrap().len(), 4);
}
