//! `POST /v1/archive/seal`: archive what has been published so far, and wait for it.
//!
//! For people and tests that want to see an event in the archive now; the archiver seals by size
//! and age by itself.

use super::problem::Problem;
use crate::platform::Parts;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How far the archive reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Number of the last ledger entry.
    pub ledger_position: u64,
}

/// Seals.
pub async fn post(State(parts): State<Arc<Parts>>) -> Result<Json<Sealed>, Problem> {
    let ledger_position = parts.seal().await?;
    Ok(Json(Sealed { ledger_position }))
}
