//! Times and sizes on the command line: `10s`, `500ms`, `64KiB`.

use std::time::Duration;

/// Reads a time: a number with `ms`, `s`, `m` or `h`; without a unit, of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("", 1_000),
    ];
    let millis = read(text, &units).ok_or("a time is a number with ms, s, m or h, as in 500ms")?;
    Ok(Duration::from_millis(millis))
}

/// Reads a size: a number with `KiB` or `MiB`; without a unit, of MiB.
pub fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("", 1 << 20)];
    read(text, &units).ok_or_else(|| "a size is a number with KiB or MiB, as in 64KiB".to_owned())
}

fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_seconds_need_none() {
        let times = ["500ms", "10", "10s", "5m", "1h", "2 s"].map(|t| duration(t).unwrap());
        let millis = times.map(|t| t.as_millis());
        assert_eq!(millis, [500, 10_000, 10_000, 300_000, 3_600_000, 2_000]);
        for text in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "99999999999999999999s",
            "1h1m",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_have_units_and_mebibytes_need_none() {
        let sizes = ["64KiB", "32MiB", "32"].map(|t| bytes(t).unwrap());
        assert_eq!(sizes, [64 << 10, 32 << 20, 32 << 20]);
        for text in ["", "MiB", "1MB", "1.5MiB", "99999999999999999MiB"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }
}
