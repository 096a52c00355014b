//! Columns of single values: what comes from the wire as 64 bits, typed.

use crate::kind::{Scalar, timestamp};
use crate::wire::Span;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, PrimitiveArray, StringArray,
};
use arrow_buffer::{
    BooleanBufferBuilder, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer,
};
use std::sync::Arc;

/// Why a row cannot be appended. What was appended of it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The payload unfolds to too many values.
    TooMany,
    /// A column has no room.
    Full,
}

/// Result of appending.
pub(crate) type Step = Result<(), Stop>;

/// The payload being appended, and what it may still cost.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) payload: &'a [u8],
    /// How many values may follow.
    pub(crate) cells: usize,
    /// Bytes of text appended.
    pub(crate) text: usize,
}

impl Row<'_> {
    /// Counts values about to be appended.
    #[inline(always)]
    pub(crate) fn spend(&mut self, cells: usize) -> Step {
        self.cells = self.cells.checked_sub(cells).ok_or(Stop::TooMany)?;
        Ok(())
    }
}

/// Texts or byte strings, one after the other.
#[derive(Debug)]
pub(crate) struct Chars {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Chars {
    pub(crate) fn new() -> Self {
        Self {
            offsets: vec![0],
            bytes: Vec::new(),
        }
    }

    /// Appends pieces as one.
    #[inline(always)]
    pub(crate) fn push(&mut self, bytes: &[u8], row: &mut Row<'_>) -> Step {
        let end = i32::try_from(self.bytes.len() + bytes.len()).map_err(|_| Stop::Full)?;
        self.bytes.extend_from_slice(bytes);
        self.offsets.push(end);
        row.text += bytes.len();
        Ok(())
    }

    /// Appends an empty one.
    #[inline]
    pub(crate) fn push_empty(&mut self) {
        self.offsets.push(self.bytes.len() as i32);
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.offsets.truncate(length + 1);
        let end = self.offsets.last().map_or(0, |&end| end as usize);
        self.bytes.truncate(end);
    }

    pub(crate) fn finish_text(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let (offsets, bytes) = self.take();
        let array = StringArray::try_new(offsets, bytes, nulls);
        Arc::new(array.expect("texts are UTF-8 and as many as their nulls"))
    }

    fn finish_bytes(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let (offsets, bytes) = self.take();
        let array = BinaryArray::try_new(offsets, bytes, nulls);
        Arc::new(array.expect("byte strings are as many as their nulls"))
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let offsets = take_offsets(&mut self.offsets);
        (offsets, Buffer::from_vec(std::mem::take(&mut self.bytes)))
    }
}

/// The offsets, leaving those of an empty column.
pub(crate) fn take_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])))
}

/// A column of values and nulls.
#[derive(Debug)]
pub(crate) struct Leaf {
    values: Values,
    nulls: NullBufferBuilder,
}

#[derive(Debug)]
enum Values {
    Double(Vec<f64>),
    Float(Vec<f32>),
    Int32(Vec<i32>),
    Sint32(Vec<i32>),
    Int64(Vec<i64>),
    Sint64(Vec<i64>),
    Uint32(Vec<i64>),
    Uint64(Vec<i128>),
    Bool(BooleanBufferBuilder),
    Text(Chars),
    Bytes(Chars),
    Instant(Vec<i64>),
}

impl Leaf {
    /// Of a scalar.
    pub(crate) fn new(scalar: Scalar) -> Self {
        Self::of(match scalar {
            Scalar::Double => Values::Double(Vec::new()),
            Scalar::Float => Values::Float(Vec::new()),
            Scalar::Int32 | Scalar::Sfixed32 => Values::Int32(Vec::new()),
            Scalar::Sint32 => Values::Sint32(Vec::new()),
            Scalar::Int64 | Scalar::Sfixed64 => Values::Int64(Vec::new()),
            Scalar::Sint64 => Values::Sint64(Vec::new()),
            Scalar::Uint32 | Scalar::Fixed32 => Values::Uint32(Vec::new()),
            Scalar::Uint64 | Scalar::Fixed64 => Values::Uint64(Vec::new()),
            Scalar::Bool => Values::Bool(BooleanBufferBuilder::new(0)),
            Scalar::String => Values::Text(Chars::new()),
            Scalar::Bytes => Values::Bytes(Chars::new()),
        })
    }

