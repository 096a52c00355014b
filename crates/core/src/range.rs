//! Half-open ranges of time, and the one grammar they are written in.
//!
//! ```text
//! range   = instant ".." instant | instant ".." | ".." instant | ".." | "all" | period | offset
//! instant = period                               its first moment
//!         | offset                               before or after now
//!         | RFC 3339                             2026-11-20T14:05:00.5+01:00
//!         | digits                               seconds since 1970; milliseconds from 10^11 on
//! period  = 2026-11-20 | 2026-11-20T14 | 2026-11-20T14:05 | "today" | "yesterday"
//!         | offset "/" unit                      now-1d/d: the day that was a day ago
//! offset  = ["now"] { ("+" | "-") number unit }  -2h, now, now-1d12h
//! unit    = "s" | "m" | "h" | "d" | "w"          a week starts on Monday
//! ```
//!
//! A range of one period is that period; of one offset, from it on. All in UTC; `A..B` has A, not
//! B. What is displayed parses back to the same range.

use crate::{Error, Result, Timestamp};
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use std::fmt;

/// `from` included, `until` excluded; an absent end is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// First instant in the range.
    pub from: Option<Timestamp>,
    /// First instant after the range.
    pub until: Option<Timestamp>,
}

/// Which of an event's times a range is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimeAxis {
    /// The `time` attribute: when it happened.
    #[default]
    Event,
    /// When the archiver received it.
    Archive,
}

impl Range {
    /// All of time.
    pub fn all() -> Self {
        Self::default()
    }

    /// Reads a range in the grammar of this module; `now` is what it counts from.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self> {
        let text = text.trim();
        if text == "all" {
            return Ok(Self::all());
        }
        let Some((from, until)) = text.split_once("..") else {
            return match moment(text, now)? {
                Moment::Period(from, until) => Ok(Self {
                    from: Some(from),
                    until,
                }),
                Moment::Offset(from) => Ok(Self {
                    from: Some(from),
                    until: None,
                }),
                Moment::Instant(_) => Err(Error::invalid(format!(
                    "{text:?} is one instant, not a range; write {text:?}.. or ..{text:?}"
                ))),
            };
        };
        let end = |text: &str| match text.trim() {
            "" => Ok(None),
            text => parse_instant(text, now).map(Some),
        };
        let (from, until) = (end(from)?, end(until)?);
        if from.zip(until).is_some_and(|(from, until)| until < from) {
            return Err(Error::invalid(format!("{text:?} ends before it starts")));
        }
        Ok(Self { from, until })
    }

    /// Whether neither end is bounded.
    pub fn is_all(&self) -> bool {
        self.from.is_none() && self.until.is_none()
    }

    /// Whether an instant lies in it.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.until.is_none_or(|until| time < until)
    }

    /// Whether it shares an instant with `first..=last`.
    pub fn overlaps(&self, first: Timestamp, last: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= last) && self.until.is_none_or(|until| first < until)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = self.from {
            write!(f, "{from}")?;
        }
        f.write_str("..")?;
        match self.until {
            Some(until) => write!(f, "{until}"),
            None => Ok(()),
        }
    }
}

/// Reads one instant in the grammar of this module; of a period, its first moment.
pub fn parse_instant(text: &str, now: Timestamp) -> Result<Timestamp> {
    Ok(match moment(text.trim(), now)? {
        Moment::Period(at, _) | Moment::Offset(at) | Moment::Instant(at) => at,
    })
}

/// Reads an RFC 3339 date and time; digits beyond nanoseconds are cut off. Years before 0 and
/// after 9999 are written as this module writes them: a sign and six digits.
pub fn rfc3339(text: &str) -> Option<Timestamp> {
    let text = text.trim_end_matches(|c: char| c.is_ascii_whitespace());
    let year = if text.starts_with(['+', '-']) { 7 } else { 4 };
    let shape: &[u8] = b"-00-00 00:00:00";
    let fixed = text.as_bytes().get(year..year + shape.len())?;
    let matches = shape.iter().zip(fixed).all(|(shape, byte)| match shape {
        b'0' => byte.is_ascii_digit(),
        b' ' => matches!(byte, b'T' | b't' | b' '),
        other => other == byte,
    });
    let (date_time, rest) = text.split_at_checked(year + shape.len())?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("0", rest),
    };
    let zone = match zone.as_bytes() {
        b"Z" | b"z" => "Z",
        [b'+' | b'-', h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|digit| digit.is_ascii_digit()) =>
        {
            zone
        }
        _ => return None,
    };
    if !matches || fraction.is_empty() {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(9)];
    format!("{date_time}.{fraction}{zone}").parse().ok()
}

