//! The consumer's half of a mutant.

use super::{Fault, ended};
use annals_bus::{Bus, Consumer, Delivery, ErrorKind, MemoryBus, Message, Result, Settle, Tags};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// What others may see of a consumer.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Absent once it is cancelled.
    inner: tokio::sync::Mutex<Option<Box<dyn Consumer>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Everything delivered, for a twin to get again.
    bodies: VecDeque<Bytes>,
    /// The deliveries, for [`Fault::RequeuesAtTheEnd`].
    deliveries: Vec<Delivery>,
    put_back: HashSet<Bytes>,
    settled: bool,
}

impl Seat {
    pub(crate) fn new(inner: Box<dyn Consumer>) -> Self {
        Self {
            inner: tokio::sync::Mutex::new(Some(inner)),
            state: Mutex::default(),
        }
    }

    /// Acknowledges what is held, if nothing was settled.
    pub(crate) async fn lose_held(&self) {
        let last = {
            let state = self.state.lock();
            let last = state.deliveries.last().map(|d| d.tag);
            last.filter(|_| !state.settled)
        };
        if let (Some(tag), Some(inner)) = (last, self.inner.lock().await.as_mut()) {
            let lost = inner.settle(Settle::Ack, Tags::UpTo(tag)).await;
            lost.expect("settles");
        }
    }
}

#[derive(Debug)]
pub(crate) struct MutantConsumer {
    pub(crate) fault: Option<Fault>,
    pub(crate) bus: MemoryBus,
    pub(crate) queue: Arc<str>,
    pub(crate) seat: Arc<Seat>,
    /// A consumer of another connection that was there first.
    pub(crate) beside: Option<Arc<Seat>>,
}

impl MutantConsumer {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn change(&self, delivery: &mut Delivery) {
        let mut state = self.seat.state.lock();
        if self.has(Fault::HidesRedelivery) {
            delivery.redelivered = false;
        }
        if state.put_back.contains(&delivery.body) {
            delivery.redelivered = true;
        }
        if let Some(beside) = &self.beside
            && self.has(Fault::DeliversToAll)
            && let Some(body) = beside.state.lock().bodies.pop_front()
        {
            delivery.body = body;
        }
        state.bodies.push_back(delivery.body.clone());
        state.deliveries.push(delivery.clone());
    }

    /// Acknowledges, and publishes again: at the end.
    async fn put_at_the_end(&self, tags: Tags) {
        let again: Vec<Delivery> = {
            let mut state = self.seat.state.lock();
            let meant = |d: &Delivery| match tags {
                Tags::One(tag) => d.tag == tag,
                Tags::UpTo(tag) => d.tag <= tag,
            };
            let again: Vec<Delivery> = state.deliveries.extract_if(.., |d| meant(d)).collect();
            let bodies = again.iter().map(|d| d.body.clone());
            state.put_back.extend(bodies);
            again
        };
        let message = |delivery: Delivery| Message {
            exchange: "".into(),
            routing_key: self.queue.clone(),
            properties: delivery.properties,
            body: delivery.body,
            mandatory: true,
        };
        let published = self.bus.publish(again.into_iter().map(message).collect());
        drop(published.await);
    }
}

#[async_trait]
impl Consumer for MutantConsumer {
    async fn next(&mut self) -> Result<Option<Vec<Delivery>>> {
        let mut inner = self.seat.inner.lock().await;
        let inner = inner.as_mut().expect("not cancelled");
        let Some(mut deliveries) = inner.next().await? else {
            return if self.has(Fault::EndsWithAnError) {
                Err(ended())
            } else {
                Ok(None)
            };
        };
        if self.has(Fault::NextLosesWhenDropped) {
            tokio::task::yield_now().await;
        }
        for delivery in &mut deliveries {
            self.change(delivery);
        }
        Ok(Some(deliveries))
    }

    async fn settle(&mut self, settle: Settle, tags: Tags) -> Result<()> {
        self.seat.state.lock().settled = true;
        let mut inner = self.seat.inner.lock().await;
        let inner = inner.as_mut().expect("not cancelled");
        let (settle, tags) = match (self.fault, settle, tags) {
            (Some(Fault::UpToIsOne), Settle::Ack, Tags::UpTo(tag)) => (settle, Tags::One(tag)),
            (Some(Fault::OneIsUpTo), Settle::Ack, Tags::One(tag)) => (settle, Tags::UpTo(tag)),
            (Some(Fault::RejectRequeues), Settle::Reject, _) => (Settle::Requeue, tags),
            (Some(Fault::RequeuesAtTheEnd), Settle::Requeue, _) => {
                self.put_at_the_end(tags).await;
                (Settle::Ack, tags)
            }
            _ => (settle, tags),
        };
        match inner.settle(settle, tags).await {
            Err(error) if self.has(Fault::TakesAnyTag) && error.kind() == ErrorKind::Invalid => {
                Ok(())
            }
            settled => settled,
        }
    }

    async fn cancel(self: Box<Self>) -> Result<()> {
        if self.has(Fault::CancelLosesHeld) {
            self.seat.lose_held().await;
        }
        match self.seat.inner.lock().await.take() {
            Some(inner) => inner.cancel().await,
            None => Ok(()),
        }
    }
}
