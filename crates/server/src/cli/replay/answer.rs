//! Events that a question in SQL answers with.

use crate::cli::Context;
use crate::cli::sql;
use crate::cli::tail::Lines;
use crate::exit::{Exit, Failure, Result};
use crate::history::EventList;
use crate::http::sql::SqlRequest;
use annals_core::EventSet;
use serde::Deserialize;
use std::sync::Arc;

/// How long the question may take.
const TIMEOUT_S: f64 = 600.0;

/// A row of the answer; others than these columns are left out before.
#[derive(Deserialize)]
struct Row {
    source: Option<String>,
    id: Option<String>,
}

/// Asks, and lists the events of the answer. What was still in the archiver's memory is archived
/// then, so that it can be replayed.
pub(super) async fn events_of(question: &str, context: &Context) -> Result<Arc<EventSet>> {
    let question = question.trim().trim_end_matches(';');
    // By itself first: what is refused is named as it was written, and brackets that close only
    // together with those around it are no question.
    annals_sql::guard::check(question).map_err(|e| needs_ids(e.into()))?;
    // On lines of its own: it may end with a comment.
    let request = SqlRequest {
        sql: format!("SELECT source, id FROM (\n{question}\n) AS selected"),
        format: Some("jsonl".to_owned()),
        rows: Some(0),
        timeout_s: Some(TIMEOUT_S),
        memory_bytes: None,
    };
    let mut list = EventList::default();
    match context.find_server().await? {
        Some(server) => {
            let (_, parts) = server.sql(&request).await.map_err(needs_ids)?;
            let mut lines = Lines::new(parts);
            while let Some(line) = lines.next().await? {
                add(&line, &mut list)?;
            }
            server.seal().await?;
        }
        None => {
            let answer = sql::lines_of_bucket(context, &request).await;
            for line in answer.map_err(needs_ids)?.split(|&byte| byte == b'\n') {
                if !line.is_empty() {
                    add(line, &mut list)?;
                }
            }
        }
    }
    list.finish()
}

fn add(line: &[u8], list: &mut EventList) -> Result<()> {
    let wrong = |text: &str| Failure::new(Exit::Failed, format!("a row of the answer {text}"));
    let row: Row =
        serde_json::from_slice(line).map_err(|e| needs_ids(wrong(&format!("is none: {e}"))))?;
    match (row.source, row.id) {
        (Some(source), Some(id)) => list
            .add(Some(&source), &id)
            .map_err(|e| needs_ids(wrong(&format!("names no event: {e}")))),
        _ => Err(needs_ids(wrong("has no source or no id"))),
    }
}

fn needs_ids(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Unreachable | Exit::TimedOut => failure,
        _ => failure.next(
            "the question has to answer with columns source and id, such as \
             SELECT source, id FROM events WHERE type = 'shop.v1.OrderPlaced'",
        ),
    }
}
