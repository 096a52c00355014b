//! One consumer of the archive queue: hands over what comes, acknowledges what it is told to,
//! begins again when its connection ends.

use super::batch::ConsumerId;
use annals_bus::{Bus, Consumer, Delivery, Settle, Tags};
use annals_core::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Wait before a consumer that ended begins again.
const PAUSE: Duration = Duration::from_millis(500);

/// Deliveries of one consumer.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) from: ConsumerId,
    pub(super) deliveries: Vec<Delivery>,
}

/// What a consumer is to do. Acks are cumulative, so that the newest says all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    /// Acknowledge up to this tag of this generation.
    pub(super) ack: Option<(u64, u64)>,
    /// Then cancel.
    pub(super) stop: bool,
}

pub(super) struct ConsumerTask {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) queue: String,
    pub(super) prefetch: u32,
    pub(super) number: usize,
    pub(super) arrived: mpsc::Sender<Arrived>,
    pub(super) orders: watch::Receiver<Orders>,
}

/// Why a generation of a consumer ended.
enum Ended {
    /// It was told to, or nobody listens.
    Stopped,
    /// The bus ended it.
    Lost,
}

impl ConsumerTask {
    /// Consumes until told to stop; an error only when the bus itself is closed.
    pub(super) async fn run(mut self) -> Result<()> {
        for generation in 1.. {
            let lost = match self.bus.consume(&self.queue, self.prefetch).await {
                Ok(consumer) => match self.consume(consumer, generation).await {
                    Ok(Ended::Stopped) => return Ok(()),
                    Ok(Ended::Lost) => Error::new(ErrorKind::Unavailable, "the bus ended it"),
                    Err(e) => e,
                },
                Err(e) if e.kind() == ErrorKind::Closed => return Err(e),
                Err(e) => e,
            };
            let (consumer, queue) = (self.number, &self.queue);
            tracing::warn!(error = %lost, consumer, queue, "archive consumer lost, consuming again");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                stopped = self.orders.wait_for(|orders| orders.stop) => {
                    drop(stopped);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn consume(&mut self, mut consumer: Box<dyn Consumer>, generation: u64) -> Result<Ended> {
        let from = ConsumerId {
            consumer: self.number,
            generation,
        };
        let arrived = self.arrived.clone();
        let mut room = None;
        let mut acked = 0;
        loop {
            tokio::select! {
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return Ok(Ended::Stopped);
                    }
                    let orders = *self.orders.borrow_and_update();
                    // An order to stop repeats the last ack, which a bus would refuse.
                    let ack = orders.ack.filter(|ack| ack.0 == generation && ack.1 > acked);
                    if let Some((_, tag)) = ack {
                        consumer.settle(Settle::Ack, Tags::UpTo(tag)).await?;
                        acked = tag;
                    }
                    if orders.stop {
                        consumer.cancel().await?;
                        return Ok(Ended::Stopped);
                    }
                }
                // Room first, deliveries second: what is fetched is never left in between.
                permit = arrived.reserve(), if room.is_none() => match permit {
                    Ok(permit) => room = Some(permit),
                    Err(_) => return Ok(Ended::Stopped),
                },
                next = consumer.next(), if room.is_some() => match next? {
                    None => return Ok(Ended::Lost),
                    Some(deliveries) => {
                        let room = room.take().expect("checked by the branch's condition");
                        room.send(Arrived { from, deliveries });
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_bus::{MemoryBus, Message, Queue, Topology};
    use annals_core::Properties;

    const QUEUE: &str = "archive";

    #[tokio::test]
    async fn a_stop_after_an_ack_does_not_ack_again() {
        let bus = MemoryBus::new();
        let topology = Topology {
            queues: vec![Queue::durable(QUEUE)],
            ..Topology::default()
        };
        bus.declare(&topology).await.unwrap();
        let message = Message {
            exchange: "".into(),
            routing_key: QUEUE.into(),
            properties: Properties::none(),
            body: "one".into(),
            mandatory: true,
        };
        assert!(bus.publish(vec![message]).await[0].is_bus());
        let (send, mut arrived) = mpsc::channel(1);
        let (orders, receiver) = watch::channel(Orders::default());
        let consumer = bus.consume(QUEUE, 0).await.unwrap();
        let mut task = ConsumerTask {
            bus: Arc::new(bus.connect()),
            queue: QUEUE.to_owned(),
            prefetch: 0,
            number: 0,
            arrived: send,
            orders: receiver,
        };
        let consuming = tokio::spawn(async move { task.consume(consumer, 1).await });
        let tag = arrived.recv().await.unwrap().deliveries[0].tag;
        orders.send_modify(|orders| orders.ack = Some((1, tag)));
        while bus.depth(QUEUE).unwrap().unsettled > 0 {
            tokio::task::yield_now().await;
        }
        orders.send_modify(|orders| orders.stop = true);
        let ended = consuming.await.unwrap();
        assert!(matches!(ended, Ok(Ended::Stopped)), "{:?}", ended.err());
    }
}
