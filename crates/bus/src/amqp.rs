//! [`AmqpBus`]: RabbitMQ, or the embedded broker over TCP.
//!
//! ```text
//!  publish ──► publishing task ──► channel in confirm mode ─┐ connection 1
//!                  ▲ outcomes ◄── confirms, returns ◄───────┘
//!  declare, consume ──► a channel each ── connection 2
//! ```
//!
//! Two connections, so that a broker that holds publishers back does not hold consumers back. A
//! lost connection shows as errors to whoever used it; the next call connects again. A soft error
//! closes the channel it came on, which is never one that others use.

mod consuming;
mod link;
mod properties;
mod publishing;
mod window;

use crate::exchanges::{KnownExchanges, Split};
use crate::topology::{self, Queue, Topology};
use crate::{Bus, Consumer, Error, Message, Outcome, Result};
use async_trait::async_trait;
use consuming::AmqpConsumer;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use link::{Link, failed};
use publishing::Publishing;
use std::sync::Arc;
use std::time::Duration;

/// A bus on an AMQP 0-9-1 server.
#[derive(Debug)]
pub struct AmqpBus {
    publishing: Publishing,
    publish_link: Arc<Link>,
    consume_link: Arc<Link>,
    exchanges: KnownExchanges,
    options: AmqpOptions,
}

/// Settings of an [`AmqpBus`].
#[derive(Debug, Clone)]
pub struct AmqpOptions {
    /// Name of the connections, as the server shows it.
    pub name: String,
    /// Messages published and not confirmed; more wait.
    pub window: usize,
    /// Calls of `publish` waiting for the window; more wait outside.
    pub calls_max: usize,
    /// A confirm that takes longer is [`crate::ErrorKind::Unknown`].
    pub confirm_timeout: Duration,
    /// Connecting that takes longer has failed.
    pub connect_timeout: Duration,
    /// Durable queues are declared as quorum queues: RabbitMQ in production.
    pub quorum_queues: bool,
    /// `x-delivery-limit` of quorum queues: -1 on RabbitMQ 4, where none means 20; none before.
    pub delivery_limit: Option<i64>,
}

impl Default for AmqpOptions {
    fn default() -> Self {
        Self {
            name: "annals".to_owned(),
            window: 1024,
            calls_max: 256,
            confirm_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            quorum_queues: false,
            delivery_limit: None,
        }
    }
}

impl AmqpBus {
    /// Connects: `amqp://user:password@host:port/vhost`.
    pub async fn connect(uri: &str, options: AmqpOptions) -> Result<Self> {
        let link = |what| Arc::new(Link::new(uri, what, &options));
        let (publish_link, consume_link) = (link("publish"), link("consume"));
        publish_link.open().await?;
        consume_link.open().await?;
        Ok(Self {
            publishing: Publishing::new(publish_link.clone(), &options),
            publish_link,
            consume_link,
            exchanges: KnownExchanges::default(),
            options,
        })
    }

    /// Asks for the exchanges of a batch that are not known; those that cannot be published to.
    async fn missing(&self, batch: &[Message]) -> Vec<(Arc<str>, Error)> {
        let mut missing = Vec::new();
        for name in self.exchanges.unknown_in(batch) {
            match self.ask(&name).await {
                Ok(()) => self.exchanges.add(name),
                Err(error) => missing.push((name, error)),
            }
        }
        missing
    }

    async fn ask(&self, exchange: &str) -> Result<()> {
        // Its refusal closes the channel.
        let throw_away = self.publish_link.channel().await?;
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let kind = ExchangeKind::Direct;
        throw_away
            .exchange_declare(short(exchange)?, kind, options, FieldTable::default())
            .await
            .map_err(failed)?;
        close(&throw_away).await;
        Ok(())
    }

    async fn declare_on(&self, channel: &Channel, topology: &Topology) -> Result<()> {
        for exchange in &topology.exchanges {
            let kind = match exchange.kind {
                topology::ExchangeKind::Direct => ExchangeKind::Direct,
                topology::ExchangeKind::Topic => ExchangeKind::Topic,
                topology::ExchangeKind::Fanout => ExchangeKind::Fanout,
            };
            let options = ExchangeDeclareOptions {
                durable: exchange.durable,
                ..ExchangeDeclareOptions::default()
            };
            let name = short(&exchange.name)?;
            let declared = channel.exchange_declare(name, kind, options, FieldTable::default());
            declared.await.map_err(failed)?;
        }
        for queue in &topology.queues {
            let options = QueueDeclareOptions {
                durable: queue.durable,
                exclusive: !queue.durable,
                ..QueueDeclareOptions::default()
            };
            let arguments = self.queue_arguments(queue);
            let declared = channel.queue_declare(short(&queue.name)?, options, arguments);
            declared.await.map_err(failed)?;
        }
        for binding in &topology.bindings {
            bind(channel, binding).await?;
        }
        Ok(())
    }

    fn queue_arguments(&self, queue: &Queue) -> FieldTable {
        let mut arguments = FieldTable::default();
        if queue.durable && self.options.quorum_queues {
            let quorum = AMQPValue::LongString("quorum".into());
            arguments.insert("x-queue-type".into(), quorum);
            if let Some(limit) = self.options.delivery_limit {
                arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(limit));
            }
        }
        arguments
    }
}

#[async_trait]
impl Bus for AmqpBus {
    async fn declare(&self, topology: &Topology) -> Result<()> {
        topology.check()?;
        // Where consumers are: an exclusive queue belongs to its connection.
        let throw_away = self.consume_link.channel().await?;
        self.declare_on(&throw_away, topology).await?;
        close(&throw_away).await;
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
        let consumer = AmqpConsumer::start(self.consume_link.clone(), queue, prefetch).await?;
        Ok(Box::new(consumer))
    }

    async fn close(&self) -> Result<()> {
        self.publish_link.close().await;
        self.consume_link.close().await;
        Ok(())
    }
}

async fn bind(channel: &Channel, binding: &topology::Binding) -> Result<()> {
    let (source, key) = (short(&binding.source)?, short(&binding.key)?);
    let no_arguments = FieldTable::default();
    let bound = match &binding.destination {
        topology::Destination::Queue(name) => {
            let options = QueueBindOptions::default();
            let queue = short(name)?;
            channel
                .queue_bind(queue, source, key, options, no_arguments)
                .await
        }
        topology::Destination::Exchange(name) => {
            let options = ExchangeBindOptions::default();
            let exchange = short(name)?;
            channel
                .exchange_bind(exchange, source, key, options, no_arguments)
                .await
        }
    };
    bound.map_err(failed)
}

/// Ends a channel that did its work; that it is gone already is no harm.
async fn close(channel: &Channel) {
    if let Err(error) = channel.close(200, "OK".into()).await {
        tracing::debug!(%error, "closing a channel");
    }
}

fn short(text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|e| Error::invalid("a name is over 255 bytes").caused_by(e))
}
