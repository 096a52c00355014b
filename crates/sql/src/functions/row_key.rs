//! What orders the rows of a table by newness, as a number: the greatest is the newest row's, and no
//! other row's.
//!
//! ```text
//!  bit 224   223..160         159     158..95   94..32     31..0
//!  version?  entityversion    time?   time      position   ordinal
//! ```
//!
//! A number of 256 bits: the engine keeps the greatest of such numbers side by side, and of bytes
//! each in an allocation of its own.

use datafusion::arrow::array::{Array, AsArray, Decimal256Array, Int64Array};
use datafusion::arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Int64Type, UInt64Type, i256,
};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    ident, try_cast,
};
use std::sync::Arc;

/// The columns it is made of, in this order: an entity's version, none before all others; the time;
/// the place in the archive, which is one row's alone.
pub(super) const COLUMNS: [&str; 4] = ["entityversion", "time", "position", "ordinal"];
const KEY: DataType = DataType::Decimal256(DECIMAL256_MAX_PRECISION, 0);

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
        Ok(KEY)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.iter().map(|arg| arg.to_array(rows));
        let columns: Vec<_> = columns.collect::<Result<_>>()?;
        let version = columns[0].as_primitive::<UInt64Type>();
        let [time, position, ordinal] = [1, 2, 3].map(|at| columns[at].as_primitive::<Int64Type>());
        let keys = (0..rows).map(|row| {
            let number = |column: &Int64Array| column.is_valid(row).then(|| column.value(row));
            key(
                version.is_valid(row).then(|| version.value(row)),
                number(time),
                number(position).unwrap_or(0),
                number(ordinal).unwrap_or(0),
            )
        });
        let keys = Decimal256Array::from_iter_values(keys).with_data_type(KEY);
        Ok(ColumnarValue::Array(Arc::new(keys)))
    }
}

/// None comes before all others.
fn key(version: Option<u64>, time: Option<i64>, position: i64, ordinal: i64) -> i256 {
    let marked = |value: Option<u64>| {
        let mark = u128::from(value.is_some()) << 64;
        mark | u128::from(value.unwrap_or(0))
    };
    let time = marked(time.map(ordered));
    // Neither is negative, and there are at most 2^24 ordinals.
    let place = u128::from(position.cast_unsigned()) << 32 | u128::from(ordinal as u32);
    let high = marked(version) << 32 | time >> 33;
    let low = time << 95 | place;
    i256::from_parts(low, high.cast_signed())
}

/// In the order of the signed numbers.
fn ordered(value: i64) -> u64 {
    value.cast_unsigned() ^ (1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_version_time_and_place() {
        let values = |most: i64| [0, 1, most / 2, most - 1, most];
        let mut keys = Vec::new();
        for version in [None, Some(0), Some(1), Some(u64::MAX >> 1), Some(u64::MAX)] {
            for time in [
                None,
                Some(i64::MIN),
                Some(-1),
                Some(0),
                Some(1),
                Some(i64::MAX),
            ] {
                for position in values(i64::MAX) {
                    keys.extend(values(u32::MAX.into()).map(|o| key(version, time, position, o)));
                }
            }
        }
        assert!(keys.iter().all(|key| *key >= i256::ZERO));
        assert!(keys.is_sorted_by(|a, b| a < b));
    }
}
