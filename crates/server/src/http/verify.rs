//! `POST /v1/archive/verify`: prove that all is there and intact.

use super::problem::Problem;
use crate::history::Verification;
use crate::platform::Parts;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What to verify against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// A publish log on the server's machine.
    #[serde(default)]
    pub against: Option<PathBuf>,
}

/// Verifies.
pub async fn post(
    State(parts): State<Arc<Parts>>,
    Json(request): Json<VerifyRequest>,
) -> Result<Json<Verification>, Problem> {
    let bucket = parts.bucket().clone();
    Ok(Json(
        Verification::of_bucket(bucket, request.against.as_deref()).await?,
    ))
}
