//! [`Verification`]: what verifying found, as rows.

use crate::exit::{Result, at_path};
use crate::output::Table;
use crate::platform::BUS;
use annals_archive::Bucket;
use annals_archive::verify::{PublishLog, VerifyOptions};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// What verifying found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Ledger entries checked.
    pub entries: u64,
    /// Segments checked.
    pub segments: u64,
    /// Records checked, later copies counted.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Lines of a publish log that were compared.
    pub against: u64,
    /// How many things are wrong; more than are listed if they are very many.
    pub finding_count: u64,
    /// What is wrong; empty if nothing is.
    pub findings: Vec<FindingRow>,
    /// Segments that no ledger entry names: left by a crash, no part of the archive.
    pub unregistered: Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRow {
    /// What kind of thing.
    pub kind: String,
    /// Where: an object, a producer, an event.
    pub name: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Verification {
    /// Verifies all of a bucket's archive, and compares it with a publish log where one is given.
    /// Needs no intact ledger: that it is not is a finding.
    pub async fn of_bucket(bucket: Arc<dyn Bucket>, against: Option<&Path>) -> Result<Self> {
        let against = against.map(read_log).transpose()?.map(Arc::new);
        let options = VerifyOptions {
            against,
            ..VerifyOptions::default()
        };
        let report = annals_archive::verify::verify(bucket, BUS, &options).await?;
        let findings = report.findings.into_iter().map(|finding| FindingRow {
            kind: format!("{:?}", finding.kind),
            name: finding.name,
            detail: finding.detail,
        });
        Ok(Self {
            entries: report.entries,
            segments: report.segments,
            records: report.records,
            bytes: report.bytes,
            against: report.against,
            finding_count: report.finding_count,
            findings: findings.collect(),
            unregistered: report.unregistered,
        })
    }

    /// The counts, without the findings.
    pub fn totals(&self) -> Table {
        let verdict = if self.finding_count == 0 {
            "intact"
        } else {
            "damaged"
        };
        Table::record([
            ("verdict", json!(verdict)),
            ("entries", json!(self.entries)),
            ("segments", json!(self.segments)),
            ("records", json!(self.records)),
            ("bytes", json!(self.bytes)),
            ("against", json!(self.against)),
            ("findings", json!(self.finding_count)),
            ("unregistered", json!(self.unregistered.len())),
        ])
    }
}

fn read_log(path: &Path) -> Result<PublishLog> {
    let text = std::fs::read_to_string(path).map_err(at_path(path))?;
    Ok(PublishLog::parse(&text)?)
}
