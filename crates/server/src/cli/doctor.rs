//! `annals doctor`: check that this machine and directory can run the platform.

use super::Context;
use crate::address::Address;
use crate::bucket::{BucketUrl, StoreSettings};
use crate::exit::{Exit, Failure, Result};
use crate::history::{History, LedgerRow};
use crate::output::{Table, bytes_text, grouped};
use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
use annals_core::{Clock, Disk, Timestamp};
use futures::{StreamExt, stream};
use serde_json::json;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  annals doctor
  annals doctor --data /var/lib/annals -o json
  annals doctor --bucket s3://events/shop      could a platform keep its archive there?

Exits with 1 if a check failed. Changes nothing but what it writes and removes again: a file in the
directory, two objects in a store.";

/// Less free disk than this is worth a warning, in bytes.
const DISK_FREE_MIN: u64 = 1 << 30;
/// Segments whose length is asked for at a time: a store takes its time over each.
const HEADS_AT_ONCE: usize = 32;
/// A sync that takes longer is worth a warning.
const SYNC_MAX: Duration = Duration::from_millis(100);

/// Check that this machine and directory can run the platform
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// AMQP port that `up` would take
    #[arg(
        long,
        value_name = "PORT",
        env = "ANNALS_AMQP_PORT",
        default_value_t = 5672
    )]
    pub amqp_port: u16,
    /// HTTP port that `up` would take
    #[arg(long, value_name = "PORT", env = "ANNALS_PORT", default_value_t = 7400)]
    pub port: u16,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// What came out.
    pub verdict: Verdict,
    /// The facts.
    pub detail: String,
    /// What to do, unless all is well.
    pub next: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It works, but not for long or not well.
    Warn,
    /// It does not work.
    Fail,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            detail: detail.into(),
            next: None,
        }
    }

    fn not(
        verdict: Verdict,
        name: &'static str,
        detail: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict,
            detail: detail.into(),
            next: Some(next.into()),
        }
    }
}

/// Checks.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let running = server_check(context).await;
    let serves = running.verdict == Verdict::Ok && running.next.is_none();
    let mut checks = vec![
        directory(&context.dir),
        disk_free(&context.dir),
        clock(context).await,
    ];
    let store = store(context).await;
    let reached = store
        .as_ref()
        .is_none_or(|check| check.verdict != Verdict::Fail);
    checks.extend(store);
    if running.detail.starts_with("none") {
        checks.push(port("amqp port", args.amqp_port, "--amqp-port"));
        checks.push(port("http port", args.port, "--port"));
    }
    checks.push(running);
    if reached {
        checks.push(archive(context, serves).await);
    }
    let mut table = Table::new(["check", "verdict", "detail", "next"]);
    for check in &checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        table.row([
            json!(check.name),
            json!(verdict),
            json!(check.detail),
            json!(check.next),
        ]);
    }
    context.out.table(&table)?;
    match checks.iter().filter(|c| c.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Failed, "1 check failed")),
        count => Err(Failure::new(Exit::Failed, format!("{count} checks failed"))),
    }
}

async fn server_check(context: &Context) -> Check {
    let name = "server";
    match context.find_server().await {
        Ok(Some(server)) => match server.status().await {
            Ok(status) if status.broker.blocked => Check::not(
                Verdict::Fail,
                name,
                format!(
                    "process {}: publishes are refused for lack of disk",
                    status.pid
                ),
                "free disk space; publishing resumes by itself",
            ),
            Ok(status) if status.broker.unreadable > 0 => Check::not(
                Verdict::Fail,
                name,
                format!(
                    "process {}: {} queued messages cannot be read and are not archived",
                    status.pid, status.broker.unreadable
                ),
                "stop the server and copy its broker/ directory; its output names the places",
            ),
            Ok(status) => Check::ok(
                name,
                format!(
                    "process {} on ports {} and {}; {} events wait to be archived",
                    status.pid,
                    status.amqp_port,
                    status.http_port,
                    status.broker.archive_queue_ready + status.archiver.open
                ),
            ),
            Err(failure) => Check::not(Verdict::Fail, name, failure.message, "annals up"),
        },
        Ok(None) => {
            let next = format!("annals up --data {}", context.dir.display());
            Check::not(Verdict::Ok, name, "none runs on this directory", next)
        }
        Err(failure) => Check::not(Verdict::Fail, name, failure.message, "annals up"),
    }
}

/// Writes a file, syncs it, and removes it: in the directory, or where it would be made.
fn directory(dir: &Path) -> Check {
    let name = "directory";
    let place = existing(dir);
    let probe = place.join(format!(".annals-doctor-{}", std::process::id()));
    let began = Instant::now();
    let written = SystemDisk.create(&probe).and_then(|file| {
        file.write_all_at(b"annals", 0)?;
        file.sync_data()?;
        SystemDisk.sync_dir(&place)
    });
    let took = began.elapsed();
    // Gone, or never made.
    let _ = SystemDisk.remove(&probe);
    let detail = format!(
        "{}: a durable write took {:.1} ms",
        place.display(),
        took.as_secs_f64() * 1e3
    );
    match written {
        Err(e) => Check::not(
            Verdict::Fail,
            name,
            format!("{}: {e}", place.display()),
            "make the directory writable, or choose another with --data",
        ),
        Ok(()) if took > SYNC_MAX => Check::not(
            Verdict::Warn,
            name,
            detail,
            "use a faster disk: every confirm waits for one",
        ),
        Ok(()) => Check::ok(name, detail),
    }
}

