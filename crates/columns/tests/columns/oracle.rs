//! What a row should be, from the message as `prost-reflect` decodes it.
//!
//! It takes from the columns which field each is of, and which messages are unfolded; what they
//! hold it works out by itself.

use crate::cell::{Cell, text};
use annals_columns::shape::{KIND, NUMBER};
use arrow_schema::{DataType, Field, Fields};
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// The columns of a message.
pub(crate) fn row(fields: &Fields, message: &DynamicMessage) -> Cell {
    let column =
        |field: &std::sync::Arc<Field>| (field.name().clone(), column(fields, field, message));
    Cell::Struct(fields.iter().map(column).collect())
}

fn column(fields: &Fields, column: &Field, message: &DynamicMessage) -> Cell {
    let descriptor = message.descriptor();
    let kind = &column.metadata()[KIND];
    if kind == "present" {
        return Cell::Bool(true);
    }
    if let Some(name) = kind.strip_prefix("oneof ") {
        let oneof = descriptor.oneofs().find(|oneof| oneof.name() == name);
        let members = oneof.iter().flat_map(|oneof| oneof.fields());
        let set: Vec<_> = members.filter(|member| message.has_field(member)).collect();
        assert!(set.len() <= 1, "one of {set:?}");
        let is_of =
            |column: &&std::sync::Arc<Field>| set.iter().any(|member| is_of(column, member));
        return fields
            .iter()
            .find(is_of)
            .map_or(Cell::Null, |column| text(column.name()));
    }
    let Some(field) = descriptor.fields().find(|field| is_of(column, field)) else {
        return Cell::Null;
    };
    if field.supports_presence() && !message.has_field(&field) {
        return Cell::Null;
    }
    value(column.data_type(), &field, &message.get_field(&field))
}

/// Whether a column is that of a field: its number, and a kind with the same values.
fn is_of(column: &Field, field: &FieldDescriptor) -> bool {
    let metadata = column.metadata();
    metadata.get(NUMBER) == Some(&field.number().to_string())
        && plain_kind(&metadata[KIND]) == plain_kind(&kind_text(field))
        && !field.is_group()
}

fn kind_text(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let [key, value] = [entry.map_entry_key_field(), entry.map_entry_value_field()]
                .map(|field| kind_text(&field));
            format!("map<{key}, {value}>")
        }
        kind => {
            let repeated = if field.is_list() { "repeated " } else { "" };
            let text = match &kind {
                Kind::Message(of) => format!("message {}", of.full_name()),
                Kind::Enum(of) => format!("enum {}", of.full_name()),
                scalar => format!("{scalar:?}"),
            };
            format!("{repeated}{text}")
        }
    }
}

fn plain_kind(kind: &str) -> String {
    let kind = kind.replace("encoded ", "message ");
    let kind = kind.replace("message google.protobuf.", "google.protobuf.");
    let words = kind.split_inclusive([' ', '<', ',', '>']).map(|word| {
        let (word, end) = match word.strip_suffix([' ', '<', ',', '>']) {
            Some(plain) => (plain, &word[plain.len()..]),
            None => (word, ""),
        };
        let word = word.strip_prefix("google.protobuf.").map_or(word, |name| {
            name.strip_suffix("Value")
                .filter(|scalar| !["", "List"].contains(scalar))
                .unwrap_or(word)
        });
        let plain = match word {
            "sint32" | "sfixed32" | "Int32" => "int32",
            "sint64" | "sfixed64" | "uint32" | "fixed32" | "Int64" | "UInt32" => "int64",
            "fixed64" | "UInt64" => "uint64",
            "Double" => "double",
            "Float" => "float",
            "Bool" => "bool",
            "Bytes" => "bytes",
            "String" => "string",
            word => word,
        };
        format!("{plain}{end}")
    });
    words.collect()
}

fn value(column: &DataType, field: &FieldDescriptor, value: &Value) -> Cell {
    match (column, value) {
        (DataType::List(column), Value::List(values)) => {
            let kind = field.kind();
            let one = |value| element(column.data_type(), &kind, value);
            Cell::List(values.iter().map(one).collect())
        }
        (DataType::Map(column, _), Value::Map(values)) => {
            let DataType::Struct(entry) = column.data_type() else {
                panic!("entries of a map are structs");
            };
            let kind = field.kind();
            let kind = kind
                .as_message()
                .expect("an entry")
                .map_entry_value_field()
                .kind();
            let mut values: Vec<_> = values.iter().collect();
            values.sort_by(|a, b| a.0.cmp(b.0));
            let one = |(of, value): (&MapKey, &Value)| {
                (key(of), element(entry[1].data_type(), &kind, value))
            };
            Cell::Map(values.into_iter().map(one).collect())
        }
        (column, value) => element(column, &field.kind(), value),
    }
}

