//! The consuming half of a local bus: a mailbox per consumer, filled from the session's events.
//!
//! A mailbox holds tags and places in the log, not messages: those are read as the consumer takes
//! them. The broker bounds it by the consumer's prefetch, or by its own bound on unsettled
//! deliveries.
//!
//! A message that is damaged is set aside: named in the log, counted in
//! [`annals_broker::Stats::unreadable`], neither handed on nor settled. It holds up nothing, and
//! is ready again in its queue when the consumer ends. One that cannot be read for another reason
//! comes again.

use super::{SessionSlot, refused};
use crate::tags::Unsettled;
use crate::{Consumer, Delivery, Error, ErrorKind, Result, Settle, Tags};
use annals_broker::log::LogReader;
use annals_broker::{
    Broker, ConsumeSpec, Delivered, Message, SessionEvent, SessionEvents, Settlement, Unreadable,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Most deliveries of one `next`, and bytes after which it ends earlier.
const BATCH_MAX: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;
/// Deliveries read together.
const PART: usize = 128;
/// How long a message that cannot be read for now waits in its queue.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Consuming {
    pub(super) session: SessionSlot,
    reader: LogReader,
    unreadable: Unreadable,
    mailboxes: Arc<Mailboxes>,
}

#[derive(Debug, Default)]
struct Mailboxes {
    by_channel: Mutex<HashMap<u16, Arc<Mailbox>>>,
    /// The channel opened last. Numbers go round, so that what was under way to a closed channel
    /// never meets a new one.
    last: AtomicU16,
}

#[derive(Debug, Default)]
struct Mailbox {
    state: Mutex<Mail>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    deliveries: VecDeque<Delivered>,
    /// Set at the end; an error is told once.
    ended: Option<Option<Error>>,
}

impl Consuming {
    pub(super) fn new(broker: &Broker) -> Self {
        let (session, events) = broker.session();
        let mailboxes = Arc::new(Mailboxes::default());
        tokio::spawn(pass_on(events, mailboxes.clone()));
        Self {
            session: SessionSlot::new(session),
            reader: broker.reader(),
            unreadable: broker.unreadable(),
            mailboxes,
        }
    }

    /// Starts a consumer on a channel of its own.
    pub(super) async fn consume(
        self: Arc<Self>,
        queue: &str,
        prefetch: u32,
    ) -> Result<LocalConsumer> {
        let session = self.session.get()?;
        // Before the broker knows of it: deliveries may come before the call returns.
        let (channel, mailbox) = self.mailboxes.open()?;
        let consumer = LocalConsumer {
            consuming: self.clone(),
            runtime: Handle::current(),
            channel,
            mailbox,
            unsettled: Unsettled::default(),
            aside: BTreeSet::new(),
            again: Vec::new(),
            again_at: None,
            cancelled: false,
        };
        let spec = ConsumeSpec {
            channel,
            queue: queue.to_owned(),
            consumer_tag: "local".to_owned(),
            no_ack: false,
            exclusive: false,
            prefetch,
            arguments: Bytes::new(),
        };
        session.consume(spec).await.map_err(refused)?;
        Ok(consumer)
    }

    /// Ends the session and all consumers.
    pub(super) fn close(&self) {
        self.session.close();
        self.mailboxes.end_all(|| None);
    }

    async fn close_channel(&self, channel: u16) {
        if let Ok(session) = self.session.get() {
            session.close_channel(channel).await;
        }
        self.mailboxes.by_channel.lock().remove(&channel);
    }
}

#[derive(Debug)]
pub(super) struct LocalConsumer {
    consuming: Arc<Consuming>,
    runtime: Handle,
    channel: u16,
    mailbox: Arc<Mailbox>,
    unsettled: Unsettled,
    /// Tags of deliveries that cannot be read. As many as the prefetch at most: then nothing more
    /// comes.
    aside: BTreeSet<u64>,
    /// Tags of deliveries that the broker is to give out again, and when.
    again: Vec<u64>,
    again_at: Option<Instant>,
    cancelled: bool,
}

