//! The columns of a message: its fields are gathered from its pieces, then appended as one row.

use crate::element::Element;
use crate::kind::Scalar;
use crate::leaf::{Leaf, Row, Step, Stop, take_offsets};
use crate::plan::{Cells, MessagePlan, Source, element_field, entry_fields};
use crate::wire::{BYTES, LEVELS_MAX, Numbers, Span, Wire};
use arrow_array::{Array, ArrayRef, ListArray, MapArray, StructArray, new_null_array};
use arrow_buffer::NullBufferBuilder;
use arrow_schema::{DataType, Field, Fields};
use std::cmp::Ordering;
use std::sync::Arc;

/// The columns of a message.
#[derive(Debug)]
pub(crate) struct Node {
    fields: Fields,
    numbers: Numbers,
    /// Those of `fields`, then [`Column::Unmapped`].
    columns: Vec<Column>,
    /// Which column is set, of each oneof.
    oneofs: Vec<Option<usize>>,
    /// Leaf columns, of inner messages too: what a null costs.
    leaves: usize,
    nulls: NullBufferBuilder,
}

#[derive(Debug)]
enum Column {
    One(One),
    Many(Many),
    Map(Box<Map>),
    Oneof(usize, Leaf),
    Present(Leaf),
    Gone(DataType, usize),
    /// A member of a oneof without a column.
    Unmapped(usize),
}

/// At most one value.
#[derive(Debug)]
struct One {
    element: Element,
    is_message: bool,
    default: Option<u64>,
    oneof: Option<usize>,
    /// What was gathered: whether there is a value, the last, and all pieces of a message.
    is_set: bool,
    raw: u64,
    pieces: Vec<Span>,
}

