//! The work on one question: read, pin, plan, run. Everything here is on the engine's threads.

use super::stopping::{Ending, stoppable};
use super::{Shared, listing, session};
use crate::failure;
use crate::functions::Functions;
use crate::guard::{self, Asked};
use crate::history::Pinned;
use crate::names::{self, Names, dotted};
use annals_core::{Error, ErrorKind, Result};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A question and its limits, settled.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) sql: String,
    pub(super) rows_max: u64,
    pub(super) memory_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
}

/// What is known before the first row.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) schema: SchemaRef,
    pub(super) pinned: Arc<dyn Pinned>,
}

/// Works on a question until its last row is sent, or nobody reads any more.
pub(super) async fn run(
    shared: &Shared,
    terms: &Terms,
    ending: &Arc<Ending>,
    planned: oneshot::Sender<Planned>,
    batches: mpsc::Sender<RecordBatch>,
) -> Result<()> {
    let asked = guard::read(&terms.sql)?;
    let pinned = shared.history.pin().await?;
    let names = Names::new(pinned.tables());
    let listed = match &asked {
        Asked::Tables => Some(listing::tables(&names)?),
        Asked::Describe(name) => {
            let full = names.find(&dotted(name)?)?.as_str();
            let table = open(&pinned, full).await?;
            Some(listing::columns(&table.schema())?)
        }
        Asked::Query(_) => None,
    };
    if let Some(batch) = listed {
        let schema = batch.schema();
        if planned.send(Planned { schema, pinned }).is_ok() {
            let _ = batches.send(batch).await;
        }
        return Ok(());
    }
    let Asked::Query(statement) = asked else {
        return Ok(());
    };
    let question = Running {
        shared,
        terms,
        ending,
        pinned,
    };
    question.run(*statement, &names, planned, batches).await
}

struct Running<'a> {
    shared: &'a Shared,
    terms: &'a Terms,
    ending: &'a Arc<Ending>,
    pinned: Arc<dyn Pinned>,
}

impl Running<'_> {
    async fn run(
        self,
        mut statement: Statement,
        names: &Names,
        planned: oneshot::Sender<Planned>,
        batches: mpsc::Sender<RecordBatch>,
    ) -> Result<()> {
        let latest = full_names(&mut statement, names)?;
        let functions = Arc::clone(&self.shared.functions.read());
        let state = self.session(&functions, latest).await?;
        let explained = matches!(statement, Statement::Explain(_));
        let plan = state.statement_to_plan(statement).await;
        let plan = plan.map_err(|e| self.failed(&e))?;
        guard::check_planned(&plan)?;
        let plan = self.bounded(plan, explained)?;
        let plan = state.optimize(&plan).map_err(|e| self.failed(&e))?;
        guard::check_optimized(&plan)?;
        let planner = Arc::clone(state.query_planner());
        let plan = planner.create_physical_plan(&plan, &state).await;
        let plan = plan
            .and_then(|plan| stoppable(plan, self.ending))
            .map_err(|e| self.failed(&e))?;
        let schema = plan.schema();
        let mut stream = execute_stream(plan, state.task_ctx()).map_err(|e| self.failed(&e))?;
        let pinned = Arc::clone(&self.pinned);
        if planned.send(Planned { schema, pinned }).is_err() {
            return Ok(());
        }
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| self.failed(&e))?;
            if batches.send(batch).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn session(
        &self,
        functions: &Functions,
        latest: BTreeSet<String>,
    ) -> Result<SessionState> {
        let mut tables = HashMap::new();
        for name in latest {
            let table = open(&self.pinned, &name).await?;
            tables.insert(name, table);
        }
        let bytes = self.terms.memory_bytes;
        let memory_pool: Arc<dyn MemoryPool> = match self.shared.config.spill_directory {
            Some(_) => Arc::new(FairSpillPool::new(bytes)),
            None => Arc::new(GreedyMemoryPool::new(bytes)),
        };
        let runtime = RuntimeEnv {
            memory_pool,
            ..self.shared.runtime_env.clone()
        };
        let threads = self.shared.config.threads;
        session::open(&self.pinned, tables, functions, runtime, threads, bytes)
    }

    /// Asks for one row more than is given, so that it is known whether there were more.
    fn bounded(&self, plan: LogicalPlan, explained: bool) -> Result<LogicalPlan> {
        if self.terms.rows_max == 0 || explained {
            return Ok(plan);
        }
        let rows = usize::try_from(self.terms.rows_max).unwrap_or(usize::MAX);
        LogicalPlanBuilder::from(plan)
            .limit(0, Some(rows.saturating_add(1)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &DataFusionError) -> Error {
        failure::of_question(error, self.terms.memory_bytes)
    }
}

fn full_names(statement: &mut Statement, names: &Names) -> Result<BTreeSet<String>> {
    let inner = match statement {
        Statement::Explain(explain) => &mut *explain.statement,
        other => other,
    };
    match inner {
        Statement::Statement(sql) => names::rewrite(sql, names),
        _ => Ok(BTreeSet::new()),
    }
}

async fn open(pinned: &Arc<dyn Pinned>, name: &str) -> Result<Arc<dyn TableProvider>> {
    pinned.table(name).await?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("the table {name} is listed but cannot be opened"),
        )
    })
}
