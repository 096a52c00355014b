//! A column of one kind of value: of a field, the elements of a list, or the values of a map.

use crate::kind::{Known, Scalar};
use crate::known::{self, JsonType};
use crate::leaf::{Chars, Leaf, Row, Step, primitive};
use crate::node::Node;
use crate::plan::{ElementPlan, EnumNames, enum_fields};
use crate::wire::Span;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, StructArray};
use arrow_buffer::NullBufferBuilder;
use std::sync::Arc;

/// Values of one kind.
#[derive(Debug)]
pub(crate) enum Element {
    Scalar(Leaf),
    Enum(Enums),
    Message(Box<Node>),
    /// Messages that become one value.
    Single(Single, Leaf),
}

/// What a message becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Single {
    Encoded,
    Wrapped,
    Timestamp,
    Duration,
    Json(JsonType),
    FieldMask,
}

impl Element {
    pub(crate) fn new(plan: &ElementPlan) -> Self {
        match plan {
            ElementPlan::Scalar(scalar) => Self::Scalar(Leaf::new(*scalar)),
            ElementPlan::Enum(names) => Self::Enum(Enums::new(names.clone())),
            ElementPlan::Message(plan) => Self::Message(Box::new(Node::new(plan))),
            ElementPlan::Encoded => Self::Single(Single::Encoded, Leaf::new(Scalar::Bytes)),
            ElementPlan::Known(known) => {
                let text = || Leaf::new(Scalar::String);
                match known {
                    Known::Timestamp => Self::Single(Single::Timestamp, Leaf::instants()),
                    Known::Duration => Self::Single(Single::Duration, Leaf::new(Scalar::Int64)),
                    Known::Wrapper(scalar) => Self::Single(Single::Wrapped, Leaf::new(*scalar)),
                    Known::Struct => Self::Single(Single::Json(JsonType::Struct), text()),
                    Known::Value => Self::Single(Single::Json(JsonType::Value), text()),
                    Known::ListValue => Self::Single(Single::Json(JsonType::List), text()),
                    Known::FieldMask => Self::Single(Single::FieldMask, text()),
                }
            }
        }
    }

    /// Whether values are messages, which may come in pieces.
    pub(crate) fn is_message(&self) -> bool {
        matches!(self, Self::Message(_) | Self::Single(..))
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Scalar(leaf) | Self::Single(_, leaf) => leaf.len(),
            Self::Enum(enums) => enums.nulls.len(),
            Self::Message(node) => node.len(),
        }
    }

    /// Appends a value that is no message.
    #[inline(always)]
    pub(crate) fn push(&mut self, raw: u64, row: &mut Row<'_>) -> Step {
        match self {
            Self::Scalar(leaf) => leaf.push(raw, row),
            Self::Enum(enums) => enums.push(raw as i32, row),
            Self::Message(_) | Self::Single(..) => self.push_pieces(&[Span::of(raw)], row),
        }
    }

    /// Appends a message from its pieces, in the order they came.
    pub(crate) fn push_pieces(&mut self, pieces: &[Span], row: &mut Row<'_>) -> Step {
        match self {
            Self::Message(node) => node.push(pieces, row),
            Self::Single(single, leaf) => single.push(pieces, leaf, row),
            Self::Scalar(_) | Self::Enum(_) => Ok(()),
        }
    }

    pub(crate) fn push_null(&mut self, row: &mut Row<'_>) -> Step {
        match self {
            Self::Scalar(leaf) | Self::Single(_, leaf) => leaf.push_null(),
            Self::Enum(enums) => enums.push_null(),
            Self::Message(node) => node.push_null(row)?,
        }
        Ok(())
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        match self {
            Self::Scalar(leaf) | Self::Single(_, leaf) => leaf.truncate(length),
            Self::Enum(enums) => enums.truncate(length),
            Self::Message(node) => node.truncate(length),
        }
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Scalar(leaf) | Self::Single(_, leaf) => leaf.finish(),
            Self::Enum(enums) => enums.finish(),
            Self::Message(node) => Arc::new(node.finish()),
        }
    }
}

impl Single {
    fn push(self, pieces: &[Span], leaf: &mut Leaf, row: &mut Row<'_>) -> Step {
        let payload = row.payload;
        match self {
            Self::Wrapped => leaf.push(known::wrapped(payload, pieces), row),
            Self::Timestamp | Self::Duration => {
                let micros = match self {
                    Self::Timestamp => known::timestamp(payload, pieces),
                    _ => known::duration(payload, pieces),
                };
                match micros {
                    Some(micros) => leaf.push(micros as u64, row)?,
                    None => leaf.push_null(),
                }
                Ok(())
            }
            Self::Encoded => match pieces {
                [piece] => leaf.push_bytes(piece.within(payload), row),
                _ => {
                    let all = pieces.iter().flat_map(|piece| piece.within(payload));
                    leaf.push_bytes(&all.copied().collect::<Vec<_>>(), row)
                }
            },
            Self::Json(kind) => {
                let mut text = Vec::new();
                known::json(kind, pieces, &mut text, row)?;
                leaf.push_bytes(&text, row)
            }
            Self::FieldMask => {
                let mut text = Vec::new();
                known::field_mask(payload, pieces, &mut text);
                leaf.push_bytes(&text, row)
            }
        }
    }
}

/// Numbers of an enum with their names.
#[derive(Debug)]
pub(crate) struct Enums {
    names: Arc<EnumNames>,
    texts: Chars,
    named: NullBufferBuilder,
    numbers: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Enums {
    fn new(names: Arc<EnumNames>) -> Self {
        Self {
            names,
            texts: Chars::new(),
            named: NullBufferBuilder::new(0),
            numbers: Vec::new(),
            nulls: NullBufferBuilder::new(0),
        }
    }

    fn push(&mut self, number: i32, row: &mut Row<'_>) -> Step {
        match self.names.get(number) {
            Some(name) => {
                // A number can be one byte, its name as long as it likes.
                row.spend(name.len() / 8)?;
                self.texts.push(name.as_bytes(), row)?;
                self.named.append_non_null();
            }
            None => {
                self.texts.push_empty();
                self.named.append_null();
            }
        }
        self.numbers.push(number);
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        self.texts.push_empty();
        self.named.append_null();
        self.numbers.push(0);
        self.nulls.append_null();
    }

    fn truncate(&mut self, length: usize) {
        self.texts.truncate(length);
        self.named.truncate(length);
        self.numbers.truncate(length);
        self.nulls.truncate(length);
    }

    fn finish(&mut self) -> ArrayRef {
        let nulls = self.nulls.finish();
        let names = self.texts.finish_text(self.named.finish());
        let numbers = Arc::new(primitive::<Int32Type>(&mut self.numbers, nulls.clone()));
        Arc::new(StructArray::new(enum_fields(), vec![names, numbers], nulls))
    }
}
