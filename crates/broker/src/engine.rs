//! The engine: the one thread that owns all state of the broker.

use crate::command::{Command, Commands};
use crate::config::Config;
use crate::log::{Log, LogReader};
use crate::stats::StatsBoard;
use annals_core::{Clock, Disk, Random, Result};
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Engine {
    log: Log,
    commands: Arc<Commands>,
    #[expect(dead_code, reason = "counted with the next change")]
    stats: Arc<StatsBoard>,
}

impl Engine {
    pub(crate) fn open(
        config: Config,
        disk: Arc<dyn Disk>,
        _clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        commands: Arc<Commands>,
        stats: Arc<StatsBoard>,
    ) -> Result<(Self, crate::Recovery)> {
        let mut settings = config.log.clone();
        settings.salt = random.next_u64();
        let (log, _) = Log::open(disk, &config.directory, settings, &mut |_| {})?;
        let engine = Self {
            log,
            commands,
            stats,
        };
        Ok((engine, crate::Recovery::default()))
    }

    pub(crate) fn reader(&self) -> LogReader {
        self.log.reader()
    }

    pub(crate) fn run(self, _failing: &watch::Sender<Option<String>>) {
        let mut commands = Vec::new();
        loop {
            self.commands.drain(&mut commands, true, None);
            for command in commands.drain(..) {
                if let Command::Close { .. } = command {
                    self.commands.end();
                    return;
                }
            }
        }
    }
}
