//! [`Client`]: the other verbs' way to a running server's control API.

use crate::exit::{Exit, Failure, Result};
use crate::history::event_list;
use crate::history::{LedgerRow, SelectionText, Stats, Verification};
use crate::http::broken::ANSWER;
use crate::http::events::{NDJSON, Receipt};
use crate::http::health::Health;
use crate::http::problem::Problem;
use crate::http::schemas::{PushReceipt, SchemaFiles};
use crate::http::seal::Sealed;
use crate::http::sql::SqlRequest;
use crate::http::status::Status;
use crate::http::verify::VerifyRequest;
use crate::lake::{ConvertedRow, LakeStatus, RebuildRequest, RebuiltRow};
use crate::questions::SummaryRow;
use crate::replays::{PlanRow, ReplayRequest};
use annals_replay::Receipt as ReplayReceipt;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A server's control API.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A client of the server at a base URL.
    pub fn new(url: &str) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") {
            return Err(Failure::usage(format!(
                "the server's address {url:?} does not start with http://"
            )));
        }
        crate::tls::install();
        let http = reqwest::Client::builder()
            // Plain HTTP on this machine: reading the system's certificates would be for nothing.
            .tls_certs_only([])
            .connect_timeout(Duration::from_secs(2))
            .build()
            .map_err(|e| Failure::new(Exit::Failed, format!("no HTTP client: {e}")))?;
        Ok(Self { http, base })
    }

    /// Whether annals answers there.
    pub async fn health(&self) -> Result<Health> {
        let request = self.http.get(self.url("/v1/health"));
        self.json(request.timeout(Duration::from_secs(2))).await
    }

    /// Ports, queue depths, the archiver's position.
    pub async fn status(&self) -> Result<Status> {
        self.json(self.http.get(self.url("/v1/status"))).await
    }

    /// Publishes events in CloudEvents JSON: one object or an array.
    pub async fn publish(&self, events: Vec<u8>, batch: bool) -> Result<Vec<Receipt>> {
        let media_type = match batch {
            true => "application/cloudevents-batch+json",
            false => "application/cloudevents+json",
        };
        let request = self.http.post(self.url("/v1/events"));
        self.json(request.header("content-type", media_type).body(events))
            .await
    }

    /// Events as they are published, one in JSON a line.
    pub async fn tail(
        &self,
        query: &[(&str, String)],
    ) -> Result<impl Stream<Item = Result<Bytes>> + Unpin + use<>> {
        self.stream(self.http.get(self.url("/v1/events/tail")).query(query))
            .await
    }

    /// Archives what has been published so far.
    pub async fn seal(&self) -> Result<Sealed> {
        self.json(self.http.post(self.url("/v1/archive/seal")))
            .await
    }

    /// What the archive holds.
    pub async fn stats(&self) -> Result<Stats> {
        self.json(self.http.get(self.url("/v1/archive/stats")))
            .await
    }

    /// The ledger's segments.
    pub async fn ledger(&self) -> Result<Vec<LedgerRow>> {
        self.json(self.http.get(self.url("/v1/archive/ledger")))
            .await
    }

    /// Verifies the archive.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<Verification> {
        self.post("/v1/archive/verify", request).await
    }

    /// Archived events: one in JSON a line, or (`raw`) the bytes as published, each after its
    /// length as a varint.
    pub async fn events(
        &self,
        selection: &SelectionText,
        raw: bool,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Unpin + use<>> {
        let accept = match raw {
            true => crate::http::archive::DELIMITED,
            false => crate::http::events::NDJSON,
        };
        let request = self.http.get(self.url("/v1/archive/events"));
        self.stream(request.query(&selection.pairs()).header("accept", accept))
            .await
    }

    /// What a replay would do.
    pub async fn plan(&self, request: &ReplayRequest) -> Result<PlanRow> {
        self.json(self.replays(request)?).await
    }

    /// Runs a replay to a file or an exchange, and waits for its receipt.
    pub async fn replay(&self, request: &ReplayRequest) -> Result<ReplayReceipt> {
        self.json(self.replays(request)?).await
    }

    /// Runs a replay to us: JSON lines.
    pub async fn replay_stream(
        &self,
        request: &ReplayRequest,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Unpin + use<>> {
        self.stream(self.replays(request)?).await
    }

    /// A replay's request; a list of events is sent after it, in parts.
    fn replays(&self, request: &ReplayRequest) -> Result<reqwest::RequestBuilder> {
        let post = self.http.post(self.url("/v1/replays"));
        let Some(events) = &request.selection.events else {
            return Ok(post.json(request));
        };
        let mut first = serde_json::to_vec(request)
            .map_err(|e| Failure::new(Exit::Failed, format!("the request: {e}")))?;
        first.push(b'\n');
        let parts = std::iter::once(Bytes::from(first)).chain(event_list::parts(events.clone()));
        let parts = futures::stream::iter(parts.map(Ok::<_, std::convert::Infallible>));
        let body = reqwest::Body::wrap_stream(parts);
        Ok(post.header("content-type", NDJSON).body(body))
    }

    /// Asks in SQL: the answer's name, and its bytes in the format asked for.
    pub async fn sql(
        &self,
        request: &SqlRequest,
    ) -> Result<(String, impl Stream<Item = Result<Bytes>> + Unpin + use<>)> {
        self.answer(self.http.post(self.url("/v1/sql")).json(request))
            .await
    }

    /// What an answer that has ended cost.
    pub async fn sql_summary(&self, answer: &str) -> Result<SummaryRow> {
        let path = format!("/v1/sql/{answer}");
        self.json(self.http.get(self.url(&path))).await
    }

    /// The lake's tables.
    pub async fn lake(&self) -> Result<LakeStatus> {
        self.json(self.http.get(self.url("/v1/lake"))).await
    }

    /// Converts all that is archived, now.
    pub async fn convert(&self) -> Result<ConvertedRow> {
        self.json(self.http.post(self.url("/v1/lake/convert")))
            .await
    }

    /// Makes days of a table anew.
    pub async fn rebuild(&self, request: &RebuildRequest) -> Result<RebuiltRow> {
        self.post("/v1/lake/rebuild", request).await
    }

    /// The newest schema revision.
    pub async fn schemas(&self) -> Result<SchemaFiles> {
        self.json(self.http.get(self.url("/v1/schemas"))).await
    }

    /// Stores schema files as the next revision.
    pub async fn push_schemas(&self, files: &SchemaFiles) -> Result<PushReceipt> {
        self.json(self.http.put(self.url("/v1/schemas")).json(files))
            .await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(self.http.post(self.url(path)).json(body)).await
    }

    async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        response
            .json()
            .await
            .map_err(|e| self.unreachable("the answer makes no sense", e))
    }

    async fn stream(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Unpin + use<>> {
        Ok(self.answer(request).await?.1)
    }

    /// A streamed answer and its name.
    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(String, impl Stream<Item = Result<Bytes>> + Unpin + use<>)> {
        let response = self.send(request).await?;
        let answer = response.headers().get(ANSWER);
        let answer = answer.and_then(|id| id.to_str().ok()).map(str::to_owned);
        let name = answer.clone().unwrap_or_default();
        let client = self.clone();
        let parts = response.bytes_stream().then(move |part| {
            let (client, answer) = (client.clone(), answer.clone());
            async move {
                match part {
                    Ok(part) => Ok(part),
                    Err(error) => Err(client.broke_off(answer, error).await),
                }
            }
        });
        Ok((name, parts.boxed()))
    }

    /// Why an answer broke off, as the server tells it; without its word, that it did.
    async fn broke_off(&self, answer: Option<String>, error: reqwest::Error) -> Failure {
        if let Some(id) = answer {
            let request = self.http.get(self.url(&format!("/v1/answers/{id}")));
            let told = self.json::<Problem>(request.timeout(Duration::from_secs(2)));
            if let Ok(problem) = told.await {
                return problem.into_failure().context("the answer broke off");
            }
        }
        self.unreachable("the answer broke off", error)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let response = request
            .send()
            .await
            .map_err(|e| self.unreachable("no answer", e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.text().await.unwrap_or_default();
        let problem = serde_json::from_str(&body).unwrap_or(Problem {
            title: "failed".to_owned(),
            status,
            detail: format!("{} answered {status}: {body}", self.base),
            next: None,
        });
        Err(problem.into_failure())
    }

    fn unreachable(&self, what: &str, error: reqwest::Error) -> Failure {
        let cause = std::iter::successors(std::error::Error::source(&error), |e| e.source())
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string);
        Failure::new(Exit::Unreachable, format!("{}: {what}: {cause}", self.base))
            .next("annals doctor")
    }
}
