//! Makes a plan stop soon after its question is over.
//!
//! A task ends where it yields, and DataFusion yields where rows are read. A join makes millions
//! of rows of one batch that was read, or looks at billions of pairs to make none: so each join
//! is made to yield as it gives rows, and to look up whether it is over as it compares them.

use crate::limits::{Limit, Reached};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use datafusion::physical_plan::unnest::UnnestExec;
use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether a question is over: nobody waits for it, or its time is.
#[derive(Debug)]
pub(super) struct Ending {
    abandoned: AtomicBool,
    deadline: Instant,
    timeout: Duration,
}

impl Ending {
    pub(super) fn new(deadline: Instant, timeout: Duration) -> Self {
        Self {
            abandoned: AtomicBool::new(false),
            deadline,
            timeout,
        }
    }

    /// Nobody waits any more.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if !self.abandoned.load(Ordering::Relaxed) && Instant::now() < self.deadline {
            return Ok(());
        }
        let limit = Limit::Time {
            timeout: self.timeout,
        };
        Err(DataFusionError::External(Box::new(Reached(limit))))
    }
}

/// The same plan, whose joins stop when the question is over.
pub(super) fn stoppable(
    plan: Arc<dyn ExecutionPlan>,
    ending: &Arc<Ending>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let done = plan.transform_up(|node| {
        let any: &dyn Any = node.as_ref();
        let watched: Arc<dyn ExecutionPlan> = if let Some(join) = any.downcast_ref::<HashJoinExec>()
        {
            match watched(join.filter(), ending) {
                None => node,
                filter => join.builder().with_filter(filter).build_exec()?,
            }
        } else if let Some(join) = any.downcast_ref::<NestedLoopJoinExec>() {
            match watched(join.filter(), ending) {
                None => node,
                filter => Arc::new(
                    NestedLoopJoinExecBuilder::from(join)
                        .with_filter(filter)
                        .build()?,
                ),
            }
        } else if any.is::<CrossJoinExec>()
            || any.is::<SortMergeJoinExec>()
            || any.is::<UnnestExec>()
        {
            node
        } else {
            return Ok(Transformed::no(node));
        };
        Ok(Transformed::yes(
            Arc::new(CooperativeExec::new(watched)) as Arc<dyn ExecutionPlan>
        ))
    })?;
    Ok(done.data)
}

fn watched(filter: Option<&JoinFilter>, ending: &Arc<Ending>) -> Option<JoinFilter> {
    let filter = filter?;
    let expression = Watched {
        inner: Arc::clone(filter.expression()),
        ending: Arc::clone(ending),
    };
    Some(JoinFilter::new(
        Arc::new(expression),
        filter.column_indices().to_vec(),
        Arc::clone(filter.schema()),
    ))
}

/// An expression that fails once the question is over.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn PhysicalExpr>,
    ending: Arc<Ending>,
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl PhysicalExpr for Watched {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.ending.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().unwrap_or_else(|| Arc::clone(&self.inner));
        let ending = Arc::clone(&self.ending);
        Ok(Arc::new(Self { inner, ending }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
