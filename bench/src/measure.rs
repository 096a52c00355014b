//! How figures are taken: wall clock and CPU of a process, interleaved rounds, medians.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Linux reports process times in ticks of 1/100 s.
const TICKS_PER_SECOND: u64 = 100;

/// One measured run of something that handled `events`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Events handled.
    pub(crate) events: u64,
    /// Wall clock.
    pub(crate) wall: Duration,
    /// CPU time, user and system, of the process looked at.
    pub(crate) cpu: Duration,
}

impl Run {
    /// Events per second of wall clock.
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    /// CPU microseconds per event.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events as f64
    }
}

/// Takes the wall clock and this process's CPU around `work`, which returns its event count.
pub(crate) fn run(work: impl FnOnce() -> Result<u64>) -> Result<Run> {
    run_beside(std::process::id(), work)
}

/// As [`run`], with the CPU of another process.
pub(crate) fn run_beside(pid: u32, work: impl FnOnce() -> Result<u64>) -> Result<Run> {
    let cpu_before = cpu_of(pid)?;
    let start = Instant::now();
    let events = work()?;
    let wall = start.elapsed();
    Ok(Run {
        events,
        wall,
        cpu: cpu_of(pid)?.saturating_sub(cpu_before),
    })
}

/// CPU time a process has used.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // The command, in parentheses, may hold anything; fields are counted after it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("no command")?
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident memory of a process in MiB: now, and at its highest.
pub(crate) fn memory_mib(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> u64 {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(0)
    };
    Ok((field("VmRSS:") / 1024, field("VmHWM:") / 1024))
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Two things measured in turn, so that a change of the machine's speed hits both.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    /// Runs of ours.
    pub(crate) ours: Vec<Run>,
    /// Runs of what it is held against.
    pub(crate) bare: Vec<Run>,
}

impl Pair {
    /// Runs both `rounds` times, in turn.
    pub(crate) fn interleave(
        rounds: usize,
        mut ours: impl FnMut() -> Result<Run>,
        mut bare: impl FnMut() -> Result<Run>,
    ) -> Result<Self> {
        let mut pair = Self::default();
        for _ in 0..rounds {
            pair.bare.push(bare()?);
            pair.ours.push(ours()?);
        }
        Ok(pair)
    }

    /// Median of the rates' ratio, round by round: above 1, ours is faster.
    pub(crate) fn rate_ratio(&self) -> f64 {
        median(
            self.ours
                .iter()
                .zip(&self.bare)
                .map(|(o, b)| o.rate() / b.rate()),
        )
    }

    /// Median of the CPU ratio, round by round: below 1, ours is cheaper.
    pub(crate) fn cpu_ratio(&self) -> f64 {
        median(
            self.ours
                .iter()
                .zip(&self.bare)
                .map(|(o, b)| o.cpu_us() / b.cpu_us()),
        )
    }
}

/// "min / median / max" of the rates, in thousands a second.
pub(crate) fn rates(runs: &[Run]) -> String {
    spread(runs.iter().map(|r| r.rate() / 1000.0), 1)
}

/// "min / median / max" of CPU microseconds per event.
pub(crate) fn cpus(runs: &[Run]) -> String {
    spread(runs.iter().map(Run::cpu_us), 2)
}

fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (values.first(), values.last()) else {
        return "-".to_owned();
    };
    let middle = values[values.len() / 2];
    format!("{min:.digits$} / **{middle:.digits$}** / {max:.digits$}")
}
