//! [`ExchangeTarget`]: a private exchange on a bus.

use super::message::message_of;
use super::{Delivered, Target};
use annals_archive::reader::EventRef;
use annals_bus::topology::{Destination, bus_exchange};
use annals_bus::{Binding, Bus, Exchange, Message, Outcome, Queue, Topology};
use annals_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Times messages of unknown fate, or refused for now, are published again.
const TRIES: u32 = 10;
/// Wait before the first of these; doubles up to [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(50);
/// Longest wait between tries.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Publishes events to the replay's own exchange, `annals.<bus>.replay.<id>`: what is bound to it
/// hears the replay, and nothing else does.
///
/// Bodies, routing keys and headers are as published, plus the header `annals-replay-id`. An
/// event that no binding wants is counted as unrouted. Order is kept but for what the bus did not
/// take at once.
#[derive(Debug)]
pub struct ExchangeTarget {
    bus: Arc<dyn Bus>,
    exchange: Arc<str>,
    replay: String,
}

/// Name of a replay's exchange.
pub fn exchange_name(bus: &str, replay: &str) -> String {
    format!("{}.replay.{replay}", bus_exchange(bus))
}

impl ExchangeTarget {
    /// Declares the exchange, durable, for a replay of the bus called `bus_name`; and, bound to
    /// all of it, durable queues of these names.
    pub async fn declare(
        bus: Arc<dyn Bus>,
        bus_name: &str,
        replay: &str,
        queues: &[&str],
    ) -> Result<Self> {
        let exchange = exchange_name(bus_name, replay);
        let binding = |queue: &&str| Binding {
            source: exchange.clone(),
            destination: Destination::Queue((*queue).to_owned()),
            key: "#".to_owned(),
        };
        let topology = Topology {
            exchanges: vec![Exchange::durable_topic(&exchange)],
            queues: queues.iter().map(|queue| Queue::durable(queue)).collect(),
            bindings: queues.iter().map(binding).collect(),
        };
        bus.declare(&topology).await?;
        Ok(Self {
            bus,
            exchange: exchange.into(),
            replay: replay.to_owned(),
        })
    }

    /// The exchange: bind queues to it before the replay runs.
    pub fn exchange(&self) -> &str {
        &self.exchange
    }
}

#[async_trait]
impl Target for ExchangeTarget {
    fn describe(&self) -> String {
        format!("exchange {}", self.exchange)
    }

    async fn deliver(&mut self, events: &[EventRef<'_>]) -> Result<Delivered> {
        let message = |event| message_of(event, &self.exchange, &self.replay);
        let mut open: Vec<Message> = events.iter().map(message).collect::<Result<_>>()?;
        let mut done = Delivered::default();
        let mut wait = WAIT;
        for tries_left in (0..=TRIES).rev() {
            let outcomes = self.bus.publish(open.clone()).await;
            let mut again = Vec::new();
            let mut last = None;
            for (message, outcome) in open.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Bus => done.delivered += 1,
                    Outcome::Failed(e) if e.kind() == ErrorKind::NotFound => done.unrouted += 1,
                    Outcome::Failed(e) if e.is_retryable() && tries_left > 0 => {
                        again.push(message);
                        last = Some(e);
                    }
                    Outcome::Failed(e) => return Err(self.failed(e)),
                }
            }
            let Some(error) = last else { break };
            tracing::warn!(%error, messages = again.len(), "replay waits for the bus");
            open = again;
            sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
        if done.delivered + done.unrouted == events.len() as u64 {
            return Ok(done);
        }
        Err(Error::new(
            ErrorKind::Internal,
            "the bus answered for fewer messages than it was given",
        ))
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl ExchangeTarget {
    fn failed(&self, error: Error) -> Error {
        error.context(format_args!("publishing to {}", self.exchange))
    }
}
