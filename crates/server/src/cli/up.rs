//! `annals up`: run the platform until told to stop.

use super::{Context, quantity};
use crate::bucket::{BucketArgs, StoreSettings};
use crate::exit::{Exit, Failure, Result};
use crate::output::Table;
use crate::platform::{Platform, PlatformConfig};
use serde_json::json;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  annals up                                  data in ./annals-data, AMQP on 5672, HTTP on 7400
  annals up --data /var/lib/annals --seal-after 30s
  annals up --demo                           with a steady source of events to look at
  annals up --port 0 --amqp-port 0           any free ports; annals.json names them
  annals up --bucket s3://events/shop        archive in S3, the broker's log in ./annals-data
  annals up --bucket s3://events/shop --s3-endpoint http://store:8333

A directory remembers its bucket: later verbs and starts need --data only. ANNALS_BUCKET does what
--bucket does; keys are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. See docs/guide/object-store.md.

Prints where it listens when clients can connect, and runs until SIGTERM or Ctrl-C: then it archives
what was published, and ends. Killed instead, it loses nothing it confirmed: start it again.";

const SEAL_AFTER_MAX: Duration = Duration::from_secs(3_600);
const SEAL_AT_MAX: u64 = 256 << 20;

/// Run the platform: broker, archiver and HTTP API on one directory
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// HTTP port on 127.0.0.1; 0 for any
    #[arg(long, value_name = "PORT", env = "ANNALS_PORT", default_value_t = 7400)]
    pub port: u16,
    /// AMQP port on 127.0.0.1; 0 for any
    #[arg(
        long,
        value_name = "PORT",
        env = "ANNALS_AMQP_PORT",
        default_value_t = 5672
    )]
    pub amqp_port: u16,
    /// Archive events at the latest this long after they arrive
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = seal_after)]
    pub seal_after: Duration,
    /// Archive events as soon as this much has arrived
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = seal_at)]
    pub seal_at: u64,
    /// Convert events to tables this long after they were archived; SQL does not wait for it
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = convert_after)]
    pub convert_after: Duration,
    /// Publish the sample in a loop, 50 events a second, to have something to look at
    #[arg(long)]
    pub demo: bool,
}

fn convert_after(text: &str) -> Result<Duration, String> {
    let time = quantity::duration(text)?;
    if time.is_zero() || time > SEAL_AFTER_MAX {
        return Err("events are converted after 1ms to 1h".to_owned());
    }
    Ok(time)
}

fn seal_after(text: &str) -> Result<Duration, String> {
    let time = quantity::duration(text)?;
    if time.is_zero() || time > SEAL_AFTER_MAX {
        return Err("events are archived after 1ms to 1h".to_owned());
    }
    Ok(time)
}

fn seal_at(text: &str) -> Result<u64, String> {
    let bytes = quantity::bytes(text)?;
    if bytes == 0 || bytes > SEAL_AT_MAX {
        return Err("events are archived at 1KiB to 256MiB".to_owned());
    }
    Ok(bytes)
}

/// The flag, else what `ANNALS_BUCKET` says. That is for servers alone: with a bucket named, other
/// verbs would pass by the server that they are to ask.
fn bucket(context: &Context) -> Result<BucketArgs> {
    let mut asked = context.bucket_args().clone();
    if asked.bucket.is_none()
        && let Ok(url) = std::env::var("ANNALS_BUCKET")
    {
        let url = url.parse().map_err(Failure::usage)?;
        asked.bucket = Some(url);
    }
    Ok(asked)
}

/// Runs until a signal, or until a part fails.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let mut config = PlatformConfig::new(&context.dir);
    config.bucket = bucket(context)?;
    config.store = StoreSettings::of_process();
    config.http_port = args.port;
    config.amqp_port = args.amqp_port;
    config.seal_after = args.seal_after;
    config.seal_at_bytes = args.seal_at;
    config.convert_after = args.convert_after;
    config.demo = args.demo;
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
        ("bucket", json!(platform.bucket_place().to_string())),
        ("pid", json!(address.pid)),
    ]))?;
    if context.interactive {
        context.say("ready: publish and tail in another terminal, stop with Ctrl-C");
    }
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
