//! `POST /v1/replays`: plan a replay, or run it.
//!
//! Without a target: the plan. To a file or a private exchange: the receipt, when it is done. To
//! `stdout`: the events themselves, JSON lines.
//!
//! The body is the request in JSON; or, as `application/x-ndjson`, the request in its first line
//! and a list of events in those after it ([`EventList`]), which is read as it comes.

use super::broken;
use super::events::{NDJSON, media_type};
use super::problem::Problem;
use crate::exit::{self, Exit, Failure};
use crate::history::EventList;
use crate::platform::Parts;
use crate::replays::{PlanRow, Prepared, ReplayRequest, To};
use annals_replay::targets::{Format, StreamTarget};
use axum::Json;
use axum::body::Body;
use axum::extract::{self, FromRequest, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

/// Bytes between the archive and a slow reader.
const STREAM_BYTES: usize = 1 << 20;
/// Longest request before a list, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Replays with a list at a time: a list may take hundreds of megabytes.
static LISTS: Semaphore = Semaphore::const_new(2);

type Room = SemaphorePermit<'static>;

/// Plans or runs.
pub async fn post(
    State(parts): State<Arc<Parts>>,
    request: extract::Request,
) -> Result<Response, Problem> {
    let has_list = media_type(request.headers()) == NDJSON;
    // Held until the replay is done with its list.
    let Ok(room) = has_list.then(|| LISTS.try_acquire()).transpose() else {
        return Err(too_many_lists());
    };
    let request = match has_list {
        true => with_list(request.into_body()).await?,
        false => match Json::from_request(request, &()).await {
            Ok(Json(request)) => request,
            Err(refusal) => return Ok(refusal.into_response()),
        },
    };
    let to = request.to.as_deref().map(str::parse).transpose();
    let to: Option<To> = to.map_err(Problem::invalid)?;
    let config = parts.config();
    let archive = parts.archive().await?;
    let prepared = Prepared::new(archive, &request, config.clock.clone(), &*config.random).await?;
    let receipt = match to {
        None => return Ok(Json(PlanRow::from(prepared.plan().clone())).into_response()),
        Some(To::Stdout) => return Ok(stream(&parts, prepared, room)),
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

/// Reads a request with a list, line by line.
async fn with_list(body: Body) -> Result<ReplayRequest, Problem> {
    let mut body = body.into_data_stream();
    let mut first = Vec::new();
    let mut list = EventList::default();
    let mut request: Option<ReplayRequest> = None;
    while let Some(part) = body.next().await {
        let part = part.map_err(|e| Problem::invalid(format!("the list broke off: {e}")))?;
        if request.is_some() {
            list.push(&part)?;
            continue;
        }
        let end = part.iter().position(|&byte| byte == b'\n');
        first.extend_from_slice(&part[..end.unwrap_or(part.len())]);
        if first.len() > REQUEST_BYTES_MAX {
            return Err(Problem::invalid("the first line is no request".to_owned()));
        }
        if let Some(end) = end {
            request = Some(parse(&first)?);
            list.push(&part[end + 1..])?;
        }
    }
    let mut request = match request {
        Some(request) => request,
        None => parse(&first)?,
    };
    request.selection.events = Some(list.finish()?);
    Ok(request)
}

fn parse(line: &[u8]) -> Result<ReplayRequest, Problem> {
    serde_json::from_slice(line)
        .map_err(|e| Problem::invalid(format!("the first line is no request: {e}")))
}

fn too_many_lists() -> Problem {
    let message = "as many lists of events as may be at once are being replayed; try again later";
    Failure::new(Exit::Unreachable, message).into()
}

fn stream(parts: &Arc<Parts>, prepared: Prepared, room: Option<Room>) -> Response {
    let (writer, reader) = tokio::io::duplex(STREAM_BYTES);
    let running = tokio::spawn(async move {
        let _room = room;
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
