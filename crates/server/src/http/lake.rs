//! `/v1/lake`: which tables there are and how far they have come; convert now; make days anew.

use super::problem::Problem;
use crate::lake::{ConvertedRow, LakeStatus, RebuildRequest, RebuiltRow};
use crate::platform::Parts;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// `GET /v1/lake`: the tables.
pub async fn get(State(parts): State<Arc<Parts>>) -> Result<Json<LakeStatus>, Problem> {
    let schemas = parts.current_schemas().get();
    let ledger = parts.ledger().clone();
    Ok(Json(LakeStatus::of(ledger, &schemas).await?))
}

/// `POST /v1/lake/convert`: converts all that is archived, now.
pub async fn convert(State(parts): State<Arc<Parts>>) -> Result<Json<ConvertedRow>, Problem> {
    let progress = parts.converting().catch_up().await;
    let progress = progress.map_err(crate::exit::Failure::from)?;
    Ok(Json(progress.into()))
}

/// `POST /v1/lake/rebuild`: makes days of a table anew.
pub async fn rebuild(
    State(parts): State<Arc<Parts>>,
    Json(request): Json<RebuildRequest>,
) -> Result<Json<RebuiltRow>, Problem> {
    let (table, days) = request.read()?;
    let rebuilt = parts.converting().rebuild(table, days).await;
    let rebuilt = rebuilt.map_err(crate::exit::Failure::from)?;
    Ok(Json(RebuiltRow::new(&request.table, rebuilt)))
}
