//! `annals archive seal`: archive now what was published so far.

use crate::cli::Context;
use crate::exit::Result;
use crate::output::Table;
use serde_json::json;

/// Archive now what was published so far
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  annals archive seal && annals archive stats

The archiver does so by itself, by size and age (annals up --seal-after).")]
pub struct Args {}

/// Seals.
pub async fn run(_: Args, context: &mut Context) -> Result<()> {
    let sealed = context.server().await?.seal().await?;
    context.out.table(&Table::record([(
        "ledger_position",
        json!(sealed.ledger_position),
    )]))
}
