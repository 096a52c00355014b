//! What the messages of `google.protobuf` say, read from the pieces they came in.

use crate::leaf::{Row, Step};
use crate::wire::{BYTES, LEVELS_MAX, Span, Wire};
use std::collections::BTreeMap;

/// Calls with every field of a message that came in pieces: number, wire type, value.
fn fields(payload: &[u8], pieces: &[Span], mut each: impl FnMut(u32, u32, u64) -> Step) -> Step {
    for piece in pieces {
        let mut wire = Wire::new(payload, *piece);
        while let Some(tag) = wire.tag() {
            match wire.raw(tag.1) {
                Some(raw) => each(tag.0, tag.1, raw)?,
                None if wire.skip(tag, LEVELS_MAX, false).is_some() => {}
                None => break,
            }
        }
    }
    Ok(())
}

/// The value in a wrapper.
pub(crate) fn wrapped(payload: &[u8], pieces: &[Span]) -> u64 {
    let mut value = 0;
    let _ = fields(payload, pieces, |number, _, raw| {
        if number == 1 {
            value = raw;
        }
        Ok(())
    });
    value
}

/// `seconds` and `nanos`.
fn seconds_and_nanos(payload: &[u8], pieces: &[Span]) -> (i64, i32) {
    let (mut seconds, mut nanos) = (0, 0);
    let _ = fields(payload, pieces, |number, _, raw| {
        match number {
            1 => seconds = raw as i64,
            2 => nanos = raw as i32,
            _ => {}
        }
        Ok(())
    });
    (seconds, nanos)
}

/// Years 1 to 9999.
const INSTANTS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years.
const DURATION_MAX: u64 = 315_576_000_000;

/// A timestamp in microseconds, rounded down.
pub(crate) fn timestamp(payload: &[u8], pieces: &[Span]) -> Option<i64> {
    let (seconds, nanos) = seconds_and_nanos(payload, pieces);
    let valid = INSTANTS.contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    valid.then(|| seconds * 1_000_000 + i64::from(nanos / 1_000))
}

/// A duration in microseconds, rounded down.
pub(crate) fn duration(payload: &[u8], pieces: &[Span]) -> Option<i64> {
    let (seconds, nanos) = seconds_and_nanos(payload, pieces);
    let valid = seconds.unsigned_abs() <= DURATION_MAX
        && nanos.unsigned_abs() < 1_000_000_000
        && seconds.signum() * i64::from(nanos.signum()) >= 0;
    valid.then(|| seconds * 1_000_000 + i64::from(nanos.div_euclid(1_000)))
}

/// A field mask as Protobuf's JSON has it, without quotes.
pub(crate) fn field_mask(payload: &[u8], pieces: &[Span], out: &mut Vec<u8>) {
    let mut first = true;
    let _ = fields(payload, pieces, |number, wire_type, raw| {
        if (number, wire_type) == (1, BYTES) {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            let path = Span::of(raw).within(payload);
            let start = out.len();
            if !camel_case(path, out) {
                out.truncate(start);
                out.extend_from_slice(path);
            }
        }
        Ok(())
    });
}

/// `a_b.c` as `aB.c`; false if it would not read back.
fn camel_case(path: &[u8], out: &mut Vec<u8>) -> bool {
    let mut after_underscore = false;
    for &byte in path {
        match byte {
            b'A'..=b'Z' => return false,
            b'a'..=b'z' if after_underscore => out.push(byte.to_ascii_uppercase()),
            _ if after_underscore => return false,
            b'_' => {}
            _ => out.push(byte),
        }
        after_underscore = byte == b'_';
    }
    !after_underscore
}

/// A message of JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) enum JsonType {
    Struct,
    Value,
    List,
}

/// Values a value of JSON costs: a tree is held while it is written.
const JSON_CELLS: usize = 8;

