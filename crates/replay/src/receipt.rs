//! What a replay will do ([`Plan`]), does ([`Progress`]) and has done ([`Receipt`]).

use annals_archive::Position;
use annals_archive::reader::Located;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Missing events that are named.
const MISSING_FIRST: usize = 20;

/// What a replay will do, counted before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The ledger entry history was counted up to; the run reads up to the same.
    pub position: Position,
    /// Events the selection matches, each (source, id) once, and those listed that are missing.
    pub selected: u64,
    /// Of them, commands that are left out because nobody named their type.
    pub commands: u64,
    /// Types the selection may match, sorted.
    pub types: Vec<String>,
    /// Segments that hold them.
    pub segments: u64,
    /// Stored bytes of these segments.
    pub stored_bytes: u64,
    /// What became of the list, if the selection has one.
    pub listed: Option<Listed>,
}

/// What the archive holds of a list of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Events listed, each once; an id without a source counts as one.
    pub listed: u64,
    /// How many of them are not archived.
    pub missing: u64,
    /// The first of those.
    pub missing_first: Vec<ListedEvent>,
    /// How many ids listed without a source are those of several events, all of them selected.
    pub several: u64,
}

/// An event as it was listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedEvent {
    /// Its source; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its id.
    pub id: String,
}

impl ListedEvent {
    pub(crate) fn new((source, id): (Option<&str>, &str)) -> Self {
        Self {
            source: source.map(str::to_owned),
            id: id.to_owned(),
        }
    }
}

impl fmt::Display for ListedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{source} {}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

impl Listed {
    pub(crate) fn of(located: &Located) -> Self {
        let first = located.missing().take(MISSING_FIRST);
        Self {
            listed: located.events().len() as u64,
            missing: located.missing().count() as u64,
            missing_first: first
                .map(|number| ListedEvent::new(located.events().get(number)))
                .collect(),
            several: located.several() as u64,
        }
    }
}

impl Plan {
    /// Events that will be handed to the target.
    pub fn to_deliver(&self) -> u64 {
        self.selected - self.commands - self.missing()
    }

    /// Events that are listed and not archived.
    pub fn missing(&self) -> u64 {
        self.listed.as_ref().map_or(0, |listed| listed.missing)
    }
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events the plan says will be handed to the target.
    pub to_deliver: u64,
    /// Events delivered.
    pub delivered: u64,
    /// Events the target had no taker for.
    pub unrouted: u64,
    /// Commands left out so far.
    pub commands: u64,
    /// The ledger entry at work.
    pub position: Position,
}

/// What a replay has done: `selected` = `delivered` + `skipped`, or it was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The replay.
    pub id: String,
    /// Bus whose archive was read.
    pub bus: String,
    /// Where the events went.
    pub target: String,
    /// Ledger entry it read up to.
    pub position: u64,
    /// Events the plan counted.
    pub selected: u64,
    /// Events delivered.
    pub delivered: u64,
    /// Events not delivered, by reason.
    pub skipped: Skipped,
    /// Whether all that was selected was delivered or skipped; false: it was cancelled before.
    pub completed: bool,
    /// What became of the list, if the selection had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
}

/// Events that were not delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Commands nobody named.
    pub commands: u64,
    /// The target's exchange had no queue for their type.
    pub unrouted: u64,
    /// They are listed and not archived.
    #[serde(default)]
    pub missing: u64,
}

impl Skipped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.commands + self.unrouted + self.missing
    }
}
