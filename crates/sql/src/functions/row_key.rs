//! What orders the rows of a table by newness, as bytes: the greatest is the newest row's, and no
//! other row's.

use datafusion::arrow::array::{Array, AsArray, BinaryBuilder};
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    ident, try_cast,
};
use std::sync::Arc;

/// The columns it is made of, in this order: an entity's version, none before all others; the time;
/// the place in the archive, which is one row's alone.
pub(super) const COLUMNS: [&str; 4] = ["entityversion", "time", "position", "ordinal"];
/// A mark and 8 bytes for each, big end first.
const KEY_BYTES: usize = 36;

/// The key of each row.
pub(super) fn row_key() -> Expr {
    let function = ScalarUDF::new_from_impl(RowKey {
        signature: Signature::exact(types().to_vec(), Volatility::Immutable),
    });
    let columns = COLUMNS.iter().zip(types());
    // A version is a number also where it is kept as text.
    let columns = columns.map(|(name, data_type)| try_cast(ident(*name), data_type));
    function.call(columns.collect())
}

fn types() -> [DataType; 4] {
    [
        DataType::UInt64,
        DataType::Int64,
        DataType::Int64,
        DataType::Int64,
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowKey {
    signature: Signature,
}

impl ScalarUDFImpl for RowKey {
    fn name(&self) -> &'static str {
        "annals_row_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.iter().map(|arg| arg.to_array(rows));
        let columns: Vec<_> = columns.collect::<Result<_>>()?;
        let version = columns[0].as_primitive::<UInt64Type>();
        let [time, position, ordinal] = [1, 2, 3].map(|at| columns[at].as_primitive::<Int64Type>());
        let mut keys = BinaryBuilder::with_capacity(rows, rows * KEY_BYTES);
        let mut key = [0; KEY_BYTES];
        for row in 0..rows {
            put(
                &mut key,
                0,
                version.is_valid(row).then(|| version.value(row)),
            );
            for (at, column) in (1..).zip([time, position, ordinal]) {
                put(
                    &mut key,
                    at,
                    column.is_valid(row).then(|| ordered(column.value(row))),
                );
            }
            keys.append_value(key);
        }
        Ok(ColumnarValue::Array(Arc::new(keys.finish())))
    }
}

/// None comes before all others.
fn put(key: &mut [u8; KEY_BYTES], at: usize, value: Option<u64>) {
    let part = &mut key[at * 9..(at + 1) * 9];
    part[0] = u8::from(value.is_some());
    part[1..].copy_from_slice(&value.unwrap_or(0).to_be_bytes());
}

/// In the order of the signed numbers.
fn ordered(value: i64) -> u64 {
    value.cast_unsigned() ^ (1 << 63)
}
