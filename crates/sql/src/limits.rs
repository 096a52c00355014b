//! What a question may use: [`EngineConfig`], and the [`Limit`] an error names when one was hit.

use annals_core::{Error, ErrorKind};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The bounds of an engine. Memory is bounded by `memory_bytes` times `queries_at_once`.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Memory one question may hold, as the operators account for it.
    pub memory_bytes: usize,
    /// Time one question may take, the wait for its turn included.
    pub timeout: Duration,
    /// Rows of an answer, unless the question says otherwise; 0 = no bound.
    pub rows_max: u64,
    /// Parts one question is worked on in parallel.
    pub threads: usize,
    /// Questions worked on at once.
    pub queries_at_once: usize,
    /// Questions that wait for their turn; one more is refused.
    pub queries_waiting: usize,
    /// Where large sorts and joins may write; `None` = nowhere, memory is the limit.
    pub spill_directory: Option<PathBuf>,
    /// Bytes all questions together may write there.
    pub spill_bytes: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            timeout: Duration::from_secs(30),
            rows_max: 10_000,
            threads: std::thread::available_parallelism().map_or(2, |n| n.get().min(8)),
            queries_at_once: 4,
            queries_waiting: 64,
            spill_directory: None,
            spill_bytes: 10 << 30,
        }
    }
}

/// Which bound ended a question. [`Limit::of`] finds it in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`EngineConfig::memory_bytes`].
    Memory {
        /// The bound.
        bytes: usize,
    },
    /// [`EngineConfig::timeout`].
    Time {
        /// The bound.
        timeout: Duration,
    },
    /// [`EngineConfig::queries_waiting`].
    Waiting {
        /// The bound.
        questions: usize,
    },
    /// One value, or one batch of them, that a function would make.
    Value {
        /// The bound.
        bytes: usize,
    },
    /// The size of the question itself: text, nesting, lists, tables.
    Question,
}

impl Limit {
    /// The limit that caused this error, if one did.
    pub fn of(error: &Error) -> Option<Self> {
        let mut source = std::error::Error::source(error);
        while let Some(e) = source {
            if let Some(reached) = e.downcast_ref::<Reached>() {
                return Some(reached.0);
            }
            source = e.source();
        }
        None
    }

    /// The limit's name, as an API gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Time { .. } => "time",
            Self::Waiting { .. } => "waiting",
            Self::Value { .. } => "value",
            Self::Question => "question",
        }
    }

    /// The error that names this limit.
    pub(crate) fn error(self) -> Error {
        let message = match self {
            Self::Memory { bytes } => format!(
                "the answer needs more than {}: narrow the time range, or raise --memory",
                human(bytes)
            ),
            Self::Time { timeout } => format!(
                "the answer took longer than {} s: narrow the time range, or raise --timeout",
                timeout.as_secs_f64()
            ),
            Self::Waiting { questions } => {
                format!("{questions} questions wait for their turn already: ask again later")
            }
            Self::Value { bytes } => format!(
                "a function would make more than {} of text at once: ask for less",
                human(bytes)
            ),
            Self::Question => "the question is too large".to_owned(),
        };
        self.error_saying(message)
    }

    /// An error of this limit with words of its own.
    pub(crate) fn error_saying(self, message: impl Into<String>) -> Error {
        let kind = match self {
            Self::Waiting { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, message).caused_by(Reached(self))
    }
}

/// Carried as the source of an error, for [`Limit::of`].
#[derive(Debug)]
pub(crate) struct Reached(pub(crate) Limit);

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {}", self.0.name())
    }
}

impl std::error::Error for Reached {}

/// Bytes in the largest unit that leaves a whole number.
fn human(bytes: usize) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}