/// Its text, without spaces, keys sorted.
pub(crate) fn json(kind: JsonType, pieces: &[Span], out: &mut Vec<u8>, row: &mut Row<'_>) -> Step {
    let value = match kind {
        JsonType::Struct => {
            let mut members = BTreeMap::new();
            for piece in pieces {
                read_struct(&mut members, *piece, row)?;
            }
            Json::Object(members)
        }
        JsonType::List => {
            let mut elements = Vec::new();
            for piece in pieces {
                read_list(&mut elements, *piece, row)?;
            }
            Json::Array(elements)
        }
        JsonType::Value => {
            let mut value = Json::Null;
            for piece in pieces {
                read_value(&mut value, *piece, row)?;
            }
            value
        }
    };
    value.write(row.payload, out);
    Ok(())
}

/// A value; texts by where they are.
enum Json<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Span),
    Array(Vec<Self>),
    Object(BTreeMap<&'a [u8], Self>),
}

fn read_struct<'a>(
    members: &mut BTreeMap<&'a [u8], Json<'a>>,
    piece: Span,
    row: &mut Row<'a>,
) -> Step {
    let payload = row.payload;
    fields(payload, &[piece], |number, _, raw| {
        if number != 1 {
            return Ok(());
        }
        row.spend(JSON_CELLS)?;
        let (mut key, mut value) = (0, Json::Null);
        fields(payload, &[Span::of(raw)], |number, _, raw| {
            match number {
                1 => key = raw,
                2 => read_value(&mut value, Span::of(raw), row)?,
                _ => {}
            }
            Ok(())
        })?;
        members.insert(Span::of(key).within(payload), value);
        Ok(())
    })
}

fn read_list<'a>(elements: &mut Vec<Json<'a>>, piece: Span, row: &mut Row<'a>) -> Step {
    fields(row.payload, &[piece], |number, _, raw| {
        if number == 1 {
            row.spend(JSON_CELLS)?;
            let mut value = Json::Null;
            read_value(&mut value, Span::of(raw), row)?;
            elements.push(value);
        }
        Ok(())
    })
}

/// Merges a piece into a value: a oneof, so that the last member stands.
fn read_value<'a>(value: &mut Json<'a>, piece: Span, row: &mut Row<'a>) -> Step {
    fields(row.payload, &[piece], |number, _, raw| {
        match number {
            1 => *value = Json::Null,
            2 => *value = Json::Number(f64::from_bits(raw)),
            3 => *value = Json::Text(Span::of(raw)),
            4 => *value = Json::Bool(raw != 0),
            5 => {
                if !matches!(value, Json::Object(_)) {
                    *value = Json::Object(BTreeMap::new());
                }
                if let Json::Object(members) = value {
                    read_struct(members, Span::of(raw), row)?;
                }
            }
            6 => {
                if !matches!(value, Json::Array(_)) {
                    *value = Json::Array(Vec::new());
                }
                if let Json::Array(elements) = value {
                    read_list(elements, Span::of(raw), row)?;
                }
            }
            _ => {}
        }
        Ok(())
    })
}

impl Json<'_> {
    fn write(&self, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(number) => write_number(*number, out),
            Self::Text(span) => write_text(span.within(payload), out),
            Self::Array(elements) => {
                out.push(b'[');
                for (i, element) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    element.write(payload, out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (i, (key, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_text(key, out);
                    out.push(b':');
                    value.write(payload, out);
                }
                out.push(b'}');
            }
        }
    }
}

/// Whole numbers below this are exact, and written as such.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

fn write_number(number: f64, out: &mut Vec<u8>) {
    let text = if number.is_nan() {
        "\"NaN\"".to_owned()
    } else if number.is_infinite() {
        let sign = if number < 0.0 { "-" } else { "" };
        format!("\"{sign}Infinity\"")
    } else if number.fract() == 0.0
        && number.abs() < WHOLE_MAX
        && !(number == 0.0 && number.is_sign_negative())
    {
        (number as i64).to_string()
    } else {
        format!("{number:?}")
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let text = serde_json::to_string(text).unwrap_or_default();
    out.extend_from_slice(text.as_bytes());
}
