//! `latest(type)`: the newest row of each entity, as one aggregate.
//!
//! Newest is: by `entityversion`, rows without one before all others, then by `time`, then by
//! place in the archive. A window over all rows would say the same six times slower.

use annals_core::Error;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::functions_aggregate::first_last::last_value;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident, try_cast};
use std::collections::HashMap;
use std::sync::Arc;

/// The function's name.
pub(crate) const NAME: &str = "latest";

/// The entity an event is about.
const SUBJECT: &str = "subject";
/// What makes one row newer than another, in this order, as far as a table has it.
const ORDER: [&str; 4] = ["entityversion", "time", "position", "ordinal"];

/// The table function, over the tables opened for one question.
#[derive(Debug)]
pub(crate) struct Latest {
    tables: HashMap<String, Arc<dyn TableProvider>>,
}

impl Latest {
    pub(crate) fn new(tables: HashMap<String, Arc<dyn TableProvider>>) -> Self {
        Self { tables }
    }
}

impl TableFunctionImpl for Latest {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)), _)] =
            args.exprs()
        else {
            return plan_err!("latest takes one event type: latest(vcs.v1.CommitPushed)");
        };
        match self.tables.get(name) {
            Some(table) => newest(name, table),
            None => plan_err!("there is no table {name}"),
        }
    }
}

fn newest(name: &str, table: &Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let schema = table.schema();
    if schema.column_with_name(SUBJECT).is_none() {
        let error = Error::invalid(format!("{name} has no column {SUBJECT}: latest needs one"));
        return Err(DataFusionError::External(Box::new(error)));
    }
    let order: Vec<Sort> = ORDER
        .iter()
        .filter_map(|column| {
            let field = schema.field_with_name(column).ok()?;
            let by = match field.data_type() {
                // Versions are numbers, also where they are kept as text.
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
                    if *column == "entityversion" =>
                {
                    try_cast(ident(*column), DataType::UInt64)
                }
                _ => ident(*column),
            };
            Some(by.sort(true, true))
        })
        .collect();
    let columns = schema.fields().iter().map(|f| f.name().as_str());
    let newest = columns
        .clone()
        .filter(|column| *column != SUBJECT)
        .map(|column| last_value(ident(column), order.clone()).alias(column));
    let plan =
        LogicalPlanBuilder::scan(name_of(name), provider_as_source(Arc::clone(table)), None)?
            .filter(ident(SUBJECT).is_not_null())?
            .aggregate([ident(SUBJECT)], newest.collect::<Vec<_>>())?
            .project(columns.map(ident).collect::<Vec<_>>())?
            .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

fn name_of(name: &str) -> datafusion::common::TableReference {
    datafusion::common::TableReference::bare(name.to_owned())
}
