//! The control API on 127.0.0.1:7400: one file per resource, JSON both ways, errors as
//! `application/problem+json`.
//!
//! ```text
//!  GET  /v1/health            is this annals
//!  GET  /v1/status            ports, queue depths, the archiver's position
//!  POST /v1/events            publish one event or a batch          GET /v1/events/tail   watch
//!  POST /v1/archive/seal      archive what was published so far
//!  GET  /v1/archive/{ledger,stats,events}                           POST /v1/archive/verify
//!  POST /v1/replays           give history back
//!  GET, PUT /v1/schemas       .proto files, numbered revisions
//!  POST /v1/sql               ask all of history                  GET /v1/sql/{id}       its cost
//!  GET  /v1/lake              the tables       POST /v1/lake/{convert,rebuild}
//!  GET  /v1/answers/{id}      why a streamed answer broke off
//! ```

pub mod archive;
pub mod broken;
pub mod events;
pub mod health;
pub mod lake;
pub mod problem;
pub mod replays;
pub mod schemas;
pub mod seal;
pub mod sql;
pub mod status;
pub mod tail;
pub mod verify;

use crate::platform::Parts;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use std::sync::Arc;

/// Longest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// The API over a running platform.
pub fn router(parts: Arc<Parts>) -> Router {
    Router::new()
        .route("/v1/health", get(health::get))
        .route("/v1/status", get(status::get))
        .route("/v1/events", post(events::post))
        .route("/v1/events/tail", get(tail::get))
        .route("/v1/archive/seal", post(seal::post))
        .route("/v1/archive/ledger", get(archive::ledger))
        .route("/v1/archive/stats", get(archive::stats))
        .route("/v1/archive/events", get(archive::events))
        .route("/v1/archive/verify", post(verify::post))
        .route("/v1/replays", post(replays::post))
        .route("/v1/schemas", get(schemas::get).put(schemas::put))
        .route("/v1/sql", post(sql::post))
        .route("/v1/sql/{id}", get(sql::get))
        .route("/v1/lake", get(lake::get))
        .route("/v1/lake/convert", post(lake::convert))
        .route("/v1/lake/rebuild", post(lake::rebuild))
        .route("/v1/answers/{id}", get(broken::get))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(parts)
}

async fn not_found(uri: axum::http::Uri) -> problem::Problem {
    crate::exit::Failure::new(
        crate::exit::Exit::NothingMatched,
        format!("there is no {}", uri.path()),
    )
    .into()
}
