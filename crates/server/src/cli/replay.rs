//! `annals replay`: give a part of history back.

mod answer;

use super::selection::SelectionArgs;
use super::tail::Lines;
use super::{Context, progress};
use crate::client::Client;
use crate::exit::{Exit, Failure, Result};
use crate::history::{EventList, SelectionText};
use crate::output::{Table, output_failure};
use crate::replays::{PlanRow, Prepared, ReplayRequest, To};
use annals_core::EventSet;
use annals_core::system::{SystemClock, SystemDisk, SystemRandom};
use annals_replay::targets::{Format, StreamTarget};
use annals_replay::{Listed, ListedEvent, Receipt};
use serde_json::{Value, json};
use std::fs::File;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  annals replay --types 'shop.#' --dry-run                  how many it would be
  annals replay --types 'shop.#' --to file:orders.binpb     the bytes as published
  annals replay --subject o-17 --to file:o-17.jsonl         JSON lines
  annals replay --range today --to stdout | jq .type
  annals replay --types 'shop.#' --to private:rebuild --rate 2000
  annals replay --ids lost.txt --to private:rebuild    events listed in a file
  psql -Atf lost.sql | annals replay --ids - --dry-run
  annals replay --sql \"SELECT source, id FROM events WHERE subject = 'o-17'\" --to private:rebuild

A list has an event a line: SOURCE<TAB>ID, or JSON with source and id (such as events printed by
annals), or an ID alone: every event of that id, whatever its source. Blank lines and # comments are
skipped. An event listed twice counts once. What is listed and not archived is counted and named,
and the exit code is 8, unless --allow-missing is given.

Each event once, in the order of the archive. A .binpb file holds the envelopes, each after its
length as a varint. A private replay goes to an exchange of its own and the queues named, every
delivery marked with the header annals-replay-id; it reaches nothing else and is never archived.
Commands (types that end with Command, packages that end with commands) are left out unless --types
names them in full. What was replayed is written down in the bucket, below replays/.";

/// Give a part of history back: to a file, standard output or a private exchange
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to: file:PATH, stdout, private or private:QUEUE
    #[arg(long, value_name = "TARGET", required_unless_present = "dry_run")]
    pub to: Option<To>,
    /// Most events a second
    #[arg(long, value_name = "N")]
    pub rate: Option<NonZeroU32>,
    /// Only say what it would do
    #[arg(long)]
    pub dry_run: bool,
    /// Events listed in a file, one a line; - is standard input
    #[arg(long = "ids", value_name = "FILE")]
    pub ids_from: Option<PathBuf>,
    /// Events that a question in SQL answers with: rows of source and id
    #[arg(long, value_name = "SQL", conflicts_with = "ids_from")]
    pub sql: Option<String>,
    /// Exit with 0 though events of the list are not archived
    #[arg(long, requires = "ids_from")]
    pub allow_missing: bool,
    /// Exit with 3 if no event is selected
    #[arg(long)]
    pub fail_empty: bool,
    // Last: its heading is that of all flags after it.
    /// Which events
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// Replays.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let to = args
        .to
        .filter(|_| !args.dry_run)
        .map(absolute)
        .transpose()?;
    let mut selection = SelectionText::from(args.selection);
    if let Some(path) = args.ids_from {
        selection.events = Some(read_list(path).await?);
    }
    if let Some(sql) = &args.sql {
        selection.events = Some(answer::events_of(sql, context).await?);
    }
    let request = ReplayRequest {
        selection,
        to: to.as_ref().map(To::to_string),
        rate: args.rate,
    };
    let outcome = match (context.find_server().await?, to) {
        (Some(server), None) => print_plan(server.plan(&request).await?, context)?,
        (Some(server), Some(To::Stdout)) => {
            let plan = ReplayRequest {
                to: None,
                ..request.clone()
            };
            let outcome = Outcome::from(&server.plan(&plan).await?);
            let mut lines = Lines::new(server.replay_stream(&request).await?);
            while let Some(line) = lines.next().await? {
                context.out.bytes(&line)?;
                context.out.bytes(b"\n")?;
            }
            context.out.flush()?;
            outcome
        }
        (Some(server), Some(to)) => {
            let receipt = server.replay(&request).await?;
            let outcome = print_receipt(&receipt, context)?;
            if let To::Private(queues) = to {
                say_where(&queues, &receipt, &server, context).await?;
            }
            outcome
        }
        (None, to) => on_directory(&request, to, context).await?,
    };
    if let Some(listed) = outcome.listed.filter(|listed| listed.missing > 0) {
        let failure = missing(&listed);
        match args.allow_missing {
            true => context.say(&failure.message),
            false => return Err(failure),
        }
    }
    match outcome.matched {
        0 if args.fail_empty => Err(Failure::new(Exit::NothingMatched, "no event matched")),
        _ => Ok(()),
    }
}

/// What the exit code depends on.
struct Outcome {
    /// Archived events that are selected.
    matched: u64,
    listed: Option<Listed>,
}

impl Outcome {
    fn new(selected: u64, listed: Option<&Listed>) -> Self {
        Self {
            matched: selected - listed.map_or(0, |listed| listed.missing),
            listed: listed.cloned(),
        }
    }
}

