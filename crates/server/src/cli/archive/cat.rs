//! `annals archive cat`: archived events, in JSON.

use crate::cli::Context;
use crate::cli::selection::SelectionArgs;
use crate::cli::tail::{EventPrinter, Lines};
use crate::exit::{Exit, Failure, Result};
use crate::history::SelectionText;
use crate::output::Format;
use annals_core::Clock;
use annals_core::system::SystemClock;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  annals archive cat --types 'shop.#' --range today
  annals archive cat --subject tokio-rs/axum | head
  annals archive cat --id o-17-placed --fail-empty
  annals archive cat --range 2026-11-20..2026-11-21 --axis archive -o csv

Each event once, in the order of the archive. Protobuf data is shown as JSON where its type has a
schema. The bytes as published: annals replay --to file:PATH";

/// Print archived events
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Stop after this many events
    #[arg(short = 'n', long = "count", value_name = "N")]
    pub count: Option<u64>,
    /// Exit with 3 if there is none
    #[arg(long)]
    pub fail_empty: bool,
    // Last: its heading is that of all flags after it.
    /// Which events
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// Prints.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let text = SelectionText::from(args.selection);
    let selection = text.parse(SystemClock.now())?;
    let printed = match context.find_server().await? {
        Some(server) => {
            let stream = server.events(&text, false).await?;
            print(stream, args.count, context).await?
        }
        None => {
            let history = context.open_history().await?;
            let catalog = Arc::new(history.schemas().await?.compile()?);
            let stream = history.json_lines(&selection, catalog).await?;
            print(stream.boxed(), args.count, context).await?
        }
    };
    match printed {
        0 if args.fail_empty => Err(Failure::new(Exit::NothingMatched, "no event matched")),
        _ => Ok(()),
    }
}

async fn print(
    stream: impl Stream<Item = Result<Bytes>> + Unpin,
    count: Option<u64>,
    context: &mut Context,
) -> Result<u64> {
    let mut printer = EventPrinter::new(context.out.format_or(Format::Jsonl));
    let mut lines = Lines::new(stream);
    let mut printed = 0;
    while count.is_none_or(|count| printed < count) {
        let Some(line) = lines.next().await? else {
            break;
        };
        printer.event(&line, context)?;
        printed += 1;
    }
    printer.end(context)?;
    Ok(printed)
}
