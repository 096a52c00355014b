//! `annals sql`: ask all of history.

mod prompt;

use super::tail::Lines;
use super::{Context, quantity};
use crate::client::Client;
use crate::exit::{Exit, Failure, Result};
use crate::http::sql::SqlRequest;
use crate::output::Format as OutputFormat;
use crate::questions::{SummaryRow, engine_of_bucket};
use annals_sql::render::{Format, Renderer};
use annals_sql::{Engine, EngineConfig};
use futures::StreamExt;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  annals sql \"SELECT type, count(*) FROM events GROUP BY type\"
  annals sql \"SELECT subject, payload.sha FROM vcs.v1.CommitPushed ORDER BY time DESC LIMIT 5\"
  annals sql \"SELECT * FROM latest('shop.v1.Order') WHERE payload.cents > 1000\" -o csv > orders.csv
  annals sql -f report.sql --rows 0 -o jsonl
  annals sql                                                a prompt; .help says more

`events` has every event, a type is the table of its events; json_get(payload_json, 'a', 'b') reads
JSON payloads. Reads only. See docs/guide/asking-history.md and docs/guide/sql-reference.md.";

/// Ask all of history, in SQL
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The question; none: a prompt, or what standard input has
    #[arg(value_name = "SQL", conflicts_with = "file")]
    pub sql: Option<String>,
    /// Read the question from a file; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Most rows; 0 for all
    #[arg(long, value_name = "COUNT")]
    pub rows: Option<u64>,
    /// Longest time a question may take
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// Most memory a question may use
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub memory: Option<u64>,
}

/// Asks.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let asked = Asked::find(context, &args).await?;
    match question(&args)? {
        Some(sql) => {
            let summary = asked.answer(context, &args.request(sql)).await?;
            context.out.flush()?;
            context.say(summary);
            Ok(())
        }
        None => prompt::run(&asked, &args, context).await,
    }
}

impl Args {
    fn request(&self, sql: String) -> SqlRequest {
        SqlRequest {
            sql,
            format: None,
            rows: self.rows,
            timeout_s: self.timeout.map(|t| t.as_secs_f64()),
            memory_bytes: self.memory.and_then(|bytes| usize::try_from(bytes).ok()),
        }
    }
}

/// The question, if there is one: from the command line, a file, or standard input.
fn question(args: &Args) -> Result<Option<String>> {
    if let Some(sql) = &args.sql {
        return Ok(Some(sql.clone()));
    }
    let mut text = String::new();
    match args.file.as_deref() {
        Some(path) if path.as_os_str() != "-" => {
            let read = std::fs::read_to_string(path);
            text = read.map_err(crate::exit::at_path(path))?;
        }
        None if std::io::stdin().is_terminal() => return Ok(None),
        _ => {
            std::io::stdin().read_to_string(&mut text)?;
        }
    }
    Ok(Some(text))
}

/// Who is asked.
enum Asked {
    Server(Client),
    Own(Box<Engine>),
}

impl Asked {
    async fn find(context: &Context, args: &Args) -> Result<Self> {
        if let Some(server) = context.find_server().await? {
            return Ok(Self::Server(server));
        }
        let mut config = EngineConfig::default();
        if let Some(bytes) = args.memory.and_then(|bytes| usize::try_from(bytes).ok()) {
            config.memory_bytes = bytes;
        }
        let engine = engine_of_bucket(context.open_bucket()?, config).await?;
        Ok(Self::Own(Box::new(engine)))
    }

    /// Writes an answer as it comes.
    async fn answer(&self, context: &mut Context, request: &SqlRequest) -> Result<SummaryRow> {
        let format = context.out.format_or(OutputFormat::Table);
        match self {
            Self::Server(server) => from_server(server, context, request, format).await,
            Self::Own(engine) => from_engine(engine, context, request, format).await,
        }
    }
}

async fn from_server(
    server: &Client,
    context: &mut Context,
    request: &SqlRequest,
    format: OutputFormat,
) -> Result<SummaryRow> {
    let name = match format {
        OutputFormat::Table => "table",
        OutputFormat::Csv => "csv",
        // The API's own JSON has the cost around the rows.
        OutputFormat::Json | OutputFormat::Jsonl => "jsonl",
    };
    let request = SqlRequest {
        format: Some(name.to_owned()),
        ..request.clone()
    };
    let (id, mut parts) = server.sql(&request).await?;
    if format == OutputFormat::Json {
        let mut lines = Lines::new(parts);
        let mut before: &[u8] = b"[";
        while let Some(line) = lines.next().await? {
            context.out.bytes(before)?;
            context.out.bytes(&line)?;
            before = b",\n";
        }
        if before == b"[" {
            context.out.bytes(before)?;
        }
        context.out.bytes(b"]\n")?;
    } else {
        while let Some(part) = parts.next().await {
            context.out.bytes(&part?)?;
        }
    }
    server.sql_summary(&id).await
}

async fn from_engine(
    engine: &Engine,
    context: &mut Context,
    request: &SqlRequest,
    format: OutputFormat,
) -> Result<SummaryRow> {
    let format = match format {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Jsonl => Format::JsonLines,
        OutputFormat::Csv => Format::Csv,
    };
    let mut answer = engine.query(&request.question()?).await?;
    let mut renderer = Renderer::new(format, answer.schema())?;
    let mut out = Vec::new();
    while let Some(batch) = answer.next().await {
        renderer.batch(batch?, &mut out)?;
        context.out.bytes(&out)?;
        out.clear();
    }
    renderer.finish(&mut out)?;
    context.out.bytes(&out)?;
    Ok(answer.summary().into())
}

/// The answer of a bucket's history as JSON lines, where no server runs.
pub(super) async fn lines_of_bucket(context: &Context, request: &SqlRequest) -> Result<Vec<u8>> {
    let engine = engine_of_bucket(context.open_bucket()?, EngineConfig::default()).await?;
    let mut answer = engine.query(&request.question()?).await?;
    let mut renderer = Renderer::new(Format::JsonLines, answer.schema())?;
    let mut out = Vec::new();
    while let Some(batch) = answer.next().await {
        renderer.batch(batch?, &mut out)?;
    }
    renderer.finish(&mut out)?;
    Ok(out)
}

/// What a question that failed says, kept short where there is more to ask.
fn told(failure: &Failure) -> String {
    match failure.exit {
        Exit::Failed => format!("failed: {failure}"),
        _ => failure.to_string(),
    }
}
