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
        loop {
            tokio::select! {
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return Ok(Ended::Stopped);
                    }
                    let orders = *self.orders.borrow_and_update();
                    if let Some((_, tag)) = orders.ack.filter(|ack| ack.0 == generation) {
                        consumer.settle(Settle::Ack, Tags::UpTo(tag)).await?;
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
