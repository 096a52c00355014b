//! `annals publish`: one event from the command line, or a file of them.

use super::{Context, progress};
use crate::client::Client;
use crate::exit::{Exit, Failure, Result, at_path};
use crate::http::events::Receipt;
use crate::ingest::Ingest;
use crate::output::{Table, grouped};
use annals_bus::{AmqpBus, Bus, Publisher, PublisherOptions};
use annals_core::system::{SystemClock, SystemRandom};
use annals_core::{Event, EventBuilder, Timestamp, random};
use serde_json::json;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod lines;

const EXAMPLES: &str = "\
Examples:
  annals publish shop.v1.OrderPlaced --subject o-17 -d '{\"total\":42}'
  annals publish shop.v1.OrderPlaced -d @order.json -a traceparent=00-…-01
  annals publish --from events.jsonl.zst --keep-going
  annals publish --from events.jsonl --amqp amqp://guest:guest@127.0.0.1:5672/%2f

Lines of a file are CloudEvents in JSON; their id, source and time are kept. Data becomes Protobuf
where its type has a schema (annals schema push), and stays JSON otherwise.";

/// Events to the bus that share one call, and calls under way at once.
const BATCH_EVENTS: usize = 1_000;
const BATCHES_IN_FLIGHT: usize = 4;

/// Publish one event, or a file of them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The event's type
    #[arg(value_name = "TYPE", required_unless_present = "from")]
    pub event_type: Option<String>,
    /// The data: JSON, @FILE, or - for standard input
    #[arg(
        short = 'd',
        value_name = "JSON",
        conflicts_with = "from",
        allow_hyphen_values = true
    )]
    pub payload: Option<String>,
    /// The entity it is about
    #[arg(long, conflicts_with = "from")]
    pub subject: Option<String>,
    /// Who says so
    #[arg(long, default_value = "/annals/cli", conflicts_with = "from")]
    pub source: String,
    /// The event's id [default: a new one]
    #[arg(long, conflicts_with = "from")]
    pub id: Option<String>,
    /// When it happened [default: now]
    #[arg(long, conflicts_with = "from")]
    pub time: Option<Timestamp>,
    /// Another attribute
    #[arg(
        short,
        long = "attribute",
        value_name = "NAME=VALUE",
        conflicts_with = "from"
    )]
    pub attributes: Vec<String>,
    /// Publish the events of a file, one in JSON a line; .zst is unpacked; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "event_type")]
    pub from: Option<PathBuf>,
    /// Go on after a bad line (and exit with 8)
    #[arg(long, requires = "from")]
    pub keep_going: bool,
    /// Publish to this broker instead of the running server's
    #[arg(long, value_name = "URI")]
    pub amqp: Option<String>,
}

/// What became of a file.
#[derive(Debug, Clone, Default)]
pub struct FileReport {
    /// Lines read, empty ones not counted.
    pub lines: u64,
    /// Events the bus holds.
    pub published: u64,
    /// Bytes of their envelopes.
    pub bytes: u64,
    /// Lines that are no event.
    pub bad: u64,
    /// How long it took.
    pub took: Duration,
}

/// Publishes.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    match &args.from {
        Some(path) => file(path.clone(), &args, context).await,
        None => one(&args, context).await,
    }
}

async fn one(args: &Args, context: &mut Context) -> Result<()> {
    let event = build(args)?;
    let receipt = match &args.amqp {
        Some(uri) => publish_over_amqp(uri, event).await?,
        None => {
            let server = context.server().await?;
            let text = annals_core::json::encode(&event)?;
            let receipts = server.publish(text, false).await?;
            let missing = || Failure::new(Exit::Failed, "the server gave no receipt");
            receipts.into_iter().next().ok_or_else(missing)?
        }
    };
    context.out.table(&Table::record([
        ("id", json!(receipt.id)),
        ("source", json!(receipt.source)),
        ("type", json!(receipt.event_type)),
        ("held_by", json!(receipt.held_by)),
        ("bytes", json!(receipt.bytes)),
    ]))
}

