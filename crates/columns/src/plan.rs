//! Which field fills which column: a tree as deep as the columns, ready for builders to be made of.

use crate::kind::{Known, Scalar};
use crate::wire;
use arrow_schema::{DataType, Field, FieldRef, Fields};
use prost_reflect::EnumDescriptor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The columns of a message.
#[derive(Debug)]
pub(crate) struct MessagePlan {
    /// Arrow's side.
    pub(crate) fields: Fields,
    /// Protobuf's side, one for each of `fields`.
    pub(crate) columns: Vec<Source>,
    /// Members of oneofs that have no column, by number: setting them clears the others.
    pub(crate) unmapped: Vec<(u32, usize)>,
    /// How many oneofs there are.
    pub(crate) oneofs: usize,
}

/// What a column is filled with.
#[derive(Debug)]
pub(crate) enum Source {
    /// Nothing: its field is gone, or it never had one.
    Gone,
    /// That the message is there.
    Present,
    /// The name of the column of a oneof that is set.
    Oneof(usize),
    /// A field.
    Field {
        number: u32,
        oneof: Option<usize>,
        cells: Cells,
    },
}

/// How the values of a field lie in its column.
#[derive(Debug)]
pub(crate) enum Cells {
    /// One; what it is when absent, unless null.
    One(ElementPlan, Option<u64>),
    /// A list.
    Many(ElementPlan),
    /// A map, and what a missing value is.
    Map(Scalar, ElementPlan, u64),
}

/// A value, an element of a list, or a value of a map.
#[derive(Debug, Clone)]
pub(crate) enum ElementPlan {
    Scalar(Scalar),
    Enum(Arc<EnumNames>),
    Known(Known),
    Message(Arc<MessagePlan>),
    Encoded,
}

impl ElementPlan {
    /// Its type in Arrow.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Scalar(scalar) => scalar.data_type(),
            Self::Enum(_) => DataType::Struct(enum_fields()),
            Self::Known(known) => known.data_type(),
            Self::Message(plan) => DataType::Struct(plan.fields.clone()),
            Self::Encoded => DataType::Binary,
        }
    }

    /// The wire type of a value where many may come in one field.
    pub(crate) fn packed(&self) -> Option<u32> {
        match self {
            Self::Scalar(scalar) => Some(scalar.wire_type()).filter(|&of| of != wire::BYTES),
            Self::Enum(_) => Some(wire::VARINT),
            Self::Known(_) | Self::Message(_) | Self::Encoded => None,
        }
    }
}

impl Cells {
    /// The type of the column.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::One(element, _) => element.data_type(),
            Self::Many(element) => DataType::List(element_field(element.data_type())),
            Self::Map(key, value, _) => {
                let entry = DataType::Struct(entry_fields(key.data_type(), value.data_type()));
                DataType::Map(Arc::new(Field::new("key_value", entry, false)), false)
            }
        }
    }
}

/// The field of a list's elements.
pub(crate) fn element_field(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("element", data_type, true))
}

/// The fields of a map's entries.
pub(crate) fn entry_fields(key: DataType, value: DataType) -> Fields {
    let key = Field::new("key", key, false);
    Fields::from(vec![key, Field::new("value", value, true)])
}

/// The columns of an enum.
pub(crate) fn enum_fields() -> Fields {
    let name = Field::new("name", DataType::Utf8, true);
    Fields::from(vec![name, Field::new("number", DataType::Int32, true)])
}

/// The names of an enum's numbers.
#[derive(Debug, Default)]
pub(crate) struct EnumNames {
    /// Of 0 and the numbers after it.
    small: Vec<Option<Box<str>>>,
    others: BTreeMap<i32, Box<str>>,
    /// The number a field has that was never set.
    pub(crate) default: i32,
}

impl EnumNames {
    const SMALL_MAX: i32 = 256;

    /// Of several names of a number, the first declared.
    pub(crate) fn of(values: &EnumDescriptor) -> Self {
        let mut names = Self {
            default: values.default_value().number(),
            ..Self::default()
        };
        for value in &values.enum_descriptor_proto().value {
            let (number, name) = (value.number(), value.name());
            if !(0..Self::SMALL_MAX).contains(&number) {
                names.others.entry(number).or_insert_with(|| name.into());
                continue;
            }
            let index = number as usize;
            let length = names.small.len().max(index + 1);
            names.small.resize(length, None);
            names.small[index].get_or_insert_with(|| name.into());
        }
        names
    }

    /// The name of a number.
    #[inline]
    pub(crate) fn get(&self, number: i32) -> Option<&str> {
        match usize::try_from(number).ok().and_then(|i| self.small.get(i)) {
            Some(name) => name.as_deref(),
            None => self.others.get(&number).map(|name| &**name),
        }
    }
}
