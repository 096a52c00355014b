//! Errors as `application/problem+json` (RFC 9457), both ways.

use crate::exit::{Exit, Failure};
use annals_core::{Error, ErrorKind};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A problem as the API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A word for the kind of problem.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened to this request.
    pub detail: String,
    /// What to try next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Problem {
    /// A problem with the request itself.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Failure::new(Exit::Invalid, detail).into()
    }

    /// What a client makes of it.
    pub fn into_failure(self) -> Failure {
        let exit = match self.status {
            400 | 413 | 415 | 422 => Exit::Invalid,
            403 => Exit::NotAllowed,
            404 => Exit::NothingMatched,
            409 => Exit::Conflict,
            502..=504 => Exit::Unreachable,
            500 if self.title == "corrupt" => Exit::Difference,
            _ => Exit::Failed,
        };
        Failure {
            exit,
            message: self.detail,
            next: self.next,
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let (title, status) = match failure.exit {
            Exit::Invalid | Exit::Usage => ("invalid", 422),
            Exit::NotAllowed => ("not allowed", 403),
            Exit::NothingMatched => ("not found", 404),
            Exit::Conflict => ("conflict", 409),
            Exit::Unreachable | Exit::TimedOut => ("unavailable", 503),
            Exit::Difference => ("corrupt", 500),
            _ => ("failed", 500),
        };
        Self {
            title: title.to_owned(),
            status,
            detail: failure.message,
            next: failure.next,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let internal = error.kind() == ErrorKind::Internal;
        if internal {
            tracing::error!(%error, "a request met a bug");
        }
        Failure::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_exit_code_and_next_step_over_the_wire() {
        for exit in [
            Exit::Invalid,
            Exit::NotAllowed,
            Exit::NothingMatched,
            Exit::Conflict,
            Exit::Unreachable,
            Exit::Difference,
            Exit::Failed,
        ] {
            let problem = Problem::from(Failure::new(exit, "x").next("y"));
            let json = serde_json::to_string(&problem).unwrap();
            let back: Problem = serde_json::from_str(&json).unwrap();
            let failure = back.into_failure();
            assert_eq!(failure.exit, exit);
            assert_eq!(failure.message, "x");
            assert_eq!(failure.next.as_deref(), Some("y"));
        }
    }
}
