//! What a field is: scalars, the types of `google.protobuf` that get a column of their own kind,
//! and the text of a kind that stands in a column's metadata.

use crate::wire;
use arrow_schema::{DataType, TimeUnit};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use std::sync::Arc;

/// A scalar type of Protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
}

impl Scalar {
    /// The scalar of a kind that is one.
    pub(crate) fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::Double => Self::Double,
            Kind::Float => Self::Float,
            Kind::Int32 => Self::Int32,
            Kind::Int64 => Self::Int64,
            Kind::Uint32 => Self::Uint32,
            Kind::Uint64 => Self::Uint64,
            Kind::Sint32 => Self::Sint32,
            Kind::Sint64 => Self::Sint64,
            Kind::Fixed32 => Self::Fixed32,
            Kind::Fixed64 => Self::Fixed64,
            Kind::Sfixed32 => Self::Sfixed32,
            Kind::Sfixed64 => Self::Sfixed64,
            Kind::Bool => Self::Bool,
            Kind::String => Self::String,
            Kind::Bytes => Self::Bytes,
            Kind::Message(_) | Kind::Enum(_) => return None,
        })
    }

    /// Protobuf's keyword, and the keywords with the same column, by the first of them.
    fn keywords(self) -> (&'static str, &'static str) {
        match self {
            Self::Double => ("double", "double"),
            Self::Float => ("float", "float"),
            Self::Int32 => ("int32", "int32"),
            Self::Sint32 => ("sint32", "int32"),
            Self::Sfixed32 => ("sfixed32", "int32"),
            Self::Int64 => ("int64", "int64"),
            Self::Sint64 => ("sint64", "int64"),
            Self::Sfixed64 => ("sfixed64", "int64"),
            Self::Uint32 => ("uint32", "int64"),
            Self::Fixed32 => ("fixed32", "int64"),
            Self::Uint64 => ("uint64", "uint64"),
            Self::Fixed64 => ("fixed64", "uint64"),
            Self::Bool => ("bool", "bool"),
            Self::String => ("string", "string"),
            Self::Bytes => ("bytes", "bytes"),
        }
    }

    /// The type of its column.
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::Double => DataType::Float64,
            Self::Float => DataType::Float32,
            Self::Int32 | Self::Sint32 | Self::Sfixed32 => DataType::Int32,
            Self::Int64 | Self::Sint64 | Self::Sfixed64 | Self::Uint32 | Self::Fixed32 => {
                DataType::Int64
            }
            Self::Uint64 | Self::Fixed64 => DataType::Decimal128(20, 0),
            Self::Bool => DataType::Boolean,
            Self::String => DataType::Utf8,
            Self::Bytes => DataType::Binary,
        }
    }

    /// How it is written when it is not packed.
    pub(crate) fn wire_type(self) -> u32 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => wire::FIXED64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => wire::FIXED32,
            Self::String | Self::Bytes => wire::BYTES,
            _ => wire::VARINT,
        }
    }
}

/// A message of `google.protobuf` whose column is not a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Timestamp,
    Duration,
    Wrapper(Scalar),
    Struct,
    Value,
    ListValue,
    FieldMask,
}

