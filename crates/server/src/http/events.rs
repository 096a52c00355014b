//! `POST /v1/events`: publish one event, or a batch.
//!
//! Answers when the bus holds every event durably. A batch in which one event is bad is refused
//! whole, before anything is published.

use super::problem::Problem;
use crate::exit::{Exit, Failure};
use crate::platform::Parts;
use annals_core::Event;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Media type of one JSON document a line.
pub const NDJSON: &str = "application/x-ndjson";

/// Says that an event was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The event's id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Who holds it durably: `bus`.
    pub held_by: String,
    /// Length of the envelope, in bytes.
    pub bytes: usize,
}

impl Receipt {
    /// Of an event that the bus holds.
    pub fn of_bus(event: &Event) -> Self {
        let header = event.header();
        Self {
            id: header.id.to_owned(),
            source: header.source.to_owned(),
            event_type: header.event_type.to_owned(),
            held_by: "bus".to_owned(),
            bytes: event.bytes().len(),
        }
    }
}

/// Publishes.
pub async fn post(
    State(parts): State<Arc<Parts>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Vec<Receipt>>), Problem> {
    let ingest = parts.ingest();
    let events = match media_type(&headers) {
        "application/cloudevents+json" | "application/json" => vec![ingest.event(&body)?],
        "application/cloudevents-batch+json" => ingest.batch(&body)?,
        annals_core::event::CONTENT_TYPE => vec![Event::parse(body)?],
        other => {
            return Err(Problem {
                status: 415,
                ..Problem::invalid(format!("events of media type {other:?} are not taken"))
            });
        }
    };
    let receipts = publish(&parts, events).await?;
    Ok((StatusCode::ACCEPTED, Json(receipts)))
}

async fn publish(parts: &Parts, events: Vec<Event>) -> Result<Vec<Receipt>, Problem> {
    let total = events.len();
    let mut receipts = Vec::with_capacity(total);
    let mut refusal = None;
    for result in parts.publisher().publish_events(events).await {
        match result {
            Ok(receipt) => receipts.push(Receipt::of_bus(&receipt.event)),
            Err(e) => refusal = refusal.or(Some(e.error)),
        }
    }
    match refusal {
        None => Ok(receipts),
        Some(error) => {
            let context = format!("{} of {total} events published", receipts.len());
            let failure = Failure::from(error).context(context);
            let exit = match receipts.len() {
                0 => failure.exit,
                _ => Exit::Failed,
            };
            Err(Failure { exit, ..failure }.into())
        }
    }
}

/// The request's media type, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}
