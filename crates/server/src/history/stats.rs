//! [`Stats`]: what the archive holds, in numbers.

use super::History;
use crate::exit::Result;
use annals_archive::Position;
use annals_archive::reader::OnDamage;
use annals_core::Timestamp;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use annals_archive::archiver::body::UNDECODABLE;

/// What the archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Number of the last ledger entry.
    pub ledger_position: u64,
    /// Distinct events.
    pub events: u64,
    /// Records, later copies counted.
    pub records: u64,
    /// Records that repeat an earlier event.
    pub duplicates: u64,
    /// Of these, how many have other bytes than the first.
    pub conflicts: u64,
    /// Events around bodies that are none.
    pub undecodable: u64,
    /// Segments.
    pub segments: u64,
    /// Their length.
    pub bytes: u64,
    /// Distinct events by type.
    pub types: Vec<TypeCount>,
    /// Distinct events by type and day of archiving.
    pub days: Vec<DayCount>,
}

/// Distinct events of a type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeCount {
    /// The type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// How many.
    pub events: u64,
}

/// Distinct events of a type that were archived on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayCount {
    /// The day, as `2026-11-21`, UTC.
    pub day: String,
    /// The type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// How many.
    pub events: u64,
}

impl History {
    /// Counts, from ledger and index; opens no segment that the index covers.
    pub async fn stats(&self) -> Result<Stats> {
        let archive = self.archive();
        let mut stats = Stats {
            ledger_position: archive.position().0,
            ..Stats::default()
        };
        let mut entries = archive.ledger().entries(Position(0), archive.position());
        while let Some(entry) = entries.next().await.transpose()? {
            for segment in &entry.entry.segments {
                stats.records += segment.count;
                stats.segments += 1;
                stats.bytes += segment.length;
            }
        }
        let index = archive.index(OnDamage::Stop).await?;
        let counts = index.counts();
        stats.conflicts = index.conflicts().count() as u64;
        let mut types: BTreeMap<&str, u64> = BTreeMap::new();
        for ((event_type, day), count) in &counts.archived {
            *types.entry(event_type).or_default() += count;
            stats.days.push(DayCount {
                day: day_text(*day),
                event_type: event_type.clone(),
                events: *count,
            });
        }
        stats
            .days
            .sort_by(|a, b| (&a.day, &a.event_type).cmp(&(&b.day, &b.event_type)));
        stats.events = types.values().sum();
        stats.duplicates = stats.records - stats.events.min(stats.records);
        stats.undecodable = types.get(UNDECODABLE).copied().unwrap_or(0);
        stats.types = types
            .into_iter()
            .map(|(event_type, events)| TypeCount {
                event_type: event_type.to_owned(),
                events,
            })
            .collect();
        Ok(stats)
    }
}

fn day_text(day: i32) -> String {
    let midnight = Timestamp::from_second(i64::from(day) * 86_400);
    midnight.map_or_else(
        |_| format!("day {day}"),
        |time| time.to_string().chars().take(10).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(day_text(0), "1970-01-01");
        assert_eq!(day_text(20_778), "2026-11-21");
        assert_eq!(day_text(i32::MAX), format!("day {}", i32::MAX));
    }
}
