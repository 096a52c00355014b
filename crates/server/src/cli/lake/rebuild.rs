//! `annals lake rebuild`: make a table, or days of it, anew from the archive.

use crate::cli::Context;
use crate::exit::{Exit, Failure, Result};
use crate::lake::{RebuildRequest, RebuiltRow};
use crate::output::Table;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  annals lake rebuild                                     all tables
  annals lake rebuild --table events
  annals lake rebuild --table shop.v1.Order --from 2026-11-01 --until 2026-12-01

Days are days of archiving, UTC; the last one is not included. Queries see all of the old rows or
all of the new ones. New columns of a schema are filled for old events too. Rows that hash to the
same are the same, whatever their order and files; a column that is null counts as absent.";

/// Make a table, or days of it, anew from the archive
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// `events`, or a type; all tables if none is named
    #[arg(long, visible_alias = "type", value_name = "TABLE")]
    pub table: Option<String>,
    /// First day of archiving
    #[arg(long, value_name = "DAY")]
    pub from: Option<String>,
    /// The day after the last
    #[arg(long, visible_alias = "to", value_name = "DAY")]
    pub until: Option<String>,
}

/// Rebuilds.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let names = match &args.table {
        Some(table) => vec![table.clone()],
        None => {
            let status = super::status_of(context).await?;
            status.tables.into_iter().map(|t| t.table).collect()
        }
    };
    let server = context.find_server().await?;
    let mut own = match &server {
        Some(_) => None,
        None => Some(super::converter(context).await?),
    };
    let mut table = Table::new([
        "table",
        "rows_before",
        "rows",
        "files_before",
        "files",
        "hash_before",
        "hash",
    ]);
    let mut damage = Vec::new();
    for name in names {
        let request = RebuildRequest {
            table: name,
            from: args.from.clone(),
            until: args.until.clone(),
        };
        let (name, days) = request.read()?;
        let row = match (&server, &mut own) {
            (Some(server), _) => server.rebuild(&request).await?,
            (None, Some((_, converter))) => {
                RebuiltRow::new(&request.table, converter.rebuild(&name, days).await?)
            }
            (None, None) => unreachable!("a server, or a converter of our own"),
        };
        damage.extend(row.damage.iter().map(|d| format!("{}: {d}", row.table)));
        table.row([
            json!(row.table),
            json!(row.rows_before),
            json!(row.rows),
            json!(row.files_before),
            json!(row.files),
            json!(row.hash_before),
            json!(row.hash),
        ]);
    }
    context.out.table(&table)?;
    match damage.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::new(Exit::Difference, damage.join("; ")).next("annals archive verify"))
        }
    }
}
