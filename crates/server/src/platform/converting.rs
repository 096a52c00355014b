//! Keeps the lake up with the ledger: some time after entries were made, so that its files do not
//! get too small; at once when asked, or when schemas change.
//!
//! The lake is derived: that it lags costs questions a moment, as they read the rest from the
//! archive; that it fails stops nothing.

use annals_archive::{Error, ErrorKind, Ledger, Position, Result};
use annals_lake::converter::{Config, Days, Progress, Rebuilt, Schemas};
use annals_lake::{Converter, TableName};
use annals_sql::tables::Mending;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Ledger entries not yet converted that are not waited for any longer: under load an entry is a
/// full batch of the archiver.
const ENTRIES_WAITING_MAX: u64 = 12;
/// Before what failed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Requests that wait for their turn.
const REQUESTS_MAX: usize = 16;

/// Asks the converter of a running platform.
#[derive(Debug, Clone)]
pub struct Converting {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    CatchUp(oneshot::Sender<Result<Progress>>),
    Rebuild(TableName, Days, oneshot::Sender<Result<Rebuilt>>),
    Mend(Vec<TableName>),
    Schemas(Schemas),
}

/// A table whose files could not be read is looked after when it is the request's turn.
impl Mending for Converting {
    fn mend(&self, tables: Vec<TableName>) {
        if self.requests.try_send(Request::Mend(tables)).is_err() {
            tracing::warn!("the converter is busy or has ended: the lake is not looked after now");
        }
    }
}

impl Converting {
    /// Converts all that is archived, now.
    pub async fn catch_up(&self) -> Result<Progress> {
        let (answer, wait) = oneshot::channel();
        self.ask(Request::CatchUp(answer), wait).await
    }

    /// Makes days of a table anew.
    pub async fn rebuild(&self, table: TableName, days: Days) -> Result<Rebuilt> {
        let (answer, wait) = oneshot::channel();
        self.ask(Request::Rebuild(table, days, answer), wait).await
    }

    /// Converts with these schemas from now on.
    pub async fn set_schemas(&self, schemas: Schemas) {
        // A converter that has ended has nothing to convert.
        let _ = self.requests.send(Request::Schemas(schemas)).await;
    }

    async fn ask<T>(&self, request: Request, wait: oneshot::Receiver<Result<T>>) -> Result<T> {
        let ended = || Error::new(ErrorKind::Closed, "the converter has ended");
        self.requests.send(request).await.map_err(|_| ended())?;
        wait.await.map_err(|_| ended())?
    }
}

/// The task that converts, to be spawned, and how to ask it.
pub(super) fn converting(
    ledger: Ledger,
    schemas: Schemas,
    positions: watch::Receiver<Position>,
    every: Duration,
    stop: CancellationToken,
) -> (Converting, impl Future<Output = ()> + Send) {
    let (requests, asked) = mpsc::channel(REQUESTS_MAX);
    let run = Run {
        converter: Converter::new(ledger, schemas, Config::default()),
        positions,
        every,
        // Whatever there was before the start.
        due: Some(Instant::now()),
    };
    (Converting { requests }, run.run(asked, stop))
}

struct Run {
    converter: Converter,
    positions: watch::Receiver<Position>,
    every: Duration,
    /// When to convert next, if there is anything to convert.
    due: Option<Instant>,
}

impl Run {
    async fn run(mut self, mut asked: mpsc::Receiver<Request>, stop: CancellationToken) {
        loop {
            let due = self.due;
            tokio::select! {
                // Cut off anywhere, the next one goes on from what was committed.
                () = stop.cancelled() => return,
                Some(request) = asked.recv() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.answer(request) => {}
                    }
                }
                changed = self.positions.changed() => match changed {
                    Ok(()) => self.note(),
                    Err(_) => return,
                },
                () = until(due), if due.is_some() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = self.catch_up() => {}
                    }
                }
            }
        }
    }

    /// There is a new entry.
    fn note(&mut self) {
        let position = self.positions.borrow_and_update().0;
        let waiting = position.saturating_sub(self.converter.position().0);
        let after = match waiting >= ENTRIES_WAITING_MAX {
            true => Duration::ZERO,
            false => self.every,
        };
        let due = Instant::now() + after;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    async fn answer(&mut self, request: Request) {
        // Whoever asked may be gone.
        match request {
            Request::CatchUp(answer) => drop(answer.send(self.catch_up().await)),
            Request::Rebuild(table, days, answer) => {
                drop(answer.send(self.converter.rebuild(&table, days).await));
            }
            Request::Mend(tables) => {
                for table in tables {
                    self.mend(&table).await;
                }
            }
            Request::Schemas(schemas) => {
                self.converter.set_schemas(schemas);
                self.due = Some(Instant::now());
            }
        }
    }

    async fn mend(&mut self, table: &TableName) {
        match self.converter.mend(table).await {
            Ok(mended) => {
                for damage in &mended.damage {
                    tracing::error!(%table, damage, "a data file was damaged");
                }
                let days = mended.days.len();
                tracing::warn!(%table, files = mended.files, days, rows = mended.rows, "looked after");
            }
            Err(error) => tracing::error!(%table, %error, "the table could not be looked after"),
        }
    }

    async fn catch_up(&mut self) -> Result<Progress> {
        self.due = None;
        let done = self.converter.catch_up().await;
        match &done {
            Ok(progress) => {
                for (table, reason) in &progress.rebuilt {
                    tracing::warn!(%table, reason, "a table was made anew");
                }
                for damage in &progress.damage {
                    tracing::error!(damage, "not in the lake, as it is damaged in the archive");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the lake lags behind the archive");
                self.due = Some(Instant::now() + RETRY_DELAY);
            }
        }
        done
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