    /// Of instants, in microseconds.
    pub(crate) fn instants() -> Self {
        Self::of(Values::Instant(Vec::new()))
    }

    fn of(values: Values) -> Self {
        Self {
            values,
            nulls: NullBufferBuilder::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Appends what the wire has, as [`Wire::raw`](crate::wire::Wire::raw) gives it.
    #[inline(always)]
    pub(crate) fn push(&mut self, raw: u64, row: &mut Row<'_>) -> Step {
        match &mut self.values {
            Values::Double(values) => values.push(f64::from_bits(raw)),
            Values::Float(values) => values.push(f32::from_bits(raw as u32)),
            Values::Int32(values) => values.push(raw as i32),
            Values::Sint32(values) => {
                let raw = raw as u32;
                values.push((raw >> 1) as i32 ^ -((raw & 1) as i32));
            }
            Values::Int64(values) | Values::Instant(values) => values.push(raw as i64),
            Values::Sint64(values) => values.push((raw >> 1) as i64 ^ -((raw & 1) as i64)),
            Values::Uint32(values) => values.push(i64::from(raw as u32)),
            Values::Uint64(values) => values.push(i128::from(raw)),
            Values::Bool(values) => values.append(raw != 0),
            Values::Text(chars) | Values::Bytes(chars) => {
                chars.push(Span::of(raw).within(row.payload), row)?;
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends bytes that are not those of the payload.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8], row: &mut Row<'_>) -> Step {
        if let Values::Text(chars) | Values::Bytes(chars) = &mut self.values {
            chars.push(bytes, row)?;
            self.nulls.append_non_null();
        }
        Ok(())
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Double(values) => values.push(0.0),
            Values::Float(values) => values.push(0.0),
            Values::Int32(values) | Values::Sint32(values) => values.push(0),
            Values::Int64(values)
            | Values::Sint64(values)
            | Values::Uint32(values)
            | Values::Instant(values) => values.push(0),
            Values::Uint64(values) => values.push(0),
            Values::Bool(values) => values.append(false),
            Values::Text(chars) | Values::Bytes(chars) => chars.push_empty(),
        }
        self.nulls.append_null();
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        match &mut self.values {
            Values::Double(values) => values.truncate(length),
            Values::Float(values) => values.truncate(length),
            Values::Int32(values) | Values::Sint32(values) => values.truncate(length),
            Values::Int64(values)
            | Values::Sint64(values)
            | Values::Uint32(values)
            | Values::Instant(values) => values.truncate(length),
            Values::Uint64(values) => values.truncate(length),
            Values::Bool(values) => values.truncate(length),
            Values::Text(chars) | Values::Bytes(chars) => chars.truncate(length),
        }
        self.nulls.truncate(length);
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        let nulls = self.nulls.finish();
        match &mut self.values {
            Values::Double(values) => Arc::new(primitive::<Float64Type>(values, nulls)),
            Values::Float(values) => Arc::new(primitive::<Float32Type>(values, nulls)),
            Values::Int32(values) | Values::Sint32(values) => {
                Arc::new(primitive::<Int32Type>(values, nulls))
            }
            Values::Int64(values) | Values::Sint64(values) | Values::Uint32(values) => {
                Arc::new(primitive::<Int64Type>(values, nulls))
            }
            Values::Instant(values) => {
                let array = primitive::<TimestampMicrosecondType>(values, nulls);
                Arc::new(array.with_data_type(timestamp()))
            }
            Values::Uint64(values) => {
                let array = primitive::<Decimal128Type>(values, nulls);
                Arc::new(array.with_data_type(Scalar::Uint64.data_type()))
            }
            Values::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Text(chars) => chars.finish_text(nulls),
            Values::Bytes(chars) => chars.finish_bytes(nulls),
        }
    }
}

/// The values as an array, leaving none.
pub(crate) fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> PrimitiveArray<T> {
    PrimitiveArray::new(ScalarBuffer::from(std::mem::take(values)), nulls)
}
