//! A steady source of events to look at: the sample in a loop, each time under fresh ids and at
//! the time it is.

use super::Parts;
use crate::exit::Result;
use crate::sample;
use annals_core::{Event, EventBuilder, Random, Result as CoreResult, Timestamp, random};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two groups of events.
const TICK: Duration = Duration::from_millis(200);
/// Events a second.
const RATE: usize = 50;

/// Publishes until stopped.
pub(super) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let published = publish(&parts);
    tokio::select! {
        () = stop.cancelled() => {}
        Err(failure) = published => tracing::error!(%failure, "the demo ended"),
    }
}

async fn publish(parts: &Parts) -> Result<()> {
    parts.push_schemas(sample::schemas()).await?;
    let events = sample::events(&parts.ingest())?;
    let group = (RATE as u128 * TICK.as_millis() / 1000) as usize;
    let mut tick = tokio::time::interval(TICK);
    loop {
        for part in events.chunks(group.max(1)) {
            tick.tick().await;
            let config = parts.config();
            let fresh = |event: &Event| fresh(event, parts.now(), &*config.clock, &*config.random);
            let part = part.iter().map(fresh).collect::<CoreResult<Vec<_>>>()?;
            for result in parts.publisher().publish_events(part).await {
                result.map_err(|refusal| refusal.error)?;
            }
        }
    }
}

/// The same said anew.
fn fresh(
    event: &Event,
    now: Timestamp,
    clock: &dyn annals_core::Clock,
    random: &dyn Random,
) -> CoreResult<Event> {
    let header = event.header();
    let id = random::mint_id(clock, random);
    let builder = EventBuilder::new(header.event_type, header.source, id.as_str())?.time(now);
    let builder = match header.subject {
        Some(subject) => builder.subject(subject)?,
        None => builder,
    };
    builder.protobuf(header.data.bytes().to_vec()).build()
}
