//! Start on an empty directory and with 10 million messages queued; memory idle and per message.

use crate::broker::Served;
use crate::generate::Generator;
use crate::local::{messages, open_broker, publish_all};
use crate::measure;
use crate::{runtime, scratch_dir};
use annals_broker::Config;
use annals_core::Event;
use anyhow::Result;
use std::time::Instant;

const MESSAGES: usize = 10_000_000;
const AT_A_TIME: usize = 500_000;

/// Prints the section.
pub(crate) fn run() -> Result<()> {
    let dir = scratch_dir()?;
    let dir = dir.path().join("broker");
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
    println!("## Broker: start and memory\n");
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
    Ok(())
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
