//! The stand-alone Python reader reads what we write: docs/formats/read_archive.py.

mod support;

use annals_archive::Ledger;
use annals_archive::archiver::{Archiver, Config, NothingKnown};
use annals_archive::bucket::{Bucket, DirectoryBucket};
use annals_core::sim::SimClock;
use annals_core::system::SystemDisk;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use support::*;

/// The interpreter that `ANNALS_PYTHON` names, or that `cargo xtask services up clients` made, in
/// `.services` in the repository's root or where `ANNALS_SERVICES_DIR` says; else the system's.
fn python() -> Command {
    let services = std::env::var_os("ANNALS_SERVICES_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.services"),
        PathBuf::from,
    );
    let installed = Some(services.join("python/bin/python")).filter(|python| python.exists());
    let named = std::env::var_os("ANNALS_PYTHON").map(PathBuf::from);
    Command::new(named.or(installed).unwrap_or_else(|| "python3".into()))
}

#[tokio::test]
async fn the_python_reader_prints_every_event_in_order_of_arrival() {
    let probe = python()
        .args(["-c", "import zstandard, google.protobuf"])
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        // Past the capture of test output: nobody is to take this for a pass.
        let message = "SKIPPED: the_python_reader_prints_every_event: `cargo xtask services up clients`, or set ANNALS_PYTHON\n";
        std::io::stderr().write_all(message.as_bytes()).unwrap();
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let bucket: Arc<dyn Bucket> =
        Arc::new(DirectoryBucket::open(Arc::new(SystemDisk), root.path()).unwrap());
    let ledger = Ledger::open(bucket, BUS).await.unwrap();
    let bus = bus().await;
    let config = Config {
        consumers: 1,
        ..Config::of_bus(BUS)
    };
    let clock = Arc::new(SimClock::default());
    let archiver =
        Archiver::start(bus.clone(), ledger, Arc::new(NothingKnown), clock, config).unwrap();
    let mut published = 0;
    for upto in [7, 5000, 5001] {
        publish(
            &*bus,
            (published..upto).map(|n| message(&event(n))).collect(),
        )
        .await;
        while archiver.stats().received < upto as u64 {
            tokio::task::yield_now().await;
        }
        archiver.seal().await.unwrap();
        published = upto;
    }
    archiver.stop().await.unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/read_archive.py");
    let output = python()
        .arg(script)
        .arg(root.path())
        .arg(BUS)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected: Vec<_> = (0..5001)
        .map(|n| format!("{}\tid-{n:06}\torder-{}", TYPES[n % TYPES.len()], n % 7))
        .collect();
    assert!(
        printed.lines().eq(expected),
        "the reader printed something else"
    );
}
