//! A channel: what its methods ask of the session, and how they are answered.

use super::config::AmqpConfig;
use super::content::{Content, Whole};
use super::events::confirm_number;
use super::fault::Fault;
use super::method::{OtherMethod, PUBLISH, SettleMethod};
use super::output::{encode, short};
use super::writer::Reply;
use crate::message::Publish;
use crate::session::{
    BindingSpec, ConsumeSpec, Destination, ExchangeKind, ExchangeSpec, QueueSpec, Refusal, Session,
    Settle, Settlement,
};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, exchange, queue};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What all channels of a connection share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) replies: mpsc::Sender<Reply>,
    pub(crate) config: Arc<AmqpConfig>,
    pub(crate) user: String,
    /// The connection's number in this process.
    pub(crate) connection: u64,
}

impl Link {
    /// Hands a reply to the writer; waits while it has many.
    pub(crate) async fn reply(&self, reply: Reply) {
        // The writer ends first only with the connection, which the reader is told of.
        let _ = self.replies.send(reply).await;
    }
}

/// An open channel, or one that waits for channel.close-ok.
#[derive(Debug)]
pub(crate) struct Channel {
    number: u16,
    /// Tells this channel from those that had its number before.
    pub(crate) generation: u64,
    /// The broker closed it; all but close-ok is passed over.
    pub(crate) closing: bool,
    pub(crate) content: Content,
    /// Delivery tag of the next confirm, if confirms are on.
    confirm: Option<u64>,
    prefetch: u32,
    last_queue: String,
    consumers: Vec<Arc<str>>,
    tags: u64,
    /// Taken from the socket, not yet handed to the session.
    pub(crate) publishes: Vec<Publish>,
    pub(crate) settlements: Vec<Settlement>,
}

impl Channel {
    pub(crate) fn new(number: u16, generation: u64) -> Self {
        Self {
            number,
            generation,
            closing: false,
            content: Content::default(),
            confirm: None,
            prefetch: 0,
            last_queue: String::new(),
            consumers: Vec::new(),
            tags: 0,
            publishes: Vec::new(),
            settlements: Vec::new(),
        }
    }

    /// Puts a publish that is whole into the batch.
    pub(crate) fn publish(&mut self, whole: Whole, user: &str) -> Result<(), Fault> {
        if let Some(claimed) = whole.properties.user_id()
            && claimed != user
        {
            let detail =
                format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
            return Err(Fault::new(406, detail).on(PUBLISH));
        }
        let confirm = match &mut self.confirm {
            None => 0,
            Some(next) => {
                *next += 1;
                confirm_number(self.generation, *next - 1)
            }
        };
        self.publishes.push(Publish {
            exchange: whole.head.exchange,
            routing_key: whole.head.routing_key,
            properties: whole.properties,
            body: whole.body,
            mandatory: whole.head.mandatory,
            confirm,
        });
        Ok(())
    }

    /// Puts a settlement into the batch.
    pub(crate) fn settle(&mut self, settle: SettleMethod) {
        let how = match settle.id {
            super::method::ACK => Settle::Ack,
            _ if settle.requeue => Settle::Requeue,
            _ => Settle::Reject,
        };
        self.settlements.push(Settlement {
            tag: settle.tag,
            multiple: settle.multiple,
            how,
        });
    }

    /// Hands the batch to the session.
    pub(crate) async fn flush(&mut self, session: &Session) {
        if !self.publishes.is_empty() {
            let batch = std::mem::take(&mut self.publishes);
            session.publish(self.number, batch).await;
        }
        if !self.settlements.is_empty() {
            let batch = std::mem::take(&mut self.settlements);
            session.settle(self.number, batch).await;
        }
    }

    /// A consumer ended without being cancelled.
    pub(crate) fn consumer_ended(&mut self, consumer_tag: &str) {
        self.consumers.retain(|tag| **tag != *consumer_tag);
    }

