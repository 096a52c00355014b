//! What a question may call: a list by name. What is not listed does not exist.

mod bounded;
mod json;
mod json_path;
pub(crate) mod latest;
mod lists;
mod operators;
mod payload;
mod row_key;

pub(crate) use bounded::grows;

use annals_core::schema::Catalog;
use datafusion::catalog::TableFunction;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use std::sync::Arc;

/// All functions, made once and shared by the sessions.
#[derive(Debug)]
pub(crate) struct Functions {
    scalars: Vec<Arc<ScalarUDF>>,
    aggregates: Vec<Arc<AggregateUDF>>,
    windows: Vec<Arc<WindowUDF>>,
    tables: Vec<Arc<TableFunction>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    /// The listed functions; `payload_json` decodes by `catalog`.
    pub(crate) fn new(catalog: Option<Catalog>) -> Self {
        let mut scalars: Vec<Arc<ScalarUDF>> = SessionStateDefaults::default_scalar_functions()
            .into_iter()
            .filter(|f| lists::SCALARS.contains(&f.name()))
            .map(bounded::bound)
            .collect();
        scalars.extend(json::functions());
        scalars.push(payload::function(catalog));
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(operators::JsonOperators)];
        planners.extend(SessionStateDefaults::default_expr_planners());
        Self {
            scalars,
            aggregates: SessionStateDefaults::default_aggregate_functions()
                .into_iter()
                .filter(|f| lists::AGGREGATES.contains(&f.name()))
                .collect(),
            windows: SessionStateDefaults::default_window_functions()
                .into_iter()
                .filter(|f| lists::WINDOWS.contains(&f.name()))
                .collect(),
            tables: SessionStateDefaults::default_table_functions()
                .into_iter()
                .filter(|f| lists::TABLES.contains(&f.name()))
                .collect(),
            planners,
        }
    }

    pub(crate) fn scalars(&self) -> &[Arc<ScalarUDF>] {
        &self.scalars
    }

    pub(crate) fn aggregates(&self) -> &[Arc<AggregateUDF>] {
        &self.aggregates
    }

    pub(crate) fn windows(&self) -> &[Arc<WindowUDF>] {
        &self.windows
    }

    pub(crate) fn tables(&self) -> &[Arc<TableFunction>] {
        &self.tables
    }

    pub(crate) fn planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
}
