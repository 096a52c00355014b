//! [`RowsHash`]: what tells whether two tables have the same rows, in whatever order and files.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::{DataType, TimeUnit};
use std::fmt;

/// The sum of the rows' hashes. A null counts as a column that is not there: rows from before a
/// column was added are the same rows after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowsHash {
    rows: u64,
    sum: u128,
}

impl RowsHash {
    /// Adds rows.
    pub fn add(&mut self, rows: &RecordBatch) {
        let columns = StructArray::from(rows.clone());
        let mut text = Vec::new();
        for row in 0..columns.len() {
            text.clear();
            put_fields(&columns, row, &mut text);
            let hash = blake3::hash(&text);
            let half: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash is longer");
            self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
        }
        self.rows += columns.len() as u64;
    }

    /// How many rows were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl fmt::Display for RowsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

/// Appends the fields that are not null: name, then value.
fn put_fields(columns: &StructArray, row: usize, out: &mut Vec<u8>) {
    for (field, column) in columns.fields().iter().zip(columns.columns()) {
        if !column.is_null(row) {
            put_bytes(field.name().as_bytes(), out);
            put_value(column.as_ref(), row, out);
        }
    }
    // No name is this long.
    out.extend_from_slice(&u64::MAX.to_le_bytes());
}

fn put_value(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    macro_rules! put {
        ($type:ty) => {
            out.extend_from_slice(&column.as_primitive::<$type>().value(row).to_le_bytes())
        };
    }
    match column.data_type() {
        DataType::Boolean => out.push(u8::from(column.as_boolean().value(row))),
        DataType::Int8 => put!(Int8Type),
        DataType::Int16 => put!(Int16Type),
        DataType::Int32 => put!(Int32Type),
        DataType::Int64 => put!(Int64Type),
        DataType::UInt8 => put!(UInt8Type),
        DataType::UInt16 => put!(UInt16Type),
        DataType::UInt32 => put!(UInt32Type),
        DataType::UInt64 => put!(UInt64Type),
        DataType::Float32 => put!(Float32Type),
        DataType::Float64 => put!(Float64Type),
        DataType::Date32 => put!(Date32Type),
        DataType::Decimal128(..) => put!(Decimal128Type),
        DataType::Timestamp(TimeUnit::Microsecond, _) => put!(TimestampMicrosecondType),
        DataType::Utf8 => put_bytes(column.as_string::<i32>().value(row).as_bytes(), out),
        DataType::Binary => put_bytes(column.as_binary::<i32>().value(row), out),
        DataType::Struct(_) => put_fields(column.as_struct(), row, out),
        DataType::List(_) => put_list(column.as_list::<i32>().value(row).as_ref(), out),
        DataType::Map(..) => put_list(&column.as_map().value(row), out),
        // In no file of ours: whatever it holds, its rows are not those of the archive.
        other => put_bytes(other.to_string().as_bytes(), out),
    }
}

fn put_list(values: &dyn Array, out: &mut Vec<u8>) {
    out.extend_from_slice(&(values.len() as u64).to_le_bytes());
    for at in 0..values.len() {
        out.push(u8::from(values.is_valid(at)));
        if values.is_valid(at) {
            put_value(values, at, out);
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn hash(batches: &[Vec<(&str, ArrayRef)>]) -> RowsHash {
        let mut hash = RowsHash::default();
        for columns in batches {
            let columns = columns.iter().map(|(name, c)| (*name, c.clone(), true));
            hash.add(&RecordBatch::try_from_iter_with_nullable(columns).unwrap());
        }
        hash
    }

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn order_and_files_do_not_matter_and_values_and_copies_do() {
        let one = hash(&[vec![("a", texts(&[Some("x"), Some("y"), None]))]]);
        let cut = hash(&[
            vec![("a", texts(&[None]))],
            vec![("a", texts(&[Some("y"), Some("x")]))],
        ]);
        assert_eq!((one, one.rows()), (cut, 3));
        for other in [
            vec![("a", texts(&[Some("x"), Some("z"), None]))],
            vec![("b", texts(&[Some("x"), Some("y"), None]))],
            vec![("a", texts(&[Some("x"), Some("y"), Some("")]))],
            vec![("a", texts(&[Some("x"), Some("y")]))],
            vec![("a", texts(&[Some("x"), Some("x"), Some("y"), None]))],
        ] {
            assert_ne!(one, hash(&[other]));
        }
    }

    #[test]
    fn a_column_that_is_null_is_one_that_is_not_there() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
        let before = hash(&[vec![("a", texts(&[Some("x"), Some("y")]))]]);
        let after = hash(&[vec![("a", texts(&[Some("x"), Some("y")])), ("n", numbers)]]);
        assert_eq!(before, after);
    }
}
