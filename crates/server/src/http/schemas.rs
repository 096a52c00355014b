//! `GET, PUT /v1/schemas`: the `.proto` files payloads are described by.

use super::problem::Problem;
use crate::platform::Parts;
pub use crate::schemas::SchemaFiles;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReceipt {
    /// The revision that holds the files.
    pub revision: u64,
    /// Files in it.
    pub files: usize,
    /// Types it defines.
    pub types: usize,
}

/// The newest revision.
pub async fn get(State(parts): State<Arc<Parts>>) -> Result<Json<SchemaFiles>, Problem> {
    Ok(Json(parts.schemas().latest().await?))
}

/// Adds files, as the next revision.
pub async fn put(
    State(parts): State<Arc<Parts>>,
    Json(pushed): Json<SchemaFiles>,
) -> Result<Json<PushReceipt>, Problem> {
    let stored = parts.push_schemas(pushed.files).await?;
    Ok(Json(PushReceipt {
        revision: stored.revision,
        files: stored.files.len(),
        types: parts.ingest().catalog().types().count(),
    }))
}
