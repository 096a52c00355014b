//! `annals archive verify`: prove that all is there and intact.

use crate::cli::Context;
use crate::exit::{Exit, Failure, Result};
use crate::history::Verification;
use crate::http::verify::VerifyRequest;
use crate::output::{Format, Table, grouped};
use serde_json::json;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  annals archive verify
  annals archive verify --against publish.log    compare with what a publisher wrote down
  annals archive verify -o json

Checks the ledger's chain; every segment's length, hash, counts and checksums; every record; and
the producers' numbers for gaps. Exits with 9 if anything was found. Nothing is changed.

A line of a publish log is source, id, BLAKE3 of the envelope in hex, and ok, unknown or failed,
with tabs between them. What each finding means: docs/guide/archive.md";

/// Prove that all is there and intact
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A log of what was published and confirmed
    #[arg(long, value_name = "LOG")]
    pub against: Option<PathBuf>,
}

/// Verifies.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let found = match context.find_server().await? {
        Some(server) => {
            let against = args.against.as_ref().map(std::path::absolute).transpose()?;
            server.verify(&VerifyRequest { against }).await?
        }
        None => {
            // Not through the ledger: a broken one is what is looked for.
            let bucket = context.open_bucket()?;
            context.check_named(&*bucket).await?;
            Verification::of_bucket(bucket, args.against.as_deref()).await?
        }
    };
    print(&found, context)?;
    match found.finding_count {
        0 => Ok(()),
        count => Err(Failure::new(
            Exit::Difference,
            format!(
                "{} found",
                match count {
                    1 => "1 difference".to_owned(),
                    _ => format!("{} differences", grouped(count)),
                }
            ),
        )
        .next("restore what is named from a copy of the bucket, then verify again")),
    }
}

fn print(found: &Verification, context: &mut Context) -> Result<()> {
    if let Format::Json | Format::Jsonl = context.out.format_or(Format::Table) {
        let text = serde_json::to_string(found).expect("a verification is plain data");
        context.out.bytes(text.as_bytes())?;
        context.out.bytes(b"\n")?;
        return context.out.flush();
    }
    let mut findings = Table::new(["finding", "name", "detail"]);
    for finding in &found.findings {
        findings.row([
            json!(finding.kind),
            json!(finding.name),
            json!(finding.detail),
        ]);
    }
    if context.out.format_or(Format::Table) == Format::Table {
        context.out.table(&found.totals())?;
        if findings.is_empty() {
            return Ok(());
        }
        context.out.bytes(b"\n")?;
    }
    context.out.table(&findings)
}
