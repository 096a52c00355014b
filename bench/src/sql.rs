//! Questions to the lake of 20 million events, warm, against DuckDB over the same files.

use crate::duckdb::DuckDb;
use crate::lake::{ensure_lake, schemas};
use crate::measure::{self, median};
use crate::questions::{self, Floor, Question as Asked, about};
use crate::replay::{archive_of, bucket_of, events};
use crate::{data_dir, fresh, runtime};
use annals_archive::Ledger;
use annals_core::schema::Catalog;
use annals_sql::datafusion::arrow::array::{ArrayRef, RecordBatch};
use annals_sql::datafusion::arrow::compute::cast;
use annals_sql::datafusion::arrow::datatypes::DataType;
use annals_sql::datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use annals_sql::tables::{LakeHistory, OpenBatch, TypeCatalog};
use annals_sql::{Engine, EngineConfig, Question, Summary};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
const THREADS: usize = 2;
/// Longer than a question may take elsewhere, so that a slow one has a figure.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    let events = events();
    let dir = std::path::absolute(archive_of(events)?)?;
    ensure_lake(&dir, events)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        println!("## SQL: questions to {events} events in the lake, warm, {THREADS} threads\n");
        beside_duckdb(&dir).await?;
        println!(
            "\nMemory of the asking process at its highest: {} MiB.\n",
            measure::memory_mib(std::process::id())?.1
        );
        fresh::run(&dir, events).await
    })
}

/// Asks what standard input has, a question a line, several times each: for those who look into one.
pub(crate) async fn ask_lines(dir: &Path) -> Result<()> {
    let engine = engine(dir, None).await?;
    for sql in std::io::stdin().lines() {
        let sql = sql?;
        let (first, rows, _) = ask(&engine, &sql).await?;
        let (mut ms, mut summary) = (Vec::new(), None);
        let before = measure::cpu_of(std::process::id())?;
        for _ in 0..ROUNDS {
            let (took, _, cost) = ask(&engine, &sql).await?;
            ms.push(took);
            summary = Some(cost);
        }
        let used = measure::cpu_of(std::process::id())? - before;
        println!(
            "{sql}\n  {} ms, first {first:.0}, CPU {:.1} ms, {} rows, {}; memory {:?} MiB",
            spread(&ms),
            used.as_secs_f64() * 1000.0 / ROUNDS as f64,
            rows.len(),
            summary.as_ref().map(scanned).unwrap_or_default(),
            measure::memory_mib(std::process::id())?,
        );
        if sql.starts_with("EXPLAIN") {
            println!("{}", rows.join("\n"));
        }
    }
    Ok(())
}

/// The questions there are, or those whose names have the word that `ANNALS_BENCH_QUESTIONS` is.
pub(crate) fn asked() -> Vec<Asked> {
    let word = std::env::var("ANNALS_BENCH_QUESTIONS").unwrap_or_default();
    let mut all = questions::all();
    all.retain(|question| question.name.contains(&word));
    all
}

/// An engine over the history in a directory.
pub(crate) async fn engine(dir: &Path, open: Option<Arc<dyn OpenBatch>>) -> Result<Engine> {
    let schemas = schemas()?;
    let ledger = Ledger::open(bucket_of(dir)?, "main").await?;
    let history = LakeHistory::new(ledger, Arc::new(Fixed(schemas.catalog.clone())), open);
    let config = EngineConfig {
        threads: THREADS,
        timeout: TIMEOUT,
        ..EngineConfig::default()
    };
    let engine = Engine::new(Arc::new(history), config)?;
    engine.set_catalog(Catalog::clone(&schemas.catalog));
    Ok(engine)
}

/// Asks: milliseconds until all rows were there, the rows in order, what it cost.
pub(crate) async fn ask(engine: &Engine, sql: &str) -> Result<(f64, Vec<String>, Summary)> {
    let question = Question {
        rows_max: Some(0),
        ..Question::new(sql)
    };
    let start = Instant::now();
    let answer = engine.query(&question).await?;
    let (batches, summary) = answer.collect().await?;
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    Ok((ms, lines(&batches)?, summary))
}

/// Sources and ids of events all over the archive.
pub(crate) async fn sample(engine: &Engine) -> Result<Vec<(String, String)>> {
    let sql = "SELECT source, id FROM events WHERE ordinal % 10000 = 1234";
    let (_, rows, _) = ask(engine, sql).await?;
    let event = |row: &String| {
        let (id, source) = row.strip_prefix("id=")?.split_once(" source=")?;
        Some((source.to_owned(), id.to_owned()))
    };
    let events: Option<Vec<_>> = rows.iter().map(event).collect();
    events
        .filter(|e| !e.is_empty())
        .context("no event was found")
}

/// "min / **median** / max".
pub(crate) fn spread(ms: &[f64]) -> String {
    let least = ms.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ms.iter().copied().fold(0.0, f64::max);
    format!(
        "{least:.1} / **{:.1}** / {most:.1}",
        median(ms.iter().copied())
    )
}

/// What was read, in words.
pub(crate) fn scanned(summary: &Summary) -> String {
    let scanned = summary.scanned;
    let tail = match scanned.tail_rows {
        0 => String::new(),
        rows => format!(", {rows} rows of the tail"),
    };
    let mb = scanned.bytes as f64 / 1e6;
    format!("{} files, {mb:.1} MB{tail}", scanned.files)
}

