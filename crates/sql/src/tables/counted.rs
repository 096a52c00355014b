//! Counts that need no scan: how many events there are of each type and day is known.
//!
//! An aggregate that counts rows by nothing but `type` and `date`, filtered by nothing else, sums
//! up what the archive's index knows instead:
//!
//! ```text
//!  Aggregate type: count(1)            Projection type, coalesce(sum(rows), 0)
//!    Filter date > …             ──►     Aggregate type: sum(rows)
//!      TableScan events [type, date]       Filter date > …
//!                                            TableScan counts [type, date, rows]
//! ```

use super::provider::HistoryTable;
use annals_lake::layout::DATE;
use annals_lake::rows::TYPE;
use datafusion::arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError, Result, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::sum::sum;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan,
    lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Column of the counts; no table has it.
const ROWS: &str = "annals.rows";

/// Rows of a table by type and day.
#[derive(Debug, Clone, Default)]
pub(super) struct RowCounts(pub(super) BTreeMap<(String, i32), u64>);

impl RowCounts {
    /// Those of one type.
    pub(super) fn of_type(&self, event_type: &str) -> Self {
        let first = (event_type.to_owned(), i32::MIN);
        let counts = self.0.range(first..);
        let counts = counts.take_while(|((name, _), _)| name == event_type);
        Self(counts.map(|(key, rows)| (key.clone(), *rows)).collect())
    }

    /// As rows: the columns of `schema` that are known, and the count.
    fn batch(&self, schema: &Schema) -> Result<RecordBatch> {
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let keys = || self.0.keys();
        if let Ok(field) = schema.field_with_name(TYPE) {
            let types = StringArray::from_iter_values(keys().map(|(name, _)| name));
            columns.push(cast(&types, field.data_type())?);
            fields.push(field.clone());
        }
        let date = schema.field_with_name(DATE)?;
        let days = Date32Array::from_iter_values(keys().map(|(_, day)| *day));
        columns.push(cast(&days, date.data_type())?);
        fields.push(date.clone());
        let rows = self.0.values().map(|rows| rows.cast_signed());
        columns.push(Arc::new(Int64Array::from_iter_values(rows)));
        fields.push(Field::new(ROWS, DataType::Int64, false));
        Ok(RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            columns,
        )?)
    }
}

/// The rule, for a session's optimizer.
#[derive(Debug, Default)]
pub(crate) struct KnownCounts;

impl OptimizerRule for KnownCounts {
    fn name(&self) -> &'static str {
        "annals_known_counts"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else {
            return Ok(Transformed::no(plan));
        };
        let counts = aggregate.aggr_expr.iter().all(counts_rows) && !aggregate.aggr_expr.is_empty();
        if !counts || aggregate.group_expr.iter().any(Expr::is_volatile) {
            return Ok(Transformed::no(plan));
        }
        match summed(&aggregate.input)? {
            Some((input, rows)) => sum_up(aggregate, input, &rows).map(Transformed::yes),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// Whether an aggregate expression is the number of rows.
fn counts_rows(expr: &Expr) -> bool {
    let Expr::AggregateFunction(call) = expr.clone().unalias() else {
        return false;
    };
    let AggregateFunctionParams {
        args,
        distinct,
        filter,
        order_by,
        ..
    } = &call.params;
    let of_rows = match args.as_slice() {
        [] => true,
        [Expr::Literal(value, _)] => !value.is_null(),
        _ => false,
    };
    call.func.name() == "count" && of_rows && !distinct && filter.is_none() && order_by.is_empty()
}

/// The plan over counts instead of rows, and the column that has them; `None` where more is asked
/// of the rows than type and day.
fn summed(plan: &LogicalPlan) -> Result<Option<(LogicalPlan, Column)>> {
    Ok(match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan)?,
        LogicalPlan::Filter(filter) if !filter.predicate.is_volatile() => summed(&filter.input)?
            .map(|(input, rows)| {
                let filter = Filter::try_new(filter.predicate.clone(), Arc::new(input))?;
                Ok::<_, DataFusionError>((LogicalPlan::Filter(filter), rows))
            })
            .transpose()?,
        LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::is_volatile) => {
            summed(&projection.input)?
                .map(|(input, rows)| {
                    let mut exprs = projection.expr.clone();
                    exprs.push(Expr::Column(rows.clone()));
                    let projection = Projection::try_new(exprs, Arc::new(input))?;
                    Ok::<_, DataFusionError>((LogicalPlan::Projection(projection), rows))
                })
                .transpose()?
        }
        LogicalPlan::SubqueryAlias(alias) => summed(&alias.input)?
            .map(|(input, _)| {
                let rows = Column::new(Some(alias.alias.clone()), ROWS);
                let alias = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
                Ok::<_, DataFusionError>((LogicalPlan::SubqueryAlias(alias), rows))
            })
            .transpose()?,
        _ => None,
    })
}

fn of_scan(scan: &TableScan) -> Result<Option<(LogicalPlan, Column)>> {
    // A source may be one that only stands for a table.
    let Ok(provider) = source_as_provider(&scan.source) else {
        return Ok(None);
    };
    let Some(table) = provider.downcast_ref::<HistoryTable>() else {
        return Ok(None);
    };
    let asked = scan.projected_schema.fields().iter().map(|f| f.name());
    let filtered = scan.filters.iter().flat_map(Expr::column_refs);
    let mut asked = asked.chain(filtered.map(|column| &column.name));
    let known = asked.all(|name| name == TYPE || name == DATE);
    let Some(counts) = table.counts().filter(|_| known && scan.fetch.is_none()) else {
        return Ok(None);
    };
    let batch = counts.batch(&scan.source.schema())?;
    let source = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
    let name = scan.table_name.clone();
    let rows = Column::new(Some(name.clone()), ROWS);
    // What filters the scan has are above it too: it need not apply them.
    let plan =
        LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(source)), None)?.build()?;
    Ok(Some((plan, rows)))
}

/// Sums of counts under the names of the counts of rows.
fn sum_up(aggregate: &Aggregate, input: LogicalPlan, rows: &Column) -> Result<LogicalPlan> {
    let total = sum(Expr::Column(rows.clone()));
    let summed = Aggregate::try_new(Arc::new(input), aggregate.group_expr.clone(), vec![total])?;
    let (keys, sums) = (summed.schema.fields().len() - 1, summed.schema.columns());
    let total = sums[keys].clone();
    let zero = lit(ScalarValue::Int64(Some(0)));
    let exprs = aggregate
        .schema
        .iter()
        .enumerate()
        .map(|(at, (relation, field))| match at < keys {
            true => Expr::Column(sums[at].clone()),
            false => coalesce(vec![Expr::Column(total.clone()), zero.clone()])
                .alias_qualified(relation.cloned(), field.name()),
        });
    let projection =
        Projection::try_new(exprs.collect(), Arc::new(LogicalPlan::Aggregate(summed)))?;
    Ok(LogicalPlan::Projection(projection))
}
