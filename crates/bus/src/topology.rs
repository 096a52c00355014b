//! Exchanges, queues and bindings, and the layout annals gives a bus.
//!
//! ```text
//!  publisher ──► annals.<bus> (topic) ──┬── # ──► annals.<bus>.archive          (durable queue)
//!                                       └── # ──► annals.<bus>.service.<service> ── types ──► queue
//! ```
//!
//! Every service publishes to the bus's top-level exchange; it hangs its own exchange below, and
//! its queues below that, so that who listens to what is read off the bindings.

use annals_core::{Error, Result, names};

/// Longest name of an exchange or queue, in bytes.
const NAME_BYTES_MAX: usize = 127;

/// Exchanges, queues and bindings to declare together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    /// Declared first.
    pub exchanges: Vec<Exchange>,
    /// Declared second.
    pub queues: Vec<Queue>,
    /// Made last.
    pub bindings: Vec<Binding>,
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Name; 1 to 127 bytes, not starting with `amq.`.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it survives a restart.
    pub durable: bool,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By equality of routing and binding key.
    Direct,
    /// By pattern.
    Topic,
    /// To all.
    Fanout,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Name; 1 to 127 bytes, not starting with `amq.`.
    pub name: String,
    /// Durable and shared; or else exclusive to this bus's connection and gone with it.
    pub durable: bool,
}

/// A binding from an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Exchange messages come from.
    pub source: String,
    /// Where they go.
    pub destination: Destination,
    /// Binding key: a pattern where the source is a topic exchange.
    pub key: String,
}

/// What a binding leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// Another exchange.
    Exchange(String),
}

/// Name of a bus's top-level exchange.
pub fn bus_exchange(bus: &str) -> String {
    format!("annals.{bus}")
}

/// Name of a bus's archive queue.
pub fn archive_queue(bus: &str) -> String {
    format!("annals.{bus}.archive")
}

impl Topology {
    /// A bus: its top-level exchange, and the archive queue bound to everything.
    pub fn of_bus(bus: &str) -> Self {
        let exchange = bus_exchange(bus);
        let queue = archive_queue(bus);
        Self {
            exchanges: vec![Exchange::durable_topic(&exchange)],
            queues: vec![Queue::durable(&queue)],
            bindings: vec![Binding {
                source: exchange,
                destination: Destination::Queue(queue),
                key: "#".to_owned(),
            }],
        }
    }

    /// A service on a bus: its exchange below the bus's, and a durable queue with the types it
    /// listens to.
    pub fn of_service<'a>(
        bus: &str,
        service: &str,
        queue: &str,
        types: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let exchange = format!("annals.{bus}.service.{service}");
        let mut bindings = vec![Binding {
            source: bus_exchange(bus),
            destination: Destination::Exchange(exchange.clone()),
            key: "#".to_owned(),
        }];
        bindings.extend(types.into_iter().map(|key| Binding {
            source: exchange.clone(),
            destination: Destination::Queue(queue.to_owned()),
            key: key.to_owned(),
        }));
        Self {
            exchanges: vec![Exchange::durable_topic(&exchange)],
            queues: vec![Queue::durable(queue)],
            bindings,
        }
    }
}

impl Topology {
    /// Checks the names: what a bus can hold, said before anything is sent.
    pub fn check(&self) -> Result<()> {
        let exchanges = self.exchanges.iter().map(|e| ("exchange", &e.name));
        let queues = self.queues.iter().map(|q| ("queue", &q.name));
        for (what, name) in exchanges.chain(queues) {
            if name.starts_with("amq.") {
                return Err(Error::invalid(format!(
                    "{what} {name:?} starts with amq., which is the bus's own"
                )));
            }
            names::check(what, name, NAME_BYTES_MAX)?;
        }
        for binding in &self.bindings {
            if binding.key.len() > names::SHORT_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "the key of a binding of {} is over {} bytes",
                    binding.source,
                    names::SHORT_BYTES_MAX
                )));
            }
        }
        Ok(())
    }
}

impl Exchange {
    /// A durable topic exchange.
    pub fn durable_topic(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: ExchangeKind::Topic,
            durable: true,
        }
    }
}

impl Queue {
    /// A durable queue.
    pub fn durable(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            durable: true,
        }
    }
}
