//! `annals archive ls`: the segments, as the ledger names them.

use crate::cli::Context;
use crate::exit::Result;
use crate::output::Table;
use serde_json::json;

/// List the segments, as the ledger names them
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  annals archive ls -o csv > segments.csv")]
pub struct Args {}

/// Lists.
pub async fn run(_: Args, context: &mut Context) -> Result<()> {
    let rows = match context.find_server().await? {
        Some(server) => server.ledger().await?,
        None => context.open_history().await?.ledger_rows().await?,
    };
    let mut table = Table::new([
        "entry",
        "written_at",
        "package",
        "events",
        "bytes",
        "segment",
    ]);
    for row in rows {
        table.row([
            json!(row.entry),
            json!(row.written_at),
            json!(row.package),
            json!(row.events),
            json!(row.bytes),
            json!(row.segment),
        ]);
    }
    context.out.table(&table)
}