/// A list. Its elements are appended as they are gathered.
#[derive(Debug)]
struct Many {
    element: Element,
    /// The wire type of an element where many may come in one.
    packed: Option<u32>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

/// A map. Its entries are gathered, then sorted.
#[derive(Debug)]
struct Map {
    key: Scalar,
    keys: Leaf,
    values: Element,
    default: u64,
    entries: Vec<Entry>,
    pieces: Vec<Span>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The key as it is on the wire, and so that numbers compare as they should.
    key: u64,
    order: u64,
    span: Span,
}

impl Node {
    pub(crate) fn new(plan: &MessagePlan) -> Self {
        let columns = plan.columns.iter().zip(&plan.fields);
        let mut columns: Vec<_> = columns
            .map(|(source, field)| Column::new(source, field))
            .collect();
        let mut numbers = Vec::new();
        for (index, source) in plan.columns.iter().enumerate() {
            if let Source::Field { number, .. } = source {
                numbers.push((*number, index));
            }
        }
        for (number, oneof) in &plan.unmapped {
            numbers.push((*number, columns.len()));
            columns.push(Column::Unmapped(*oneof));
        }
        Self {
            fields: plan.fields.clone(),
            numbers: Numbers::new(numbers),
            leaves: columns.iter().map(Column::leaves).sum(),
            columns,
            oneofs: vec![None; plan.oneofs],
            nulls: NullBufferBuilder::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Appends a message from its pieces.
    pub(crate) fn push(&mut self, pieces: &[Span], row: &mut Row<'_>) -> Step {
        row.spend(self.columns.len())?;
        for piece in pieces {
            self.gather(Wire::new(row.payload, *piece), row)?;
        }
        for column in &mut self.columns {
            match column {
                Column::One(one) => one.push(row)?,
                Column::Many(many) => many.close()?,
                Column::Map(map) => map.push(row)?,
                Column::Present(leaf) => leaf.push(1, row)?,
                Column::Gone(_, length) => *length += 1,
                Column::Oneof(oneof, leaf) => match self.oneofs[*oneof] {
                    // A member without a column has no name to say.
                    Some(index) if index < self.fields.len() => {
                        let name = self.fields[index].name().as_bytes();
                        row.spend(name.len() / 8)?;
                        leaf.push_bytes(name, row)?;
                    }
                    _ => leaf.push_null(),
                },
                Column::Unmapped(_) => {}
            }
        }
        self.oneofs.fill(None);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Takes the fields of a piece. It was checked, so that nothing is wrong with it.
    #[inline]
    fn gather(&mut self, mut wire: Wire<'_>, row: &mut Row<'_>) -> Step {
        while let Some(tag) = wire.tag() {
            let Some(index) = self.numbers.find(tag.0) else {
                if wire.skip(tag, LEVELS_MAX, false).is_none() {
                    break;
                }
                continue;
            };
            match &mut self.columns[index] {
                Column::One(one) => {
                    let Some(raw) = wire.raw(tag.1) else { break };
                    one.is_set = true;
                    one.raw = raw;
                    if one.is_message {
                        one.pieces.push(Span::of(raw));
                    }
                    if let Some(oneof) = one.oneof {
                        self.set(oneof, index);
                    }
                }
                Column::Many(many) => many.gather(tag.1, &mut wire, row)?,
                Column::Map(map) => map.gather(&mut wire, row)?,
                Column::Unmapped(oneof) => {
                    let oneof = *oneof;
                    self.set(oneof, index);
                    if wire.skip(tag, LEVELS_MAX, false).is_none() {
                        break;
                    }
                }
                Column::Oneof(..) | Column::Present(_) | Column::Gone(..) => break,
            }
        }
        Ok(())
    }

    /// A member of a oneof is set: another is no more.
    fn set(&mut self, oneof: usize, index: usize) {
        let before = self.oneofs[oneof].replace(index);
        if let Some(other) = before.filter(|&other| other != index)
            && let Column::One(one) = &mut self.columns[other]
        {
            one.clear();
        }
    }

    pub(crate) fn push_null(&mut self, row: &mut Row<'_>) -> Step {
        row.spend(self.leaves)?;
        for column in &mut self.columns {
            match column {
                Column::One(one) => one.element.push_null(row)?,
                Column::Many(many) => many.push_null(),
                Column::Map(map) => map.push_null(),
                Column::Oneof(_, leaf) | Column::Present(leaf) => leaf.push_null(),
                Column::Gone(_, length) => *length += 1,
                Column::Unmapped(_) => {}
            }
        }
        self.nulls.append_null();
        Ok(())
    }

    /// Takes back all behind a length, and what was gathered.
    pub(crate) fn truncate(&mut self, length: usize) {
        for column in &mut self.columns {
            match column {
                Column::One(one) => {
                    one.clear();
                    one.element.truncate(length);
                }
                Column::Many(many) => many.truncate(length),
                Column::Map(map) => map.truncate(length),
                Column::Oneof(_, leaf) | Column::Present(leaf) => leaf.truncate(length),
                Column::Gone(_, gone) => *gone = length.min(*gone),
                Column::Unmapped(_) => {}
            }
        }
        self.oneofs.fill(None);
        self.nulls.truncate(length);
    }

    /// The rows, leaving none.
    pub(crate) fn finish(&mut self) -> StructArray {
        let length = self.len();
        let arrays = self.columns.iter_mut().filter_map(Column::finish).collect();
        let nulls = self.nulls.finish();
        let fields = self.fields.clone();
        StructArray::try_new_with_length(fields, arrays, nulls, length)
            .expect("columns are as long as their message, and of the types of their fields")
    }
}

impl Column {
    fn new(source: &Source, field: &Field) -> Self {
        match source {
            Source::Gone => Self::Gone(field.data_type().clone(), 0),
            Source::Present => Self::Present(Leaf::new(Scalar::Bool)),
            Source::Oneof(index) => Self::Oneof(*index, Leaf::new(Scalar::String)),
            Source::Field { cells, oneof, .. } => match cells {
                Cells::One(plan, default) => {
                    let element = Element::new(plan);
                    Self::One(One {
                        is_message: element.is_message(),
                        element,
                        default: *default,
                        oneof: *oneof,
                        is_set: false,
                        raw: 0,
                        pieces: Vec::new(),
                    })
                }
                Cells::Many(plan) => Self::Many(Many {
                    element: Element::new(plan),
                    packed: plan.packed(),
                    offsets: vec![0],
                    nulls: NullBufferBuilder::new(0),
                }),
                Cells::Map(key, value, default) => Self::Map(Box::new(Map {
                    key: *key,
                    keys: Leaf::new(*key),
                    values: Element::new(value),
                    default: *default,
                    entries: Vec::new(),
                    pieces: Vec::new(),
                    offsets: vec![0],
                    nulls: NullBufferBuilder::new(0),
                })),
            },
        }
    }

    fn leaves(&self) -> usize {
        match self {
            Self::One(one) => match &one.element {
                Element::Message(node) => node.leaves,
                _ => 1,
            },
            _ => 1,
        }
    }

    fn finish(&mut self) -> Option<ArrayRef> {
        Some(match self {
            Self::One(one) => one.element.finish(),
            Self::Many(many) => many.finish(),
            Self::Map(map) => map.finish(),
            Self::Oneof(_, leaf) | Self::Present(leaf) => leaf.finish(),
            Self::Gone(data_type, length) => new_null_array(data_type, std::mem::take(length)),
            Self::Unmapped(_) => return None,
        })
    }
}

impl One {
    #[inline(always)]
    fn push(&mut self, row: &mut Row<'_>) -> Step {
        if self.is_message {
            return self.push_message(row);
        }
        match (std::mem::take(&mut self.is_set), self.default) {
            (true, _) => self.element.push(self.raw, row),
            (false, Some(default)) => self.element.push(default, row),
            (false, None) => self.element.push_null(row),
        }
    }

    fn push_message(&mut self, row: &mut Row<'_>) -> Step {
        if !std::mem::take(&mut self.is_set) {
            return self.element.push_null(row);
        }
        let pushed = self.element.push_pieces(&self.pieces, row);
        self.pieces.clear();
        pushed
    }

    fn clear(&mut self) {
        self.is_set = false;
        self.pieces.clear();
    }
}

impl Many {
    #[inline]
    fn gather(&mut self, wire_type: u32, wire: &mut Wire<'_>, row: &mut Row<'_>) -> Step {
        match self.packed {
            Some(element) if wire_type == BYTES => {
                let Some(span) = wire.span() else {
                    return Ok(());
                };
                let mut wire = wire.part(span);
                while !wire.is_at_end() {
                    let Some(raw) = wire.raw(element) else { break };
                    row.spend(1)?;
                    self.element.push(raw, row)?;
                }
                Ok(())
            }
            _ => {
                let Some(raw) = wire.raw(wire_type) else {
                    return Ok(());
                };
                row.spend(1)?;
                self.element.push(raw, row)
            }
        }
    }

    /// All elements of a row are there.
    fn close(&mut self) -> Step {
        close(&mut self.offsets, &mut self.nulls, self.element.len())
    }

    fn push_null(&mut self) {
        push_null(&mut self.offsets, &mut self.nulls);
    }

    fn truncate(&mut self, length: usize) {
        let elements = truncate(&mut self.offsets, &mut self.nulls, length);
        self.element.truncate(elements);
    }

    fn finish(&mut self) -> ArrayRef {
        let values = self.element.finish();
        let field = element_field(values.data_type().clone());
        let offsets = take_offsets(&mut self.offsets);
        Arc::new(ListArray::new(field, offsets, values, self.nulls.finish()))
    }
}

fn close(offsets: &mut Vec<i32>, nulls: &mut NullBufferBuilder, elements: usize) -> Step {
    offsets.push(i32::try_from(elements).map_err(|_| Stop::Full)?);
    nulls.append_non_null();
    Ok(())
}

fn push_null(offsets: &mut Vec<i32>, nulls: &mut NullBufferBuilder) {
    offsets.push(offsets.last().copied().unwrap_or_default());
    nulls.append_null();
}

/// Takes back rows of lists; how many elements are left.
fn truncate(offsets: &mut Vec<i32>, nulls: &mut NullBufferBuilder, length: usize) -> usize {
    offsets.truncate(length + 1);
    nulls.truncate(length);
    offsets.last().map_or(0, |&end| end as usize)
}

impl Map {
    fn gather(&mut self, wire: &mut Wire<'_>, row: &mut Row<'_>) -> Step {
        let Some(span) = wire.span() else {
            return Ok(());
        };
        row.spend(2)?;
        let mut entry = wire.part(span);
        let mut key = 0;
        while let Some(tag) = entry.tag() {
            match entry.raw(tag.1) {
                Some(raw) if tag.0 == 1 => key = raw,
                Some(_) => {}
                None if entry.skip(tag, LEVELS_MAX, false).is_some() => {}
                None => break,
            }
        }
        let order = self.order(key);
        self.entries.push(Entry { key, order, span });
        Ok(())
    }

    /// A number that compares as the key does, if it is a number.
    fn order(&self, key: u64) -> u64 {
        let sort = |number: i64| number as u64 ^ 1 << 63;
        match self.key {
            Scalar::Int32 | Scalar::Sfixed32 => sort((key as i32).into()),
            Scalar::Int64 | Scalar::Sfixed64 => sort(key as i64),
            Scalar::Sint32 => {
                let key = key as u32;
                sort(((key >> 1) as i32 ^ -((key & 1) as i32)).into())
            }
            Scalar::Sint64 => sort((key >> 1) as i64 ^ -((key & 1) as i64)),
            Scalar::Uint32 | Scalar::Fixed32 => u64::from(key as u32),
            Scalar::Bool => u64::from(key != 0),
            Scalar::String | Scalar::Bytes => 0,
            _ => key,
        }
    }

    fn push(&mut self, row: &mut Row<'_>) -> Step {
        let mut entries = std::mem::take(&mut self.entries);
        let text = |entry: &Entry| match self.key {
            Scalar::String => Span::of(entry.key).within(row.payload),
            _ => &[],
        };
        let compare = |a: &Entry, b: &Entry| -> Ordering {
            a.order.cmp(&b.order).then_with(|| text(a).cmp(text(b)))
        };
        // Stable: of equal keys the last that came is the last.
        entries.sort_by(compare);
        let is_last = |i: usize| {
            let next = entries.get(i + 1);
            next.is_none_or(|next| compare(&entries[i], next) != Ordering::Equal)
        };
        let last: Vec<_> = (0..entries.len()).filter(|&i| is_last(i)).collect();
        for i in last {
            self.push_entry(entries[i], row)?;
        }
        entries.clear();
        self.entries = entries;
        close(&mut self.offsets, &mut self.nulls, self.keys.len())
    }

    fn push_entry(&mut self, entry: Entry, row: &mut Row<'_>) -> Step {
        let mut value = self.default;
        self.pieces.clear();
        let mut wire = Wire::new(row.payload, entry.span);
        while let Some(tag) = wire.tag() {
            match wire.raw(tag.1) {
                Some(raw) if tag.0 == 2 => {
                    value = raw;
                    self.pieces.push(Span::of(raw));
                }
                Some(_) => {}
                None if wire.skip(tag, LEVELS_MAX, false).is_some() => {}
                None => break,
            }
        }
        self.keys.push(entry.key, row)?;
        match self.values.is_message() {
            true => self.values.push_pieces(&self.pieces, row),
            false => self.values.push(value, row),
        }
    }

    fn push_null(&mut self) {
        push_null(&mut self.offsets, &mut self.nulls);
    }

    fn truncate(&mut self, length: usize) {
        let entries = truncate(&mut self.offsets, &mut self.nulls, length);
        self.entries.clear();
        self.keys.truncate(entries);
        self.values.truncate(entries);
    }

    fn finish(&mut self) -> ArrayRef {
        let (keys, values) = (self.keys.finish(), self.values.finish());
        let fields = entry_fields(keys.data_type().clone(), values.data_type().clone());
        let entries = StructArray::new(fields, vec![keys, values], None);
        let field = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
        let offsets = take_offsets(&mut self.offsets);
        Arc::new(MapArray::new(
            field,
            offsets,
            entries,
            self.nulls.finish(),
            false,
        ))
    }
}