enum Moment {
    /// From, until; open where time itself ends.
    Period(Timestamp, Option<Timestamp>),
    Offset(Timestamp),
    Instant(Timestamp),
}

fn moment(text: &str, now: Timestamp) -> Result<Moment> {
    named(text, now)
        .or_else(|| epoch(text))
        .or_else(|| civil(text))
        .or_else(|| rfc3339(text).map(Moment::Instant))
        .or_else(|| relative(text, now))
        .ok_or_else(|| {
            Error::invalid(format!(
                "{text:?} is no time; try 2026-11-20, 2026-11-20T14, 2026-11-20T14:05:00Z, -2h, \
                 now-1d/d, today, yesterday or seconds since 1970"
            ))
        })
}

fn named(text: &str, now: Timestamp) -> Option<Moment> {
    match text {
        "today" => period(now, 'd'),
        "yesterday" => period(shift(now, -1, 'd')?, 'd'),
        _ => None,
    }
}

fn epoch(text: &str) -> Option<Moment> {
    const MILLIS_FROM: i64 = 100_000_000_000;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i64 = text.parse().ok()?;
    let at = match number {
        MILLIS_FROM.. => Timestamp::from_millisecond(number),
        _ => Timestamp::from_second(number),
    };
    at.ok().map(Moment::Instant)
}

/// `2026-11-20`, `2026-11-20T14`, `2026-11-20T14:05`.
fn civil(text: &str) -> Option<Moment> {
    let (shape, unit): (&[u8], _) = match text.len() {
        10 => (b"0000-00-00", 'd'),
        13 => (b"0000-00-00T00", 'h'),
        16 => (b"0000-00-00T00:00", 'm'),
        _ => return None,
    };
    let matches = shape.iter().zip(text.bytes()).all(|(shape, byte)| {
        if *shape == b'0' {
            byte.is_ascii_digit()
        } else {
            *shape == byte
        }
    });
    let number = |at: std::ops::Range<usize>| text.get(at).map_or(Some(0), |v| v.parse().ok());
    if !matches {
        return None;
    }
    let date = Date::new(
        text[..4].parse().ok()?,
        number(5..7)?,
        text[8..10].parse().ok()?,
    );
    let time = DateTime::from_parts(
        date.ok()?,
        jiff::civil::Time::new(number(11..13)?, number(14..16)?, 0, 0).ok()?,
    );
    period(Offset::UTC.to_timestamp(time).ok()?, unit)
}

/// `-2h`, `now`, `now-1d12h`, `now-1d/d`.
fn relative(text: &str, now: Timestamp) -> Option<Moment> {
    let (offset, rounding) = match text.split_once('/') {
        Some((offset, unit)) => (offset, Some(one_unit(unit)?)),
        None => (text, None),
    };
    let mut rest = match offset.strip_prefix("now") {
        Some(rest) => rest,
        None if offset.starts_with(['+', '-']) => offset,
        None => return None,
    };
    let mut at = now;
    let mut sign = 0;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['+', '-']) {
            sign = if rest.starts_with('-') { -1 } else { 1 };
            rest = after;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        at = shift(at, number.checked_mul(sign)?, unit).filter(|_| sign != 0)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    match rounding {
        Some(unit) => period(at, unit),
        None => Some(Moment::Offset(at)),
    }
}

fn one_unit(text: &str) -> Option<char> {
    let mut chars = text.chars();
    let unit = chars.next()?;
    (chars.next().is_none() && seconds_of(unit).is_some()).then_some(unit)
}

fn seconds_of(unit: char) -> Option<i64> {
    Some(match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    })
}

