//! 20 million events from the archive to the lake's tables, from nothing, against a bare Parquet loop.

use crate::generate::{self, TYPES};
use crate::measure::{self, Pair, Run};
use crate::replay::{archive_of, bucket_of, events, segments};
use crate::{bare_lake, runtime, scratch_dir};
use annals_archive::Ledger;
use annals_archive::index::Index;
use annals_core::schema::Catalog;
use annals_lake::converter::{Config, Converter, Schemas};
use annals_lake::{Lake, TableName};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
/// Says that the lake beside it has all of the archive.
const COMPLETE: &str = "lake-complete";

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    let events = events();
    let dir = archive_of(events)?;
    open_index(&dir)?;
    let segments = segments(&dir.join("raw"))?;
    let mut converted = Vec::new();
    let pair = Pair::interleave(
        ROUNDS,
        || {
            let done = convert_anew(&dir, events)?;
            converted.push(done);
            Ok(done.run)
        },
        || {
            let scratch = scratch_dir()?;
            measure::run(|| bare_lake::convert(&segments, scratch.path(), events))
        },
    )?;
    let last = converted.last().context("no round was run")?;
    println!("## Lake: {events} events from the archive, from nothing\n");
    println!("| | k ev/s | us CPU |");
    println!("|---|---|---|");
    println!(
        "| ours | {} | {} |",
        measure::rates(&pair.ours),
        measure::cpus(&pair.ours)
    );
    println!(
        "| bare decoding and Parquet, 2 threads | {} | {} |",
        measure::rates(&pair.bare),
        measure::cpus(&pair.bare)
    );
    println!(
        "\nours/bare rate **{:.2}**, CPU {:.2}. {} rows in all ({} in `events`, {} in {} tables of \
         types), {} files; converter's memory at its highest **{} MiB**. Bare neither sorts nor \
         leaves out copies, has a third fewer columns, and syncs and commits nothing.\n",
        pair.rate_ratio(),
        pair.cpu_ratio(),
        last.run.events + last.typed,
        last.run.events,
        last.typed,
        TYPES.len(),
        last.files,
        converted.iter().map(|c| c.highest_mib).max().unwrap_or(0),
    );
    runtime()?.block_on(print_tables(&dir))
}

/// Makes the lake of an archive, and its index, if they are not there.
pub(crate) fn ensure_lake(dir: &Path, events: u64) -> Result<()> {
    open_index(dir)?;
    if !dir.join(COMPLETE).exists() {
        eprintln!("making the lake of {events} events, once …");
        convert_anew(dir, events)?;
    }
    Ok(())
}

/// The schemas of the generated types.
pub(crate) fn schemas() -> Result<Schemas> {
    Ok(Schemas {
        revision: 1,
        catalog: Arc::new(Catalog::from_files(generate::schemas())?),
    })
}

/// Converts all of an archive; prints rows, files, seconds, CPU seconds, and this process's memory
/// in MiB at its highest. In a process of its own, whose memory is that of the converter alone.
pub(crate) fn convert(dir: &Path) -> Result<()> {
    let schemas = schemas()?;
    let runtime = runtime()?;
    let start = Instant::now();
    let progress = runtime.block_on(async {
        let ledger = Ledger::open(bucket_of(dir)?, "main").await?;
        let mut converter = Converter::new(ledger, schemas, Config::default());
        anyhow::Ok(converter.catch_up().await?)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(progress.damage.is_empty(), "{:?}", progress.damage);
    let pid = std::process::id();
    println!(
        "{} {} {} {seconds} {} {}",
        progress.events,
        progress.typed,
        progress.files,
        measure::cpu_of(pid)?.as_secs_f64(),
        measure::memory_mib(pid)?.1
    );
    Ok(())
}

/// A conversion, as the process that did it tells.
#[derive(Debug, Clone, Copy)]
struct Converted {
    run: Run,
    typed: u64,
    files: u64,
    highest_mib: u64,
}

fn convert_anew(dir: &Path, events: u64) -> Result<Converted> {
    let complete = dir.join(COMPLETE);
    if complete.exists() {
        std::fs::remove_file(&complete)?;
    }
    let lake = dir.join("lake");
    if lake.exists() {
        std::fs::remove_dir_all(lake)?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("convert").arg(dir).output()?;
    ensure!(output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stdout)?;
    let fields: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
    let fields = fields?;
    let [rows, typed, files, seconds, cpu, highest] = fields[..] else {
        anyhow::bail!("it printed {line}");
    };
    ensure!(rows as u64 == events, "{rows} rows of {events} events");
    ensure!(typed as u64 == events, "{typed} typed rows of {events}");
    std::fs::write(complete, "")?;
    Ok(Converted {
        run: Run {
            events,
            wall: Duration::from_secs_f64(seconds),
            cpu: Duration::from_secs_f64(cpu),
        },
        typed: typed as u64,
        files: files as u64,
        highest_mib: highest as u64,
    })
}

/// The index is measured with replay; here it is to be there.
fn open_index(dir: &Path) -> Result<()> {
    runtime()?.block_on(async {
        let ledger = Ledger::open(bucket_of(dir)?, "main").await?;
        Index::open_or_rebuild(&ledger).await?;
        Ok(())
    })
}

async fn print_tables(dir: &Path) -> Result<()> {
    let lake = Lake::new(bucket_of(dir)?, "main");
    println!("| table | rows | files | MB | bytes a row |");
    println!("|---|---|---|---|---|");
    let types = TYPES.iter().map(|name| TableName::of_type(name));
    for name in std::iter::once(Ok(TableName::Events)).chain(types) {
        let name = name?;
        let files = lake.table(&name).await?.table.files()?;
        let rows: u64 = files.iter().map(|file| file.stats.num_records).sum();
        let bytes: u64 = files.iter().map(|file| file.len).sum();
        println!(
            "| `{name}` | {rows} | {} | {:.0} | {:.1} |",
            files.len(),
            bytes as f64 / 1e6,
            bytes as f64 / rows as f64
        );
    }
    println!();
    Ok(())
}
