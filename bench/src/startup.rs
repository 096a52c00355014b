//! Start on an empty directory and with 10 million messages queued; memory idle and per message.

use crate::broker::Served;
use crate::generate::Generator;
use crate::local::{messages, open_broker, publish_all};
use crate::measure;
use crate::{runtime, scratch_dir};
use annals_broker::Config;
use annals_core::Event;
use anyhow::{Result, bail, ensure};
use std::time::Instant;

const MESSAGES: usize = 10_000_000;
const AT_A_TIME: usize = 500_000;

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    let scratch = scratch_dir()?;
    let dir = scratch.path().join("broker");
    let start = Instant::now();
    let served = Served::start(&dir)?;
    let empty = start.elapsed();
    let idle = measure::memory_mib(served.pid())?.0;
    served.stop()?;
    fill(&dir)?;
    let start = Instant::now();
    let served = Served::start(&dir)?;
    let full = start.elapsed();
    let (now, highest) = measure::memory_mib(served.pid())?;
    served.stop()?;
    let (archived, seconds, archiving) = archive_backlog(scratch.path())?;
    println!("## Start and memory\n");
    println!("| | seconds to ready | resident MiB |");
    println!("|---|---|---|");
    println!("| empty directory | {:.2} | {idle} |", empty.as_secs_f64());
    println!(
        "| {MESSAGES} messages queued | {:.2} | {now} (highest {highest}) |",
        full.as_secs_f64()
    );
    println!(
        "\n{:.1} bytes of memory per queued message.\n",
        now.saturating_sub(idle) as f64 * 1_048_576.0 / MESSAGES as f64
    );
    println!(
        "Broker and archiver in one process over that backlog: {archived} archived, {:.0} k ev/s; \
         resident at its highest {archiving} MiB.\n",
        archived as f64 / seconds / 1000.0
    );
    Ok(())
}

/// Archives what is queued in another process: events, seconds, MiB at its highest.
fn archive_backlog(dir: &std::path::Path) -> Result<(u64, f64, u64)> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let output = command.arg("backlog").arg(dir).output()?;
    ensure!(output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stdout)?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [archived, seconds, highest] = fields[..] else {
        bail!("it printed {line}");
    };
    Ok((archived.parse()?, seconds.parse()?, highest.parse()?))
}

fn fill(dir: &std::path::Path) -> Result<()> {
    let runtime = runtime()?;
    let (broker, bus) = runtime.block_on(open_broker(Config::new(dir)))?;
    let mut generator = Generator::new(4);
    for _ in 0..MESSAGES / AT_A_TIME {
        let events: Vec<Event> = (0..AT_A_TIME).map(|_| generator.next()).collect();
        runtime.block_on(publish_all(&bus, messages(&events)?, 8_192))?;
    }
    runtime.block_on(async {
        bus.close().await?;
        broker.close().await
    })?;
    Ok(())
}
