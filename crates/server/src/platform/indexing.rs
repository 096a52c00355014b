//! Keeps the index level with the ledger: after every entry the archiver makes, and once more when
//! it is stopped.
//!
//! The index is derived. That it lags costs readers a moment; that it fails stops nothing.

use annals_archive::index::Index;
use annals_archive::{Ledger, Position, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Follows the ledger until stopped.
pub(super) async fn run(
    ledger: Ledger,
    mut positions: watch::Receiver<Position>,
    stop: CancellationToken,
) {
    let mut index = None;
    let mut stopping = false;
    loop {
        let position = *positions.borrow_and_update();
        if let Err(error) = catch_up(&ledger, position, &mut index).await {
            tracing::error!(%error, "the index lags behind the archive");
            index = None;
        }
        if stopping {
            return;
        }
        tokio::select! {
            // Once more: what was made since the last look is indexed too.
            () = stop.cancelled() => stopping = true,
            changed = positions.changed() => if changed.is_err() { return },
        }
    }
}

async fn catch_up(ledger: &Ledger, position: Position, index: &mut Option<Index>) -> Result<()> {
    // The archiver's head is its own: this one follows what it tells of.
    ledger.advance_to(position).await?;
    let progress = match index {
        Some(index) => index.catch_up(ledger).await?,
        None => {
            let (opened, progress) = Index::open_or_rebuild(ledger).await?;
            *index = Some(opened);
            progress
        }
    };
    if let Some(reason) = progress.rebuilt {
        tracing::warn!(reason, "the index was made anew");
    }
    if progress.conflicts > 0 {
        tracing::warn!(
            events = progress.conflicts,
            "events came with the source and id of earlier ones and other bytes; the first count"
        );
    }
    Ok(())
}