    /// Does what a method asks, and answers it.
    pub(crate) async fn method(
        &mut self,
        link: &Link,
        method: OtherMethod<'_>,
    ) -> Result<(), Fault> {
        let id = method.id;
        self.dispatch(link, method).await.map_err(|fault| {
            if fault.method == (0, 0) {
                fault.on(id)
            } else {
                fault
            }
        })
    }

    async fn dispatch(&mut self, link: &Link, method: OtherMethod<'_>) -> Result<(), Fault> {
        let table = Bytes::copy_from_slice(method.table);
        match method.class {
            AMQPClass::Channel(asked) => self.on_channel(link, asked).await,
            AMQPClass::Exchange(asked) => self.on_exchange(link, asked, table).await,
            AMQPClass::Queue(asked) => self.on_queue(link, asked, table).await,
            AMQPClass::Basic(asked) => self.on_basic(link, asked, method.fields, table).await,
            AMQPClass::Confirm(confirm::AMQPMethod::Select(asked)) => {
                self.confirm.get_or_insert(1);
                let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
                self.answer(link, asked.nowait, AMQPClass::Confirm(ok))
                    .await;
                Ok(())
            }
            AMQPClass::Tx(_) => Err(Fault::not_implemented("transactions are not supported")),
            _ => Err(unimplemented()),
        }
    }

    async fn on_channel(&mut self, link: &Link, asked: channel::AMQPMethod) -> Result<(), Fault> {
        match asked {
            channel::AMQPMethod::Open(_) => Err(Fault::new(504, "second 'channel.open' seen")),
            channel::AMQPMethod::Flow(flow) if flow.active => {
                let ok = channel::AMQPMethod::FlowOk(channel::FlowOk { active: true });
                self.answer(link, false, AMQPClass::Channel(ok)).await;
                Ok(())
            }
            channel::AMQPMethod::Flow(_) => Err(Fault::not_implemented("active=false")),
            // Answers to what was not asked.
            channel::AMQPMethod::CloseOk(_) | channel::AMQPMethod::FlowOk(_) => Ok(()),
            // Close is the connection's business.
            _ => Err(unimplemented()),
        }
    }

    async fn on_exchange(
        &mut self,
        link: &Link,
        asked: exchange::AMQPMethod,
        arguments: Bytes,
    ) -> Result<(), Fault> {
        use exchange::AMQPMethod as Method;
        let (nowait, ok) = match asked {
            Method::Declare(asked) => {
                let kind = match ExchangeKind::parse(asked.kind.as_str()) {
                    Err(_) if asked.passive => ExchangeKind::Direct,
                    kind => kind?,
                };
                let spec = ExchangeSpec {
                    name: asked.exchange.into(),
                    kind,
                    durable: asked.durable,
                    auto_delete: asked.auto_delete,
                    internal: asked.internal,
                    passive: asked.passive,
                    arguments,
                };
                link.session.declare_exchange(spec).await?;
                (asked.nowait, Method::DeclareOk(exchange::DeclareOk {}))
            }
            Method::Delete(asked) => {
                let name = asked.exchange.as_str();
                link.session.delete_exchange(name, asked.if_unused).await?;
                (asked.nowait, Method::DeleteOk(exchange::DeleteOk {}))
            }
            Method::Bind(asked) => {
                let destination = Destination::Exchange(asked.destination.into());
                let spec = binding(
                    asked.source,
                    destination,
                    asked.routing_key.into(),
                    arguments,
                );
                link.session.bind(spec).await?;
                (asked.nowait, Method::BindOk(exchange::BindOk {}))
            }
            Method::Unbind(asked) => {
                let destination = Destination::Exchange(asked.destination.into());
                let spec = binding(
                    asked.source,
                    destination,
                    asked.routing_key.into(),
                    arguments,
                );
                link.session.unbind(spec).await?;
                (asked.nowait, Method::UnbindOk(exchange::UnbindOk {}))
            }
            _ => return Err(unimplemented()),
        };
        self.answer(link, nowait, AMQPClass::Exchange(ok)).await;
        Ok(())
    }

