//! `cargo run --release -p annals-bench [NAME...]`: annals against bare loops and peers, in one run.
//!
//! `annals-bench ask DIRECTORY` times the questions on standard input, a line each.
//!
//! Prints Markdown, for `bench/RESULTS.md`: medians of interleaved rounds, CPU beside wall clock.
//!
//! | name | what | against |
//! |---|---|---|
//! | local | durable publish through `LocalBus` | a bare segmented log |
//! | broker | durable publish through one lapin connection | RabbitMQ's quorum queue (`cargo xtask services up`) |
//! | archiver | archive queue to ledger | a bare zstd-1 loop |
//! | replay | 20 million events into a consumer in process | a bare zstd and header-scan loop |
//! | lake | the same events from the archive to the lake's tables | a bare Parquet loop |
//! | sql | questions to those tables, and with a raw tail | DuckDB (`cargo xtask services up readers`) |
//! | startup | start with 10 million messages queued, archive them; memory | the stated bounds |

// Its output is what people run it for.
#![allow(clippy::print_stdout)]

mod archiver;
mod bare;
mod bare_lake;
mod broker;
mod duckdb;
mod fresh;
mod generate;
mod lake;
mod local;
mod measure;
mod questions;
mod replay;
mod sql;
mod startup;

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    // As `annals` does.
    annals_core::system::share_allocator_arenas();
    let args: Vec<String> = std::env::args().skip(1).collect();
    // In processes of their own, whose CPU and memory can be told from that of the rest.
    if let [verb, dir] = &args[..] {
        match verb.as_str() {
            "serve" => return runtime()?.block_on(broker::serve(Path::new(dir))),
            "convert" => return lake::convert(Path::new(dir)),
            "ask" => return runtime()?.block_on(sql::ask_lines(Path::new(dir))),
            "backlog" => return runtime()?.block_on(archiver::backlog(Path::new(dir))),
            _ => {}
        }
    }
    let names: Vec<&str> = match args.is_empty() {
        true => vec![
            "local", "broker", "archiver", "replay", "lake", "sql", "startup",
        ],
        false => args.iter().map(String::as_str).collect(),
    };
    println!("# Figures\n\n{}\n", machine());
    for name in names {
        match name {
            "local" => local::run()?,
            "broker" => broker::run()?,
            "archiver" => archiver::run()?,
            "replay" => replay::run()?,
            "lake" => lake::run()?,
            "sql" => sql::run()?,
            "startup" => startup::run()?,
            other => bail!("no bench is called {other}"),
        }
    }
    Ok(())
}

/// Where benches keep what is dear to make; on a real disk, unlike a temporary directory may be.
fn data_dir() -> Result<PathBuf> {
    let dir = std::env::var_os("ANNALS_BENCH_DIR")
        .map_or_else(|| PathBuf::from("target/bench-data"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A directory for one run, removed after it.
fn scratch_dir() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(data_dir()?)?)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let today = jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default();
    format!(
        "{model}, {cores} cores, load {load} at the start, {}. Release profile. \
         min / **median** / max of interleaved rounds.",
        today.strftime("%Y-%m-%d")
    )
}
