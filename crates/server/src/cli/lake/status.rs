//! `annals lake status`: how far the lake has come, and what is wrong with it.

use crate::cli::Context;
use crate::exit::{Exit, Failure, Result};
use crate::lake::LakeStatus;
use crate::output::{Format, Table};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  annals lake status
  annals lake status -o json

Ends with 9 if a table is damaged or has not the rows it should have: a running server makes damaged
tables anew by itself, `annals lake rebuild` does it at once.";

/// Say how far the lake has come, and what is wrong with it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Tells.
pub async fn run(_: Args, context: &mut Context) -> Result<()> {
    let status = super::status_of(context).await?;
    match context.out.format_or(Format::Table) {
        Format::Json | Format::Jsonl => {
            let text = serde_json::to_string(&status).expect("a status is plain data");
            context.out.bytes(text.as_bytes())?;
            context.out.bytes(b"\n")?;
            context.out.flush()?;
        }
        _ => context.out.table(&totals(&status))?,
    }
    for conflict in &status.conflicts {
        let c = &conflict.conflict;
        context.say(format!(
            "{}: {} is {} since revision {}, its column is {} since revision {}",
            conflict.table, c.field, c.changed_to, c.revision, c.column, c.revision_before
        ));
    }
    let wrong = wrong_in(&status);
    match wrong.first() {
        None => Ok(()),
        Some(table) => Err(Failure::new(Exit::Difference, wrong.join("; "))
            .next(format!("annals lake rebuild --table {}", table_of(table)))),
    }
}

fn totals(status: &LakeStatus) -> Table {
    let rows: u64 = status.tables.first().map_or(0, |events| events.rows);
    Table::record([
        ("ledger_position", json!(status.ledger_position)),
        ("position", json!(status.position)),
        ("events", json!(rows)),
        ("tables", json!(status.tables.len())),
        (
            "files",
            json!(status.tables.iter().map(|t| t.files).sum::<u64>()),
        ),
        (
            "bytes",
            json!(status.tables.iter().map(|t| t.bytes).sum::<u64>()),
        ),
        ("conflicts", json!(status.conflicts.len())),
        (
            "damaged",
            json!(status.tables.iter().filter(|t| t.damage.is_some()).count()),
        ),
    ])
}

/// What is wrong, table by table, each beginning with the table's name.
fn wrong_in(status: &LakeStatus) -> Vec<String> {
    let wrong = status.tables.iter().filter_map(|table| {
        let complete = table.position >= status.ledger_position;
        match &table.damage {
            Some(damage) => Some(format!("{}: {damage}", table.table)),
            None if complete && table.rows != table.events => Some(format!(
                "{}: {} rows, but {} events",
                table.table, table.rows, table.events
            )),
            None => None,
        }
    });
    wrong.collect()
}

fn table_of(wrong: &str) -> &str {
    wrong.split(':').next().unwrap_or(wrong)
}
