//! Checked names: once made, an [`EventType`], [`Source`], [`Subject`] or [`EventId`] is valid.
//!
//! The grammar is CloudEvents 1.0's `String`: non-empty, no control characters, no noncharacters;
//! with a bound in bytes. A type may be any such string (`..` or `a/b` included): whoever makes a
//! path of one encodes it.

use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Longest id, type and routing key, in bytes: what an AMQP short string holds.
pub const SHORT_BYTES_MAX: usize = 255;
/// Longest source and subject, in bytes.
pub const LONG_BYTES_MAX: usize = 1024;

/// Checks `value` against the grammar above; `what` names it in the error.
pub fn check(what: &str, value: &str, bytes_max: usize) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid(format!("{what} is empty")));
    }
    if value.len() > bytes_max {
        return Err(Error::invalid(format!(
            "{what} is {} bytes long, at most {bytes_max} are allowed",
            value.len()
        )));
    }
    // ASCII without controls is nearly every name there is. Without an early end, for the compiler
    // then looks at many bytes at once.
    let plain = |plain, byte| plain & (0x20..0x7f).contains(&byte);
    if value.bytes().fold(true, plain) {
        return Ok(());
    }
    match value.chars().find(|&c| is_forbidden(c)) {
        Some(c) => Err(Error::invalid(format!(
            "{what} contains the character {c:?}"
        ))),
        None => Ok(()),
    }
}

fn is_forbidden(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the name.
            pub fn new(value: impl AsRef<str>) -> Result<Self> {
                let value = value.as_ref();
                check($what, value, $bytes_max)?;
                Ok(Self(value.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = Error;
            fn from_str(value: &str) -> Result<Self> {
                Self::new(value)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// What happened: the Protobuf full name of the payload, and the routing key. ≤ 255 bytes.
    EventType, "type", SHORT_BYTES_MAX
);
name!(
    /// Who says so: a URI reference that starts with `/service` by convention. ≤ 1024 bytes.
    Source, "source", LONG_BYTES_MAX
);
name!(
    /// The entity it is about: the key of order. ≤ 1024 bytes.
    Subject, "subject", LONG_BYTES_MAX
);
name!(
    /// Names the event within its source; (source, id) is its identity. ≤ 255 bytes, any form.
    EventId, "id", SHORT_BYTES_MAX
);

impl EventType {
    /// The Protobuf package: all before the last dot; empty when there is none.
    pub fn package(&self) -> &str {
        package_of(self.as_str())
    }
}

/// The package of a type given as text: all before the last dot.
pub fn package_of(event_type: &str) -> &str {
    event_type.rfind('.').map_or("", |dot| &event_type[..dot])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once_and_for_all() {
        #[track_caller]
        fn check_type(value: &str, ok: bool) {
            assert_eq!(EventType::new(value).is_ok(), ok, "{value:?}");
        }
        check_type("vcs.v1.CommitPushed", true);
        check_type("..", true);
        check_type("a/b", true);
        check_type("größe.v1.Maß", true);
        check_type("", false);
        check_type("a\0b", false);
        check_type("a\nb", false);
        check_type("a\u{85}b", false);
        check_type("a\u{ffff}", false);
        check_type(&"x".repeat(255), true);
        check_type(&"x".repeat(256), false);
    }

    #[test]
    fn the_package_is_what_stands_before_the_last_dot() {
        assert_eq!(package_of("vcs.v1.CommitPushed"), "vcs.v1");
        assert_eq!(package_of("Lonely"), "");
        assert_eq!(package_of(".."), ".");
    }
}
