//! DuckDB in a process of its own, over the same Parquet files.

use crate::generate::TYPES;
use crate::replay::bucket_of;
use annals_lake::{Lake, TableName};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PYTHON: &str = ".services/python/bin/python";
const SCRIPT: &str = include_str!("duckdb.py");

/// A connection that has the lake's tables as views.
#[derive(Debug)]
pub(crate) struct DuckDb {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl DuckDb {
    /// Starts it with so many threads; `None` where it is not installed.
    pub(crate) async fn start(archive: &Path, threads: usize) -> Result<Option<Self>> {
        let probe = Command::new(PYTHON).args(["-c", "import duckdb"]).output();
        if !probe.is_ok_and(|probe| probe.status.success()) {
            return Ok(None);
        }
        let mut child = Command::new(PYTHON)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().context("no input")?;
        let from = BufReader::new(child.stdout.take().context("no output")?);
        let mut started = Self { child, to, from };
        started.run(&format!("SET threads = {threads}"))?;
        started.run("SET parquet_metadata_cache = true")?;
        started.run("SET validate_external_file_cache = 'NO_VALIDATION'")?;
        let lake = Lake::new(bucket_of(archive)?, "main");
        let types = TYPES.iter().map(|name| TableName::of_type(name));
        for name in std::iter::once(Ok(TableName::Events)).chain(types) {
            let name = name?;
            let table = lake.table(&name).await?.table;
            let folder = archive.join(table.folder());
            let files = table.files()?;
            let paths = files
                .iter()
                .map(|file| format!("'{}'", folder.join(&file.path).display()));
            let paths: Vec<String> = paths.collect();
            started.run(&format!(
                "CREATE VIEW \"{name}\" AS SELECT * FROM read_parquet([{}], hive_partitioning = true)",
                paths.join(", ")
            ))?;
        }
        Ok(Some(started))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks a question: milliseconds until all rows were there, and the rows in order.
    pub(crate) fn ask(&mut self, name: &str, sql: &str) -> Result<(f64, Vec<String>)> {
        let answer = self.send(&json!({"name": name, "sql": sql}))?;
        let ms = answer["ms"].as_f64().context("no time")?;
        let rows = answer["rows"].as_array().context("no rows")?;
        let rows = rows.iter().map(|row| row.as_str().unwrap_or_default());
        Ok((ms, rows.map(str::to_owned).collect()))
    }

    fn run(&mut self, sql: &str) -> Result<()> {
        self.send(&json!({ "sql": sql })).map(drop)
    }

    fn send(&mut self, line: &Value) -> Result<Value> {
        writeln!(self.to, "{line}")?;
        self.to.flush()?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).context("DuckDB has ended")?;
        match answer["error"].as_str() {
            Some(error) => bail!("DuckDB: {error}"),
            None => Ok(answer),
        }
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
