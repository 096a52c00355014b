//! `annals lake tables`: which tables there are.

use crate::cli::Context;
use crate::exit::Result;
use crate::output::Table;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  annals lake tables
  annals lake tables -o json

`events` has every event; a type has a table of its own once a schema defines it. Rows lag behind
the archive by a minute or so: SQL reads the rest from the archive.";

/// List the tables: rows, files, bytes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Lists.
pub async fn run(_: Args, context: &mut Context) -> Result<()> {
    let status = super::status_of(context).await?;
    let mut table = Table::new(["table", "rows", "files", "bytes", "version", "position"]);
    for row in status.tables {
        table.row([
            json!(row.table),
            json!(row.rows),
            json!(row.files),
            json!(row.bytes),
            json!(row.version),
            json!(row.position),
        ]);
    }
    context.out.table(&table)
}
