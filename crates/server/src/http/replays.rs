//! `POST /v1/replays`: plan a replay, or run it.
//!
//! Without a target: the plan. To a file or a private exchange: the receipt, when it is done. To
//! `stdout`: the events themselves, JSON lines.

use super::broken;
use super::events::NDJSON;
use super::problem::Problem;
use crate::exit::{self, Exit, Failure};
use crate::platform::Parts;
use crate::replays::{PlanRow, Prepared, ReplayRequest, To};
use annals_replay::targets::{Format, StreamTarget};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::JoinHandle;

/// Bytes between the archive and a slow reader.
const STREAM_BYTES: usize = 1 << 20;

/// Plans or runs.
pub async fn post(
    State(parts): State<Arc<Parts>>,
    Json(request): Json<ReplayRequest>,
) -> Result<Response, Problem> {
    let to = request.to.as_deref().map(str::parse).transpose();
    let to: Option<To> = to.map_err(Problem::invalid)?;
    let config = parts.config();
    let archive = parts.archive().await?;
    let prepared = Prepared::new(archive, &request, config.clock.clone(), &*config.random).await?;
    let receipt = match to {
        None => return Ok(Json(PlanRow::from(prepared.plan().clone())).into_response()),
        Some(To::Stdout) => return Ok(stream(&parts, prepared)),
        Some(To::File(path)) => {
            let mut target = prepared.file(config.disk.clone(), path)?;
            prepared.run(&mut target, |_| {}).await?
        }
        Some(To::Private(queues)) => {
            let mut target = prepared.private(parts.broker(), &queues).await?;
            prepared.run(&mut target, |_| {}).await?
        }
    };
    Ok(Json(receipt).into_response())
}

fn stream(parts: &Arc<Parts>, prepared: Prepared) -> Response {
    let (writer, reader) = tokio::io::duplex(STREAM_BYTES);
    let running = tokio::spawn(async move {
        let mut target = StreamTarget::new("standard output", writer, Format::JsonLines);
        let ended = prepared.run(&mut target, |_| {}).await;
        ended.map(drop)
    });
    let stream = futures::stream::try_unfold((reader, Some(running)), next_part);
    broken::streamed(parts, NDJSON, stream)
}

type Running = (DuplexStream, Option<JoinHandle<exit::Result<()>>>);

/// Some bytes; at their end, whether it was the replay's end too: if not, the answer breaks off.
async fn next_part((mut reader, running): Running) -> exit::Result<Option<(Bytes, Running)>> {
    let mut part = BytesMut::with_capacity(1 << 16);
    if reader.read_buf(&mut part).await? > 0 {
        return Ok(Some((part.freeze(), (reader, running))));
    }
    let Some(running) = running else {
        return Ok(None);
    };
    match running.await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(failure)) => Err(failure),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!("the replay ended: {error}"),
        )),
    }
}
