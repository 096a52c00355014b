//! Durable publish through one lapin connection, against RabbitMQ's quorum queue in the same run.

use crate::local::{open_broker, wait_for_bytes};
use crate::measure::{self, Pair, Run};
use crate::{runtime, scratch_dir};
use annals_broker::{Config, amqp};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const EVENTS: u64 = 100_000;
const BODY_BYTES: usize = 300;
const IN_FLIGHT: usize = 1_024;
const ROUNDS: usize = 5;
const RABBITMQ_URI: &str = "amqp://guest:guest@127.0.0.1:5673/%2f";
const RABBITMQ_PID: &str = ".services/rabbitmq/pid";

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    println!("## Broker: one lapin connection, {BODY_BYTES} B durable, {IN_FLIGHT} in flight\n");
    let rabbitmq = std::fs::read_to_string(RABBITMQ_PID)
        .ok()
        .and_then(|pid| pid.trim().parse().ok())
        .filter(|pid| measure::cpu_of(*pid).is_ok());
    let mut fsyncs = 0.0;
    let (mut client, mut client_of_peer) = (Vec::new(), Vec::new());
    let mut ours = || {
        let (runs, per_thousand) = ours()?;
        fsyncs = per_thousand;
        client.push(runs.client);
        Ok(runs.broker)
    };
    let pair = match rabbitmq {
        Some(pid) => Pair::interleave(ROUNDS, ours, || {
            let runs = publish_beside(pid, RABBITMQ_URI)?;
            client_of_peer.push(runs.client);
            Ok(runs.broker)
        })?,
        None => Pair {
            ours: (0..ROUNDS).map(|_| ours()).collect::<Result<_>>()?,
            bare: vec![],
        },
    };
    println!("| | k ev/s | broker us CPU | client us CPU |");
    println!("|---|---|---|---|");
    println!(
        "| annals | {} | {} | {} |",
        measure::rates(&pair.ours),
        measure::cpus(&pair.ours),
        measure::cpus(&client)
    );
    println!(
        "| RabbitMQ, quorum queue | {} | {} | {} |",
        measure::rates(&pair.bare),
        measure::cpus(&pair.bare),
        measure::cpus(&client_of_peer)
    );
    match rabbitmq {
        Some(_) => println!(
            "\nannals/RabbitMQ: rate **{:.2}**, broker CPU **{:.2}**. {fsyncs:.2} fsyncs per 1,000.\n",
            pair.rate_ratio(),
            pair.cpu_ratio(),
        ),
        None => println!(
            "\nRabbitMQ is not up (`cargo xtask services up rabbitmq`). {fsyncs:.2} fsyncs per 1,000.\n"
        ),
    }
    Ok(())
}

/// A broker and its TCP front on a directory, until standard input ends; prints the port first
/// and the number of syncs last.
pub(crate) async fn serve(dir: &Path) -> Result<()> {
    let (broker, bus) = open_broker(Config::new(dir)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(stop);
    });
    let shutdown = async {
        let _ = stopped.await;
    };
    amqp::serve(
        listener,
        broker.clone(),
        amqp::AmqpConfig::default(),
        shutdown,
    )
    .await?;
    println!("{}", broker.stats().syncs);
    bus.close().await?;
    broker.close().await?;
    Ok(())
}

/// A broker in a process of its own.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    /// Its AMQP port.
    pub(crate) port: u16,
}

impl Served {
    /// Starts it; returns when it listens.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let port = line.trim().parse().context("the broker did not start")?;
        Ok(Self { child, out, port })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it; how often it synced.
    pub(crate) fn stop(mut self) -> Result<u64> {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        self.child.wait()?;
        Ok(line.trim().parse()?)
    }
}

/// One round, with the CPU of either side.
struct Runs {
    broker: Run,
    client: Run,
}

fn ours() -> Result<(Runs, f64)> {
    let dir = scratch_dir()?;
    let dir = dir.path().join("broker");
    let served = Served::start(&dir)?;
    let log = Config::new(&dir).log;
    // The segment in use and its spares: preparing them is not part of what is measured.
    let segments = u64::from(1 + log.spare_segments);
    wait_for_bytes(&dir, segments * u64::from(log.segment_bytes))?;
    let uri = format!("amqp://guest:guest@127.0.0.1:{}/%2f", served.port);
    let runs = publish_beside(served.pid(), &uri)?;
    Ok((runs, served.stop()? as f64 * 1000.0 / EVENTS as f64))
}

fn publish_beside(pid: u32, uri: &str) -> Result<Runs> {
    let runtime = runtime()?;
    let mut client = None;
    let broker = measure::run_beside(pid, || {
        let run = measure::run(|| runtime.block_on(publish(uri)))?;
        client = Some(run);
        Ok(run.events)
    })?;
    let client = client.context("it has run")?;
    Ok(Runs { broker, client })
}

async fn publish(uri: &str) -> Result<u64> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("bench".into(), durable, arguments)
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let body = [b'x'; BODY_BYTES];
    let properties = BasicProperties::default().with_delivery_mode(2);
    // Awaiting each publish before the next would wait for the client's own thread every time.
    let publish = async |_| -> Result<bool> {
        let options = BasicPublishOptions::default();
        let published = channel.basic_publish(
            "".into(),
            "bench".into(),
            options,
            &body,
            properties.clone(),
        );
        Ok(published.await?.await?.is_ack())
    };
    let confirms = stream::iter(0..EVENTS).map(publish).buffered(IN_FLIGHT);
    let confirmed = confirms
        .try_fold(0, async |sum, is_ack| Ok(sum + u64::from(is_ack)))
        .await?;
    ensure!(
        confirmed == EVENTS,
        "{confirmed} of {EVENTS} were confirmed"
    );
    channel
        .queue_delete("bench".into(), QueueDeleteOptions::default())
        .await?;
    connection.close(200, "done".into()).await?;
    Ok(EVENTS)
}
