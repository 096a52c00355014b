//! The names of objects, both directions. docs/formats/segment.md and ledger.md.
//!
//! ```text
//! raw/v1/<bus>/<package>/date=2026-11-21/hour=09/<number>-<count>-<hash>.binpb.zst
//! ledger/<bus>/<number>.binpb
//! index/v2/<bus>/…                                                       (derived)
//! ```
//!
//! Buses and packages are arbitrary text; [`encode`] makes one path component of them that is
//! never empty, never `.` or `..`, at most 255 bytes, and different for different text.

use annals_core::{Error, Result, Timestamp};
use std::fmt;

/// The folder of bodies that are no CloudEvent. A package of this name is escaped, so that
/// nothing else lies there.
pub const UNKNOWN: &str = "unknown";
/// Longest path component, in bytes: what every file system takes.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// How much of a component that is too long is kept before its hash.
const LONG_KEPT_BYTES: usize = 192;
const SEGMENT_SUFFIX: &str = ".binpb.zst";
const LEDGER_SUFFIX: &str = ".binpb";
const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// Text as one path component: `A-Za-z0-9._-` stay, every other byte becomes `%XX`.
///
/// The empty text is `_`; a dot in front is escaped, so that no component is hidden, `.` or `..`.
/// Where that is over 255 bytes it is cut, and `~` and the first 16 bytes of the text's BLAKE3 in
/// hex follow (`~` occurs in no other).
pub fn encode(text: &str) -> String {
    let encoded = match text {
        "" => "_".to_owned(),
        "_" => "%5F".to_owned(),
        _ => percent_encode(text),
    };
    if encoded.len() <= COMPONENT_BYTES_MAX {
        return encoded;
    }
    // Cut before an escape, not inside one.
    let mut kept = LONG_KEPT_BYTES;
    while encoded.as_bytes()[kept - 2..kept].contains(&b'%') {
        kept -= 1;
    }
    let hash = blake3::hash(text.as_bytes()).to_hex();
    format!("{}~{}", &encoded[..kept], &hash[..32])
}

/// The text a component stands for; `None` where it was too long to be kept whole, or where it is
/// no component that [`encode`] makes.
pub fn decode(component: &str) -> Option<String> {
    if component == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(component.len());
    let mut rest = component.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (hex, after) = rest.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (encode(&text) == component || folder(&text) == component).then_some(text)
}

/// The folder of a package's segments.
pub fn folder(package: &str) -> String {
    match package {
        UNKNOWN => "%75nknown".to_owned(),
        _ => encode(package),
    }
}

/// Where a bus's segments lie; ends with `/`.
pub fn raw_folder(bus: &str) -> String {
    format!("raw/v1/{}/", encode(bus))
}

/// Where a bus's ledger lies; ends with `/`.
pub fn ledger_folder(bus: &str) -> String {
    format!("ledger/{}/", encode(bus))
}

/// Where a bus's derived index lies; ends with `/`.
pub fn index_folder(bus: &str) -> String {
    format!("index/v2/{}/", encode(bus))
}

/// Where the index of a bus lay in the format before, which is not read any more.
pub fn old_index_folder(bus: &str) -> String {
    format!("index/v1/{}/", encode(bus))
}

/// The name of a ledger entry.
pub fn ledger_name(bus: &str, number: u64) -> String {
    format!("{}{number:020}{LEDGER_SUFFIX}", ledger_folder(bus))
}

/// The number of a ledger entry's name.
pub fn ledger_number(bus: &str, name: &str) -> Option<u64> {
    let digits = name
        .strip_prefix(&ledger_folder(bus))?
        .strip_suffix(LEDGER_SUFFIX)?;
    take_number(digits)
}

/// An hour of the archiver's clock, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hour(i64);

impl Hour {
    /// The hour an instant lies in, microseconds since 1970.
    pub fn of_us(micros: i64) -> Self {
        Self(micros.div_euclid(MICROS_PER_HOUR))
    }

    /// Its first instant, microseconds since 1970.
    pub fn start_us(self) -> i64 {
        self.0 * MICROS_PER_HOUR
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = Timestamp::from_microsecond(self.start_us()).unwrap_or_default();
        write!(f, "{}", start.strftime("date=%Y-%m-%d/hour=%H"))
    }
}

/// What a segment's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName {
    /// Bus, as a path component.
    pub bus: String,
    /// Package, as a path component; or [`UNKNOWN`].
    pub folder: String,
    /// When its first record was received.
    pub hour: Hour,
    /// The ledger number its writer aimed for.
    pub number: u64,
    /// Records in it.
    pub count: u64,
    /// First 8 bytes of its BLAKE3.
    pub hash: [u8; 8],
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bus,
            folder,
            hour,
            number,
            count,
            hash,
        } = self;
        let hash = u64::from_be_bytes(*hash);
        write!(
            f,
            "raw/v1/{bus}/{folder}/{hour}/{number:020}-{count}-{hash:016x}{SEGMENT_SUFFIX}"
        )
    }
}