impl LocalConsumer {
    /// Reads what lies in the mailbox, in bounds; `None` when nothing does.
    fn take(&mut self) -> Option<Vec<Delivery>> {
        let mut taken = Vec::new();
        let (mut seen, mut bytes) = (0, 0);
        while seen < BATCH_MAX && bytes < BATCH_BYTES {
            let part = self.mailbox.state.lock().take(PART);
            if part.is_empty() {
                break;
            }
            seen += part.len();
            let messages = Delivered::load_each(&part, &self.consuming.reader);
            for (delivered, message) in part.into_iter().zip(messages) {
                match message {
                    Ok(message) => {
                        bytes += message.body.len();
                        let tag = self.unsettled.push();
                        debug_assert_eq!(tag, delivered.tag, "the broker's tags are dense");
                        taken.push(delivery(&delivered, message));
                    }
                    Err(error) => self.leave_out(&delivered, &error),
                }
            }
        }
        (seen > 0).then_some(taken)
    }

    /// A message that cannot be read: sets it aside, or has it come again if that can help.
    fn leave_out(&mut self, delivered: &Delivered, error: &Error) {
        let tag = self.unsettled.leave_out();
        debug_assert_eq!(tag, delivered.tag, "the broker's tags are dense");
        let position = delivered.position();
        let may_help = match error.kind() {
            ErrorKind::Corrupt => false,
            // It may have moved within the log since it was delivered.
            ErrorKind::NotFound => !delivered.redelivered,
            // The disk, or the process, is short of something for now.
            _ => true,
        };
        if may_help {
            tracing::warn!(%position, %error, "a queued message cannot be read, trying again");
            self.again.push(tag);
            self.again_at.get_or_insert(Instant::now() + PAUSE);
            return;
        }
        tracing::error!(
            %position,
            %error,
            "a queued message cannot be read and is set aside; it stays in its queue"
        );
        self.aside.insert(tag);
        self.consuming.unreadable.add(1);
    }

    /// Gives back what is to come again, if it is time.
    async fn give_back(&mut self) -> Result<()> {
        if self.again_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        let session = self.consuming.session.get()?;
        let requeue = |&tag| settlement(tag, false, annals_broker::Settle::Requeue);
        let batch = self.again.iter().map(requeue).collect();
        session.settle(self.channel, batch).await;
        self.again.clear();
        self.again_at = None;
        Ok(())
    }
}

#[async_trait]
impl Consumer for LocalConsumer {
    async fn next(&mut self) -> Result<Option<Vec<Delivery>>> {
        loop {
            // Before anything is taken: this call may be dropped where it waits.
            self.give_back().await?;
            let mailbox = self.mailbox.clone();
            let mut arrived = std::pin::pin!(mailbox.arrived.notified());
            arrived.as_mut().enable();
            if let Some(ended) = &mut mailbox.state.lock().ended {
                return ended.take().map_or(Ok(None), Err);
            }
            match (self.take(), self.again_at) {
                (Some(taken), _) if !taken.is_empty() => return Ok(Some(taken)),
                (Some(_), _) => tokio::task::yield_now().await,
                // Whichever it is that ends the wait, the loop looks.
                (None, Some(at)) => drop(timeout_at(at, arrived).await),
                (None, None) => arrived.await,
            }
        }
    }

    async fn settle(&mut self, settle: Settle, tags: Tags) -> Result<()> {
        let session = self.consuming.session.get()?;
        self.unsettled.check(tags)?;
        let (tag, multiple) = match tags {
            Tags::One(tag) => (tag, false),
            Tags::UpTo(tag) => (tag, true),
        };
        let how = match settle {
            Settle::Ack => annals_broker::Settle::Ack,
            Settle::Requeue => annals_broker::Settle::Requeue,
            Settle::Reject => annals_broker::Settle::Reject,
        };
        // What was left out is not meant: the broker's "up to" would include it.
        let left_out = self.again.iter().chain(self.aside.first()).min();
        let batch = match multiple && left_out.is_some_and(|&first| first < tag) {
            true => self
                .unsettled
                .up_to(tag)
                .map(|tag| settlement(tag, false, how))
                .collect(),
            false => vec![settlement(tag, multiple, how)],
        };
        session.settle(self.channel, batch).await;
        self.unsettled.settle(tags)
    }

