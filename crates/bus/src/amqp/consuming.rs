//! A consumer on an AMQP bus: a channel of its own, settled by hand.

use super::link::{Link, failed};
use super::{close, properties, short};
use crate::tags::Unsettled;
use crate::{Consumer, Delivery, Error, ErrorKind, Result, Settle, Tags};
use async_trait::async_trait;
use futures::Stream;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What AMQP can say; also ours for a consumer that sets no limit, so that what waits is bounded.
const PREFETCH_MAX: u32 = 65_535;
/// Most deliveries of one `next`.
const BATCH_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct AmqpConsumer {
    link: Arc<Link>,
    channel: Channel,
    stream: lapin::Consumer,
    unsettled: Unsettled,
    /// Came behind deliveries that were handed out first.
    error: Option<Error>,
    ended: bool,
}

impl AmqpConsumer {
    pub(super) async fn start(link: Arc<Link>, queue: &str, prefetch: u32) -> Result<Self> {
        let channel = link.channel().await?;
        let prefetch = match prefetch {
            0 => PREFETCH_MAX,
            some => some.min(PREFETCH_MAX),
        };
        let per_consumer = BasicQosOptions { global: false };
        let limited = channel.basic_qos(prefetch as u16, per_consumer).await;
        limited.map_err(failed)?;
        let stream = channel.basic_consume(
            short(queue)?,
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        Ok(Self {
            stream: stream.await.map_err(failed)?,
            link,
            channel,
            unsettled: Unsettled::default(),
            error: None,
            ended: false,
        })
    }

    /// All that has arrived, in bounds; waits for the first.
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<Delivery>>>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX {
            if self.link.is_closed() {
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
            match Pin::new(&mut self.stream).poll_next(context) {
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(Ok(delivery))) => match self.take(delivery) {
                    Ok(delivery) => batch.push(delivery),
                    Err(error) => {
                        self.error = Some(error);
                        break;
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    self.error = Some(failed(error));
                    break;
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    break;
                }
            }
        }
        if !batch.is_empty() {
            return Poll::Ready(Ok(Some(batch)));
        }
        Poll::Ready(self.error.take().map_or(Ok(None), |error| {
            self.ended = true;
            Err(error)
        }))
    }

    fn take(&mut self, delivery: lapin::message::Delivery) -> Result<Delivery> {
        let tag = self.unsettled.push();
        if tag != delivery.delivery_tag {
            let text = format!("delivery {tag} came as {}", delivery.delivery_tag);
            return Err(Error::new(ErrorKind::Internal, text));
        }
        Ok(Delivery {
            tag,
            redelivered: delivery.redelivered,
            exchange: delivery.exchange.as_str().into(),
            routing_key: delivery.routing_key.as_str().into(),
            properties: properties::from_client(&delivery.properties)?,
            body: delivery.data.into(),
        })
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn next(&mut self) -> Result<Option<Vec<Delivery>>> {
        if let Some(error) = self.error.take() {
            self.ended = true;
            return Err(error);
        }
        if self.ended {
            return Ok(None);
        }
        std::future::poll_fn(|context| self.poll_batch(context)).await
    }

    async fn settle(&mut self, settle: Settle, tags: Tags) -> Result<()> {
        if self.link.is_closed() {
            return Err(Error::new(ErrorKind::Closed, "the bus is closed"));
        }
        self.unsettled.check(tags)?;
        let (tag, multiple) = match tags {
            Tags::One(tag) => (tag, false),
            Tags::UpTo(tag) => (tag, true),
        };
        let requeue = match settle {
            Settle::Ack => {
                let options = BasicAckOptions { multiple };
                let acked = self.channel.basic_ack(tag, options).await;
                acked.map_err(failed)?;
                return self.unsettled.settle(tags);
            }
            Settle::Requeue => true,
            Settle::Reject => false,
        };
        let options = BasicNackOptions { multiple, requeue };
        let nacked = self.channel.basic_nack(tag, options).await;
        nacked.map_err(failed)?;
        self.unsettled.settle(tags)
    }

    async fn cancel(self: Box<Self>) -> Result<()> {
        // Ends the consumer and gives back what is unsettled, in one.
        close(&self.channel).await;
        Ok(())
    }
}