fn build(args: &Args) -> Result<Event> {
    let event_type = args.event_type.as_deref().unwrap_or_default();
    let id = match &args.id {
        Some(id) => id.clone(),
        None => random::mint_id(&SystemClock, &SystemRandom)
            .as_str()
            .to_owned(),
    };
    let time = args
        .time
        .unwrap_or_else(|| annals_core::Clock::now(&SystemClock));
    let mut event = EventBuilder::new(event_type, &args.source, id)?.time(time);
    if let Some(subject) = &args.subject {
        event = event.subject(subject)?;
    }
    for attribute in &args.attributes {
        let (name, value) = attribute
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("attribute {attribute:?} is not NAME=VALUE")))?;
        event = event.attribute(name, value)?;
    }
    if let Some(payload) = &args.payload {
        let payload = read_payload(payload)?;
        serde_json::from_slice::<&serde_json::value::RawValue>(&payload).map_err(|e| {
            Failure::new(Exit::Invalid, format!("the data is not JSON: {e}"))
                .next("give JSON in quotes, as in -d '{\"total\":42}', or @FILE, or -")
        })?;
        event = event.json(payload);
    }
    Ok(event.build()?)
}

fn read_payload(argument: &str) -> Result<Vec<u8>> {
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read(path).map_err(at_path(path.as_ref())),
        None if argument == "-" => {
            let mut payload = Vec::new();
            std::io::stdin().read_to_end(&mut payload)?;
            Ok(payload)
        }
        None => Ok(argument.as_bytes().to_vec()),
    }
}

async fn publish_over_amqp(uri: &str, event: Event) -> Result<Receipt> {
    let connection = connect(uri).await?;
    let mut results = connection.publisher.publish_events(vec![event]).await;
    connection.close().await;
    match results.pop() {
        Some(Ok(receipt)) => Ok(Receipt::of_bus(&receipt.event)),
        Some(Err(e)) => Err(e.error.into()),
        None => Err(Failure::new(Exit::Failed, "the bus gave no answer")),
    }
}

async fn file(path: PathBuf, args: &Args, context: &mut Context) -> Result<()> {
    let (uri, ingest) = match &args.amqp {
        Some(uri) => (uri.clone(), Ingest::without_schemas()),
        None => of_server(&context.server().await?).await?,
    };
    let bar = progress::byte_bar(context, "publishing", lines::length(&path));
    let options = FileOptions {
        keep_going: args.keep_going,
        bad_line: &|number, reason| context.say(format_args!("line {number}: {reason}")),
        progress: &|bytes| bar.set_position(bytes),
    };
    let connection = connect(&uri).await?;
    let ended = publish_file(&connection.publisher, ingest, path, options).await;
    connection.close().await;
    bar.finish_and_clear();
    let (report, failure) = match ended {
        Ok(report) => (report, None),
        Err((report, failure)) => (report, Some(failure)),
    };
    // A file that cannot be opened has no report.
    if report.lines > 0 || failure.is_none() {
        context.out.table(&report.table())?;
    }
    match failure {
        Some(failure) => Err(failure),
        None if report.bad > 0 => Err(Failure::new(
            Exit::Partly,
            format!(
                "{} of {} lines are no event",
                grouped(report.bad),
                grouped(report.lines)
            ),
        )
        .next("correct the lines named above, and publish them alone")),
        None => Ok(()),
    }
}

/// The running server's broker and schemas.
async fn of_server(server: &Client) -> Result<(String, Ingest)> {
    let status = server.status().await?;
    let catalog = server.schemas().await?.compile()?;
    let ingest = Ingest::new(Arc::new(catalog), Arc::new(SystemClock));
    Ok((status.amqp_uri(), ingest))
}

/// A publisher and the connection it publishes over.
#[derive(Debug)]
pub struct Connection {
    /// Publishes to the main bus.
    pub publisher: Publisher,
    bus: Arc<dyn Bus>,
}