fn key(key: &MapKey) -> Cell {
    match key {
        MapKey::Bool(key) => Cell::Bool(*key),
        MapKey::I32(key) => Cell::Int((*key).into()),
        MapKey::I64(key) => Cell::Int((*key).into()),
        MapKey::U32(key) => Cell::Int((*key).into()),
        MapKey::U64(key) => Cell::Int((*key).into()),
        MapKey::String(key) => text(key),
    }
}

fn element(column: &DataType, kind: &Kind, value: &Value) -> Cell {
    match value {
        Value::Bool(value) => Cell::Bool(*value),
        Value::I32(value) => Cell::Int((*value).into()),
        Value::I64(value) => Cell::Int((*value).into()),
        Value::U32(value) => Cell::Int((*value).into()),
        Value::U64(value) => Cell::Int((*value).into()),
        Value::F32(value) => Cell::Float(value.to_bits()),
        Value::F64(value) => Cell::Double(value.to_bits()),
        Value::String(value) => text(value),
        Value::Bytes(value) => Cell::Bytes(value.to_vec()),
        Value::EnumNumber(number) => {
            let values = kind.as_enum().expect("an enum").enum_descriptor_proto();
            let named = values.value.iter().find(|value| value.number() == *number);
            let name = named.map_or(Cell::Null, |value| text(value.name()));
            let number = Cell::Int((*number).into());
            Cell::Struct(vec![("name".into(), name), ("number".into(), number)])
        }
        Value::Message(message) => match column {
            DataType::Struct(fields) => row(fields, message),
            column => single(column, message),
        },
        Value::List(_) | Value::Map(_) => panic!("{value:?} is no element"),
    }
}

/// A message in a column that is no struct.
fn single(column: &DataType, message: &DynamicMessage) -> Cell {
    let descriptor = message.descriptor();
    let get = |name: &str| {
        message
            .get_field_by_name(name)
            .expect("a field")
            .into_owned()
    };
    let parts = || match (get("seconds"), get("nanos")) {
        (Value::I64(seconds), Value::I32(nanos)) => (i128::from(seconds), i128::from(nanos)),
        other => panic!("{other:?}"),
    };
    let micros = |(seconds, nanos): (i128, i128)| {
        Cell::Int((seconds * 1_000_000_000 + nanos).div_euclid(1_000))
    };
    match descriptor.full_name().strip_prefix("google.protobuf.") {
        Some("Timestamp") => {
            let (seconds, nanos) = parts();
            let valid = (-62_135_596_800..=253_402_300_799).contains(&seconds)
                && (0..1_000_000_000).contains(&nanos);
            if valid {
                micros((seconds, nanos))
            } else {
                Cell::Null
            }
        }
        Some("Duration") => {
            let (seconds, nanos) = parts();
            let same_sign = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
            let valid =
                same_sign && seconds.abs() <= 315_576_000_000 && nanos.abs() < 1_000_000_000;
            if valid {
                micros((seconds, nanos))
            } else {
                Cell::Null
            }
        }
        Some("Struct" | "Value" | "ListValue") => text(&json(message)),
        Some("FieldMask") => match get("paths") {
            Value::List(paths) => {
                let paths = paths.iter().map(|path| camel(path.as_str().expect("text")));
                text(&paths.collect::<Vec<_>>().join(","))
            }
            other => panic!("{other:?}"),
        },
        Some(name) if name.ends_with("Value") => {
            let field = descriptor.get_field(1).expect("a wrapper");
            element(column, &field.kind(), &message.get_field(&field))
        }
        _ => Cell::Encoded(message.clone()),
    }
}

fn camel(path: &str) -> String {
    let mut out = String::new();
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '_' => match chars.next() {
                Some(next) if next.is_ascii_lowercase() => out.push(next.to_ascii_uppercase()),
                _ => return path.to_owned(),
            },
            c if c.is_ascii_uppercase() => return path.to_owned(),
            c => out.push(c),
        }
    }
    out
}

