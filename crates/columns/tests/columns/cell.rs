//! A value of a column, without Arrow's layout.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, StructArray};
use arrow_schema::DataType;
use prost_reflect::DynamicMessage;

/// A value; floats by their bits, so that each equals itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Int(i128),
    Float(u32),
    Double(u64),
    Text(String),
    Bytes(Vec<u8>),
    Struct(Vec<(String, Cell)>),
    List(Vec<Cell>),
    Map(Vec<(Cell, Cell)>),
    /// Expected only: the bytes of this message, however encoded.
    Encoded(DynamicMessage),
}

pub(crate) fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

/// A value as a test writes it: `name: cell` pairs.
pub(crate) fn fields<const N: usize>(fields: [(&str, Cell); N]) -> Cell {
    Cell::Struct(fields.map(|(name, cell)| (name.to_owned(), cell)).into())
}

/// A row of an array.
pub(crate) fn cell(array: &dyn Array, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Timestamp(..) => {
            let array = array.as_primitive::<TimestampMicrosecondType>();
            Cell::Int(array.value(row).into())
        }
        DataType::Decimal128(..) => Cell::Int(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Float32 => Cell::Float(array.as_primitive::<Float32Type>().value(row).to_bits()),
        DataType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::Struct(_) => struct_cell(array.as_struct(), row),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            Cell::List((0..elements.len()).map(|i| cell(&elements, i)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let entry = |i| (cell(keys, i), cell(values, i));
            Cell::Map((0..entries.len()).map(entry).collect())
        }
        other => panic!("no column is {other}"),
    }
}

fn struct_cell(array: &StructArray, row: usize) -> Cell {
    let columns = array.fields().iter().zip(array.columns());
    let named = columns.map(|(field, column)| (field.name().clone(), cell(column, row)));
    Cell::Struct(named.collect())
}
