//! [`TypePattern`]: which types, in the wildcards of an AMQP topic binding.
//!
//! Words are separated by dots; `*` stands for one word, `#` for any number of words, none
//! included. `vcs.#` matches `vcs.v1.CommitPushed` and `vcs`.

use crate::{Error, Result};
use std::fmt;

/// A compiled pattern over event types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TypePattern {
    text: String,
    literal: bool,
}

impl TypePattern {
    /// Takes a pattern: 1 to 255 bytes, no control characters.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        crate::names::check("pattern", &text, crate::names::SHORT_BYTES_MAX)
            .map_err(|e| Error::invalid(format!("bad type pattern: {e}")))?;
        let literal = !text.split('.').any(|word| word == "*" || word == "#");
        Ok(Self { text, literal })
    }

    /// The pattern that matches every type.
    pub fn all() -> Self {
        Self {
            text: "#".to_owned(),
            literal: false,
        }
    }

    /// Whether it matches a type.
    pub fn matches(&self, event_type: &str) -> bool {
        if self.literal {
            self.text == event_type
        } else {
            topic_matches(&self.text, event_type)
        }
    }

    /// Whether it has no wildcard and so names one type.
    pub fn is_literal(&self) -> bool {
        self.literal
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for TypePattern {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

/// Whether a topic binding's key matches a routing key: AMQP 0-9-1, section 3.1.3.3.
///
/// Works in time (words of the pattern × words of the key) whatever the wildcards, by the classic
/// greedy match with one point to return to: a later `#` makes an earlier one's choice final.
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    let pattern: Vec<&str> = words(pattern).collect();
    let key: Vec<&str> = words(key).collect();
    let (mut p, mut k) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some(&"#") => {
                back = Some((p, k));
                p += 1;
                continue;
            }
            Some(&word) if k < key.len() && (word == "*" || word == key[k]) => {
                p += 1;
                k += 1;
                continue;
            }
            None if k == key.len() => return true,
            _ => {}
        }
        match back {
            Some((hash, taken)) if taken < key.len() => {
                back = Some((hash, taken + 1));
                p = hash + 1;
                k = taken + 1;
            }
            _ => return false,
        }
    }
}

/// The empty key has no words, as in RabbitMQ.
fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.')
        .take(if key.is_empty() { 0 } else { usize::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_a_topic_exchange() {
        #[track_caller]
        fn check(pattern: &str, key: &str, expected: bool) {
            assert_eq!(
                topic_matches(pattern, key),
                expected,
                "{pattern} against {key}"
            );
        }
        check("#", "", true);
        check("#", "a.b.c", true);
        check("a.#", "a", true);
        check("a.#", "a.b.c", true);
        check("a.#", "ab", false);
        check("*", "", false);
        check("*", "a", true);
        check("*", "a.b", false);
        check("a.*.c", "a.b.c", true);
        check("a.*.c", "a.c", false);
        check("#.c", "a.b.c", true);
        check("#.c", "c", true);
        check("#.b.#", "a.b.c", true);
        check("#.b.#", "a.c", false);
        check("a.#.b.*.c", "a.x.b.y.b.z.c", true);
        check("*.#", "a", true);
        check("#.*", "", false);
        check("a..b", "a..b", true);
        check("a.*.b", "a..b", true);
        check("vcs.v1.TagCreated", "vcs.v1.TagCreated", true);
    }

    #[test]
    fn many_hashes_against_a_long_key_take_no_time() {
        let pattern = ["#"; 60].join(".x.");
        assert!(!topic_matches(&pattern, &["y"; 127].join(".")));
    }

    #[test]
    fn a_pattern_is_checked_when_made() {
        assert!(TypePattern::new("").is_err());
        assert!(TypePattern::new("a\nb").is_err());
        assert!(
            TypePattern::new("vcs.#")
                .unwrap()
                .matches("vcs.v1.TagCreated")
        );
        assert!(TypePattern::new("vcs.v1.TagCreated").unwrap().is_literal());
    }
}
