//! `GET /v1/status`: ports, queue depths, the archiver's position.

use super::problem::Problem;
use crate::platform::Parts;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a server is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Process id.
    pub pid: u32,
    /// Version.
    pub version: String,
    /// When it was started, RFC 3339.
    pub started_at: String,
    /// AMQP port on 127.0.0.1.
    pub amqp_port: u16,
    /// HTTP port on 127.0.0.1.
    pub http_port: u16,
    /// The broker.
    pub broker: BrokerStatus,
    /// The archiver.
    pub archiver: ArchiverStatus,
}

/// How the broker is doing; counts are since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Messages in all queues, unsettled ones counted.
    pub messages: u64,
    /// Messages in the archive queue that the archiver does not have yet.
    pub archive_queue_ready: u64,
    /// Messages taken.
    pub published: u64,
    /// Messages that reached no queue.
    pub unroutable: u64,
    /// Deliveries settled.
    pub settled: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Connections and roles.
    pub sessions: u64,
    /// Whether publishes are refused for lack of disk.
    pub blocked: bool,
    /// Messages whose bytes in the broker's log cannot be read, with the archiver and each tail
    /// that set them aside: neither archived nor acknowledged. Not zero: damage.
    #[serde(default)]
    pub unreadable: u64,
}

/// How the archiver is doing; counts are since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiverStatus {
    /// Number of the last ledger entry.
    pub ledger_position: u64,
    /// Events archived.
    pub archived: u64,
    /// Of them, bodies that were no event.
    pub undecodable: u64,
    /// Events received and not archived yet.
    pub open: u64,
    /// Age of the oldest of these, in milliseconds.
    pub lag_ms: u64,
    /// Replayed deliveries that were archived already.
    pub replayed_discarded: u64,
    /// Replayed deliveries that were not, and so were archived.
    pub replayed_archived: u64,
}

impl Status {
    /// The broker's URI.
    pub fn amqp_uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp_port)
    }
}

/// Answers.
pub async fn get(State(parts): State<Arc<Parts>>) -> Result<Json<Status>, Problem> {
    let (broker, address) = (parts.broker().stats(), parts.address());
    let archiver = parts.archiver_stats().await;
    let lag = archiver.lag(parts.now().as_microsecond());
    Ok(Json(Status {
        pid: address.pid,
        version: address.version.clone(),
        started_at: parts.started_at().to_string(),
        amqp_port: address.amqp_port,
        http_port: address.http_port,
        broker: BrokerStatus {
            messages: broker.messages,
            archive_queue_ready: parts.archive_queue_ready().await?.into(),
            published: broker.published,
            unroutable: broker.unroutable,
            settled: broker.settled,
            syncs: broker.syncs,
            sessions: broker.sessions,
            blocked: broker.blocked,
            unreadable: broker.unreadable,
        },
        archiver: ArchiverStatus {
            ledger_position: archiver.position.0,
            archived: archiver.archived,
            undecodable: archiver.undecodable,
            open: archiver.received
                - (archiver.archived + archiver.replayed_discarded).min(archiver.received),
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            replayed_discarded: archiver.replayed_discarded,
            replayed_archived: archiver.replayed_archived,
        },
    }))
}
