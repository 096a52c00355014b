//! Steps into JSON text without making a tree of it: each step keeps only the text of one value.

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// One step: a key of an object, or a place in an array, from the end if negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(i64),
}

/// The text of the value at the end of the path; `None` if it is not there or the text is no JSON.
pub(super) fn find<'a>(
    text: &'a str,
    steps: impl IntoIterator<Item = Step<'a>>,
) -> Option<&'a str> {
    // The whole text is read first: what follows a value must be JSON too.
    let whole: &RawValue = serde_json::from_str(text).ok()?;
    let mut value = whole.get();
    for step in steps {
        value = take(value, step)?;
    }
    Some(value)
}

/// Entries of an array or an object.
pub(super) fn length(value: &str) -> Option<u64> {
    let mut reader = serde_json::Deserializer::from_str(value);
    match value.as_bytes().first() {
        Some(b'[' | b'{') => reader.deserialize_any(Count).ok(),
        _ => None,
    }
}

/// A value as plain text: a string without its quotes, `null` as none, all else as it is written.
pub(super) fn plain(value: &str) -> Option<std::borrow::Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => serde_json::from_str(value)
            .ok()
            .map(std::borrow::Cow::Owned),
        b'n' => None,
        _ => Some(std::borrow::Cow::Borrowed(value)),
    }
}

fn take<'a>(value: &'a str, step: Step<'_>) -> Option<&'a str> {
    let mut reader = serde_json::Deserializer::from_str(value);
    let found = match (step, value.as_bytes().first()?) {
        (Step::Key(key), b'{') => reader.deserialize_map(Entry(key)).ok()?,
        (Step::Index(index), b'[') => {
            let index = match u64::try_from(index) {
                Ok(index) => index,
                Err(_) => length(value)?.checked_sub(index.unsigned_abs())?,
            };
            reader.deserialize_seq(Item(index)).ok()?
        }
        _ => None,
    };
    found.map(RawValue::get)
}

/// The value of a key; of several equal keys the last, as databases do.
struct Entry<'k>(&'k str);

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The value at a place.
struct Item(u64);

impl<'de> Visitor<'de> for Item {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut at = 0;
        let mut found = None;
        while at < self.0 {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
            at += 1;
        }
        if let Some(value) = seq.next_element()? {
            found = Some(value);
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(found)
    }
}

struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<u64, A::Error> {
        let mut count = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut count = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::Step::{Index, Key};
    use super::*;

    const TEXT: &str = r#"{"a":{"b":[10,{"c":"x\"y"},null]},"n":1.50,"a2":[],"":0,"k\u0065y":7}"#;

    #[test]
    fn a_path_leads_to_the_text_of_its_value() {
        let cases: [(&[Step<'_>], Option<&str>); 12] = [
            (&[Key("n")], Some("1.50")),
            (&[Key("a"), Key("b"), Index(0)], Some("10")),
            (&[Key("a"), Key("b"), Index(1), Key("c")], Some(r#""x\"y""#)),
            (&[Key("a"), Key("b"), Index(-1)], Some("null")),
            (&[Key("a"), Key("b"), Index(-3)], Some("10")),
            (&[Key("a"), Key("b"), Index(-4)], None),
            (&[Key("a"), Key("b"), Index(3)], None),
            (&[Key("a"), Index(0)], None),
            (&[Index(0)], None),
            (&[Key("n"), Key("a")], None),
            (&[Key("")], Some("0")),
            (&[Key("key")], Some("7")),
        ];
        for (steps, expected) in cases {
            assert_eq!(find(TEXT, steps.iter().copied()), expected, "{steps:?}");
        }
        assert_eq!(find(TEXT, []), Some(TEXT));
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        assert_eq!(find(r#"{"a":1,"a":2}"#, [Key("a")]), Some("2"));
    }

    #[test]
    fn what_is_no_json_has_no_values_wherever_it_is_broken() {
        for text in [
            "",
            "{",
            r#"{"a":1"#,
            r#"{"a":1} x"#,
            r#"{"a":1,"b":}"#,
            "nul",
            "\u{1}",
        ] {
            assert_eq!(find(text, [Key("a")]), None, "{text:?}");
        }
    }

    #[test]
    fn very_deep_json_is_read_without_recursion() {
        let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(find(&deep, [Index(0)]).map(str::len), Some(deep.len() - 2));
        assert_eq!(find(&deep, [Index(1)]), None);
        assert_eq!(length(&deep), Some(1));
    }

    #[test]
    fn lengths_and_plain_text() {
        assert_eq!(length("[1,[2,3]]"), Some(2));
        assert_eq!(length(r#"{"a":1,"b":2}"#), Some(2));
        assert_eq!(length("7"), None);
        assert_eq!(plain(r#""a\nb""#).as_deref(), Some("a\nb"));
        assert_eq!(plain("null"), None);
        assert_eq!(plain("1.50").as_deref(), Some("1.50"));
    }
}