impl SegmentName {
    /// Reads a name; one that is not exactly as [`SegmentName`] writes it is an error.
    pub fn parse(name: &str) -> Result<Self> {
        take_segment(name)
            .filter(|parsed| parsed.to_string() == name)
            .ok_or_else(|| Error::invalid(format!("{name:?} is not the name of a segment")))
    }
}

fn take_segment(name: &str) -> Option<SegmentName> {
    let mut parts = name.strip_prefix("raw/v1/")?.split('/');
    let (bus, folder) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let date = parts.next()?.strip_prefix("date=")?;
    let hour = parts.next()?.strip_prefix("hour=")?;
    let start: Timestamp = format!("{date}T{hour}:00:00Z").parse().ok()?;
    let mut file = parts.next()?.strip_suffix(SEGMENT_SUFFIX)?.split('-');
    let number = take_number(file.next()?)?;
    let count = file.next()?.parse().ok()?;
    let hash = u64::from_str_radix(file.next()?, 16).ok()?.to_be_bytes();
    let hour = Hour::of_us(start.as_microsecond());
    (parts.next().is_none() && file.next().is_none()).then_some(SegmentName {
        bus,
        folder,
        hour,
        number,
        count,
        hash,
    })
}

fn take_number(digits: &str) -> Option<u64> {
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

fn percent_encode(text: &str) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'.' if out.is_empty() => out.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => out.push(byte.into()),
            _ => write!(out, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_round_trip_and_stay_in_their_directory() {
        let long = "ü".repeat(127);
        let names = [
            "", "_", ".", "..", "...", ".tmp", "a/b", "../..", "a\0b", "shop.v1", "größe", "a b",
            "%5F", "~", "unknown", "Unknown", "-", "a..b", &long,
        ];
        let mut seen = std::collections::HashSet::new();
        for name in names {
            for component in [folder(name), encode(name)] {
                assert!(!component.is_empty() && component.len() <= COMPONENT_BYTES_MAX);
                assert!(!component.starts_with('.'), "{name:?}");
                assert!(!component.contains(['/', '\0', '\\']), "{component}");
                assert!(component.is_ascii());
                if name != long {
                    assert_eq!(decode(&component).as_deref(), Some(name), "{component}");
                }
            }
            assert!(seen.insert(folder(name)), "{name:?} shares a folder");
            assert_ne!(folder(name), UNKNOWN);
        }
        assert_eq!(decode(&encode(&long)), None);
        assert_ne!(encode(&long), encode(&"ü".repeat(126)));
        for foreign in ["%5f", "a%2Eb", "%zz", "%", "a/b", ""] {
            assert_eq!(decode(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn segment_names_are_read_back_and_others_refused() {
        let name = SegmentName {
            bus: "main".into(),
            folder: folder("shop.v1"),
            hour: Hour::of_us(
                "2026-11-21T09:59:59.999999Z"
                    .parse::<Timestamp>()
                    .unwrap()
                    .as_microsecond(),
            ),
            number: 17,
            count: 3,
            hash: [0, 1, 2, 3, 4, 5, 6, 255],
        };
        let text = "raw/v1/main/shop.v1/date=2026-11-21/hour=09/00000000000000000017-3-00010203040506ff.binpb.zst";
        assert_eq!(name.to_string(), text);
        assert_eq!(SegmentName::parse(text).unwrap(), name);
        for bad in [
            text.replace("raw/v1", "raw/v2"),
            text.replace("00000000000000000017", "17"),
            text.replace("-3-", "-03-"),
            text.replace("-3-", "-+3-"),
            text.replace("hour=09", "hour=9"),
            text.replace("hour=09", "hour=24"),
            text.replace("00010203040506ff", "10203040506ff"),
            format!("{text}/x"),
            String::new(),
        ] {
            assert!(SegmentName::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ledger_names_sort_as_their_numbers() {
        assert_eq!(
            ledger_name("main", 7),
            "ledger/main/00000000000000000007.binpb"
        );
        assert_eq!(
            ledger_number("main", &ledger_name("main", u64::MAX)),
            Some(u64::MAX)
        );
        assert_eq!(ledger_number("main", "ledger/main/7.binpb"), None);
        assert_eq!(ledger_number("other", &ledger_name("main", 7)), None);
        assert!(ledger_name("main", 9) < ledger_name("main", 10));
    }
}
