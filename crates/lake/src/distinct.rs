//! Which columns of a file are written plainly: those whose values differ too much for a dictionary.
//!
//! A dictionary of values that hardly ever come twice is hashed, kept in memory, and given up in
//! the end. What comes how often is guessed from some rows, always the same ones: the same rows
//! make the same file.

use crate::file::ROW_GROUP_ROWS;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use std::collections::HashSet;
use std::hash::Hash;

/// A column without a dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlainColumn {
    /// Its name, and those of the structs around it, outermost first.
    pub(crate) path: Vec<String>,
    /// Whether it is of integers, or of times.
    pub(crate) is_integer: bool,
}

/// Rows that are looked at.
const SAMPLE_ROWS: usize = 512;
/// A dictionary is worth it where values come this often, on average.
const REPEATS_MIN: usize = 4;

/// The columns whose values differ too much for a dictionary. Values of lists and maps are not
/// looked at.
pub(crate) fn plain_columns(rows: &RecordBatch) -> Vec<PlainColumn> {
    let mut found = Vec::new();
    if rows.num_rows() < SAMPLE_ROWS * REPEATS_MIN {
        return found;
    }
    let schema = rows.schema();
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        look_at(&mut vec![field.name().clone()], column, &mut found);
    }
    found
}

fn look_at(path: &mut Vec<String>, column: &ArrayRef, found: &mut Vec<PlainColumn>) {
    if let Some(inner) = column.as_struct_opt() {
        for (field, column) in inner.fields().iter().zip(inner.columns()) {
            path.push(field.name().clone());
            look_at(path, column, found);
            path.pop();
        }
        return;
    }
    let Some(differing) = differing(column) else {
        return;
    };
    // Each row group has dictionaries of its own.
    if differing > column.len().min(ROW_GROUP_ROWS) / REPEATS_MIN {
        found.push(PlainColumn {
            path: path.clone(),
            is_integer: is_integer(column.data_type()),
        });
    }
}

/// How many different values a column has, about; `None` where a dictionary is no question.
fn differing(column: &ArrayRef) -> Option<usize> {
    Some(match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            guess(column, |row| texts.value(row))
        }
        DataType::Binary => {
            let bytes = column.as_binary::<i32>();
            guess(column, |row| bytes.value(row))
        }
        DataType::Int32 => of_numbers::<Int32Type>(column),
        DataType::Int64 => of_numbers::<Int64Type>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            of_numbers::<TimestampMicrosecondType>(column)
        }
        DataType::Decimal128(..) => of_numbers::<Decimal128Type>(column),
        _ => return None,
    })
}

fn of_numbers<T: ArrowPrimitiveType<Native: Hash + Eq>>(column: &ArrayRef) -> usize {
    let numbers = column.as_primitive::<T>();
    guess(column, |row| numbers.value(row))
}

/// From how many of a sample came before in it: of `n` drawn from `d` values that come equally
/// often, about n²/2d did.
fn guess<T: Hash + Eq>(column: &ArrayRef, value: impl Fn(usize) -> T) -> usize {
    let step = (column.len() / SAMPLE_ROWS).max(1);
    let rows = (0..column.len()).step_by(step).take(SAMPLE_ROWS);
    let (mut seen, mut drawn) = (HashSet::with_capacity(SAMPLE_ROWS), 0);
    for row in rows.filter(|&row| column.is_valid(row)) {
        seen.insert(value(row));
        drawn += 1;
    }
    match drawn - seen.len() {
        0 if drawn > 1 => usize::MAX,
        0 => 0,
        again => drawn * drawn / (2 * again),
    }
}

fn is_integer(of: &DataType) -> bool {
    use DataType::{Int32, Int64, Timestamp};
    matches!(of, Int32 | Int64 | Timestamp(..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, StringArray, StructArray};
    use arrow_schema::Field;
    use std::sync::Arc;

    const ROWS: i64 = 20_000;

    #[test]
    fn a_column_whose_values_come_again_keeps_its_dictionary() {
        let number = |row: i64| (row.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 20).abs();
        let texts = |of: i64| -> ArrayRef {
            let texts = (0..ROWS).map(|row| format!("t-{}", number(row) % of));
            Arc::new(StringArray::from_iter_values(texts))
        };
        let few = Arc::new(Field::new("few", DataType::Utf8, true));
        let many = Arc::new(Field::new("many", DataType::Utf8, true));
        let inner = StructArray::from(vec![(few, texts(500)), (many, texts(1_000_000))]);
        let numbers = Int64Array::from_iter_values(0..ROWS);
        let nulls = Int64Array::from_iter((0..ROWS).map(|_| None::<i64>));
        let rows = RecordBatch::try_from_iter([
            ("inner", Arc::new(inner) as ArrayRef),
            ("numbers", Arc::new(numbers)),
            ("nulls", Arc::new(nulls)),
        ])
        .unwrap();
        let found = plain_columns(&rows);
        let named: Vec<_> = found
            .iter()
            .map(|c| (c.path.join("."), c.is_integer))
            .collect();
        let expected = [
            ("inner.many".to_owned(), false),
            ("numbers".to_owned(), true),
        ];
        assert_eq!(named, expected);
        assert!(plain_columns(&rows.slice(0, 100)).is_empty());
    }
}