fn shift(at: Timestamp, number: i64, unit: char) -> Option<Timestamp> {
    let seconds = seconds_of(unit)?.checked_mul(number)?;
    at.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// The second, minute, hour, day or week that an instant lies in.
fn period(at: Timestamp, unit: char) -> Option<Moment> {
    // 1970 began on a Thursday; the Monday before was three days earlier.
    let origin = if unit == 'w' { -3 * 86_400 } else { 0 };
    let length = seconds_of(unit)?;
    let seconds = at.as_nanosecond().div_euclid(1_000_000_000) as i64;
    let start = seconds - (seconds - origin).rem_euclid(length);
    let from = Timestamp::from_second(start).ok()?;
    Some(Moment::Period(
        from,
        Timestamp::from_second(start + length).ok(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: &str = "2026-11-21T09:30:15.25Z"; // a Saturday

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    #[test]
    fn ranges_read_as_the_grammar_says() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let range = Range::parse(text, now()).unwrap();
            assert_eq!(range.to_string(), expected, "{text}");
        }
        check("..", "..");
        check("all", "..");
        check("2026-11-20", "2026-11-20T00:00:00Z..2026-11-21T00:00:00Z");
        check("2024-02-29", "2024-02-29T00:00:00Z..2024-03-01T00:00:00Z");
        check(
            "2026-11-20T14",
            "2026-11-20T14:00:00Z..2026-11-20T15:00:00Z",
        );
        check(
            "2026-12-31T23:59",
            "2026-12-31T23:59:00Z..2027-01-01T00:00:00Z",
        );
        check("today", "2026-11-21T00:00:00Z..2026-11-22T00:00:00Z");
        check("yesterday", "2026-11-20T00:00:00Z..2026-11-21T00:00:00Z");
        check("-2h", "2026-11-21T07:30:15.25Z..");
        check("now", "2026-11-21T09:30:15.25Z..");
        check("now-1d/d", "2026-11-20T00:00:00Z..2026-11-21T00:00:00Z");
        check("-1h/h", "2026-11-21T08:00:00Z..2026-11-21T09:00:00Z");
        check("now/w", "2026-11-16T00:00:00Z..2026-11-23T00:00:00Z");
        check(
            "2026-11-01..2026-11-08",
            "2026-11-01T00:00:00Z..2026-11-08T00:00:00Z",
        );
        check(
            "yesterday..now",
            "2026-11-20T00:00:00Z..2026-11-21T09:30:15.25Z",
        );
        check(
            "-1d12h..now-1d+6h",
            "2026-11-19T21:30:15.25Z..2026-11-20T15:30:15.25Z",
        );
        check(
            " 1700000000 .. 1700000000001 ",
            "2023-11-14T22:13:20Z..2023-11-14T22:13:20.001Z",
        );
        check("2026-11-20T14:05:00+01:00..", "2026-11-20T13:05:00Z..");
        check(
            "..2026-11-20t14:05:00.123456789987z",
            "..2026-11-20T14:05:00.123456789Z",
        );
    }

    #[test]
    fn what_is_no_range_is_refused() {
        #[track_caller]
        fn check(text: &str) {
            assert!(Range::parse(text, now()).is_err(), "{text}");
        }
        for text in [
            "",
            "x",
            "2026-13-01",
            "2026-02-30",
            "2026-11-20T24",
            "2026-11-20T14:60",
            "-2",
            "-h",
            "-2x",
            "2h",
            "now1h",
            "now-1d/",
            "now-1d/dd",
            "now-1d/x",
            "today/d",
            "...",
            "today..x",
            "2026-11-20T14:05:00Z",
            "1700000000",
            "-99999999999999999999h",
            "-9223372036854775807w",
            "99999999999999999999",
            "now-99999999d",
            "2026-11-20T14:05:00",
            "2026-11-20T14:05:00+1",
            "today..yesterday",
            "2026-11-20T14:05:00.Z",
            "２０２６-11-20",
            "-é",
            "+2026-11-20",
        ] {
            check(text);
        }
    }

    #[test]
    fn the_parts_of_a_range_hold_each_instant_once() {
        let range = |text| Range::parse(text, now()).unwrap();
        let days = ["2026-11-19", "2026-11-20", "2026-11-21"].map(range);
        let whole = range("2026-11-19..2026-11-22");
        for hour in 0..120 {
            let time: Timestamp =
                shift("2026-11-18T00:00:00Z".parse().unwrap(), hour, 'h').unwrap();
            let parts = days.iter().filter(|day| day.contains(time)).count();
            assert_eq!(parts, usize::from(whole.contains(time)), "{time}");
        }
    }

    fn any_timestamp() -> impl Strategy<Value = Timestamp> {
        let nanos = Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond();
        prop_oneof![
            nanos.prop_map(|n| Timestamp::from_nanosecond(n).unwrap()),
            Just(Timestamp::MIN),
            Just(Timestamp::MAX),
        ]
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_back(
            one in proptest::option::of(any_timestamp()),
            two in proptest::option::of(any_timestamp()),
        ) {
            let reversed = one.zip(two).is_some_and(|(one, two)| two < one);
            let (from, until) = if reversed { (two, one) } else { (one, two) };
            let range = Range { from, until };
            prop_assert_eq!(Range::parse(&range.to_string(), now()).unwrap(), range);
        }

        #[test]
        fn no_text_makes_the_parser_panic(
            text in "([0-9+./:TZdhmnostwy -]|now|today|\\.\\.|\\PC){0,24}",
            now in any_timestamp(),
        ) {
            if let Ok(range) = Range::parse(&text, now) {
                prop_assert!(range.from.zip(range.until).is_none_or(|(a, b)| a <= b));
            }
            let _ = parse_instant(&text, now);
            let _ = rfc3339(&text);
        }
    }
}