    async fn cancel(mut self: Box<Self>) -> Result<()> {
        self.consuming.close_channel(self.channel).await;
        // Only now: a call that is dropped half-way is done by `drop`.
        self.cancelled = true;
        Ok(())
    }
}

impl Drop for LocalConsumer {
    fn drop(&mut self) {
        self.consuming.unreadable.sub(self.aside.len() as u64);
        if !self.cancelled {
            let (consuming, channel) = (self.consuming.clone(), self.channel);
            let close = async move { consuming.close_channel(channel).await };
            self.runtime.spawn(close);
        }
    }
}

impl Mailboxes {
    /// A channel number nobody has, and its mailbox.
    fn open(&self) -> Result<(u16, Arc<Mailbox>)> {
        let mut by_channel = self.by_channel.lock();
        let last = self.last.load(Ordering::Relaxed);
        let round = (last..u16::MAX).map(|n| n + 1).chain(1..=last);
        let free = round.into_iter().find(|n| !by_channel.contains_key(n));
        let Some(channel) = free else {
            let text = "the bus has 65,535 consumers";
            return Err(Error::new(ErrorKind::Unavailable, text));
        };
        let mailbox = Arc::new(Mailbox::default());
        by_channel.insert(channel, mailbox.clone());
        self.last.store(channel, Ordering::Relaxed);
        Ok((channel, mailbox))
    }

    fn take(&self, event: SessionEvent) {
        match event {
            SessionEvent::Deliveries {
                channel,
                deliveries,
                ..
            } => {
                let mailbox = self.by_channel.lock().get(&channel).cloned();
                if let Some(mailbox) = mailbox {
                    mailbox.state.lock().deliveries.extend(deliveries);
                    mailbox.arrived.notify_waiters();
                }
            }
            SessionEvent::ConsumerCancelled { channel, .. } => self.end(channel, None),
            SessionEvent::ChannelError { channel, refusal } => {
                self.end(channel, Some(refused(refusal)));
            }
            SessionEvent::Closed(refusal) => self.end_all(|| Some(refused(refusal.clone()))),
            // Nothing is published on this session; being blocked is told on the other.
            SessionEvent::Confirmed { .. }
            | SessionEvent::Nacked { .. }
            | SessionEvent::Returned { .. }
            | SessionEvent::Blocked(_)
            | SessionEvent::Unblocked => {}
        }
    }

    fn end(&self, channel: u16, error: Option<Error>) {
        let mailbox = self.by_channel.lock().get(&channel).cloned();
        if let Some(mailbox) = mailbox {
            mailbox.end(error);
        }
    }

    fn end_all(&self, error: impl Fn() -> Option<Error>) {
        for mailbox in self.by_channel.lock().values() {
            mailbox.end(error());
        }
    }
}

impl Mailbox {
    fn end(&self, error: Option<Error>) {
        self.state.lock().ended.get_or_insert(error);
        self.arrived.notify_waiters();
    }
}

impl Mail {
    fn take(&mut self, count: usize) -> Vec<Delivered> {
        let count = count.min(self.deliveries.len());
        self.deliveries.drain(..count).collect()
    }
}

/// Takes a session's events until it ends.
async fn pass_on(mut events: SessionEvents, mailboxes: Arc<Mailboxes>) {
    while let Some(events) = events.next().await {
        for event in events {
            mailboxes.take(event);
        }
    }
    mailboxes.end_all(|| None);
}

fn settlement(tag: u64, multiple: bool, how: annals_broker::Settle) -> Settlement {
    Settlement { tag, multiple, how }
}

fn delivery(delivered: &Delivered, message: Message) -> Delivery {
    Delivery {
        tag: delivered.tag,
        redelivered: delivered.redelivered,
        exchange: message.exchange,
        routing_key: message.routing_key,
        properties: message.properties,
        body: message.body,
    }
}
