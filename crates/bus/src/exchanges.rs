//! Exchanges known to exist: asked for once, so that a message to one that is not there is refused
//! before it costs the channel it would be sent on.

use crate::{Error, Message, Outcome};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;

/// Names kept; more, and all are asked for again.
const NAMES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct KnownExchanges {
    names: Mutex<HashSet<Arc<str>>>,
}

impl KnownExchanges {
    /// The exchanges of a batch that are not known, each once.
    pub(crate) fn unknown_in(&self, batch: &[Message]) -> Vec<Arc<str>> {
        let names = self.names.lock();
        let mut unknown: Vec<Arc<str>> = Vec::new();
        let mut last: Option<&Arc<str>> = None;
        for message in batch {
            let name = &message.exchange;
            if last == Some(name) || name.is_empty() {
                continue;
            }
            last = Some(name);
            if !names.contains(name) && !unknown.contains(name) {
                unknown.push(name.clone());
            }
        }
        unknown
    }

    pub(crate) fn add(&self, name: Arc<str>) {
        let mut names = self.names.lock();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(name);
    }

    /// One may have been deleted.
    pub(crate) fn forget(&self) {
        self.names.lock().clear();
    }
}

/// A batch some of whose messages are refused before they are sent; the others' outcomes come
/// later.
#[derive(Debug)]
pub(crate) struct Split {
    /// Empty if none is refused.
    outcomes: Vec<Option<Outcome>>,
}

impl Split {
    /// Takes out the messages to exchanges that cannot be published to.
    pub(crate) fn refuse(
        batch: Vec<Message>,
        missing: &[(Arc<str>, Error)],
    ) -> (Self, Vec<Message>) {
        if missing.is_empty() {
            let outcomes = Vec::new();
            return (Self { outcomes }, batch);
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rest = Vec::with_capacity(batch.len());
        for message in batch {
            let refusal = missing.iter().find(|(name, _)| *name == message.exchange);
            outcomes
                .push(refusal.map(|(_, e)| Outcome::Failed(Error::new(e.kind(), e.to_string()))));
            if refusal.is_none() {
                rest.push(message);
            }
        }
        (Self { outcomes }, rest)
    }

    /// Puts the others' outcomes in their places.
    pub(crate) fn join(self, others: Vec<Outcome>) -> Vec<Outcome> {
        if self.outcomes.is_empty() {
            return others;
        }
        let mut others = others.into_iter();
        let outcomes = self.outcomes.into_iter();
        let outcome = |refused: Option<Outcome>| refused.or_else(|| others.next());
        outcomes.filter_map(outcome).collect()
    }
}