/// The nearest directory that exists.
fn existing(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let found = dir.ancestors().find(|d| d.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn disk_free(dir: &Path) -> Check {
    let name = "disk";
    let asked = std::process::Command::new("df")
        .arg("-Pk")
        .arg(existing(dir))
        .output();
    let free = asked
        .ok()
        .and_then(|out| free_bytes(&String::from_utf8_lossy(&out.stdout)));
    match free {
        None => Check::not(Verdict::Warn, name, "free space is not known", "df"),
        Some(free) if free < DISK_FREE_MIN => Check::not(
            Verdict::Warn,
            name,
            format!("{} free", bytes_text(free)),
            "free disk space: without any, publishes are refused",
        ),
        Some(free) => Check::ok(name, format!("{} free", bytes_text(free))),
    }
}

/// The fourth column of the last line of `df -Pk`.
fn free_bytes(text: &str) -> Option<u64> {
    let column = text.lines().last()?.split_whitespace().nth(3)?;
    column.parse::<u64>().ok()?.checked_mul(1024)
}

async fn clock(context: &Context) -> Check {
    let name = "clock";
    let now = SystemClock.now();
    let next = "set the clock: archive time is taken from it";
    let oldest: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a constant time");
    let newest = match context.open_history().await {
        Ok(history) => history.ledger_rows().await.unwrap_or_default().pop(),
        Err(_) => None,
    };
    let written = newest.and_then(|row| row.written_at.parse::<Timestamp>().ok());
    match written {
        Some(written) if written > now => Check::not(
            Verdict::Warn,
            name,
            format!("{now} is before the last ledger entry, {written}"),
            next,
        ),
        _ if now < oldest => Check::not(Verdict::Fail, name, format!("{now} is long past"), next),
        _ => Check::ok(name, now.to_string()),
    }
}

fn port(name: &'static str, port: u16, flag: &str) -> Check {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Check::ok(name, format!("{port} is free")),
        Err(e) => Check::not(
            Verdict::Fail,
            name,
            format!("{port}: {e}"),
            format!("stop what uses it, or annals up {flag} 0"),
        ),
    }
}

/// Whether the store could hold an archive; `None` where the bucket is a directory.
async fn store(context: &Context) -> Option<Check> {
    let name = "store";
    let settings = StoreSettings::of_process();
    let place = match context.bucket_args().place(&context.dir, &settings) {
        Ok(place) => place,
        Err(failure) => return Some(failed(name, failure)),
    };
    if let BucketUrl::Directory(_) = place.bucket {
        return None;
    }
    let began = Instant::now();
    let checked = place.open_checked(Arc::new(SystemDisk), &SystemRandom, &settings);
    Some(match checked.await {
        Ok(_) => Check::ok(
            name,
            format!(
                "{place}: creates once, reads what was written; tried in {:.0} ms",
                began.elapsed().as_secs_f64() * 1e3
            ),
        ),
        Err(failure) => failed(name, failure),
    })
}

fn failed(name: &'static str, failure: Failure) -> Check {
    let next = failure.next.unwrap_or_default();
    Check::not(Verdict::Fail, name, failure.message, next)
}

async fn archive(context: &Context, serves: bool) -> Check {
    let name = "archive";
    match (Address::read(&context.dir), segments(context).await) {
        (_, Err(failure)) if failure.exit == Exit::Unreachable => {
            Check::ok(name, "none yet in this directory")
        }
        (_, Err(failure)) => Check::not(
            Verdict::Fail,
            name,
            failure.message,
            "annals archive verify",
        ),
        (Ok(Some(address)), Ok(_)) if !serves => Check::not(
            Verdict::Warn,
            name,
            format!("process {} did not end cleanly", address.pid),
            "annals up: it goes on from what is durable",
        ),
        (_, Ok(rows)) => Check::ok(
            name,
            format!(
                "ledger entries: {}, segments: {}, all there",
                grouped(rows.last().map_or(0, |row| row.entry)),
                grouped(rows.len() as u64)
            ),
        ),
    }
}

/// The segments, if the ledger's chain is whole and each is there in its length. What is in them
/// is for `archive verify`.
async fn segments(context: &Context) -> Result<Vec<LedgerRow>> {
    let bucket = context.open_bucket()?;
    let rows = History::open(bucket.clone()).await?.ledger_rows().await?;
    let lengths = rows.iter().map(|row| bucket.head(&row.segment));
    let mut lengths = stream::iter(lengths).buffered(HEADS_AT_ONCE);
    for row in &rows {
        let length = lengths.next().await.transpose()?.flatten();
        let wrong = match length {
            None => "is missing",
            Some(length) if length != row.bytes => "has another length than the ledger says",
            Some(_) => continue,
        };
        let message = format!("{} {wrong}", row.segment);
        return Err(Failure::new(Exit::Difference, message));
    }
    drop(lengths);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_read_off_the_last_line() {
        let text =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 40 60 40% /\n";
        assert_eq!(free_bytes(text), Some(60 * 1024));
        assert_eq!(free_bytes("nonsense"), None);
        assert_eq!(free_bytes(""), None);
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_checked_where_it_would_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        assert_eq!(existing(&deep), dir.path());
        assert_eq!(directory(&deep).verdict, Verdict::Ok);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_taken_port_fails_with_the_next_step() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        let check = port("amqp port", number, "--amqp-port");
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.next.unwrap().contains("--amqp-port"));
    }
}
