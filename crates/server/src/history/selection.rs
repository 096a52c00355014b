//! [`SelectionText`]: a selection in the words of a command line or of query parameters.

use crate::exit::{Failure, Result};
use annals_core::{EventId, EventSet, Range, Selection, Subject, TimeAxis, Timestamp, TypePattern};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A selection, not read yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectionText {
    /// Type patterns, any of them.
    #[serde(default)]
    pub types: Vec<String>,
    /// Half-open range of time.
    #[serde(default)]
    pub range: Option<String>,
    /// `event` or `archive`: which time the range is about.
    #[serde(default)]
    pub axis: Option<String>,
    /// One entity.
    #[serde(default)]
    pub subject: Option<String>,
    /// Event ids.
    #[serde(default)]
    pub ids: Vec<String>,
    /// A list of events. It may be long, and so travels by itself.
    #[serde(skip)]
    pub events: Option<Arc<EventSet>>,
}

impl SelectionText {
    /// Reads it; `now` is what relative times count from.
    pub fn parse(&self, now: Timestamp) -> Result<Selection> {
        let patterns = self.types.iter().map(TypePattern::new);
        let range = match &self.range {
            Some(text) => Range::parse(text, now)?,
            None => Range::all(),
        };
        let axis = match self.axis.as_deref() {
            None | Some("event") => TimeAxis::Event,
            Some("archive") => TimeAxis::Archive,
            Some(other) => {
                return Err(Failure::usage(format!(
                    "axis {other:?} is neither \"event\" nor \"archive\""
                )));
            }
        };
        let ids = match self.ids.as_slice() {
            [] => None,
            ids => Some(ids.iter().map(EventId::new).collect::<Result<_, _>>()?),
        };
        Ok(Selection {
            patterns: patterns.collect::<Result<_, _>>()?,
            range,
            axis,
            subject: self.subject.as_ref().map(Subject::new).transpose()?,
            ids,
            events: self.events.clone(),
        })
    }

    /// As query parameters; lists are repeated. A list of events is none.
    pub fn pairs(&self) -> Vec<(&'static str, &str)> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(self.types.iter().map(|t| ("types", t.as_str())));
        pairs.extend(self.range.as_deref().map(|range| ("range", range)));
        pairs.extend(self.axis.as_deref().map(|axis| ("axis", axis)));
        pairs.extend(self.subject.as_deref().map(|subject| ("subject", subject)));
        pairs.extend(self.ids.iter().map(|id| ("ids", id.as_str())));
        pairs
    }

    /// From query parameters; an unknown one is an error that lists the known ones.
    pub fn from_pairs(pairs: &[(String, String)]) -> Result<Self> {
        let mut text = Self::default();
        for (name, value) in pairs {
            let value = value.clone();
            match name.as_str() {
                "types" => text.types.push(value),
                "range" => text.range = Some(value),
                "axis" => text.axis = Some(value),
                "subject" => text.subject = Some(value),
                "ids" => text.ids.push(value),
                _ => {
                    return Err(Failure::usage(format!(
                        "unknown parameter {name:?}; known are types, range, axis, subject, ids"
                    )));
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_survives_the_way_through_query_parameters() {
        let text = SelectionText {
            types: vec!["vcs.#".into(), "shop.*.Order,Placed".into()],
            range: Some("2026-11-20..2026-11-21".into()),
            axis: Some("archive".into()),
            subject: Some("tokio-rs/axum".into()),
            ids: vec!["a".into(), "b&c=d".into()],
            events: None,
        };
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let pairs: Vec<_> = text.pairs().into_iter().map(owned).collect();
        let back = SelectionText::from_pairs(&pairs).unwrap();
        assert_eq!(back, text);
        let selection = back.parse(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(selection.axis, TimeAxis::Archive);
        assert_eq!(selection.patterns.len(), 2);
        assert_eq!(selection.ids.unwrap().len(), 2);
        assert!(selection.range.from.is_some() && selection.range.until.is_some());
    }

    #[test]
    fn bad_parts_are_refused_by_name() {
        #[track_caller]
        fn check(name: &str, value: &str, reason: &str) {
            let pairs = [(name.to_owned(), value.to_owned())];
            let ended =
                SelectionText::from_pairs(&pairs).and_then(|t| t.parse(Timestamp::UNIX_EPOCH));
            let message = ended.unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
        check("colour", "x", "known are types");
        check("axis", "sideways", "neither");
        check("types", "", "pattern");
        check("ids", "", "id");
        check("range", "soon", "soon");
    }
}
