//! `GET /v1/archive/{ledger,stats,events}`: what is kept.

use super::broken;
use super::events::NDJSON;
use super::problem::Problem;
use crate::history::{History, LedgerRow, SelectionText, Stats};
use crate::platform::Parts;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;

/// Media type of events as published, each after its length as a varint.
pub const DELIMITED: &str = "application/vnd.annals.events+delimited";

/// The ledger's segments.
pub async fn ledger(State(parts): State<Arc<Parts>>) -> Result<Json<Vec<LedgerRow>>, Problem> {
    Ok(Json(history(&parts).await?.ledger_rows().await?))
}

/// Counts.
pub async fn stats(State(parts): State<Arc<Parts>>) -> Result<Json<Stats>, Problem> {
    Ok(Json(history(&parts).await?.stats().await?))
}

/// Selected events, in the order of the archive: JSON lines, or [`DELIMITED`] if accepted.
///
/// A stream that meets damage breaks off: [`broken`].
pub async fn events(
    State(parts): State<Arc<Parts>>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let selection = SelectionText::from_pairs(&pairs)?.parse(parts.now())?;
    let raw = headers.get(header::ACCEPT).is_some_and(|v| v == DELIMITED);
    let history = history(&parts).await?;
    let stream = match raw {
        true => history.delimited(&selection).await?.boxed(),
        false => history
            .json_lines(&selection, parts.ingest().catalog().clone())
            .await?
            .boxed(),
    };
    let media_type = if raw { DELIMITED } else { NDJSON };
    Ok(broken::streamed(&parts, media_type, stream))
}

/// The archive as it is now.
pub async fn history(parts: &Parts) -> Result<History, Problem> {
    Ok(History::new(parts.archive().await?, parts.bucket().clone()))
}

/// One part of a streamed answer.
pub type Part = crate::exit::Result<Bytes>;
