//! Where in a JSON document an error is: `total.units`, `lines[2].sku`.

/// The path to the value in which, or right after which, a position lies (both from 1, in bytes,
/// as the JSON reader counts). `None` at the top, and where no position is known.
pub(super) fn path_at(json: &str, line: usize, column: usize) -> Option<String> {
    let before: usize = json
        .split_inclusive('\n')
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum();
    let end = (before + column).min(json.len());
    let mut levels: Vec<Level> = Vec::new();
    let mut rest = &json.as_bytes()[..end];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                let (text, after) = string(rest);
                rest = after;
                if let Some(Level::Object(key @ None)) = levels.last_mut() {
                    *key = Some(String::from_utf8_lossy(text).into_owned());
                }
            }
            b'{' => levels.push(Level::Object(None)),
            b'[' => levels.push(Level::Array(0)),
            // The error is about what was just closed, if this is the last byte.
            b'}' | b']' if !rest.is_empty() => drop(levels.pop()),
            b',' if !rest.is_empty() => match levels.last_mut() {
                Some(Level::Object(key)) => *key = None,
                Some(Level::Array(index)) => *index += 1,
                None => {}
            },
            _ => {}
        }
    }
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Object(Some(key)) if path.is_empty() => path = key,
            Level::Object(Some(key)) => path.extend([".", &key]),
            Level::Object(None) => {}
            Level::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    (!path.is_empty()).then_some(path)
}

enum Level {
    /// The key whose value is read; `None` until it is known.
    Object(Option<String>),
    Array(usize),
}

/// A string's text, escapes as they are, and what follows its closing quote.
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let end = bytes.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    match end {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::path_at;

    #[test]
    fn a_position_is_named_by_the_keys_and_indices_around_it() {
        #[track_caller]
        fn check(json: &str, expected: Option<&str>) {
            // The mark stands where the error is.
            let at = json.find('^').unwrap();
            let line = json[..at].matches('\n').count() + 1;
            let column = at - json[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let json = json.replace('^', "");
            assert_eq!(path_at(&json, line, column).as_deref(), expected, "{json}");
        }
        check(r#"{"a":1^}"#, Some("a"));
        check(r#"{"a":{"b":"x"^}}"#, Some("a.b"));
        check(r#"{"a":[1,{"b":[true,"x,]}"^]}]}"#, Some("a[1].b[1]"));
        check("{\"a\":1,\n \"b\":\n null^}", Some("b"));
        check(r#"{"a":1,"b":2^,"c":3}"#, Some("b"));
        check(r#"[1,2^]"#, Some("[1]"));
        check("^", None);
        check("{}^", None);
        assert_eq!(path_at("{}", 0, 0), None);
        assert_eq!(path_at("é", 7, 99), None);
    }
}
