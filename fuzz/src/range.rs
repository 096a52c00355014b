//! The range grammar: no text panics, and what is understood is displayed so that it is again.

use annals_core::range::{self, Range};
use annals_core::{Timestamp, TypePattern};

/// Range, instant, RFC 3339 and type pattern, of any text.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let now: Timestamp = "2026-11-21T09:30:15.25Z".parse().expect("well-formed");
    for now in [now, Timestamp::MIN, Timestamp::MAX] {
        if let Ok(range) = Range::parse(text, now) {
            let again = Range::parse(&range.to_string(), now).expect("parses back");
            assert_eq!(again, range);
            let ordered = range.from.zip(range.until);
            assert!(ordered.is_none_or(|(from, until)| from <= until));
        }
        if let Ok(at) = range::parse_instant(text, now) {
            assert_eq!(range::rfc3339(&at.to_string()), Some(at));
        }
    }
    if let Ok(pattern) = TypePattern::new(text) {
        assert!(!pattern.is_literal() || pattern.matches(text));
        assert!(TypePattern::all().matches(text));
    }
}

/// One of each form.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "2026-11-20",
        "2026-11-20T14",
        "2026-11-20T14:05",
        "2026-11-20T14:05:00.123456789+01:00..",
        "-009999-01-02T01:59:59Z..9999-12-30T22:00:00.999999999Z",
        "-2h",
        "now-1d12h/d",
        "today..now+3w",
        "yesterday",
        "1700000000..1700000000001",
        "..",
        "all",
        "acme.*.v1.#",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