    async fn on_queue(
        &mut self,
        link: &Link,
        asked: queue::AMQPMethod,
        arguments: Bytes,
    ) -> Result<(), Fault> {
        use queue::AMQPMethod as Method;
        let (nowait, ok) = match asked {
            Method::Declare(asked) => return self.declare_queue(link, asked, arguments).await,
            Method::Bind(asked) => {
                let spec =
                    self.queue_binding(asked.queue, asked.exchange, asked.routing_key, arguments)?;
                link.session.bind(spec).await?;
                (asked.nowait, Method::BindOk(queue::BindOk {}))
            }
            Method::Unbind(asked) => {
                let spec =
                    self.queue_binding(asked.queue, asked.exchange, asked.routing_key, arguments)?;
                link.session.unbind(spec).await?;
                (false, Method::UnbindOk(queue::UnbindOk {}))
            }
            Method::Purge(asked) => {
                let name = self.queue_name(asked.queue.into())?;
                let message_count = link.session.purge_queue(&name).await?;
                (
                    asked.nowait,
                    Method::PurgeOk(queue::PurgeOk { message_count }),
                )
            }
            Method::Delete(asked) => {
                let name = self.queue_name(asked.queue.into())?;
                let deleted = link
                    .session
                    .delete_queue(&name, asked.if_unused, asked.if_empty);
                let message_count = deleted.await?;
                (
                    asked.nowait,
                    Method::DeleteOk(queue::DeleteOk { message_count }),
                )
            }
            _ => return Err(unimplemented()),
        };
        self.answer(link, nowait, AMQPClass::Queue(ok)).await;
        Ok(())
    }

