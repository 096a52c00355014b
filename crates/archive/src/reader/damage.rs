//! [`Damage`]: bytes of the archive that are not what was written, named.

use crate::ledger::Position;
use annals_core::{Error, ErrorKind};
use std::fmt;
use std::sync::Arc;

/// What a reader does about damage. It serves none either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Ends with the error, after what lies before it.
    #[default]
    Stop,
    /// Leaves out what is damaged, says so ([`Events::damage`](super::Events::damage)), goes on.
    Report,
}

/// A damaged or missing part of the archive.
#[derive(Debug)]
pub struct Damage {
    /// The ledger entry it belongs to.
    pub position: Position,
    /// The segment, by its object name; absent where the entry itself is damaged.
    pub segment: Option<Arc<str>>,
    /// The frame within the segment, from 0; absent where the whole segment is concerned.
    pub frame: Option<usize>,
    /// What is wrong.
    pub error: Error,
}

impl Damage {
    /// As an error that names the place.
    pub fn into_error(self) -> Error {
        let place = self.place();
        match self.error.kind() {
            ErrorKind::Corrupt => self.error.context(place),
            // What is missing, too, is damage to whoever asked for what it held.
            _ => Error::corrupt(place).caused_by(self.error),
        }
    }

    fn place(&self) -> String {
        let mut place = format!("ledger entry {}", self.position);
        if let Some(segment) = &self.segment {
            place += &format!(": {segment}");
        }
        if let Some(frame) = self.frame {
            place += &format!(" frame {frame}");
        }
        place
    }

    /// Whether an error means damage, and not that something cannot be reached now.
    pub(crate) fn is_damage(error: &Error) -> bool {
        matches!(
            error.kind(),
            ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Invalid
        )
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.error)
    }
}
