//! [`MemoryBus`]: a bus in this process's memory, for tests. Routes, acknowledges and redelivers as
//! the real ones do; holds nothing beyond the process.

mod broker;

use crate::{Bus, Consumer, Delivery, Error, ErrorKind, Message, Outcome, Result, Settle, Tags};
use crate::{Topology, tags::Unsettled};
use async_trait::async_trait;
use broker::{Broker, Taken};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Messages a queue of a [`MemoryBus`] takes before publishes are refused.
pub const QUEUE_MESSAGES_MAX: usize = 1 << 20;
/// Most deliveries of one [`Consumer::next`].
const BATCH_MAX: usize = 4096;

/// One connection to a bus in memory. [`MemoryBus::connect`] makes another to the same bus.
///
/// A queue holds at most [`QUEUE_MESSAGES_MAX`] messages; a publish to a full one fails as
/// [`ErrorKind::Unavailable`].
#[derive(Debug)]
pub struct MemoryBus {
    broker: Arc<Mutex<Broker>>,
    connection: u64,
}

/// What a queue of a [`MemoryBus`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages waiting.
    pub ready: usize,
    /// Messages delivered and not settled.
    pub unsettled: usize,
}

impl MemoryBus {
    /// An empty bus, and a connection to it.
    pub fn new() -> Self {
        let mut broker = Broker::default();
        let connection = broker.connect();
        Self {
            broker: Arc::new(Mutex::new(broker)),
            connection,
        }
    }

    /// Another connection to the same bus: exclusive queues belong to one, closing ends one.
    pub fn connect(&self) -> Self {
        Self {
            broker: self.broker.clone(),
            connection: self.broker.lock().connect(),
        }
    }

    /// What a queue holds; `None` when there is no such queue.
    pub fn depth(&self, queue: &str) -> Option<Depth> {
        self.broker.lock().depth(queue)
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn declare(&self, topology: &Topology) -> Result<()> {
        topology.check()?;
        self.broker.lock().declare(self.connection, topology)
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Outcome> {
        let mut broker = self.broker.lock();
        let publish = |message| match broker.publish(self.connection, message) {
            Ok(()) => Outcome::Bus,
            Err(error) => Outcome::Failed(error),
        };
        batch.into_iter().map(publish).collect()
    }

    async fn consume(&self, queue: &str, prefetch: u32) -> Result<Box<dyn Consumer>> {
        let id = self.broker.lock().consume(self.connection, queue)?;
        Ok(Box::new(MemoryConsumer {
            broker: self.broker.clone(),
            id,
            queue: queue.to_owned(),
            prefetch: if prefetch == 0 {
                usize::MAX
            } else {
                prefetch as usize
            },
            unsettled: Unsettled::default(),
            held: BTreeMap::new(),
        }))
    }

    async fn close(&self) -> Result<()> {
        self.broker.lock().close(self.connection);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryConsumer {
    broker: Arc<Mutex<Broker>>,
    id: u64,
    queue: String,
    prefetch: usize,
    unsettled: Unsettled,
    /// Place in the queue of each unsettled delivery, by tag.
    held: BTreeMap<u64, u64>,
}

impl MemoryConsumer {
    fn take(&mut self) -> Taken {
        let room = self.prefetch.saturating_sub(self.held.len()).min(BATCH_MAX);
        self.broker.lock().take(&self.queue, self.id, room)
    }

    fn deliver(&mut self, place: u64, message: Message, redelivered: bool) -> Delivery {
        let tag = self.unsettled.push();
        self.held.insert(tag, place);
        Delivery {
            tag,
            redelivered,
            exchange: message.exchange,
            routing_key: message.routing_key,
            properties: message.properties,
            body: message.body,
        }
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Option<Vec<Delivery>>> {
        loop {
            // Listen first, look second: what comes in between wakes us.
            let Some(arrivals) = self.broker.lock().arrivals(&self.queue, self.id) else {
                return Ok(None);
            };
            let mut arrival = std::pin::pin!(arrivals.notified());
            arrival.as_mut().enable();
            match self.take() {
                Taken::Ended => return Ok(None),
                Taken::Messages(messages) if messages.is_empty() => arrival.await,
                Taken::Messages(messages) => {
                    let deliver = |(place, m, again)| self.deliver(place, m, again);
                    return Ok(Some(messages.into_iter().map(deliver).collect()));
                }
            }
        }
    }

    async fn settle(&mut self, settle: Settle, tags: Tags) -> Result<()> {
        let mut broker = self.broker.lock();
        if !broker.is_consuming(self.id) {
            return Err(Error::new(ErrorKind::Closed, "the consumer has ended"));
        }
        self.unsettled.settle(tags)?;
        let places: Vec<u64> = match tags {
            Tags::One(tag) => self.held.remove(&tag).into_iter().collect(),
            Tags::UpTo(tag) => {
                let later = self.held.split_off(&(tag + 1));
                std::mem::replace(&mut self.held, later)
                    .into_values()
                    .collect()
            }
        };
        broker.settle(&self.queue, self.id, settle, &places);
        Ok(())
    }

    async fn cancel(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.broker.lock().cancel(self.id);
    }
}
