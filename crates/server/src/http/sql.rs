//! `POST /v1/sql`: a question to all of history; `GET /v1/sql/{id}`: what an answer cost.
//!
//! The question is JSON ([`SqlRequest`]) or, with any other media type, the SQL text itself. The
//! answer's format is the one the request names, else the one `Accept` names, else JSON:
//! `{"rows": [...], "summary": {...}}`. Other formats have the summary under the id in the header
//! `annals-answer`.

use super::broken::{answer_id, streamed_as};
use super::problem::Problem;
use crate::exit::{Exit, Failure, Result};
use crate::platform::Parts;
use crate::questions::SummaryRow;
use annals_sql::render::{Format, Renderer};
use annals_sql::{Answer, Question};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Summaries remembered; older ones are forgotten.
const REMEMBERED_MAX: usize = 256;

/// A question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// One statement.
    pub sql: String,
    /// `json`, `jsonl`, `csv`, `arrow` or `table`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Most rows; 0: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Seconds it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
    /// Memory it may use, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<usize>,
}

impl SqlRequest {
    /// The question as the engine takes it.
    pub fn question(&self) -> Result<Question> {
        let mut question = Question::new(self.sql.clone());
        question.rows_max = self.rows;
        question.memory_bytes = self.memory_bytes;
        question.timeout = match self.timeout_s {
            None => None,
            Some(seconds) => Some(Duration::try_from_secs_f64(seconds).map_err(|_| {
                Failure::new(Exit::Invalid, format!("timeout_s {seconds} is no time"))
            })?),
        };
        Ok(question)
    }
}

/// What answers cost, the latest of them.
#[derive(Debug, Default)]
pub struct Summaries(Mutex<VecDeque<(String, SummaryRow)>>);

impl Summaries {
    fn add(&self, id: String, summary: SummaryRow) {
        let mut known = self.0.lock();
        if known.len() == REMEMBERED_MAX {
            known.pop_front();
        }
        known.push_back((id, summary));
    }

    fn get(&self, id: &str) -> Option<SummaryRow> {
        let known = self.0.lock();
        let found = known.iter().find(|(answer, _)| answer == id);
        found.map(|(_, summary)| summary.clone())
    }
}

/// What an answer cost.
pub async fn get(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
) -> Result<Json<SummaryRow>, Problem> {
    let text = format!("no answer {id} has ended, or it is long ago");
    let unknown = || Failure::new(Exit::NothingMatched, text);
    let found = parts.summaries().get(&id);
    found.map(Json).ok_or_else(|| unknown().into())
}

/// Asks.
pub async fn post(
    State(parts): State<Arc<Parts>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let request = read(&headers, &body)?;
    let format = format_of(&headers, &request)?;
    let answer = parts.engine().query(&request.question()?).await;
    let answer = answer.map_err(Failure::from)?;
    let id = answer_id(&parts);
    let media_type = format.content_type();
    let stream = written(answer, format, parts.clone(), id.clone());
    Ok(streamed_as(&parts, id, media_type, stream))
}

fn read(headers: &HeaderMap, body: &Bytes) -> Result<SqlRequest> {
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let wrong = |e: String| Failure::new(Exit::Invalid, format!("the question: {e}"));
    if media_type.starts_with("application/json") {
        return serde_json::from_slice(body).map_err(|e| wrong(e.to_string()));
    }
    let sql = std::str::from_utf8(body).map_err(|e| wrong(e.to_string()))?;
    Ok(SqlRequest {
        sql: sql.to_owned(),
        ..SqlRequest::default()
    })
}

fn format_of(headers: &HeaderMap, request: &SqlRequest) -> Result<Format> {
    if let Some(name) = &request.format {
        return Ok(name.parse()?);
    }
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let known = [Format::Csv, Format::JsonLines, Format::Arrow, Format::Json];
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
    let accepted = accept.into_iter().flat_map(|accept| accept.split(','));
    let asked = accepted.map(essence).find_map(|asked| {
        known
            .into_iter()
            .find(|f| essence(f.content_type()) == asked)
    });
    Ok(asked.unwrap_or(Format::Json))
}

/// The bytes of an answer, and its summary: in JSON at its end, else remembered.
fn written(
    answer: Answer,
    format: Format,
    parts: Arc<Parts>,
    id: String,
) -> impl Stream<Item = Result<Bytes>> + Send {
    let renderer = Renderer::new(format, answer.schema()).map_err(Failure::from);
    let start = Writing {
        answer,
        format,
        renderer,
        begun: false,
        parts,
        id,
    };
    futures::stream::unfold(Some(start), |writing| async move {
        let mut writing = writing?;
        match writing.next().await {
            Ok((bytes, true)) => Some((Ok(bytes), Some(writing))),
            Ok((bytes, false)) => Some((Ok(bytes), None)),
            Err(failure) => Some((Err(failure), None)),
        }
    })
}

struct Writing {
    answer: Answer,
    format: Format,
    renderer: Result<Renderer>,
    begun: bool,
    parts: Arc<Parts>,
    id: String,
}

impl Writing {
    /// The next bytes, and whether there are more.
    async fn next(&mut self) -> Result<(Bytes, bool)> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) && self.format == Format::Json {
            out.extend_from_slice(b"{\"rows\":");
        }
        let renderer = match &mut self.renderer {
            Ok(renderer) => renderer,
            Err(failure) => return Err(Failure::new(failure.exit, failure.message.clone())),
        };
        if let Some(batch) = self.answer.next().await {
            renderer.batch(batch?, &mut out)?;
            return Ok((out.into(), true));
        }
        renderer.finish(&mut out)?;
        let summary = SummaryRow::from(self.answer.summary());
        if self.format == Format::Json {
            out.extend_from_slice(b",\"summary\":");
            serde_json::to_writer(&mut out, &summary).map_err(std::io::Error::from)?;
            out.extend_from_slice(b"}\n");
        }
        self.parts.summaries().add(self.id.clone(), summary);
        Ok((out.into(), false))
    }
}
