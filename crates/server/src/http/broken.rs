//! Streamed answers that broke off: why, for whoever read them.
//!
//! An answer that meets damage half-way has no place left to say so: it breaks off without its
//! proper end, which HTTP clients notice, and the reason can be asked for under the id that its
//! header `annals-answer` gave.

use super::problem::Problem;
use crate::exit::{Exit, Failure, Result};
use crate::platform::Parts;
use annals_core::random;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// The header of a streamed answer that names it.
pub const ANSWER: &str = "annals-answer";
/// Reasons remembered; older ones are forgotten.
const REMEMBERED_MAX: usize = 256;

/// Why answers broke off, the latest of them.
#[derive(Debug, Default)]
pub struct BrokenAnswers(Mutex<VecDeque<(String, Problem)>>);

impl BrokenAnswers {
    fn add(&self, id: String, problem: Problem) {
        let mut known = self.0.lock();
        if known.len() == REMEMBERED_MAX {
            known.pop_front();
        }
        known.push_back((id, problem));
    }

    fn get(&self, id: &str) -> Option<Problem> {
        let known = self.0.lock();
        let found = known.iter().find(|(broken, _)| broken == id);
        found.map(|(_, problem)| problem.clone())
    }
}

/// `GET /v1/answers/{id}`: the problem an answer broke off with.
pub async fn get(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
) -> Result<Json<Problem>, Problem> {
    let text = format!("no answer {id} broke off, or it is long ago");
    let unknown = || Failure::new(Exit::NothingMatched, text);
    let found = parts.broken_answers().get(&id);
    found.map(Json).ok_or_else(|| unknown().into())
}

/// An answer that is made while it is sent.
pub(super) fn streamed(
    parts: &Arc<Parts>,
    media_type: &'static str,
    stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
) -> Response {
    streamed_as(parts, answer_id(parts), media_type, stream)
}

/// A name for an answer.
pub(super) fn answer_id(parts: &Parts) -> String {
    let config = parts.config();
    let id = random::mint_id(&*config.clock, &*config.random);
    id.as_str().to_owned()
}

/// The same, under a name that the caller knows.
pub(super) fn streamed_as(
    parts: &Arc<Parts>,
    id: String,
    media_type: &'static str,
    stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), media_type.to_owned()),
        (ANSWER, id.clone()),
    ];
    let parts = Arc::clone(parts);
    let body = stream.then(move |part| {
        let part = part.map_err(|failure| {
            tracing::error!(%failure, "an answer broke off");
            let problem = Problem::from(failure);
            let error = std::io::Error::other(problem.detail.clone());
            parts.broken_answers().add(id.clone(), problem);
            error
        });
        async move {
            if part.is_err() {
                // The connection ends with the error: what waits to be written, the headers with
                // the answer's name among it, goes out only while there is nothing to send.
                tokio::task::yield_now().await;
            }
            part
        }
    });
    (headers, Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_remembered_up_to_a_bound() {
        let broken = BrokenAnswers::default();
        for n in 0..=REMEMBERED_MAX {
            broken.add(n.to_string(), Problem::invalid(format!("reason {n}")));
        }
        assert_eq!(broken.get("0"), None);
        assert_eq!(broken.get("1").unwrap().detail, "reason 1");
        assert_eq!(broken.0.lock().len(), REMEMBERED_MAX);
    }
}
