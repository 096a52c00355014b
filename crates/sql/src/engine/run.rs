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
use parking_lot::Mutex;
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
    pub(super) pinned: Stand,
}

/// Where a question stands: it is asked anew, at a later position, where a file of a table turns
/// out to be damaged.
pub(super) type Stand = Arc<Mutex<Arc<dyn Pinned>>>;

/// Works on a question until its last row is sent, or nobody reads any more.
pub(super) async fn run(
    shared: &Shared,
    terms: &Terms,
    ending: &Arc<Ending>,
    planned: oneshot::Sender<Planned>,
    batches: mpsc::Sender<RecordBatch>,
) -> Result<()> {
    let asked = guard::read(&terms.sql)?;
    let mut reader = Reader::Waiting(planned, batches);
    loop {
        let pinned = shared.history.pin().await?;
        let answered = answer(shared, terms, ending, &asked, &pinned, &mut reader).await;
        let Err(error) = answered else { return Ok(()) };
        let unreadable = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound);
        if !unreadable || !pinned.distrust() {
            return Err(error);
        }
        if reader.has_rows() {
            return Err(error.context(
                "a file of a table is damaged and rows were given already: ask again, the archive \
                 will be read instead",
            ));
        }
        tracing::error!(%error, "a file of a table cannot be read, reading the archive instead");
    }
}

/// Answers at one position.
async fn answer(
    shared: &Shared,
    terms: &Terms,
    ending: &Arc<Ending>,
    asked: &Asked,
    pinned: &Arc<dyn Pinned>,
    reader: &mut Reader,
) -> Result<()> {
    let names = Names::new(pinned.tables());
    let listed = match asked {
        Asked::Tables => listing::tables(&names)?,
        Asked::Describe(name) => {
            let full = names.find(&dotted(name)?)?.as_str();
            let table = open(pinned, full).await?;
            listing::columns(&table.schema())?
        }
        Asked::Query(statement) => {
            let question = Running {
                shared,
                terms,
                ending,
                pinned: pinned.clone(),
            };
            let statement = Statement::clone(statement);
            return question.run(statement, &names, reader).await;
        }
    };
    if reader.begin(listed.schema(), pinned)? {
        reader.give(listed).await;
    }
    Ok(())
}

/// Who asked.
enum Reader {
    /// For what is to come.
    Waiting(oneshot::Sender<Planned>, mpsc::Sender<RecordBatch>),
    /// For the first row.
    Told(SchemaRef, Stand, mpsc::Sender<RecordBatch>),
    /// For more rows.
    Reading(mpsc::Sender<RecordBatch>),
    Gone,
}

impl Reader {
    /// Says what is to come; `false` if nobody waits for it.
    fn begin(&mut self, schema: SchemaRef, pinned: &Arc<dyn Pinned>) -> Result<bool> {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Waiting(planned, batches) => {
                let stand = Arc::new(Mutex::new(Arc::clone(pinned)));
                let told = Planned {
                    schema: Arc::clone(&schema),
                    pinned: Arc::clone(&stand),
                };
                match planned.send(told) {
                    Ok(()) => Self::Told(schema, stand, batches),
                    Err(_) => Self::Gone,
                }
            }
            Self::Told(before, stand, batches) => {
                if before != schema {
                    let changed = "the columns changed while the question was asked: ask again";
                    return Err(Error::new(ErrorKind::Unavailable, changed));
                }
                *stand.lock() = Arc::clone(pinned);
                Self::Told(before, stand, batches)
            }
            other => other,
        };
        Ok(!matches!(self, Self::Gone))
    }

    /// Gives rows; `false` if nobody waits for them.
    async fn give(&mut self, batch: RecordBatch) -> bool {
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Waiting(_, batches) | Self::Told(_, _, batches) | Self::Reading(batches) => {
                match batches.send(batch).await {
                    Ok(()) => Self::Reading(batches),
                    Err(_) => Self::Gone,
                }
            }
            Self::Gone => Self::Gone,
        };
        !matches!(self, Self::Gone)
    }

    fn has_rows(&self) -> bool {
        matches!(self, Self::Reading(_) | Self::Gone)
    }
}

struct Running<'a> {
    shared: &'a Shared,
    terms: &'a Terms,
    ending: &'a Arc<Ending>,
    pinned: Arc<dyn Pinned>,
}

impl Running<'_> {
    async fn run(self, mut statement: Statement, names: &Names, reader: &mut Reader) -> Result<()> {
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
        if !reader.begin(schema, &self.pinned)? {
            return Ok(());
        }
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|e| self.failed(&e))?;
            if batch.num_rows() > 0 && !reader.give(batch).await {
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
