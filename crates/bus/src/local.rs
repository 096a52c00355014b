//! [`LocalBus`]: the embedded broker in this process, without a socket.
//!
//! ```text
//!  publish ──► session ──► broker ──► events ──► confirms, by ranges of numbers ──► publish returns
//!  consume ──► session ──► broker ──► events ──► mailbox per consumer ──► next
//! ```

mod consuming;
mod publishing;

use crate::exchanges::{KnownExchanges, Split};
use crate::topology::{self, Topology};
use crate::{Bus, Consumer, Error, ErrorKind, Message, Outcome, Result, reply};
use annals_broker::{
    BindingSpec, Broker, Destination, ExchangeKind, ExchangeSpec, QueueSpec, Refusal, Session,
};
use async_trait::async_trait;
use bytes::Bytes;
use consuming::Consuming;
use parking_lot::RwLock;
use publishing::Publishing;
use std::sync::Arc;

/// A connection to an embedded broker: one session to publish on, one to consume on.
#[derive(Debug)]
pub struct LocalBus {
    publishing: Publishing,
    consuming: Arc<Consuming>,
    exchanges: KnownExchanges,
}

impl LocalBus {
    /// Connects to a broker. Within a tokio runtime: one task per session passes its events on.
    pub fn new(broker: &Broker) -> Self {
        Self {
            publishing: Publishing::new(broker),
            consuming: Arc::new(Consuming::new(broker)),
            exchanges: KnownExchanges::default(),
        }
    }

    /// Asks for the exchanges of a batch that are not known; those that cannot be published to.
    async fn missing(&self, batch: &[Message]) -> Vec<(Arc<str>, Error)> {
        let mut missing = Vec::new();
        for name in self.exchanges.unknown_in(batch) {
            let known = match self.consuming.session.get() {
                Ok(session) => {
                    let spec = exchange_spec(&name, ExchangeKind::Direct, true, true);
                    session.declare_exchange(spec).await.map_err(refused)
                }
                Err(closed) => Err(closed),
            };
            match known {
                Ok(()) => self.exchanges.add(name),
                Err(error) => missing.push((name, error)),
            }
        }
        missing
    }
}

#[async_trait]
impl Bus for LocalBus {
    async fn declare(&self, topology: &Topology) -> Result<()> {
        topology.check()?;
        let session = self.consuming.session.get()?;
        for e in &topology.exchanges {
            let spec = exchange_spec(&e.name, exchange_kind(e.kind), e.durable, false);
            session.declare_exchange(spec).await.map_err(refused)?;
        }
        for queue in &topology.queues {
            let spec = QueueSpec {
                name: queue.name.clone(),
                durable: queue.durable,
                exclusive: !queue.durable,
                auto_delete: false,
                passive: false,
                arguments: Bytes::new(),
            };
            session.declare_queue(spec).await.map_err(refused)?;
        }
        for binding in &topology.bindings {
            let spec = BindingSpec {
                source: binding.source.clone(),
                destination: match &binding.destination {
                    topology::Destination::Queue(name) => Destination::Queue(name.clone()),
                    topology::Destination::Exchange(name) => Destination::Exchange(name.clone()),
                },
                key: binding.key.clone(),
                arguments: Bytes::new(),
            };
            session.bind(spec).await.map_err(refused)?;
        }
        Ok(())
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome> {
        let missing = self.missing(&batch).await;
        let (split, rest) = Split::refuse(batch, &missing);
        let (outcomes, channel_lost) = self.publishing.publish(rest).await;
        if channel_lost {
            self.exchanges.forget();
        }
        split.join(outcomes)
    }

    async fn consume(&self, queue: &str, prefetch: u32) -> Result<Box<dyn Consumer>> {
        let consumer = self.consuming.clone().consume(queue, prefetch).await?;
        Ok(Box::new(consumer))
    }

    async fn close(&self) -> Result<()> {
        self.publishing.session.close();
        self.consuming.close();
        Ok(())
    }
}

/// A session until it is closed.
#[derive(Debug)]
struct SessionSlot(RwLock<Option<Arc<Session>>>);

impl SessionSlot {
    fn new(session: Session) -> Self {
        Self(RwLock::new(Some(Arc::new(session))))
    }

    fn get(&self) -> Result<Arc<Session>> {
        let closed = || Error::new(ErrorKind::Closed, "the bus is closed");
        self.0.read().clone().ok_or_else(closed)
    }

    fn close(&self) {
        self.0.write().take();
    }
}

fn exchange_spec(name: &str, kind: ExchangeKind, durable: bool, passive: bool) -> ExchangeSpec {
    ExchangeSpec {
        name: name.to_owned(),
        kind,
        durable,
        auto_delete: false,
        internal: false,
        passive,
        arguments: Bytes::new(),
    }
}

fn exchange_kind(kind: topology::ExchangeKind) -> ExchangeKind {
    match kind {
        topology::ExchangeKind::Direct => ExchangeKind::Direct,
        topology::ExchangeKind::Topic => ExchangeKind::Topic,
        topology::ExchangeKind::Fanout => ExchangeKind::Fanout,
    }
}

fn refused(refusal: Refusal) -> Error {
    reply::error(refusal.code, refusal.text)
}
