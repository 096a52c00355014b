//! `cargo xtask ci`: every check and every test, fast failures first.
//!
//! One build profile throughout, so that nothing is compiled twice for different settings.

use crate::{codegen, root, services};
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Instant;

/// Runs all steps; the first failure ends it.
pub(crate) fn run() -> Result<()> {
    step("cargo", &["fmt", "--all", "--check"])?;
    codegen::run(true)?;
    // What needs a client or a server that could not be installed is skipped, and says so.
    services::up(&["clients", "s3", "readers"])?;
    let checked = check();
    services::down_s3()?;
    checked?;
    println!("ci: all passed");
    Ok(())
}

fn check() -> Result<()> {
    step(
        "cargo",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    // Builds the binary too, which the black-box tests start: built apart from the tests, every
    // dependency would be compiled a second time, with the features of a build without them.
    step("cargo", &["test", "--workspace"])?;
    step("cargo", &["doc", "--workspace", "--no-deps", "--quiet"])
}

fn step(program: &str, args: &[&str]) -> Result<()> {
    println!("ci: {program} {}", args.join(" "));
    let start = Instant::now();
    let status = Command::new(program)
        .args(args)
        .current_dir(root())
        .env("ANNALS_SERVICES_DIR", services::dir())
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
        .with_context(|| format!("starting {program}"))?;
    if !status.success() {
        bail!("{program} {} failed ({status})", args.join(" "));
    }
    println!(
        "ci: {program} {} took {} s",
        args[0],
        start.elapsed().as_secs()
    );
    Ok(())
}
