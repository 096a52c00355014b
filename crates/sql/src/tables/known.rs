//! What the log of a table says of a file, in the engine's words.

use annals_lake::rows::{ARCHIVED_AT, POSITION, SOURCE, SUBJECT, TIME, TYPE};
use annals_lake::table::DataFile;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};

/// What is known of a file's rows: the engine leaves files out by it while it reads, opens those
/// that promise most first, and does not read columns of one value.
pub(super) fn statistics_of(file: &DataFile, schema: &SchemaRef) -> Statistics {
    let mut known = Statistics::new_unknown(schema);
    known.num_rows = Precision::Exact(file.stats.num_records as usize);
    known.total_byte_size = Precision::Inexact(file.len as usize);
    let columns = schema.fields().iter().zip(&mut known.column_statistics);
    for (field, column) in columns {
        let name = field.name();
        let Some((min, max)) = range_of(file, name) else {
            continue;
        };
        (column.min_value, column.max_value) = (min, max);
        if let Some(nulls) = file.stats.nulls(name) {
            column.null_count = Precision::Exact(nulls as usize);
        }
    }
    known
}

type Bound = Precision<ScalarValue>;

fn range_of(file: &DataFile, column: &str) -> Option<(Bound, Bound)> {
    match column {
        POSITION => {
            let exact = |of| Precision::Exact(ScalarValue::Int64(Some(of)));
            let (min, max) = file.stats.numbers(column)?;
            Some((exact(min), exact(max)))
        }
        // Rounded outwards to milliseconds.
        TIME | ARCHIVED_AT => {
            let utc = || Some("UTC".into());
            let about = |of| Precision::Inexact(ScalarValue::TimestampMicrosecond(Some(of), utc()));
            let (min, max) = file.stats.times(column)?;
            Some((about(min), about(max)))
        }
        SOURCE | SUBJECT | TYPE => {
            let exact = |of: &str| Precision::Exact(ScalarValue::Utf8(Some(of.to_owned())));
            let (min, max) = file.stats.texts(column)?;
            Some((exact(min), exact(max)))
        }
        _ => None,
    }
}
