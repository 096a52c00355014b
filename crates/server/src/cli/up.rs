//! `annals up`: run the platform until told to stop.

use super::Context;
use crate::exit::{Exit, Failure, Result};
use crate::output::Table;
use crate::platform::{Platform, PlatformConfig};
use serde_json::json;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  annals up                                  data in ./annals-data, AMQP on 5672, HTTP on 7400
  annals up --data /var/lib/annals --seal-after 30
  annals up --port 0 --amqp-port 0           any free ports; annals.json names them

SIGTERM or Ctrl-C: archives what was published, then ends.";

/// Run the platform: broker, archiver and HTTP API on one directory
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// HTTP port on 127.0.0.1; 0 for any
    #[arg(long, default_value_t = 7400)]
    pub port: u16,
    /// AMQP port on 127.0.0.1; 0 for any
    #[arg(long, default_value_t = 5672)]
    pub amqp_port: u16,
    /// Archive events at the latest this many seconds after they arrive
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seal_after: u64,
    /// Archive events as soon as this many MiB have arrived
    #[arg(long, value_name = "MIB", default_value_t = 32,
          value_parser = clap::value_parser!(u64).range(1..=256))]
    pub seal_at: u64,
}

/// Runs until a signal, or until a part fails.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let mut config = PlatformConfig::new(&context.dir);
    config.http_port = args.port;
    config.amqp_port = args.amqp_port;
    config.seal_after = Duration::from_secs(args.seal_after);
    config.seal_at_bytes = args.seal_at << 20;
    // Before anything is started, so that no signal is lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut platform = Platform::start(config).await?;
    let address = platform.address().clone();
    context.out.table(&Table::record([
        (
            "amqp",
            json!(format!("amqp://127.0.0.1:{}", address.amqp_port)),
        ),
        ("http", json!(address.server_url())),
        ("data", json!(context.dir.display().to_string())),
        ("pid", json!(address.pid)),
    ]))?;
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = platform.failed() => Some(reason),
    };
    match ended {
        None => {
            context.say("stopping: archiving what was published");
            platform.stop().await
        }
        Some(reason) => {
            // No clean-up: what failed may have left the disk in doubt. The next start verifies.
            Err(Failure::new(Exit::Failed, format!("stopped: {reason}"))
                .next("correct the cause, then start again: nothing confirmed is lost"))
        }
    }
}
