//! `annals lake convert`: convert now what is archived.

use crate::cli::Context;
use crate::exit::Result;
use crate::lake::ConvertedRow;
use crate::output::Table;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  annals lake convert

A running server does so by itself, a minute after events were archived. SQL does not wait for it.";

/// Convert now what is archived
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Converts.
pub async fn run(_: Args, context: &mut Context) -> Result<()> {
    let done: ConvertedRow = match context.find_server().await? {
        Some(server) => server.convert().await?,
        None => {
            let (_lock, mut converter) = super::converter(context).await?;
            converter.catch_up().await?.into()
        }
    };
    context.out.table(&Table::record([
        ("from", json!(done.from)),
        ("to", json!(done.to)),
        ("events", json!(done.events)),
        ("typed", json!(done.typed)),
        ("files", json!(done.files)),
    ]))
}
