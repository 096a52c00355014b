//! Tasks of this repository: `cargo xtask ci | services | codegen | tidy`.
// Its output is what people run it for.
#![allow(clippy::print_stdout)]

mod ci;
mod codegen;
mod services;
mod tidy;

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

const USAGE: &str = "usage: cargo xtask <task>

  ci                        every check and every test, as CI runs them
  services up [NAME...]     install and start what tests and benches talk to: clients, rabbitmq,
                            s3, moto, readers
  services down             stop what `up` started
  codegen [--check]         Rust from proto/; --check fails where the committed code is stale
  tidy                      the rules of the house: module docs, crate edges, package budgets";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ci"] => ci::run(),
        ["services", "up", ref names @ ..] => services::up(names),
        ["services", "down"] => services::down(),
        ["codegen"] => codegen::run(false),
        ["codegen", "--check"] => codegen::run(true),
        ["tidy"] => tidy::run(),
        _ => bail!("{USAGE}"),
    }
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root")
        .to_owned()
}