fn json(message: &DynamicMessage) -> String {
    let set = message.fields().next();
    match (message.descriptor().name(), set) {
        ("Value", None) => "null".to_owned(),
        ("Struct", None) => "{}".to_owned(),
        ("ListValue", None) => "[]".to_owned(),
        (_, Some((_, value))) => json_value(value),
        other => panic!("{other:?}"),
    }
}

fn json_value(value: &Value) -> String {
    match value {
        Value::EnumNumber(_) => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::String(value) => serde_json::json!(value).to_string(),
        Value::F64(value) => json_number(*value),
        Value::Message(message) => json(message),
        Value::List(values) => {
            let values: Vec<_> = values.iter().map(json_value).collect();
            format!("[{}]", values.join(","))
        }
        Value::Map(values) => {
            let mut values: Vec<_> = values.iter().collect();
            values.sort_by(|a, b| a.0.cmp(b.0));
            let member = |(key, value): (&MapKey, &Value)| match key {
                MapKey::String(key) => format!("{}:{}", serde_json::json!(key), json_value(value)),
                other => panic!("{other:?}"),
            };
            let members: Vec<_> = values.into_iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        other => panic!("{other:?}"),
    }
}

fn json_number(value: f64) -> String {
    if !value.is_finite() {
        let names = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""];
        return names[usize::from(!value.is_nan()) + usize::from(value < 0.0)].to_owned();
    }
    let text = format!("{value:?}");
    let back: f64 = serde_json::from_str(&text).expect("JSON");
    assert_eq!(back.to_bits(), value.to_bits(), "{text}");
    match text.strip_suffix(".0") {
        Some(whole) if text != "-0.0" && value.abs() < 9_007_199_254_740_992.0 => whole.to_owned(),
        _ => text,
    }
}

/// Panics unless the actual cell is what is expected.
pub(crate) fn compare(actual: &Cell, expected: &Cell, place: &str) {
    match (actual, expected) {
        (Cell::Bytes(bytes), Cell::Encoded(message)) => {
            let decoded = DynamicMessage::decode(message.descriptor(), &bytes[..]);
            let decoded = decoded.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(plain(&decoded), plain(message), "{place}");
        }
        (Cell::Struct(actual), Cell::Struct(expected)) => {
            assert_eq!(actual.len(), expected.len(), "{place}");
            for (actual, expected) in actual.iter().zip(expected) {
                assert_eq!(actual.0, expected.0, "{place}");
                compare(&actual.1, &expected.1, &format!("{place}.{}", actual.0));
            }
        }
        (Cell::List(actual), Cell::List(expected)) => {
            assert_eq!(actual.len(), expected.len(), "{place}: {actual:?}");
            for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
                compare(actual, expected, &format!("{place}[{i}]"));
            }
        }
        (Cell::Map(actual), Cell::Map(expected)) => {
            assert_eq!(actual.len(), expected.len(), "{place}: {actual:?}");
            for (actual, expected) in actual.iter().zip(expected) {
                assert_eq!(actual.0, expected.0, "{place}");
                compare(&actual.1, &expected.1, &format!("{place}[{:?}]", actual.0));
            }
        }
        (actual, expected) => assert_eq!(actual, expected, "{place}"),
    }
}

/// A message as a cell, nothing special, every field that is set: equal if the messages are.
fn plain(message: &DynamicMessage) -> Cell {
    let one =
        |(field, value): (FieldDescriptor, &Value)| (field.name().to_owned(), plain_value(value));
    Cell::Struct(message.fields().map(one).collect())
}

fn plain_value(value: &Value) -> Cell {
    match value {
        Value::Message(message) => plain(message),
        Value::List(values) => Cell::List(values.iter().map(plain_value).collect()),
        Value::EnumNumber(number) => Cell::Int((*number).into()),
        Value::Map(values) => {
            let mut values: Vec<_> = values.iter().collect();
            values.sort_by(|a, b| a.0.cmp(b.0));
            Cell::Map(
                values
                    .iter()
                    .map(|(k, v)| (key(k), plain_value(v)))
                    .collect(),
            )
        }
        value => element(&DataType::Null, &Kind::Bool, value),
    }
}

/// The bytes a message has, for tests that start from one.
pub(crate) fn encode(message: &DynamicMessage) -> Vec<u8> {
    message.encode_to_vec()
}
