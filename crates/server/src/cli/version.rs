//! `annals version`: what this binary is.

use super::Context;
use crate::exit::Result;
use crate::output::Table;
use serde_json::json;

/// Print the version
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  annals version -o json")]
pub struct Args {}

/// Prints the version.
pub fn run(_: Args, context: &mut Context) -> Result<()> {
    context.out.table(&Table::record([
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("target", json!(std::env::consts::ARCH)),
        ("system", json!(std::env::consts::OS)),
    ]))
}
