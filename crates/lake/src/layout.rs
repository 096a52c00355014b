//! Where tables lie in the bucket. docs/formats/lake.md.
//!
//! ```text
//! lake/v1/<bus>/events/_delta_log/…                       the events' table
//! lake/v1/<bus>/events/date=2026-11-21/<hash>.parquet
//! lake/v1/<bus>/types/<type>/_delta_log/…                 a table per type with a schema
//! lake/v1/<bus>/types/<type>/date=2026-11-21/<hash>.parquet
//! ```

use annals_core::{Error, Result};
use std::fmt;

/// The partition column: the day of archiving, UTC.
pub const DATE: &str = "date";
/// The name of the table of all events.
pub const EVENTS: &str = "events";

/// Which table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableName {
    /// The envelope of every event.
    Events,
    /// The events of one type, with its payload's columns.
    Type(String),
}

impl TableName {
    /// The table of a type; its name is the full name of a Protobuf message.
    pub fn of_type(event_type: &str) -> Result<Self> {
        let part = |part: &str| {
            let mut chars = part.chars();
            chars
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if event_type.len() > 255 || !event_type.split('.').all(part) {
            return Err(Error::invalid(format!(
                "{event_type:?} is not the full name of a Protobuf message"
            )));
        }
        Ok(Self::Type(event_type.to_owned()))
    }

    /// The table's folder in the bucket, without a `/` at its end.
    pub fn folder(&self, bus: &str) -> String {
        // Percent signs would be decoded once more by whoever takes a path for an address.
        let bus = annals_archive::layout::encode(bus).replace('%', "!");
        match self {
            Self::Events => format!("lake/v1/{bus}/{EVENTS}"),
            Self::Type(name) => format!("lake/v1/{bus}/types/{name}"),
        }
    }

    /// The name as SQL knows it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Events => EVENTS,
            Self::Type(name) => name,
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A data file's path within its table: the day, and the content's hash.
pub fn file_path(date: Date, content: &blake3::Hash) -> String {
    format!("{DATE}={date}/{}.parquet", &content.to_hex()[..32])
}

/// A day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(pub i32);

impl Date {
    /// The day an instant lies in, microseconds since 1970.
    pub fn of_us(micros: i64) -> Self {
        Self(micros.div_euclid(86_400_000_000) as i32)
    }

    /// Reads `2026-11-21`.
    pub fn parse(text: &str) -> Option<Self> {
        let time: annals_core::Timestamp = format!("{text}T00:00:00Z").parse().ok()?;
        Some(Self::of_us(time.as_microsecond()))
    }

    /// Its first instant, microseconds since 1970.
    pub fn start_us(self) -> i64 {
        i64::from(self.0) * 86_400_000_000
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = annals_core::Timestamp::from_microsecond(self.start_us()).unwrap_or_default();
        write!(f, "{}", start.strftime("%Y-%m-%d"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_lie_where_the_format_says() {
        assert_eq!(TableName::Events.folder("main"), "lake/v1/main/events");
        let table = TableName::of_type("shop.v1.Order").unwrap();
        assert_eq!(table.folder("a b"), "lake/v1/a!20b/types/shop.v1.Order");
        for wrong in ["", ".", "a..b", "a/b", "1a", "a-b", "ä"] {
            assert!(TableName::of_type(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn dates_are_written_and_read() {
        let date = Date::of_us(1_795_000_000_000_000);
        assert_eq!(date.to_string(), "2026-11-18");
        assert_eq!(Date::parse("2026-11-18"), Some(date));
        assert_eq!(Date::of_us(-1), Date(-1));
        assert_eq!(Date(-1).to_string(), "1969-12-31");
        assert_eq!(Date::parse("soon"), None);
    }
}
