//! `GET /v1/health`: whether this is annals, and which process.

use axum::Json;
use serde::{Deserialize, Serialize};

/// A server that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The server's process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// Answers.
pub async fn get() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