impl From<&PlanRow> for Outcome {
    fn from(plan: &PlanRow) -> Self {
        Self::new(plan.selected, plan.listed.as_ref())
    }
}

impl From<&Receipt> for Outcome {
    fn from(receipt: &Receipt) -> Self {
        Self::new(receipt.selected, receipt.listed.as_ref())
    }
}

fn missing(listed: &Listed) -> Failure {
    let Listed {
        listed,
        missing,
        missing_first,
        ..
    } = listed;
    let mut named: Vec<String> = missing_first.iter().map(ListedEvent::to_string).collect();
    let more = missing - missing_first.len() as u64;
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    let named = named.join(", ");
    let message = format!("{missing} of {listed} listed events are not archived: {named}");
    Failure::new(Exit::Partly, message)
        .next("annals archive seal, if they were published just now; or --allow-missing")
}

/// Reads a list of events off the async threads.
async fn read_list(path: PathBuf) -> Result<Arc<EventSet>> {
    let read = move || match path.as_os_str() == "-" {
        true => EventList::read(std::io::stdin().lock()),
        false => File::open(&path)
            .map_err(Failure::from)
            .and_then(EventList::read)
            .map_err(|failure| failure.context(path.display())),
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|e| Failure::new(Exit::Failed, format!("reading the list ended: {e}")))?
}

/// Where a private replay waits.
async fn say_where(
    queues: &[String],
    receipt: &Receipt,
    server: &Client,
    context: &Context,
) -> Result<()> {
    let queues = match queues {
        [] => receipt.target.trim_start_matches("exchange ").to_owned(),
        queues => queues.join(", "),
    };
    let uri = server.status().await?.amqp_uri();
    context.say(format_args!(
        "it waits in {queues} at {uri}; delete what you are done with"
    ));
    Ok(())
}

/// The server may have another working directory.
fn absolute(to: To) -> Result<To> {
    match to {
        To::File(path) => Ok(To::File(std::path::absolute(path)?)),
        other => Ok(other),
    }
}

async fn on_directory(
    request: &ReplayRequest,
    to: Option<To>,
    context: &mut Context,
) -> Result<Outcome> {
    let history = context.open_history().await?;
    let (clock, archive) = (Arc::new(SystemClock), history.into_archive());
    let prepared = Prepared::new(archive, request, clock, &SystemRandom).await?;
    let bar = progress::bar(context, "replaying", prepared.plan().to_deliver());
    let progress = |delivered| bar.set_position(delivered);
    let receipt = match to {
        None => return print_plan(prepared.plan().clone().into(), context),
        Some(To::Private(_)) => {
            let next = format!("annals up --data {}", context.dir.display());
            let message = "a private replay needs the broker of a running server";
            return Err(Failure::new(Exit::Unreachable, message).next(next));
        }
        Some(To::File(path)) => {
            let mut target = prepared.file(Arc::new(SystemDisk), path)?;
            prepared.run(&mut target, progress).await?
        }
        Some(To::Stdout) => {
            let mut target =
                StreamTarget::new("standard output", tokio::io::stdout(), Format::JsonLines);
            return match prepared.run(&mut target, progress).await {
                Ok(receipt) => Ok(Outcome::from(&receipt)),
                Err(failure) if failure.message.contains("Broken pipe") => {
                    Err(output_failure(std::io::ErrorKind::BrokenPipe.into()))
                }
                Err(failure) => Err(failure),
            };
        }
    };
    bar.finish_and_clear();
    print_receipt(&receipt, context)
}

fn print_plan(plan: PlanRow, context: &mut Context) -> Result<Outcome> {
    let mut fields = vec![
        ("selected", json!(plan.selected)),
        ("commands_left_out", json!(plan.commands)),
        ("to_deliver", json!(plan.to_deliver)),
        ("types", json!(plan.types.len())),
        ("segments", json!(plan.segments)),
        ("stored_bytes", json!(plan.stored_bytes)),
        ("ledger_position", json!(plan.position)),
    ];
    add_listed(&mut fields, plan.listed.as_ref());
    context.out.table(&Table::record(fields))?;
    Ok(Outcome::from(&plan))
}

fn print_receipt(receipt: &Receipt, context: &mut Context) -> Result<Outcome> {
    let mut fields = vec![
        ("replay", json!(receipt.id)),
        ("target", json!(receipt.target)),
        ("selected", json!(receipt.selected)),
        ("delivered", json!(receipt.delivered)),
        ("commands_left_out", json!(receipt.skipped.commands)),
        ("unrouted", json!(receipt.skipped.unrouted)),
        ("completed", json!(receipt.completed)),
        ("ledger_position", json!(receipt.position)),
        ("started_at", json!(receipt.started_at)),
        ("finished_at", json!(receipt.finished_at)),
    ];
    add_listed(&mut fields, receipt.listed.as_ref());
    context.out.table(&Table::record(fields))?;
    Ok(Outcome::from(receipt))
}

fn add_listed(fields: &mut Vec<(&'static str, Value)>, listed: Option<&Listed>) {
    let Some(listed) = listed else { return };
    fields.extend([
        ("listed", json!(listed.listed)),
        ("missing", json!(listed.missing)),
        ("missing_first", json!(listed.missing_first)),
        ("ids_of_several_events", json!(listed.several)),
    ]);
}
