//! What a replay will do ([`Plan`]), does ([`Progress`]) and has done ([`Receipt`]).

use annals_archive::Position;
use serde::{Deserialize, Serialize};

/// What a replay will do, counted before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The ledger entry history was counted up to; the run reads up to the same.
    pub position: Position,
    /// Events the selection matches, each (source, id) once.
    pub selected: u64,
    /// Of them, commands that are left out because nobody named their type.
    pub commands: u64,
    /// Types the selection may match, sorted.
    pub types: Vec<String>,
    /// Segments that hold them.
    pub segments: u64,
    /// Stored bytes of these segments.
    pub stored_bytes: u64,
}

impl Plan {
    /// Events that will be handed to the target.
    pub fn to_deliver(&self) -> u64 {
        self.selected - self.commands
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
}

impl Skipped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.commands + self.unrouted
    }
}
