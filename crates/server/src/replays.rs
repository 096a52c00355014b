//! Replays in the words of a command line or a request: read, planned, run.
//!
//! The same on a running platform and on a directory that no process serves; only a private
//! exchange needs the platform's broker.

use crate::exit::{Exit, Failure, Result};
use crate::history::{EventList, SelectionText};
use crate::platform::BUS;
use annals_archive::reader::Archive;
use annals_broker::Broker;
use annals_bus::LocalBus;
use annals_core::{Clock, Disk, Random};
use annals_replay::targets::{ExchangeTarget, FileTarget, exchange_name};
use annals_replay::{Listed, Plan, Receipt, Replay, Request, Target};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// A replay to plan, or to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRequest {
    /// Which events.
    #[serde(default)]
    pub selection: SelectionText,
    /// Where to, as [`To`] reads it; absent: plan only.
    #[serde(default)]
    pub to: Option<String>,
    /// Most events a second.
    #[serde(default)]
    pub rate: Option<NonZeroU32>,
}

impl ReplayRequest {
    /// The plan of a replay of these events, each (source, id) once, such as the rows that a
    /// question of history was answered with. Say where to by [`ReplayRequest::to`].
    pub fn of_events(events: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut list = EventList::default();
        for (source, id) in events {
            list.add(Some(&source), &id)?;
        }
        Ok(Self {
            selection: SelectionText {
                events: Some(list.finish()?),
                ..SelectionText::default()
            },
            to: None,
            rate: None,
        })
    }
}

/// Where a replay goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// `file:PATH`: a new file, `.binpb` or `.jsonl`.
    File(PathBuf),
    /// `stdout`: JSON lines.
    Stdout,
    /// `private` or `private:QUEUE,…`: the replay's own exchange, and queues that hear all of it.
    Private(Vec<String>),
}

/// What a replay will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRow {
    /// Ledger entry it reads up to.
    pub position: u64,
    /// Events selected, each (source, id) once, and those listed that are missing.
    pub selected: u64,
    /// Of these, commands that are left out: nobody named their type.
    pub commands: u64,
    /// Events it will deliver.
    pub to_deliver: u64,
    /// Types among them.
    pub types: Vec<String>,
    /// Segments it will read from.
    pub segments: u64,
    /// Their length.
    pub stored_bytes: u64,
    /// What became of the list, if the selection has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(To::File(path.into())),
            Some(("private", queues)) if queues.split(',').all(|q| !q.is_empty()) => {
                Ok(To::Private(queues.split(',').map(str::to_owned).collect()))
            }
            None if text == "private" => Ok(To::Private(Vec::new())),
            None if text == "stdout" => Ok(To::Stdout),
            _ => Err("a target is file:PATH, stdout, private or private:QUEUE".to_owned()),
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            To::File(path) => write!(f, "file:{}", path.display()),
            To::Stdout => f.write_str("stdout"),
            To::Private(queues) if queues.is_empty() => f.write_str("private"),
            To::Private(queues) => write!(f, "private:{}", queues.join(",")),
        }
    }
}

impl From<Plan> for PlanRow {
    fn from(plan: Plan) -> Self {
        Self {
            position: plan.position.0,
            selected: plan.selected,
            commands: plan.commands,
            to_deliver: plan.to_deliver(),
            types: plan.types,
            segments: plan.segments,
            stored_bytes: plan.stored_bytes,
            listed: plan.listed,
        }
    }
}

/// A replay that is ready to run.
#[derive(Debug)]
pub struct Prepared {
    replay: Replay,
    plan: Plan,
}

impl Prepared {
    /// Reads a request and counts what it would do. Changes nothing.
    pub async fn new(
        archive: Archive,
        request: &ReplayRequest,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self> {
        let mut asked = Request::new(request.selection.parse(clock.now())?);
        asked.rate = request.rate;
        let replay = Replay::new(Arc::new(archive), asked, clock, random);
        let plan = replay.plan().await?;
        Ok(Self { replay, plan })
    }

    /// What it will do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs it to any target; `progress` hears how many events have been delivered.
    pub async fn run(
        &self,
        target: &mut dyn Target,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Receipt> {
        let heard = |done: &annals_replay::Progress| {
            progress(done.delivered);
            ControlFlow::Continue(())
        };
        Ok(self.replay.run(&self.plan, target, heard).await?)
    }

    /// A file as target.
    pub fn file(&self, disk: Arc<dyn Disk>, path: PathBuf) -> Result<FileTarget> {
        FileTarget::create(disk, path)
            .map_err(|e| Failure::from(e).next("name a new file that ends with .binpb or .jsonl"))
    }

    /// The replay's own exchange as target, with durable queues of these names bound to it; none
    /// named: one of the exchange's name.
    pub async fn private(&self, broker: &Broker, queues: &[String]) -> Result<ExchangeTarget> {
        let own = exchange_name(BUS, self.replay.id());
        let queues: Vec<&str> = match queues {
            [] => vec![&own],
            queues => queues.iter().map(String::as_str).collect(),
        };
        if let Some(taken) = queues
            .iter()
            .find(|q| **q == annals_bus::topology::archive_queue(BUS))
        {
            let message = format!("{taken} is the archive's queue: a replay is never archived");
            return Err(Failure::new(Exit::NotAllowed, message));
        }
        let bus = Arc::new(LocalBus::new(broker));
        Ok(ExchangeTarget::declare(bus, BUS, self.replay.id(), &queues).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_as_they_are_written() {
        for text in ["file:/a:b.binpb", "stdout", "private", "private:a,b"] {
            let to: To = text.parse().unwrap();
            assert_eq!(to.to_string(), text);
        }
        for text in [
            "",
            "file",
            "file:",
            "private:",
            "private:a,,b",
            "production",
            "stdout:x",
        ] {
            assert!(text.parse::<To>().is_err(), "{text:?}");
        }
    }
}
