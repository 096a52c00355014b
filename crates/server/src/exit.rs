//! Exit codes, and [`Failure`]: an error for a person, with the next step to try.

use annals_core::{Error, ErrorKind};
use std::fmt;
use std::process::ExitCode;

/// How a verb ended. The numbers are part of the interface; docs/guide/command-line.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nothing matched, and something should have.
    NothingMatched = 3,
    /// An event, schema or setting is invalid.
    Invalid = 4,
    /// Somebody else was first.
    Conflict = 5,
    /// Broker, store or server cannot be reached.
    Unreachable = 6,
    /// Not allowed.
    NotAllowed = 7,
    /// Some items failed; they were named.
    Partly = 8,
    /// A comparison found differences.
    Difference = 9,
    /// Timed out.
    TimedOut = 124,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Exit::Invalid,
            ErrorKind::Unavailable | ErrorKind::Closed => Exit::Unreachable,
            ErrorKind::Conflict => Exit::Conflict,
            ErrorKind::NotFound => Exit::NothingMatched,
            ErrorKind::NotAllowed => Exit::NotAllowed,
            ErrorKind::Corrupt => Exit::Difference,
            _ => Exit::Failed,
        }
    }
}

/// Result of a verb.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a verb ended early: exit code, what happened, what to do next.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// What happened: lower case, no full stop. Empty: there is nothing to say.
    pub message: String,
    /// What to try next, as a command or a sentence.
    pub next: Option<String>,
}

impl Failure {
    /// A failure with an exit code and a message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            next: None,
        }
    }

    /// A wrong command line that the parser could not know to be wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The reader of our output went away: end quietly, all is well.
    pub fn closed_pipe() -> Self {
        Self::new(Exit::Done, "")
    }

    /// Says what to try next.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// Puts `context` before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let next = match error.kind() {
            ErrorKind::Corrupt => Some("annals archive verify"),
            ErrorKind::Unavailable | ErrorKind::Closed => Some("annals doctor"),
            _ => None,
        };
        Self {
            exit: error.kind().into(),
            message: error.to_string(),
            next: next.map(str::to_owned),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Error::from(error).into()
    }
}

/// The sentence of an I/O error about a path.
pub fn at_path(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |error| Failure::from(error).context(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_the_exit_code_the_guide_promises() {
        #[track_caller]
        fn check(kind: ErrorKind, code: u8) {
            let failure = Failure::from(Error::new(kind, "x"));
            assert_eq!(failure.exit as u8, code, "{kind:?}");
        }
        check(ErrorKind::Invalid, 4);
        check(ErrorKind::Unavailable, 6);
        check(ErrorKind::Closed, 6);
        check(ErrorKind::Conflict, 5);
        check(ErrorKind::NotFound, 3);
        check(ErrorKind::Corrupt, 9);
        check(ErrorKind::NotAllowed, 7);
        check(ErrorKind::Unknown, 1);
        check(ErrorKind::Internal, 1);
    }

    #[test]
    fn a_failure_ends_with_the_next_step() {
        let failure = Failure::from(Error::corrupt("segment x is cut"));
        assert_eq!(
            failure.to_string(),
            "segment x is cut\n  next: annals archive verify"
        );
        assert_eq!(Failure::new(Exit::Failed, "no").to_string(), "no");
    }
}
