//! `latest(type)`: the newest row of each entity.
//!
//! Newest is: by `entityversion`, rows without one before all others, then by `time`, then by
//! place in the archive: the greatest [row key](super::row_key). Each entity's is found first, of
//! those four columns alone; then the rows that have them are read, and of them what is asked for.
//! The last value of every column by that order, or a window, would say the same many times slower.

use super::row_key::{self, row_key};
use annals_core::Error;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{
    Column, DataFusionError, JoinType, Result, ScalarValue, TableReference, plan_err,
};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::functions_aggregate::min_max::max;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident};
use std::collections::HashMap;
use std::sync::Arc;

/// The function's name.
pub(crate) const NAME: &str = "latest";

/// The side of the join that has each entity's greatest key, and the keys' names; no table has them.
const NEWEST: &str = "annals.newest";
const KEY_OF_NEWEST: &str = "annals.newest_key";
const KEY: &str = "annals.key";

/// The entity an event is about.
const SUBJECT: &str = "subject";
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
    let mut needed = [SUBJECT].into_iter().chain(row_key::COLUMNS);
    if let Some(missing) = needed.find(|column| schema.column_with_name(column).is_none()) {
        let error = Error::invalid(format!("{name} has no column {missing}: latest needs one"));
        return Err(DataFusionError::External(Box::new(error)));
    }
    let source = provider_as_source(Arc::clone(table));
    let keys = LogicalPlanBuilder::scan(TableReference::bare(NEWEST), Arc::clone(&source), None)?
        .filter(ident(SUBJECT).is_not_null())?
        .aggregate([ident(SUBJECT)], [max(row_key()).alias(KEY_OF_NEWEST)])?
        .build()?;
    let of_newest =
        |column: &str| Expr::Column(Column::new(Some(TableReference::bare(NEWEST)), column));
    let of_table = |column: &str| Expr::Column(Column::new(Some(name_of(name)), column));
    let columns: Vec<Expr> = schema.fields().iter().map(|f| of_table(f.name())).collect();
    let rows = LogicalPlanBuilder::scan(name_of(name), source, None)?
        .project(columns.iter().cloned().chain([row_key().alias(KEY)]))?
        .build()?;
    // The keys first: what comes first is held, and looked up in.
    let plan = LogicalPlanBuilder::from(keys)
        .join_with_expr_keys(
            rows,
            JoinType::Inner,
            // A key is one row's alone; a filter of the subject finds its way to both sides.
            (
                vec![of_newest(SUBJECT), ident(KEY_OF_NEWEST)],
                vec![of_table(SUBJECT), ident(KEY)],
            ),
            None,
        )?
        .project(columns)?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

fn name_of(name: &str) -> TableReference {
    TableReference::bare(name.to_owned())
}
