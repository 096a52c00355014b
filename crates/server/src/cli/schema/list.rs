//! `annals schema list`: the types that have a schema.

use crate::cli::Context;
use crate::exit::Result;
use crate::output::Table;
use serde_json::json;

/// List the types that have a schema
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  annals schema list -o csv")]
pub struct Args {}

/// Lists.
pub async fn run(_: Args, context: &mut Context) -> Result<()> {
    let stored = match context.find_server().await? {
        Some(server) => server.schemas().await?,
        None => context.open_history().await?.schemas().await?,
    };
    let catalog = stored.compile()?;
    let mut table = Table::new(["type", "file", "revision"]);
    for message in catalog.types() {
        let file = message.parent_file();
        table.row([
            json!(message.full_name()),
            json!(file.name()),
            json!(stored.revision),
        ]);
    }
    context.out.table(&table)
}
