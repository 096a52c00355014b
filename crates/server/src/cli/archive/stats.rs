//! `annals archive stats`: what the archive holds, in numbers.

use crate::cli::Context;
use crate::exit::Result;
use crate::history::Stats;
use crate::output::{Format, Table};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  annals archive stats                 totals, and events by type
  annals archive stats --by-day -o csv
  annals archive stats -o json         everything

Events count once however often they were published; records count every copy. Bodies that are no
event are kept too, as type annals.archive.v1.Undecodable.";

/// Count events, by type and day
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// By type and day of archiving
    #[arg(long)]
    pub by_day: bool,
}

/// Counts.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let stats = match context.find_server().await? {
        Some(server) => server.stats().await?,
        None => context.open_history().await?.stats().await?,
    };
    match context.out.format_or(Format::Table) {
        Format::Json | Format::Jsonl if !args.by_day => {
            let text = serde_json::to_string(&stats).expect("statistics are plain data");
            context.out.bytes(text.as_bytes())?;
            context.out.bytes(b"\n")?;
            context.out.flush()
        }
        Format::Table if !args.by_day => {
            context.out.table(&totals(&stats))?;
            context.out.bytes(b"\n")?;
            context.out.table(&by_type(&stats))
        }
        _ if args.by_day => context.out.table(&by_day(&stats)),
        _ => context.out.table(&by_type(&stats)),
    }
}

fn totals(stats: &Stats) -> Table {
    Table::record([
        ("events", json!(stats.events)),
        ("records", json!(stats.records)),
        ("duplicates", json!(stats.duplicates)),
        ("conflicts", json!(stats.conflicts)),
        ("undecodable", json!(stats.undecodable)),
        ("segments", json!(stats.segments)),
        ("bytes", json!(stats.bytes)),
        ("ledger_position", json!(stats.ledger_position)),
    ])
}

fn by_type(stats: &Stats) -> Table {
    let mut table = Table::new(["type", "events"]);
    for count in &stats.types {
        table.row([json!(count.event_type), json!(count.events)]);
    }
    table
}

fn by_day(stats: &Stats) -> Table {
    let mut table = Table::new(["day", "type", "events"]);
    for count in &stats.days {
        table.row([
            json!(count.day),
            json!(count.event_type),
            json!(count.events),
        ]);
    }
    table
}
