//! [`Session`] and [`SessionEvents`]: one client's two ends, what it asks and what it is told.
//!
//! ```text
//!  client ──► Session ──► command queue (bounded) ──► engine ──► SessionEvents ──► client
//! ```
//!
//! Requests that have an answer are async calls. Publishes and settlements only wait for room in
//! the command queue; what became of them arrives as events, in order. Everything a client is told
//! (answer, confirm, delivery) is told after the commit that makes it true.
//!
//! Two tasks may share a session; keep taking events while calling, or calls may wait for ever
//! behind a client that does not read. Deliveries of a new consumer may lie in the events before
//! [`Session::consume`] returns: a front that must answer first takes events after it.

pub use crate::core::spec::{
    BindingSpec, ConsumeSpec, Destination, ExchangeKind, ExchangeSpec, QueueInfo, QueueSpec,
    Refusal, Settle, Settlement,
};
pub use crate::message::{Delivered, Message, Publish};

use crate::command::{Answer, Call, Command, Commands};
use crate::outbox::{Outbox, Taken};
use std::sync::Arc;
use tokio::sync::oneshot;

/// One client's requests. Dropped: the client is gone, its exclusive queues are deleted, its
/// unsettled deliveries go back.
#[derive(Debug)]
pub struct Session {
    pub(crate) id: u64,
    pub(crate) commands: Arc<Commands>,
}

impl Session {
    /// Makes an exchange exist as described, or asks whether it does.
    pub async fn declare_exchange(&self, spec: ExchangeSpec) -> Result<(), Refusal> {
        self.call(Call::DeclareExchange(spec)).await.map(drop)
    }

    /// Deletes an exchange and the bindings from and to it; one that is not there is no error.
    pub async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<(), Refusal> {
        let name = name.to_owned();
        self.call(Call::DeleteExchange { name, if_unused })
            .await
            .map(drop)
    }

    /// Makes a binding.
    pub async fn bind(&self, spec: BindingSpec) -> Result<(), Refusal> {
        self.call(Call::Bind(spec)).await.map(drop)
    }

    /// Removes a binding; one that is not there is no error.
    pub async fn unbind(&self, spec: BindingSpec) -> Result<(), Refusal> {
        self.call(Call::Unbind(spec)).await.map(drop)
    }

    /// Makes a queue exist as described, or asks about it.
    pub async fn declare_queue(&self, spec: QueueSpec) -> Result<QueueInfo, Refusal> {
        match self.call(Call::DeclareQueue(spec)).await? {
            Answer::Queue(info) => Ok(info),
            _ => Err(unexpected()),
        }
    }

    /// Deletes a queue and its messages; how many those were.
    pub async fn delete_queue(
        &self,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<u32, Refusal> {
        let name = name.to_owned();
        self.count(Call::DeleteQueue {
            name,
            if_unused,
            if_empty,
        })
        .await
    }

    /// Drops the messages of a queue that are not delivered; how many those were.
    pub async fn purge_queue(&self, name: &str) -> Result<u32, Refusal> {
        let name = name.to_owned();
        self.count(Call::PurgeQueue { name }).await
    }

    /// Starts a consumer.
    pub async fn consume(&self, spec: ConsumeSpec) -> Result<(), Refusal> {
        self.call(Call::Consume(spec)).await.map(drop)
    }

    /// Stops a consumer; what it has unsettled stays with the channel. Events that were on their
    /// way may still come.
    pub async fn cancel(&self, channel: u16, consumer_tag: &str) -> Result<(), Refusal> {
        let consumer_tag = consumer_tag.to_owned();
        self.call(Call::Cancel {
            channel,
            consumer_tag,
        })
        .await
        .map(drop)
    }

    /// Takes the next message of a queue, if any, and how many are left after it.
    pub async fn get(
        &self,
        channel: u16,
        queue: &str,
        no_ack: bool,
    ) -> Result<Option<(Delivered, u32)>, Refusal> {
        let queue = queue.to_owned();
        match self
            .call(Call::Get {
                channel,
                queue,
                no_ack,
            })
            .await?
        {
            Answer::Got(got) => Ok(got),
            _ => Err(unexpected()),
        }
    }

    /// Hands over a batch of one channel; waits for room in the command queue alone.
    ///
    /// Answers come as events: [`SessionEvent::Confirmed`] or [`SessionEvent::Nacked`] for messages
    /// with a confirm number, [`SessionEvent::Returned`] before that for mandatory ones that reach
    /// no queue, [`SessionEvent::ChannelError`] for an exchange that is not there; after which the
    /// channel's messages are dropped until it is closed.
    pub async fn publish(&self, channel: u16, batch: Vec<Publish>) {
        if batch.is_empty() {
            return;
        }
        let cost = batch.iter().map(Publish::cost).sum();
        self.send(
            cost,
            Command::Publish {
                session: self.id,
                channel,
                batch,
            },
        )
        .await;
    }

    /// Settles deliveries of a channel. An unknown tag is a [`SessionEvent::ChannelError`].
    pub async fn settle(&self, channel: u16, batch: Vec<Settlement>) {
        let cost = batch.len() * size_of::<Settlement>();
        self.send(
            cost,
            Command::Settle {
                session: self.id,
                channel,
                batch,
            },
        )
        .await;
    }

    /// Ends a channel: its consumers stop, its unsettled deliveries go back. Its number may be
    /// used again once this returns.
    pub async fn close_channel(&self, channel: u16) {
        // The only refusal is that of a closed broker, where there is nothing left to close.
        let _ = self.call(Call::CloseChannel { channel }).await;
    }

    async fn count(&self, call: Call) -> Result<u32, Refusal> {
        match self.call(call).await? {
            Answer::Count(count) => Ok(count),
            _ => Err(unexpected()),
        }
    }

    async fn call(&self, call: Call) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(
            256,
            Command::Call {
                session: self.id,
                call,
                reply,
            },
        )
        .await;
        answer.await.unwrap_or_else(|_| Err(Refusal::closed()))
    }

