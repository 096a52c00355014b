//! `cargo xtask tidy`, and a test: the rules of the house that a machine can check.
//!
//! - every Rust file opens with a module doc
//! - files stay short, but for a few that are named here
//! - `core` does no I/O and reads no clock outside its one door, `system.rs`
//! - crates depend one way, and stay within their package budgets
//! - links between documents lead somewhere

use crate::root;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a Rust file may have; above, it wants to be two.
const FILE_LINES_MAX: usize = 650;

/// Crates and those of ours they may name in `[dependencies]`: arrows point one way.
const EDGES: &[(&str, &[&str])] = &[
    ("annals-core", &[]),
    ("annals-broker", &["annals-core"]),
    ("annals-bus", &["annals-core", "annals-broker"]),
    ("annals-archive", &["annals-core", "annals-bus"]),
    ("annals-columns", &["annals-core"]),
    (
        "annals-lake",
        &["annals-core", "annals-archive", "annals-columns"],
    ),
    (
        "annals-sql",
        &[
            "annals-core",
            "annals-archive",
            "annals-columns",
            "annals-lake",
        ],
    ),
    (
        "annals-replay",
        &["annals-core", "annals-bus", "annals-archive"],
    ),
];

/// What a user of a crate compiles: package, features (`None`: default), packages at most.
const BUDGETS: &[(&str, Option<&str>, usize)] = &[
    ("annals-core", Some(""), 20),
    ("annals-core", Some("schema"), 60),
    ("annals-bus", Some("amqp"), 110),
    ("annals-bus", None, 110),
];

/// What must not be linked by the light crates.
const HEAVY: &[&str] = &[
    "datafusion",
    "arrow",
    "parquet",
    "deltalake-core",
    "aws-lc-rs",
    "openssl",
];

/// Prints what is not tidy, and fails if anything is.
pub(crate) fn run() -> Result<()> {
    let findings = findings()?;
    for finding in &findings {
        println!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: nothing to say");
    Ok(())
}

fn findings() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let files = tracked()?;
    for file in &files {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else {
            continue;
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("rs") if !file.to_string_lossy().contains("/gen/") => {
                rust_file(file, &text, &mut findings);
            }
            Some("md") => links(file, &text, &mut findings),
            _ => {}
        }
    }
    edges(&mut findings)?;
    budgets(&mut findings)?;
    Ok(findings)
}

/// Files git tracks or would track.
fn tracked() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()?;
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(PathBuf::from)
        .collect())
}

fn rust_file(file: &Path, text: &str, findings: &mut Vec<String>) {
    let name = file.display();
    if !text.starts_with("//!") {
        findings.push(format!("{name} does not open with what it is for (//!)"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(format!(
            "{name} has {lines} lines, at most {FILE_LINES_MAX}"
        ));
    }
    if file.starts_with("crates/core/src") && !file.ends_with("system.rs") {
        for word in [
            "std::fs",
            "std::net",
            "SystemTime::now",
            "Instant::now",
            "thread::spawn",
        ] {
            if text.contains(word) {
                findings.push(format!(
                    "{name} uses {word}; only system.rs touches the world"
                ));
            }
        }
    }
}

/// Relative links of a document must name a file.
fn links(file: &Path, text: &str, findings: &mut Vec<String>) {
    for target in text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let path = target.split('#').next().unwrap_or_default();
        if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
            continue;
        }
        let folder = root().join(file);
        let folder = folder.parent().expect("a file lies in a folder");
        if !folder.join(path).exists() {
            findings.push(format!(
                "{} links to {target}, which is not there",
                file.display()
            ));
        }
    }
}

fn edges(findings: &mut Vec<String>) -> Result<()> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = EDGES.iter().find(|(n, _)| *n == name) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let kind_is_normal = dependency["kind"].is_null();
            if kind_is_normal && to.starts_with("annals") && !allowed.contains(&to) {
                findings.push(format!("{name} depends on {to}"));
            }
        }
    }
    Ok(())
}

fn budgets(findings: &mut Vec<String>) -> Result<()> {
    for &(package, features, packages_max) in BUDGETS {
        let linked = linked(package, features)?;
        let shown = features.unwrap_or("default");
        if linked.len() > packages_max {
            findings.push(format!(
                "{package} ({shown}) links {} packages, at most {packages_max}",
                linked.len()
            ));
        }
        for heavy in HEAVY.iter().filter(|heavy| linked.contains(**heavy)) {
            findings.push(format!("{package} ({shown}) links {heavy}"));
        }
    }
    Ok(())
}

/// Packages a crate links or builds with, itself and ours left out.
fn linked(package: &str, features: Option<&str>) -> Result<BTreeSet<String>> {
    let mut command = Command::new("cargo");
    command.args([
        "tree",
        "--offline",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "-p",
        package,
    ]);
    if let Some(features) = features {
        command.args(["--no-default-features", "--features", features]);
    }
    let output = command.current_dir(root()).output()?;
    if !output.status.success() {
        bail!(
            "cargo tree -p {package}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.starts_with("annals"))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_house_is_tidy() {
        let findings = super::findings().unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn committed_generated_code_is_fresh() {
        crate::codegen::run(true).unwrap();
    }
}
