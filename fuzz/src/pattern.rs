//! Type patterns against the definition: `*` is one word, `#` is any number of words.

use annals_core::TypePattern;
use annals_core::pattern::topic_matches;

/// The matcher says what the definition says. The input is a pattern, a line end, and a key.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (pattern, key) = text.split_once('\n').unwrap_or((text, text));
    // The definition takes words of one times words of the other.
    if pattern.len().saturating_mul(key.len()) > 1 << 20 {
        return;
    }
    let words = |text: &str| match text {
        "" => Vec::new(),
        text => text.split('.').map(str::to_owned).collect(),
    };
    let expected = matches(&words(pattern), &words(key));
    assert_eq!(topic_matches(pattern, key), expected, "{pattern:?} {key:?}");
    if let Ok(compiled) = TypePattern::new(pattern) {
        assert_eq!(compiled.as_str(), pattern);
        assert_eq!(compiled.matches(key), expected, "{pattern:?} {key:?}");
        assert!(!compiled.is_literal() || compiled.matches(pattern));
    }
}

/// By a table: whether the first `p` words of the pattern match the first `k` of the key.
fn matches(pattern: &[String], key: &[String]) -> bool {
    let mut row = vec![false; key.len() + 1];
    row[0] = true;
    for word in pattern {
        let above = row.clone();
        for k in 0..=key.len() {
            let with_last = k > 0 && above[k - 1];
            row[k] = match word.as_str() {
                "#" => above[k] || (k > 0 && row[k - 1]),
                "*" => with_last,
                word => with_last && key[k - 1] == word,
            };
        }
    }
    row[key.len()]
}

/// Patterns and keys.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "vcs.#\nvcs.v1.TagCreated",
        "#\n",
        "*.*.T\na..T",
        "#.a.#.b\na.b.a.c.b",
        "a.*.#.#\na.b",
        "acme.v1.Paid\nacme.v1.Paid",
        "größe.*\ngröße.Maß",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
