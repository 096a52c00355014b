//! [`OpenRecords`]: what the archiver has received and no ledger entry holds yet.
//!
//! ```text
//!  ledger: … 41 42 │ 43: to come
//!                  │
//!          after ──┘  OpenRecords, at the places they have if the next entry is ours
//! ```

use crate::ledger::Position;
use crate::reader::{Batch, DecodedFrame, Plan, blocking};
use annals_core::Result;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The archiver's open batch at one moment, in order of arrival.
///
/// A reader of all history reads ledger entries up to a position that is not before
/// [`OpenRecords::after`], then these. What was archived in between would come twice: it is in
/// [`Archive::distinct`](crate::reader::Archive::distinct) of the same position, as is every other
/// copy of an archived event.
#[derive(Debug, Clone, Default)]
pub struct OpenRecords {
    batch: Batch,
    after: Position,
}

impl OpenRecords {
    /// The last ledger entry the archiver knew of: all it has received is in entries up to there
    /// or here.
    pub fn after(&self) -> Position {
        self.after
    }

    /// The records like those of a ledger entry. Their locations are provisional: another
    /// archiver's entry may come first.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The batch itself.
    pub fn into_batch(self) -> Batch {
        self.batch
    }
}

/// A question for the open records, asked of the archiver's loop.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) plan: Arc<Plan>,
    pub(super) answer: oneshot::Sender<OpenFrames>,
}

/// The loop's answer: encoded records, not looked at yet.
#[derive(Debug)]
pub(super) struct OpenFrames {
    pub(super) after: Position,
    pub(super) frames: Vec<Bytes>,
}

impl OpenFrames {
    /// Walks the frames off the async threads.
    pub(super) async fn select(self, plan: Arc<Plan>) -> Result<OpenRecords> {
        let Self { after, frames } = self;
        let walk = move || {
            let walked = frames.into_iter().map(|f| DecodedFrame::of(f, &plan));
            Batch::merge(after.next(), walked.collect::<Result<_>>()?)
        };
        let batch = blocking(walk).await?;
        Ok(OpenRecords { batch, after })
    }
}
