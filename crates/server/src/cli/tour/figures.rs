//! [`Figures`]: what the tour did, in the order it did it.

use crate::output::Table;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::time::Instant;

/// Steps, each with its time.
#[derive(Debug)]
pub(super) struct Figures {
    spinner: ProgressBar,
    began: Instant,
    rows: Vec<[Value; 4]>,
}

impl Figures {
    /// None yet; `spinner` shows the last one.
    pub(super) fn new(spinner: ProgressBar) -> Self {
        Self {
            spinner,
            began: Instant::now(),
            rows: Vec::new(),
        }
    }

    /// Ends a step: what it did.
    pub(super) fn step(&mut self, name: &str, did: impl Into<String>) {
        self.push(name, did.into(), None);
    }

    /// Ends a step that worked on `events`: what it did, and how fast.
    pub(super) fn events(&mut self, name: &str, events: u64, did: impl Into<String>) {
        self.push(name, did.into(), Some(events));
    }

    fn push(&mut self, name: &str, did: String, events: Option<u64>) {
        self.spinner.set_message(format!("{name}: {did}"));
        let seconds = self.began.elapsed().as_secs_f64();
        self.began = Instant::now();
        let rate = events.map(|events| (events as f64 / seconds.max(1e-6)).round() as u64);
        let millis = (seconds * 1e3).round() as u64;
        self.rows
            .push([json!(name), json!(did), json!(millis), json!(rate)]);
    }

    /// All of them; nothing comes after.
    pub(super) fn table(&self) -> Table {
        self.spinner.finish_and_clear();
        let mut table = Table::new(["step", "did", "ms", "events_per_s"]);
        for row in &self.rows {
            table.row(row.clone());
        }
        table
    }
}
