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
use tokio::sync::mpsc;

/// Segments of one batch that are uploaded at a time.
const UPLOADS_MAX: usize = 8;
/// Compressed segments that wait for their upload.
const COMPRESSED_MAX: usize = 1;
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
        let writer = self.writer.take();
        let (send, segments) = mpsc::channel(COMPRESSED_MAX);
        // Both run to their end: what one does does not depend on the other's fate.
        let (compressed, uploaded) = tokio::join!(
            self.compress(batch, writer, send),
            upload_all(self.ledger.bucket(), segments)
        );
        self.writer = Some(compressed?);
        let segments = uploaded?;
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

    /// Sends each segment as soon as it is made; gives the writer back.
    async fn compress(
        &self,
        batch: Batch,
        writer: Option<SegmentWriter>,
        segments: mpsc::Sender<SealedSegment>,
    ) -> Result<SegmentWriter> {
        let bus = self.ledger.bus().to_owned();
        let number = self.ledger.head().next().0;
        let compress = move || {
            let mut writer = match writer {
                Some(writer) => writer,
                None => SegmentWriter::new()?,
            };
            batch.seal_each(&bus, number, &mut writer, |segment| {
                // Nobody listens after an upload failed for good, which is told there.
                let _ = segments.blocking_send(segment);
            })?;
            Ok(writer)
        };
        tokio::task::spawn_blocking(compress)
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "sealing panicked").caused_by(e))?
    }

    async fn register(&self, segments: Vec<wire::Segment>) -> Result<Entry> {
        let now_us = self.clock.now_us();
        retry("ledger entry", || {
            self.ledger.append(segments.clone(), now_us, &self.name)
        })
        .await
    }
}

/// Uploads segments as they come; they are durable when it returns.
async fn upload_all(
    bucket: &Arc<dyn Bucket>,
    segments: mpsc::Receiver<SealedSegment>,
) -> Result<Vec<wire::Segment>> {
    let segments = stream::unfold(segments, async |mut segments| {
        segments.recv().await.map(|segment| (segment, segments))
    });
    let uploads = segments.map(|sealed| async move {
        retry("upload", || upload(&**bucket, &sealed)).await?;
        Ok(sealed.segment)
    });
    uploads.buffered(UPLOADS_MAX).try_collect().await
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
