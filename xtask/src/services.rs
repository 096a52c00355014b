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

use crate::root;
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PYTHON_PACKAGES: [&str; 4] = ["pika", "zstandard", "protobuf", "grpcio-tools"];
const NODE_PACKAGES: [&str; 1] = ["amqplib"];
const RABBITMQ: &str = "127.0.0.1:5673";
const RABBITMQ_START_SECONDS_MAX: u32 = 90;

/// Where services are kept.
pub(crate) fn dir() -> PathBuf {
    root().join(".services")
}

/// Installs and starts the named services, or all.
pub(crate) fn up(names: &[&str]) -> Result<()> {
    let names = if names.is_empty() {
        &["clients", "rabbitmq"][..]
    } else {
        names
    };
    std::fs::create_dir_all(dir())?;
    for name in names {
        match *name {
            "clients" => {
                report("python clients", python());
                report("node clients", node());
            }
            "rabbitmq" => report("rabbitmq", rabbitmq()),
            other => bail!("no service is called {other}; there are: clients, rabbitmq"),
        }
    }
    Ok(())
}

/// Stops the servers.
pub(crate) fn down() -> Result<()> {
    if is_up(RABBITMQ) {
        rabbitmq_command("rabbitmqctl")
            .arg("stop")
            .status()
            .context("stopping rabbitmq")?;
    }
    Ok(())
}

fn report(name: &str, result: Result<String>) {
    match result {
        Ok(what) => println!("services: {name}: {what}"),
        Err(e) => println!("services: MISSING {name}: {e:#} (tests that need it will skip)"),
    }
}

fn python() -> Result<String> {
    let home = dir().join("python");
    let python = home.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    }
    let found = Command::new(&python)
        .args(["-c", "import pika, zstandard, google.protobuf, grpc_tools"])
        .stderr(Stdio::null())
        .status()?;
    if !found.success() {
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(PYTHON_PACKAGES))?;
    }
    Ok(PYTHON_PACKAGES.join(", "))
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

fn rabbitmq() -> Result<String> {
    if !Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists() {
        install_rabbitmq()?;
    }
    if !is_up(RABBITMQ) {
        let home = dir().join("rabbitmq");
        std::fs::create_dir_all(home.join("home"))?;
        std::fs::write(home.join("plugins"), "[].\n")?;
        let out = std::fs::File::create(home.join("out"))?;
        rabbitmq_command("rabbitmq-server")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let mut seconds = 0;
        while !is_up(RABBITMQ) {
            if seconds == RABBITMQ_START_SECONDS_MAX {
                bail!(
                    "not up after {seconds} s; see {}",
                    home.join("out").display()
                );
            }
            std::thread::sleep(Duration::from_secs(1));
            seconds += 1;
        }
    }
    Ok(format!("up on {RABBITMQ}"))
}

/// Installs the Debian package without letting it start a server of its own on all addresses.
fn install_rabbitmq() -> Result<()> {
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n").context("installing needs root")?;
        run(Command::new("chmod").arg("+x").arg(policy))?;
    }
    let installed = run(Command::new("apt-get").args(["update", "-q"])).and_then(|()| {
        run(Command::new("apt-get").args([
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            "rabbitmq-server",
        ]))
    });
    if ours {
        std::fs::remove_file(policy)?;
    }
    installed
}

/// A RabbitMQ program with every port on the loopback: AMQP, distribution and the port mapper.
fn rabbitmq_command(program: &str) -> Command {
    let home = dir().join("rabbitmq");
    let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
    let mut command = Command::new(format!("/usr/lib/rabbitmq/bin/{program}"));
    command
        .env("HOME", home.join("home"))
        .env("RABBITMQ_NODENAME", "annals@localhost")
        .env("RABBITMQ_NODE_PORT", "5673")
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_DIST_PORT", "25673")
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", "4370")
        .env("RABBITMQ_MNESIA_BASE", home.join("db"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_CONFIG_FILE", home.join("none"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
        .env("RABBITMQ_PID_FILE", home.join("pid"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", loopback)
        .env("RABBITMQ_CTL_ERL_ARGS", loopback);
    command
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