async fn beside_duckdb(dir: &Path) -> Result<()> {
    let mut duckdb = DuckDb::start(dir, THREADS).await?;
    if duckdb.is_none() {
        println!("DuckDB is not there (`cargo xtask services up readers`).\n");
    }
    let events = sample(&engine(dir, None).await?).await?;
    let mut plans = String::new();
    println!(
        "| question | ours, ms | DuckDB, ms | ours/DuckDB | floor | first, ms | CPU ms, ours, DuckDB | rows | scanned |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for question in asked() {
        let engine = engine(dir, None).await?;
        match rounds(&engine, &question, &events, duckdb.as_mut()).await {
            Ok(taken) => println!("{}", taken.row(&question)),
            Err(error) => println!("| {} | {error:#} | | | | | | | |", question.name),
        }
        let sql = format!("EXPLAIN ANALYZE {}", about(&question.ours, &events[0]));
        if let Ok((_, lines, _)) = ask(&engine, &sql).await {
            writeln!(
                plans,
                "# {}\n\n{sql}\n\n{}\n",
                question.name,
                lines.join("\n")
            )?;
        }
    }
    // What a question did in detail, for those who make it faster.
    std::fs::write(data_dir()?.join("plans.txt"), plans)?;
    Ok(())
}

/// What a question took.
#[derive(Debug)]
struct Taken {
    first: f64,
    ours: Vec<f64>,
    /// By way of asking.
    peers: Vec<Vec<f64>>,
    cpu_ms: f64,
    peer_cpu_ms: f64,
    summary: Summary,
}

impl Taken {
    fn row(&self, question: &Asked) -> String {
        let middle = |ms: &Vec<f64>| median(ms.iter().copied());
        let best = self
            .peers
            .iter()
            .min_by(|a, b| middle(a).total_cmp(&middle(b)));
        let ratio = best.map(|best| median(self.ours.iter().zip(best).map(|(o, b)| o / b)));
        let ours = median(self.ours.iter().copied());
        let (floor, holds) = match question.floor {
            Floor::Ms(ms) => (format!("{ms:.0} ms"), ours <= ms),
            Floor::Ratio(most) => (format!("{most:.1}"), ratio.is_none_or(|r| r <= most)),
        };
        let floor = if holds {
            floor
        } else {
            format!("{floor}, missed")
        };
        let peers: Vec<String> = self.peers.iter().map(|ms| spread(ms)).collect();
        format!(
            "| {} | {} | {} | {} | {floor} | {:.0} | {:.0}, {:.0} | {} | {} |",
            question.name,
            spread(&self.ours),
            peers.join("; "),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("**{ratio:.2}**")),
            self.first,
            self.cpu_ms,
            self.peer_cpu_ms,
            self.summary.rows,
            scanned(&self.summary),
        )
    }
}

async fn rounds(
    engine: &Engine,
    question: &Asked,
    events: &[(String, String)],
    mut duckdb: Option<&mut DuckDb>,
) -> Result<Taken> {
    let event = |round: usize| &events[round * events.len() / (ROUNDS + 1)];
    let (first, expected, summary) = ask(engine, &about(&question.ours, event(0))).await?;
    let mut taken = Taken {
        first,
        ours: Vec::new(),
        peers: Vec::new(),
        cpu_ms: 0.0,
        peer_cpu_ms: 0.0,
        summary,
    };
    if let Some(duckdb) = duckdb.as_deref_mut() {
        for (way, peer) in question.peers.iter().enumerate() {
            let name = format!("{} {way}", question.name);
            let (_, rows) = duckdb.ask(&name, &about(peer, event(0)))?;
            ensure!(rows == expected, "DuckDB says {rows:?}, not {expected:?}");
            taken.peers.push(Vec::new());
        }
    }
    for round in 1..=ROUNDS {
        let mut rows_of_peers = Vec::new();
        if let Some(duckdb) = duckdb.as_deref_mut() {
            let before = measure::cpu_of(duckdb.pid())?;
            for (way, peer) in question.peers.iter().enumerate() {
                let name = format!("{} {way}", question.name);
                let (ms, rows) = duckdb.ask(&name, &about(peer, event(round)))?;
                taken.peers[way].push(ms);
                rows_of_peers.push(rows);
            }
            let used = measure::cpu_of(duckdb.pid())? - before;
            let ways = question.peers.len() * ROUNDS;
            taken.peer_cpu_ms += used.as_secs_f64() * 1000.0 / ways as f64;
        }
        let before = measure::cpu_of(std::process::id())?;
        let (ms, rows, summary) = ask(engine, &about(&question.ours, event(round))).await?;
        let used = measure::cpu_of(std::process::id())? - before;
        taken.cpu_ms += used.as_secs_f64() * 1000.0 / ROUNDS as f64;
        taken.ours.push(ms);
        taken.summary = summary;
        for other in rows_of_peers {
            ensure!(other == rows, "DuckDB says {other:?}, not {rows:?}");
        }
    }
    Ok(taken)
}

/// Rows as text, in order: `name=value` by name, times in microseconds since 1970.
fn lines(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let options = FormatOptions::new().with_null("null");
    let mut lines = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        let columns: Vec<ArrayRef> = batch
            .columns()
            .iter()
            .map(|column| match column.data_type() {
                DataType::Timestamp(..) => cast(column, &DataType::Int64),
                _ => Ok(column.clone()),
            })
            .collect::<Result<_, _>>()?;
        let mut named = Vec::new();
        for (field, column) in schema.fields().iter().zip(&columns) {
            named.push((field.name(), ArrayFormatter::try_new(column, &options)?));
        }
        named.sort_by_key(|(name, _)| *name);
        for row in 0..batch.num_rows() {
            let values = named
                .iter()
                .map(|(name, of)| format!("{name}={}", of.value(row)));
            lines.push(values.collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    Ok(lines)
}

/// Schemas that do not change.
#[derive(Debug)]
struct Fixed(Arc<Catalog>);

impl TypeCatalog for Fixed {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.clone()
    }
}
