//! RabbitMQ from its Debian package, with every port on the loopback.

use super::{dir, is_up, run, wait_until_up};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, Stdio};

const ADDRESS: &str = "127.0.0.1:5673";
const START_SECONDS_MAX: u32 = 90;

/// Installs and starts it.
pub(super) fn up() -> Result<String> {
    if !Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists() {
        install_rabbitmq()?;
    }
    if !is_up(ADDRESS) {
        let home = dir().join("rabbitmq");
        std::fs::create_dir_all(home.join("home"))?;
        std::fs::write(home.join("plugins"), "[].\n")?;
        let out = std::fs::File::create(home.join("out"))?;
        rabbitmq_command("rabbitmq-server")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        wait_until_up(ADDRESS, START_SECONDS_MAX, &home.join("out"))?;
    }
    Ok(format!("up on {ADDRESS}"))
}

/// Stops it, if it runs.
pub(super) fn down() -> Result<()> {
    if is_up(ADDRESS) {
        rabbitmq_command("rabbitmqctl")
            .arg("stop")
            .status()
            .context("stopping rabbitmq")?;
    }
    Ok(())
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