impl Connection {
    /// Says goodbye. What was confirmed is held by the broker whatever comes of it.
    pub async fn close(self) {
        if let Err(error) = self.bus.close().await {
            tracing::debug!(%error, "the connection did not close cleanly");
        }
    }
}

/// A publisher on the main bus of a broker.
pub async fn connect(uri: &str) -> Result<Connection> {
    let bus: Arc<dyn Bus> = Arc::new(AmqpBus::connect(uri, Default::default()).await?);
    let mut options = PublisherOptions::of_bus(crate::platform::BUS, "annals");
    options.event_bytes_max = lines::LINE_BYTES_MAX;
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let publisher = Publisher::new(bus.clone(), options, clock, random);
    Ok(Connection { publisher, bus })
}

/// How a file is published.
pub struct FileOptions<'a> {
    /// Whether a bad line is passed over.
    pub keep_going: bool,
    /// Told of each bad line: its number, and why.
    pub bad_line: &'a dyn Fn(u64, &str),
    /// Told how many bytes of the file have been read.
    pub progress: &'a dyn Fn(u64),
}

impl std::fmt::Debug for FileOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileOptions")
            .field("keep_going", &self.keep_going)
            .finish_non_exhaustive()
    }
}

/// Publishes the events of a file in order; see [`Args::from`]. A failure comes with what was
/// done before it.
pub async fn publish_file(
    publisher: &Publisher,
    ingest: Ingest,
    path: PathBuf,
    options: FileOptions<'_>,
) -> Result<FileReport, (FileReport, Failure)> {
    use futures::StreamExt;
    let began = Instant::now();
    let mut report = FileReport::default();
    let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_IN_FLIGHT);
    let keep_going = options.keep_going;
    let reading = std::thread::spawn(move || lines::read(&path, &ingest, keep_going, &sender));
    let batches = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|batch| (batch, receiver))
    });
    let outcomes = batches
        .map(|batch: lines::Batch| async move {
            let results = publisher.publish_events(batch.events).await;
            (batch.lines, batch.bad, batch.position, results)
        })
        .buffered(BATCHES_IN_FLIGHT);
    let mut outcomes = std::pin::pin!(outcomes);
    let mut failure = None;
    while let Some((lines, bad, position, results)) = outcomes.next().await {
        report.lines += lines;
        report.bad += bad.len() as u64;
        for (number, reason) in &bad {
            (options.bad_line)(*number, reason);
        }
        for result in results {
            match result {
                Ok(receipt) => {
                    report.published += 1;
                    report.bytes += receipt.event.bytes().len() as u64;
                }
                Err(e) => failure = failure.or(Some(Failure::from(e.error))),
            }
        }
        (options.progress)(position);
        if failure.is_some() {
            break;
        }
        if let Some((number, reason)) = bad.first().filter(|_| !keep_going) {
            let message = format!("line {number}: {reason}; the lines before it are published");
            failure = Some(
                Failure::new(Exit::Invalid, message).next("pass over bad lines with --keep-going"),
            );
        }
    }
    report.took = began.elapsed();
    if let Some(failure) = failure {
        return Err((report, failure));
    }
    // The reader ends by itself: it has sent its last batch.
    match reading.join() {
        Ok(Ok(())) => Ok(report),
        Ok(Err(failure)) => Err((report, failure)),
        Err(_) => Err((
            report,
            Failure::new(Exit::Failed, "the reader of the file broke"),
        )),
    }
}

impl FileReport {
    fn table(&self) -> Table {
        let seconds = self.took.as_secs_f64().max(1e-9);
        Table::record([
            ("lines", json!(self.lines)),
            ("published", json!(self.published)),
            ("bad", json!(self.bad)),
            ("bytes", json!(self.bytes)),
            ("seconds", json!((seconds * 1e3).round() / 1e3)),
            (
                "per_second",
                json!((self.published as f64 / seconds).round() as u64),
            ),
        ])
    }
}