    async fn declare_queue(
        &mut self,
        link: &Link,
        asked: queue::Declare,
        arguments: Bytes,
    ) -> Result<(), Fault> {
        let mut name: String = asked.queue.into();
        if asked.passive {
            name = self.queue_name(name)?;
        }
        let spec = QueueSpec {
            name,
            durable: asked.durable,
            exclusive: asked.exclusive,
            auto_delete: asked.auto_delete,
            passive: asked.passive,
            arguments,
        };
        let info = link.session.declare_queue(spec).await?;
        let ok = queue::DeclareOk {
            queue: short(&info.name),
            message_count: info.messages,
            consumer_count: info.consumers,
        };
        self.last_queue = info.name;
        let ok = AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok));
        self.answer(link, asked.nowait, ok).await;
        Ok(())
    }

    async fn on_basic(
        &mut self,
        link: &Link,
        asked: basic::AMQPMethod,
        fields: &[u8],
        arguments: Bytes,
    ) -> Result<(), Fault> {
        match asked {
            basic::AMQPMethod::Qos(asked) => {
                // The library skips prefetch_size, the first four octets.
                if fields.first_chunk() != Some(&[0; 4]) {
                    return Err(Fault::not_implemented("prefetch_size!=0"));
                }
                if asked.global {
                    return Err(Fault::not_implemented("prefetch with global=true"));
                }
                self.prefetch = asked.prefetch_count.into();
                let ok = AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {}));
                self.answer(link, false, ok).await;
                Ok(())
            }
            basic::AMQPMethod::Consume(asked) => self.consume(link, asked, arguments).await,
            basic::AMQPMethod::Cancel(asked) => self.cancel(link, asked).await,
            basic::AMQPMethod::Get(asked) => self.get(link, asked).await,
            basic::AMQPMethod::Recover(_) | basic::AMQPMethod::RecoverAsync(_) => {
                Err(Fault::not_implemented("basic.recover is not supported"))
            }
            _ => Err(unimplemented()),
        }
    }

    async fn consume(
        &mut self,
        link: &Link,
        asked: basic::Consume,
        arguments: Bytes,
    ) -> Result<(), Fault> {
        let queue = self.queue_name(asked.queue.into())?;
        let mut consumer_tag: String = asked.consumer_tag.into();
        if consumer_tag.is_empty() {
            self.tags += 1;
            consumer_tag = format!(
                "amq.ctag-{:x}.{:x}.{:x}",
                link.connection, self.generation, self.tags
            );
        }
        if self.consumers.iter().any(|tag| **tag == *consumer_tag) {
            let detail = format_args!("attempt to reuse consumer tag '{consumer_tag}'");
            return Err(Fault::new(530, detail));
        }
        let spec = ConsumeSpec {
            channel: self.number,
            queue,
            consumer_tag: consumer_tag.clone(),
            no_ack: asked.no_ack,
            exclusive: asked.exclusive,
            prefetch: self.prefetch,
            arguments,
        };
        link.session.consume(spec).await?;
        let consumer_tag: Arc<str> = consumer_tag.into();
        self.consumers.push(Arc::clone(&consumer_tag));
        let ok = basic::AMQPMethod::ConsumeOk(basic::ConsumeOk {
            consumer_tag: short(&consumer_tag),
        });
        let reply = Reply::Consuming {
            channel: self.number,
            consumer_tag,
            frame: self.frame_unless(asked.nowait, AMQPClass::Basic(ok)),
        };
        link.reply(reply).await;
        Ok(())
    }

    async fn cancel(&mut self, link: &Link, asked: basic::Cancel) -> Result<(), Fault> {
        let consumer_tag = asked.consumer_tag.as_str();
        // One that is not there is no error: it may have ended while this was on its way.
        if self.consumers.iter().any(|tag| **tag == *consumer_tag) {
            link.session.cancel(self.number, consumer_tag).await?;
            self.consumer_ended(consumer_tag);
        }
        let ok = basic::AMQPMethod::CancelOk(basic::CancelOk {
            consumer_tag: asked.consumer_tag.clone(),
        });
        let reply = Reply::Cancelled {
            channel: self.number,
            frame: self.frame_unless(asked.nowait, AMQPClass::Basic(ok)),
            consumer_tag: asked.consumer_tag.into(),
        };
        link.reply(reply).await;
        Ok(())
    }

    async fn get(&mut self, link: &Link, asked: basic::Get) -> Result<(), Fault> {
        let queue = self.queue_name(asked.queue.into())?;
        let reply = match link.session.get(self.number, &queue, asked.no_ack).await? {
            Some((delivered, left)) => Reply::Got {
                channel: self.number,
                delivered,
                left,
            },
            None => {
                let empty = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
                Reply::Frame(encode(self.number, AMQPClass::Basic(empty)))
            }
        };
        link.reply(reply).await;
        Ok(())
    }

    /// The name of a queue, or of the one declared last if it is empty.
    fn queue_name(&self, name: String) -> Result<String, Fault> {
        if !name.is_empty() {
            Ok(name)
        } else if self.last_queue.is_empty() {
            Err(Fault::new(404, "no previously declared queue"))
        } else {
            Ok(self.last_queue.clone())
        }
    }

    fn queue_binding(
        &self,
        queue: impl Into<String>,
        source: impl Into<String>,
        key: impl Into<String>,
        arguments: Bytes,
    ) -> Result<BindingSpec, Fault> {
        let (queue, mut key) = (queue.into(), key.into());
        let name = self.queue_name(queue.clone())?;
        if queue.is_empty() && key.is_empty() {
            key.clone_from(&name);
        }
        Ok(binding(source, Destination::Queue(name), key, arguments))
    }

    async fn answer(&self, link: &Link, nowait: bool, class: AMQPClass) {
        if !nowait {
            link.reply(Reply::Frame(encode(self.number, class))).await;
        }
    }

    fn frame_unless(&self, nowait: bool, class: AMQPClass) -> Vec<u8> {
        if nowait {
            Vec::new()
        } else {
            encode(self.number, class)
        }
    }
}

fn binding(
    source: impl Into<String>,
    destination: Destination,
    key: String,
    arguments: Bytes,
) -> BindingSpec {
    BindingSpec {
        source: source.into(),
        destination,
        key,
        arguments,
    }
}

fn unimplemented() -> Fault {
    Fault::new(503, "unimplemented method")
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Fault::refused(refusal.code, refusal.text)
    }
}
