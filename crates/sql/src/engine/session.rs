//! One session per question: its tables pinned, its memory its own, its functions the listed ones.

use crate::functions::{Functions, latest};
use crate::history::Pinned;
use crate::tables::KnownCounts;
use annals_core::Result;
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
    TableFunction, TableProvider,
};
use datafusion::common::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::TableType;
use datafusion::prelude::SessionConfig;
use std::collections::HashMap;
use std::sync::Arc;

/// The names under which tables stand, for `information_schema` and for drivers that ask.
const CATALOG: &str = "annals";
const SCHEMA: &str = "history";

/// The session of one question; `latest` holds the tables that `latest(…)` is asked of.
pub(super) fn open(
    pinned: &Arc<dyn Pinned>,
    latest: HashMap<String, Arc<dyn TableProvider>>,
    functions: &Functions,
    runtime: RuntimeEnv,
    threads: usize,
    memory_bytes: usize,
) -> Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_target_partitions(threads)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.execution.enable_recursive_ctes = false;
    // A sort that may spill keeps this much free to merge with: what merges has keys beside rows.
    options.execution.sort_spill_reservation_bytes = memory_bytes / (2 * threads);
    let mut tables = functions.tables().to_vec();
    tables.push(Arc::new(TableFunction::new(
        latest::NAME.to_owned(),
        Arc::new(latest::Latest::new(latest)),
    )));
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::new(runtime))
        .with_catalog_list(catalogs(pinned)?)
        .with_expr_planners(functions.planners().to_vec())
        .with_scalar_functions(functions.scalars().to_vec())
        .with_aggregate_functions(functions.aggregates().to_vec())
        .with_window_functions(functions.windows().to_vec())
        .with_table_function_list(tables)
        .with_optimizer_rule(Arc::new(KnownCounts));
    Ok(builder.build())
}

fn catalogs(pinned: &Arc<dyn Pinned>) -> Result<Arc<dyn CatalogProviderList>> {
    use datafusion::catalog::CatalogProvider;
    let catalog = MemoryCatalogProvider::new();
    catalog
        .register_schema(SCHEMA, Arc::new(Tables(Arc::clone(pinned))))
        .map_err(crate::failure::internal)?;
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok(Arc::new(list))
}

/// The pinned tables as DataFusion looks them up.
#[derive(Debug)]
struct Tables(Arc<dyn Pinned>);

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let names = self.0.tables();
        names.iter().map(|n| n.as_str().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let found = self.0.table(name).await;
        found.map_err(|e| DataFusionError::External(Box::new(e)))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        // Known without opening the table, so that listing all of them stays cheap.
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.tables().iter().any(|t| t.as_str() == name)
    }
}
