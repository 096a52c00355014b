//! From a batch to durable: compress, upload, register. Retries for as long as that can help.

use super::batch::{Batch, ConsumerId};
use crate::bucket::Created;
use crate::ledger::{Entry, Ledger};
use crate::segment::{SealedSegment, SegmentWriter};
use crate::{Bucket, wire};
use annals_core::{Clock, Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt, stream};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Segments of one batch that are uploaded at a time.
const UPLOADS_MAX: usize = 8;
/// Waits between tries grow from this …
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// … to this.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Seals batches of one archiver, one after the other.
#[derive(Debug)]
pub(super) struct Sealer {
    pub(super) ledger: Ledger,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) name: String,
    /// Absent only if making it or sealing panicked.
    pub(super) writer: Option<SegmentWriter>,
}

/// A batch that is durable: what may be acknowledged now.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) sealer: Sealer,
    pub(super) entry: Option<Entry>,
    pub(super) covered: Vec<(ConsumerId, u64)>,
    pub(super) raw_bytes: u64,
    pub(super) undecodable: u64,
}

impl Sealer {
    /// Makes a batch durable. An error means that trying again cannot help, and that nothing of
    /// the batch may be acknowledged.
    pub(super) async fn seal(mut self, batch: Batch) -> Result<Sealed> {
        let covered = batch.covered().collect();
        let (raw_bytes, undecodable) = (batch.bytes() as u64, batch.undecodable());
        let segments = self.compress(batch).await?;
        let entry = match segments.is_empty() {
            // Nothing but deliveries that are not archived.
            true => None,
            false => Some(self.register(segments).await?),
        };
        Ok(Sealed {
            sealer: self,
            entry,
            covered,
            raw_bytes,
            undecodable,
        })
    }

    async fn compress(&mut self, batch: Batch) -> Result<Vec<SealedSegment>> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => SegmentWriter::new()?,
        };
        let bus = self.ledger.bus().to_owned();
        let number = self.ledger.head().next().0;
        let compress = move || {
            let sealed = batch.seal(&bus, number, &mut writer);
            (writer, sealed)
        };
        let (writer, sealed) = tokio::task::spawn_blocking(compress)
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "sealing panicked").caused_by(e))?;
        self.writer = Some(writer);
        sealed
    }

    async fn register(&self, segments: Vec<SealedSegment>) -> Result<Entry> {
        let bucket = self.ledger.bucket();
        let uploads = segments.into_iter().map(|sealed| async move {
            retry("upload", || upload(&**bucket, &sealed)).await?;
            Ok::<_, Error>(sealed.segment)
        });
        let segments: Vec<wire::Segment> = stream::iter(uploads)
            .buffered(UPLOADS_MAX)
            .try_collect()
            .await?;
        let now_us = self.clock.now_us();
        retry("ledger entry", || {
            self.ledger.append(segments.clone(), now_us, &self.name)
        })
        .await
    }
}

async fn upload(bucket: &dyn Bucket, sealed: &SealedSegment) -> Result<()> {
    let SealedSegment { bytes, segment } = sealed;
    match bucket.create(&segment.name, bytes.clone()).await? {
        Created::Created => Ok(()),
        // An earlier try took effect though it was answered with an error; or it was cut short.
        Created::AlreadyExists => {
            let found = bucket.get(&segment.name).await?;
            if blake3::hash(&found).as_bytes()[..] == segment.hash[..] {
                return Ok(());
            }
            let message = format!("{} exists with other bytes", segment.name);
            Err(Error::corrupt(message))
        }
    }
}

/// Tries until it works, or until an error says that it cannot.
async fn retry<T, F: Future<Output = Result<T>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut backoff = BACKOFF_FIRST;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(e) if is_final(e.kind()) => return Err(e.context(what)),
            Err(e) => tracing::warn!(error = %e, ?backoff, "{what} failed, trying again"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Whether trying again cannot help. Refused access may be granted again.
fn is_final(kind: ErrorKind) -> bool {
    use ErrorKind::{Closed, Corrupt, Internal, Invalid};
    matches!(kind, Closed | Corrupt | Internal | Invalid)
}
