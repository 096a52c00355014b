//! [`Request`]: what to replay and how fast. Which types are commands.

use crate::receipt::ListedEvent;
use annals_core::{
    Error, ErrorKind, EventId, EventSet, Range, Result, Selection, Subject, TimeAxis, Timestamp,
    TypePattern, names,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

/// What to replay, and how fast.
#[derive(Clone)]
pub struct Request {
    /// Which events. A command is left out unless a pattern without wildcards names its type.
    pub selection: Selection,
    /// Most events a second; absent: as fast as the target takes them.
    pub rate: Option<NonZeroU32>,
    /// Whether a type is a command: [`is_command`], or what a catalog of schemas says.
    pub is_command: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Request {
    /// A selection, unhurried by no one, commands told by name.
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            rate: None,
            is_command: Arc::new(is_command),
        }
    }

    /// Whether an event of a selected type is left out: a command that is not named.
    pub fn leaves_out(&self, event_type: &str) -> bool {
        (self.is_command)(event_type) && !self.names(event_type)
    }

    fn names(&self, event_type: &str) -> bool {
        let mut patterns = self.selection.patterns.iter();
        patterns.any(|pattern| pattern.is_literal() && pattern.matches(event_type))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("selection", &self.selection)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

/// Whether a type is a command by its name: the name ends with `Command`, or the last word of the
/// package, its version aside, is `commands`.
pub fn is_command(event_type: &str) -> bool {
    let package = names::package_of(event_type);
    let mut words = package.rsplit('.');
    let last = match words.next() {
        Some(word) if is_version(word) => words.next(),
        other => other,
    };
    last == Some("commands") || event_type.ends_with("Command")
}

/// `v1`, `v2beta1`.
fn is_version(word: &str) -> bool {
    word.strip_prefix('v')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// A selection as it is written down in the register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Type patterns; empty: every type.
    pub types: Vec<String>,
    /// Range of time, `..` for all.
    pub range: String,
    /// Whether the range is of archive time rather than event time.
    #[serde(default)]
    pub archive_time: bool,
    /// One entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// These ids, sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// A list of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<DescribedEvents>,
}

/// A list of events as it is written down: a long one is not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedEvents {
    /// How many are listed.
    pub listed: u64,
    /// BLAKE3, in hex, of the list: source, NUL and id of each, a line feed after it. No source:
    /// any.
    pub hash: String,
    /// The events, if they are at most 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<ListedEvent>,
}

/// Events of a list that is written down whole.
const EVENTS_KEPT: usize = 10_000;

impl DescribedEvents {
    fn of(events: &EventSet) -> Self {
        let mut hasher = blake3::Hasher::new();
        for (source, id) in events.iter() {
            for part in [source.unwrap_or_default(), "\0", id, "\n"] {
                hasher.update(part.as_bytes());
            }
        }
        let kept = (events.len() <= EVENTS_KEPT).then(|| events.iter().map(ListedEvent::new));
        Self {
            listed: events.len() as u64,
            hash: hasher.finalize().to_hex().to_string(),
            events: kept.into_iter().flatten().collect(),
        }
    }

    fn to_set(&self) -> Result<Arc<EventSet>> {
        if self.events.len() as u64 != self.listed {
            let text = format!("the list of {} events was not kept", self.listed);
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        let mut events = EventSet::new();
        for ListedEvent { source, id } in &self.events {
            match source {
                Some(source) => events.insert(source, id)?,
                None => events.insert_id(id)?,
            };
        }
        Ok(Arc::new(events))
    }
}

impl Described {
    /// Describes a selection.
    pub fn of(selection: &Selection) -> Self {
        let ids = selection.ids.as_ref().map(|ids| {
            let mut ids: Vec<String> = ids.iter().map(EventId::to_string).collect();
            ids.sort();
            ids
        });
        Self {
            types: selection.patterns.iter().map(|p| p.to_string()).collect(),
            range: selection.range.to_string(),
            archive_time: selection.axis == TimeAxis::Archive,
            subject: selection.subject.as_ref().map(Subject::to_string),
            ids,
            events: selection.events.as_deref().map(DescribedEvents::of),
        }
    }

    /// The selection that was described; an error where its list of events was too long to be
    /// kept.
    pub fn to_selection(&self) -> Result<Selection> {
        let ids = self.ids.as_ref().map(|ids| ids.iter().map(EventId::new));
        Ok(Selection {
            patterns: self
                .types
                .iter()
                .map(TypePattern::new)
                .collect::<Result<_>>()?,
            // What was written is in absolute times.
            range: Range::parse(&self.range, Timestamp::UNIX_EPOCH)?,
            axis: match self.archive_time {
                true => TimeAxis::Archive,
                false => TimeAxis::Event,
            },
            subject: self.subject.as_ref().map(Subject::new).transpose()?,
            ids: ids.map(Iterator::collect::<Result<_>>).transpose()?,
            events: self.events.as_ref().map(|e| e.to_set()).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_by_name() {
        #[track_caller]
        fn check(event_type: &str, expected: bool) {
            assert_eq!(is_command(event_type), expected, "{event_type}");
        }
        check("shop.v1.OrderPlaced", false);
        check("shop.v1.PlaceOrderCommand", true);
        check("shop.commands.PlaceOrder", true);
        check("shop.commands.v1.PlaceOrder", true);
        check("commands.v2beta1.Place", true);
        check("shop.commands.internal.Placed", false);
        check("shop.commandsv1.Placed", false);
        check("commands", false);
        check("Command", true);
        check("v1.Placed", false);
        check("", false);
    }

    #[test]
    fn a_command_is_left_out_unless_it_is_named() {
        let request = |patterns: &[&str]| {
            let mut selection = Selection::all();
            selection.patterns = patterns
                .iter()
                .map(|p| TypePattern::new(*p).unwrap())
                .collect();
            Request::new(selection)
        };
        const COMMAND: &str = "shop.commands.v1.PlaceOrder";
        assert!(request(&[]).leaves_out(COMMAND));
        assert!(request(&["#"]).leaves_out(COMMAND));
        assert!(request(&["shop.commands.v1.*"]).leaves_out(COMMAND));
        assert!(!request(&["#", COMMAND]).leaves_out(COMMAND));
        assert!(!request(&[]).leaves_out("shop.v1.OrderPlaced"));
        let mut all_events = request(&[]);
        all_events.is_command = Arc::new(|_| false);
        assert!(!all_events.leaves_out(COMMAND));
    }

    #[test]
    fn a_selection_survives_being_written_down() {
        let mut events = EventSet::new();
        events.insert("/shop", "o-1").unwrap();
        events.insert_id("o-2").unwrap();
        let selection = Selection {
            patterns: vec![TypePattern::new("shop.#").unwrap()],
            range: Range::parse("2026-11-20", Timestamp::UNIX_EPOCH).unwrap(),
            axis: TimeAxis::Archive,
            subject: Some(Subject::new("o-1").unwrap()),
            ids: Some(["a", "b"].map(|id| EventId::new(id).unwrap()).into()),
            events: Some(Arc::new(events.clone())),
        };
        for selection in [selection, Selection::all()] {
            let described = Described::of(&selection);
            assert_eq!(described.to_selection().unwrap(), selection);
        }
        let hash = DescribedEvents::of(&events).hash;
        for number in events.len()..=EVENTS_KEPT {
            events.insert_id(&format!("id-{number}")).unwrap();
        }
        let long = DescribedEvents::of(&events);
        assert_eq!((long.listed, long.events.len()), (10_001, 0));
        assert_ne!(long.hash, hash);
        let error = long.to_set().unwrap_err().to_string();
        assert!(error.contains("10001 events was not kept"), "{error}");
    }
}