    async fn send(&self, cost: usize, command: Command) {
        self.commands.send(cost, command).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.commands.send_now(Command::Gone { session: self.id });
    }
}

/// What one client is told.
#[derive(Debug)]
pub struct SessionEvents {
    commands: Arc<Commands>,
    outbox: Arc<Outbox>,
    /// Window deliveries of the last batch taken, which the next call declares dealt with.
    taken: Vec<Taken>,
}

/// One thing a client is told.
#[derive(Debug)]
pub enum SessionEvent {
    /// All messages of a channel up to this confirm number that were not answered before are held
    /// durably (as durably as queue and message ask).
    Confirmed {
        /// Channel.
        channel: u16,
        /// Confirm number.
        up_to: u64,
    },
    /// These messages of a channel were not taken.
    Nacked {
        /// Channel.
        channel: u16,
        /// First confirm number.
        from: u64,
        /// Last confirm number.
        up_to: u64,
    },
    /// A mandatory message that reached no queue.
    Returned {
        /// Channel.
        channel: u16,
        /// AMQP reply code.
        code: u16,
        /// AMQP reply text.
        text: &'static str,
        /// The message.
        publish: Box<Publish>,
    },
    /// Messages for a consumer, in the queue's order.
    Deliveries {
        /// Channel.
        channel: u16,
        /// Consumer.
        consumer_tag: Arc<str>,
        /// One or more.
        deliveries: Vec<Delivered>,
    },
    /// A consumer that ended because its queue did.
    ConsumerCancelled {
        /// Channel.
        channel: u16,
        /// Consumer.
        consumer_tag: Arc<str>,
    },
    /// A channel that must be closed; what it sends is dropped until then.
    ChannelError {
        /// Channel.
        channel: u16,
        /// Why.
        refusal: Refusal,
    },
    /// Publishes are refused for now; why. Told to sessions that publish, before the first
    /// refusal.
    Blocked(String),
    /// Publishes are taken again; told to whoever was told the other.
    Unblocked,
    /// The session is over: the broker closed or failed, or the client did not take its events.
    /// No event follows.
    Closed(Refusal),
}

impl SessionEvents {
    pub(crate) fn new(commands: Arc<Commands>, outbox: Arc<Outbox>) -> Self {
        Self {
            commands,
            outbox,
            taken: Vec::new(),
        }
    }

    /// Waits for events, one or more; `None` after the session's end. Can be dropped and called
    /// again without loss.
    ///
    /// Calling it again says that the deliveries taken before were dealt with: those of consumers
    /// that do not settle count as settled then, so load them before.
    pub async fn next(&mut self) -> Option<Vec<SessionEvent>> {
        if !self.taken.is_empty() {
            let done = std::mem::take(&mut self.taken);
            self.tell(Vec::new(), done);
        }
        let (events, taken) = self.outbox.take().await?;
        if !taken.is_empty() {
            self.taken.clone_from(&taken);
            self.tell(taken, Vec::new());
        }
        Some(events)
    }

    fn tell(&self, taken: Vec<Taken>, done: Vec<Taken>) {
        self.commands.send_now(Command::Taken { taken, done });
    }
}

fn unexpected() -> Refusal {
    Refusal::new(541, "the engine gave another call's answer")
}
