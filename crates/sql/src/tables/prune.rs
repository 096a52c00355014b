//! Which files of a table can hold rows that a question asks for, by what is known of them.

use annals_lake::layout::DATE;
use annals_lake::rows::{ARCHIVED_AT, POSITION, SOURCE, SUBJECT, TIME, TYPE};
use annals_lake::table::DataFile;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use std::collections::HashSet;
use std::sync::Arc;

/// The files that can hold rows for which the predicate is true.
pub(super) fn prune(
    files: &[DataFile],
    predicate: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Result<Vec<DataFile>> {
    let predicate = PruningPredicateBuilder::new()
        .with_file_schema(schema.clone())
        .try_build(predicate.clone())?;
    let keep = predicate.prune(&Known(files))?;
    let kept = files.iter().zip(keep).filter(|(_, keep)| *keep);
    Ok(kept.map(|(file, _)| file.clone()).collect())
}

/// What is known of files.
struct Known<'a>(&'a [DataFile]);

impl Known<'_> {
    fn values(&self, column: &Column, least: bool) -> Option<ArrayRef> {
        let pick = |(min, max): (i64, i64)| if least { min } else { max };
        let files = self.0.iter();
        Some(match column.name() {
            DATE => Arc::new(Date32Array::from_iter_values(files.map(|f| f.date.0))),
            POSITION => Arc::new(
                files
                    .map(|f| f.stats.numbers(POSITION).map(pick))
                    .collect::<Int64Array>(),
            ),
            name @ (TIME | ARCHIVED_AT) => Arc::new(
                files
                    .map(|f| f.stats.times(name).map(pick))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
            name @ (SOURCE | SUBJECT | TYPE) => Arc::new(
                files
                    .map(|f| {
                        let (min, max) = f.stats.texts(name)?;
                        Some(if least { min } else { max })
                    })
                    .collect::<StringArray>(),
            ),
            _ => return None,
        })
    }
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, true)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, false)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let nulls = self.0.iter().map(|f| match column.name() {
            DATE => Some(0),
            name => f.stats.nulls(name),
        });
        Some(Arc::new(nulls.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = self.0.iter().map(|f| f.stats.num_records);
        Some(Arc::new(UInt64Array::from_iter_values(rows)))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
