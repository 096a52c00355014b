//! [`Answer`]: batches as they are made, then a [`Summary`]. Dropping it stops the work.

use super::run::{self, Stand, Terms};
use super::stopping::Ending;
use super::{Shared, closed};
use crate::history::Scanned;
use crate::limits::Limit;
use annals_core::{Error, ErrorKind, Result};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Batches that may wait for the reader.
const BATCHES_AHEAD: usize = 2;
/// How long past its deadline a question is waited for, should its threads be too busy to say so.
const GRACE: Duration = Duration::from_millis(500);

/// The rows of a question, read with [`Answer::next`].
#[derive(Debug)]
pub struct Answer {
    schema: SchemaRef,
    batches: mpsc::Receiver<RecordBatch>,
    work: Option<Work>,
    pinned: Stand,
    rows_max: u64,
    timeout: Duration,
    started: Instant,
    deadline: Instant,
    rows: u64,
    truncated: bool,
    elapsed: Option<Duration>,
}

/// What an answer cost. Final once [`Answer::next`] gave `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rows given.
    pub rows: u64,
    /// Whether there were more rows than `rows_max`.
    pub truncated: bool,
    /// What was read for it.
    pub scanned: Scanned,
    /// The ledger position it stands at.
    pub position: u64,
    /// Time since it was asked.
    pub elapsed: Duration,
}

/// The task that works on a question; dropping this stops it.
#[derive(Debug)]
struct Work {
    task: JoinHandle<Result<()>>,
    ending: Arc<Ending>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.ending.abandon();
        self.task.abort();
    }
}

impl Answer {
    pub(super) async fn start(
        handle: &Handle,
        shared: Arc<Shared>,
        terms: Terms,
        turn: OwnedSemaphorePermit,
    ) -> Result<Self> {
        let (timeout, started, deadline) = (terms.timeout, terms.started, terms.deadline);
        let rows_max = terms.rows_max;
        let (planned, plan) = oneshot::channel();
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let ending = Arc::new(Ending::new(deadline.into_std(), timeout));
        let watched = Arc::clone(&ending);
        let task = handle.spawn(async move {
            // Held until the work has truly ended, not until nobody waits for it.
            let _turn = turn;
            let run = run::run(&shared, &terms, &watched, planned, sender);
            tokio::time::timeout_at(terms.deadline, run)
                .await
                .unwrap_or_else(|_| Err(Limit::Time { timeout }.error()))
        });
        let mut work = Work { task, ending };
        let planned = tokio::time::timeout_at(deadline + GRACE, plan)
            .await
            .map_err(|_| Limit::Time { timeout }.error())?;
        let Ok(planned) = planned else {
            // The plan's sender was dropped: the task has ended, and says why.
            let outcome = outcome(&mut work, deadline, timeout).await;
            return Err(outcome.err().unwrap_or_else(closed));
        };
        Ok(Self {
            schema: planned.schema,
            batches,
            work: Some(work),
            pinned: planned.pinned,
            rows_max,
            timeout,
            started,
            deadline,
            rows: 0,
            truncated: false,
            elapsed: None,
        })
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows; `None` after the last. An error is the last that is given.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            self.work.as_ref()?;
            let late = self.deadline + GRACE;
            let next = tokio::time::timeout_at(late, self.batches.recv()).await;
            return match next {
                Ok(Some(batch)) if batch.num_rows() == 0 => continue,
                Ok(Some(batch)) => self.take(batch).map(Ok),
                Ok(None) => {
                    let mut work = self.work.take()?;
                    let outcome = outcome(&mut work, self.deadline, self.timeout).await;
                    self.end();
                    outcome.err().map(Err)
                }
                Err(_) => {
                    self.end();
                    let timeout = self.timeout;
                    Some(Err(Limit::Time { timeout }.error()))
                }
            };
        }
    }

    /// What it cost so far; final after the last row.
    pub fn summary(&self) -> Summary {
        let pinned = self.pinned.lock();
        Summary {
            rows: self.rows,
            truncated: self.truncated,
            scanned: pinned.scanned(),
            position: pinned.position(),
            elapsed: self.elapsed.unwrap_or_else(|| self.started.elapsed()),
        }
    }

    /// All rows at once, for answers that are small.
    pub async fn collect(mut self) -> Result<(Vec<RecordBatch>, Summary)> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok((batches, self.summary()))
    }

    /// Counts rows; cuts the batch that holds more than were asked for, and stops there.
    fn take(&mut self, batch: RecordBatch) -> Option<RecordBatch> {
        let rows = batch.num_rows() as u64;
        if self.rows_max == 0 || self.rows + rows <= self.rows_max {
            self.rows += rows;
            return Some(batch);
        }
        let left = self.rows_max - self.rows;
        self.rows = self.rows_max;
        self.truncated = true;
        self.end();
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        (left > 0).then(|| batch.slice(0, left))
    }

    fn end(&mut self) {
        self.work = None;
        self.batches.close();
        self.elapsed = Some(self.started.elapsed());
    }
}

/// How a task ended: its own result, or a panic as an error.
async fn outcome(work: &mut Work, deadline: Instant, timeout: Duration) -> Result<()> {
    match tokio::time::timeout_at(deadline + GRACE, &mut work.task).await {
        Ok(Ok(result)) => result,
        Ok(Err(e)) if e.is_panic() => Err(Error::new(
            ErrorKind::Internal,
            "the query engine failed on this question",
        )),
        Ok(Err(_)) => Err(closed()),
        Err(_) => Err(Limit::Time { timeout }.error()),
    }
}