/// Name, meaning, and (number, kind) of the fields as published.
type KnownType = (&'static str, Known, &'static [(u32, &'static str)]);

const KNOWN: &[KnownType] = &[
    ("Timestamp", Known::Timestamp, &[(1, "int64"), (2, "int32")]),
    ("Duration", Known::Duration, &[(1, "int64"), (2, "int32")]),
    (
        "DoubleValue",
        Known::Wrapper(Scalar::Double),
        &[(1, "double")],
    ),
    ("FloatValue", Known::Wrapper(Scalar::Float), &[(1, "float")]),
    ("Int64Value", Known::Wrapper(Scalar::Int64), &[(1, "int64")]),
    (
        "UInt64Value",
        Known::Wrapper(Scalar::Uint64),
        &[(1, "uint64")],
    ),
    ("Int32Value", Known::Wrapper(Scalar::Int32), &[(1, "int32")]),
    (
        "UInt32Value",
        Known::Wrapper(Scalar::Uint32),
        &[(1, "uint32")],
    ),
    ("BoolValue", Known::Wrapper(Scalar::Bool), &[(1, "bool")]),
    (
        "StringValue",
        Known::Wrapper(Scalar::String),
        &[(1, "string")],
    ),
    ("BytesValue", Known::Wrapper(Scalar::Bytes), &[(1, "bytes")]),
    (
        "Struct",
        Known::Struct,
        &[(1, "map<string, message google.protobuf.Value>")],
    ),
    (
        "Value",
        Known::Value,
        &[
            (1, "enum google.protobuf.NullValue"),
            (2, "double"),
            (3, "string"),
            (4, "bool"),
            (5, "message google.protobuf.Struct"),
            (6, "message google.protobuf.ListValue"),
        ],
    ),
    (
        "ListValue",
        Known::ListValue,
        &[(1, "repeated message google.protobuf.Value")],
    ),
    ("FieldMask", Known::FieldMask, &[(1, "repeated string")]),
];

/// Those that are written in terms of one another: all are as published, or none counts.
const JSON: [&str; 3] = ["Struct", "Value", "ListValue"];

impl Known {
    /// What a message is known as, if it has the fields it should have.
    pub(crate) fn of(message: &MessageDescriptor) -> Option<Self> {
        let name = message.full_name().strip_prefix("google.protobuf.")?;
        let found = as_published(message, name)?;
        let pool = message.parent_pool();
        let others_too = |name: &&str| {
            let other = pool.get_message_by_name(&format!("google.protobuf.{name}"));
            other.is_some_and(|other| as_published(&other, name).is_some())
        };
        (!JSON.contains(&name) || JSON.iter().all(others_too)).then_some(found)
    }

    /// The type of its column.
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::Timestamp => timestamp(),
            Self::Duration => DataType::Int64,
            Self::Wrapper(scalar) => scalar.data_type(),
            Self::Struct | Self::Value | Self::ListValue | Self::FieldMask => DataType::Utf8,
        }
    }
}

fn as_published(message: &MessageDescriptor, name: &str) -> Option<Known> {
    let (_, known, fields) = KNOWN.iter().find(|known| known.0 == name)?;
    let is = |(field, known): (FieldDescriptor, &(u32, &str))| {
        field.number() == known.0 && text(&field) == known.1
    };
    let same = message.fields().len() == fields.len() && message.fields().zip(*fields).all(is);
    same.then_some(*known)
}

/// The type of instants.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

/// The text of a field's kind, as in `annals.kind`.
pub(crate) fn text(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let key = element(&entry.map_entry_key_field().kind());
            let value = element(&entry.map_entry_value_field().kind());
            format!("map<{key}, {value}>")
        }
        kind if field.is_list() => format!("repeated {}", element(&kind)),
        kind => element(&kind),
    }
}

fn element(kind: &Kind) -> String {
    match (kind, Scalar::of(kind)) {
        (_, Some(scalar)) => scalar.keywords().0.to_owned(),
        (Kind::Message(message), None) => format!("message {}", message.full_name()),
        (kind, None) => match kind.as_enum() {
            Some(values) => format!("enum {}", values.full_name()),
            None => String::new(),
        },
    }
}

/// The text of a kind whose message is kept as it is on the wire.
pub(crate) fn encoded(kind: &str) -> String {
    match kind.rfind("message ") {
        Some(at) => format!("{}encoded {}", &kind[..at], &kind[at + "message ".len()..]),
        None => kind.to_owned(),
    }
}

/// Kinds of one class share a column.
pub(crate) fn class(kind: &str) -> String {
    if let Some(element) = kind.strip_prefix("repeated ") {
        return format!("repeated {}", class(element));
    }
    let map = kind
        .strip_prefix("map<")
        .and_then(|rest| rest.strip_suffix('>'));
    if let Some((key, value)) = map.and_then(|inner| inner.split_once(", ")) {
        return format!("map<{}, {}>", class(key), class(value));
    }
    if let Some(name) = kind.strip_prefix("encoded ") {
        return class(&format!("message {name}"));
    }
    let wrapped = kind
        .strip_prefix("message google.protobuf.")
        .and_then(|name| KNOWN.iter().find(|known| known.0 == name));
    if let Some((_, Known::Wrapper(scalar), _)) = wrapped {
        return scalar.keywords().1.to_owned();
    }
    let keywords = SCALARS.iter().map(|scalar| scalar.keywords());
    let mut same = keywords.filter(|(keyword, _)| *keyword == kind);
    same.next().map_or(kind, |(_, class)| class).to_owned()
}

const SCALARS: [Scalar; 15] = [
    Scalar::Double,
    Scalar::Float,
    Scalar::Int32,
    Scalar::Int64,
    Scalar::Uint32,
    Scalar::Uint64,
    Scalar::Sint32,
    Scalar::Sint64,
    Scalar::Fixed32,
    Scalar::Fixed64,
    Scalar::Sfixed32,
    Scalar::Sfixed64,
    Scalar::Bool,
    Scalar::String,
    Scalar::Bytes,
];

/// A kind as part of a column's name: words without packages, joined by `_`.
pub(crate) fn slug(kind: &str) -> String {
    let words = kind.split(['<', '>', ' ', ',']).filter(|w| !w.is_empty());
    let last = |word: &str| word.rsplit('.').next().unwrap_or_default().to_owned();
    words.map(last).collect::<Vec<_>>().join("_")
}
