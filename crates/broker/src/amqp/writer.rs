//! The writing half of a connection: the reader's replies and the engine's events, in one order.
//!
//! Memory stays bounded without asking how fast the client reads: replies wait in a bounded queue
//! (then the reader stops reading), events are taken only when those before them were written (then
//! the engine stops sending deliveries).

use super::fault::Fault;
use super::handshake::Agreed;
use super::method::{ACK, PUBLISH};
use super::output::{Deliver, Output, encode, short};
use crate::log::LogReader;
use crate::message::{Delivered, Message};
use crate::session::{SessionEvent, SessionEvents};
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes of messages loaded at a time.
const LOAD_BYTES: usize = 256 << 10;
/// Most messages loaded at a time.
const LOAD_MAX: usize = 256;

/// What the reader asks to be written. Frames are encoded and whole.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Nothing else depends on it.
    Frame(Vec<u8>),
    /// A channel exists from here on.
    Opened {
        channel: u16,
        generation: u64,
        frame: Vec<u8>,
    },
    /// A consumer exists; its deliveries follow.
    Consuming {
        channel: u16,
        consumer_tag: Arc<str>,
        frame: Vec<u8>,
    },
    /// What basic.get took, and how many are left.
    Got {
        channel: u16,
        delivered: Delivered,
        left: u32,
    },
    /// A consumer is gone; follows the events that are ready, its last deliveries among them.
    Cancelled {
        channel: u16,
        consumer_tag: String,
        frame: Vec<u8>,
    },
    /// A channel is gone; follows the events that are ready.
    Closed { channel: u16, frame: Vec<u8> },
    /// The connection is; follows the events that are ready, and nothing is written after it.
    Last(Vec<u8>),
}

/// What the writer tells the reader; at most one for each channel and consumer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The writer closed a channel.
    ChannelClosed { channel: u16, generation: u64 },
    /// A consumer ended.
    ConsumerEnded {
        channel: u16,
        generation: u64,
        consumer_tag: Arc<str>,
    },
    /// The writer wrote connection.close and has ended.
    ConnectionClosed,
}

/// Writes until the reader or the client is gone.
pub(crate) struct Writer<W> {
    pub(crate) writer: W,
    pub(crate) events: SessionEvents,
    pub(crate) log: LogReader,
    pub(crate) replies: mpsc::Receiver<Reply>,
    pub(crate) notes: mpsc::UnboundedSender<Note>,
    pub(crate) agreed: Agreed,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Ends with the writing half when there is nothing more to write.
    pub(crate) async fn run(self) -> io::Result<W> {
        let mut state = State {
            output: Output::new(self.agreed.frame_max),
            writer: self.writer,
            log: self.log,
            notes: self.notes,
            agreed: self.agreed,
            channels: HashMap::new(),
            early: Vec::new(),
            last_write: Instant::now(),
            ended: false,
        };
        let (mut events, mut replies) = (self.events, self.replies);
        while !state.ended {
            let next = state.wait(&mut events, &mut replies).await;
            state.take(next, &mut events).await?;
            // What else is ready goes into the same write.
            while !state.ended && !state.output.is_full() {
                let Some(next) = state.ready(&mut events, &mut replies).await else {
                    break;
                };
                state.take(next, &mut events).await?;
            }
            state.write().await?;
        }
        Ok(state.writer)
    }
}

/// What there is to do.
enum Next {
    Reply(Option<Reply>),
    Events(Option<Vec<SessionEvent>>),
    Idle,
}

struct State<W> {
    output: Output,
    writer: W,
    log: LogReader,
    notes: mpsc::UnboundedSender<Note>,
    agreed: Agreed,
    channels: HashMap<u16, ChannelOut>,
    /// Events of consumers whose consume-ok is not written yet. While there are any, no further
    /// events are waited for, so it holds one batch.
    early: Vec<Early>,
    last_write: Instant,
    ended: bool,
}

/// What the writer knows of a channel.
#[derive(Debug, Default)]
struct ChannelOut {
    generation: u64,
    /// Up to this confirm number, all are answered.
    answered: u64,
    consumers: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Early {
    channel: u16,
    consumer_tag: Arc<str>,
    what: EarlyEvent,
}

#[derive(Debug)]
enum EarlyEvent {
    Deliveries(Vec<(Delivered, Message)>),
    Cancelled,
}

impl<W: AsyncWrite + Unpin> State<W> {
    async fn wait(
        &mut self,
        events: &mut SessionEvents,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Next {
        let idle = self
            .agreed
            .heartbeat
            .map_or(Duration::MAX, |heartbeat| heartbeat / 2);
        let heartbeat = self.last_write.checked_add(idle);
        tokio::select! {
            biased;
            reply = replies.recv() => Next::Reply(reply),
            batch = events.next(), if self.early.is_empty() => Next::Events(batch),
            () = sleep_until(heartbeat.unwrap_or_else(Instant::now)), if heartbeat.is_some() => Next::Idle,
        }
    }

    /// As `wait`, but only what is there.
    async fn ready(
        &mut self,
        events: &mut SessionEvents,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Option<Next> {
        tokio::select! {
            biased;
            reply = replies.recv() => Some(Next::Reply(reply)),
            batch = events.next(), if self.early.is_empty() => Some(Next::Events(batch)),
            () = ready(()) => None,
        }
    }

    async fn take(&mut self, next: Next, events: &mut SessionEvents) -> io::Result<()> {
        match next {
            Next::Reply(Some(reply)) => self.reply(reply, events).await,
            // The reader is gone: nobody hears more.
            Next::Reply(None) => {
                self.ended = true;
                Ok(())
            }
            Next::Events(Some(batch)) => self.events(batch).await,
            Next::Events(None) => {
                self.close(&Fault::new(320, "broker is closed"));
                Ok(())
            }
            Next::Idle => {
                self.output.put_heartbeat();
                Ok(())
            }
        }
    }

    async fn reply(&mut self, reply: Reply, events: &mut SessionEvents) -> io::Result<()> {
        match reply {
            Reply::Frame(frame) => self.output.put_encoded(&frame),
            Reply::Opened {
                channel,
                generation,
                frame,
            } => {
                let opened = ChannelOut {
                    generation,
                    ..ChannelOut::default()
                };
                self.channels.insert(channel, opened);
                self.output.put_encoded(&frame);
            }
            Reply::Consuming {
                channel,
                consumer_tag,
                frame,
            } => {
                self.output.put_encoded(&frame);
                self.consuming(channel, consumer_tag).await?;
            }
            Reply::Got {
                channel,
                delivered,
                left,
            } => {
                if let Some(messages) = self.load(&[delivered]) {
                    for message in &messages {
                        self.output.put_get_ok(
                            channel,
                            delivered.tag,
                            delivered.redelivered,
                            left,
                            message,
                        );
                    }
                }
            }
            Reply::Cancelled {
                channel,
                consumer_tag,
                frame,
            } => {
                self.ready_events(events).await?;
                if let Some(out) = self.channels.get_mut(&channel) {
                    out.consumers.retain(|tag| **tag != *consumer_tag);
                    self.output.put_encoded(&frame);
                }
            }
            Reply::Closed { channel, frame } => {
                self.ready_events(events).await?;
                self.forget(channel);
                self.output.put_encoded(&frame);
            }
            Reply::Last(frame) => {
                self.ready_events(events).await?;
                if !self.ended {
                    self.output.put_encoded(&frame);
                    self.ended = true;
                }
            }
        }
        Ok(())
    }

    /// Writes the events that are ready; one batch is all of them. The engine leaves the events of
    /// a commit before the answers of that commit, so what an answer follows is among them.
    async fn ready_events(&mut self, events: &mut SessionEvents) -> io::Result<()> {
        let batch = tokio::select! {
            biased;
            batch = events.next() => batch,
            () = ready(()) => return Ok(()),
        };
        match batch {
            Some(batch) => self.events(batch).await,
            None => Ok(()),
        }
    }

    async fn events(&mut self, batch: Vec<SessionEvent>) -> io::Result<()> {
        for event in batch {
            if self.ended {
                break;
            }
            self.event(event).await?;
            if self.output.is_full() {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: SessionEvent) -> io::Result<()> {
        match event {
            SessionEvent::Confirmed { channel, up_to } => self.confirmed(channel, up_to),
            SessionEvent::Nacked {
                channel,
                from,
                up_to,
            } => self.nacked(channel, from, up_to),
            SessionEvent::Returned {
                channel,
                code,
                text,
                publish,
            } => {
                if self.channels.contains_key(&channel) {
                    let message = Message {
                        exchange: publish.exchange,
                        routing_key: publish.routing_key,
                        properties: publish.properties,
                        body: publish.body,
                    };
                    self.output.put_return(channel, code, text, &message);
                }
            }
            SessionEvent::Deliveries {
                channel,
                consumer_tag,
                deliveries,
            } => {
                self.deliveries(channel, consumer_tag, deliveries).await?;
            }
            SessionEvent::ConsumerCancelled {
                channel,
                consumer_tag,
            } => {
                self.consumer_cancelled(channel, consumer_tag);
            }
            SessionEvent::ChannelError { channel, refusal } => {
                let method = if refusal.text.contains("delivery tag") {
                    ACK
                } else {
                    PUBLISH
                };
                let fault = Fault::refused(refusal.code, refusal.text).on(method);
                self.channel_error(channel, &fault);
            }
            SessionEvent::Blocked(reason) => {
                if self.agreed.tell_blocked {
                    let reason = short(&reason);
                    self.put(
                        0,
                        AMQPClass::Connection(connection::AMQPMethod::Blocked(
                            connection::Blocked { reason },
                        )),
                    );
                }
            }
            SessionEvent::Unblocked => {
                if self.agreed.tell_blocked {
                    self.put(
                        0,
                        AMQPClass::Connection(connection::AMQPMethod::Unblocked(
                            connection::Unblocked {},
                        )),
                    );
                }
            }
            SessionEvent::Closed(refusal) => {
                self.close(&Fault::refused(refusal.code, refusal.text))
            }
        }
        Ok(())
    }

    fn confirmed(&mut self, channel: u16, up_to: u64) {
        if let Some(out) = self.channels.get_mut(&channel)
            && up_to > out.answered
        {
            self.output
                .put_ack(channel, up_to, up_to > out.answered + 1);
            out.answered = up_to;
        }
    }

    fn nacked(&mut self, channel: u16, from: u64, up_to: u64) {
        let Some(out) = self.channels.get_mut(&channel) else {
            return;
        };
        if from == out.answered + 1 {
            self.output.put_nack(channel, up_to, up_to > from);
            out.answered = up_to;
        } else {
            // Earlier ones are open still: one by one, so that they are not meant too.
            for tag in from..=up_to {
                self.output.put_nack(channel, tag, false);
            }
        }
    }

    async fn deliveries(
        &mut self,
        channel: u16,
        consumer_tag: Arc<str>,
        deliveries: Vec<Delivered>,
    ) -> io::Result<()> {
        let Some(out) = self.channels.get(&channel) else {
            return Ok(());
        };
        if !out.consumers.contains(&consumer_tag) {
            if let Some(messages) = self.load(&deliveries) {
                let pairs = deliveries.into_iter().zip(messages).collect();
                self.hold(channel, consumer_tag, EarlyEvent::Deliveries(pairs));
            }
            return Ok(());
        }
        let mut rest = deliveries.as_slice();
        let mut count = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(count.min(rest.len()));
            rest = later;
            let Some(messages) = self.load(now) else {
                return Ok(());
            };
            let bytes: usize = messages
                .iter()
                .map(|message| message.body.len() + 256)
                .sum();
            count = (LOAD_BYTES * now.len() / bytes).clamp(1, LOAD_MAX);
            for (delivered, message) in now.iter().zip(&messages) {
                self.deliver(channel, &consumer_tag, delivered, message)
                    .await?;
            }
        }
        Ok(())
    }

    async fn deliver(
        &mut self,
        channel: u16,
        consumer_tag: &str,
        delivered: &Delivered,
        message: &Message,
    ) -> io::Result<()> {
        let deliver = Deliver {
            channel,
            consumer_tag,
            tag: delivered.tag,
            redelivered: delivered.redelivered,
        };
        self.output.put_deliver(deliver, message);
        if self.output.is_full() {
            self.write().await?;
        }
        Ok(())
    }

    /// Messages of deliveries; closes the connection if one cannot be read, so that it is neither
    /// served nor settled.
    fn load(&mut self, deliveries: &[Delivered]) -> Option<Vec<Message>> {
        match Delivered::load_all(deliveries, &self.log) {
            Ok(messages) => Some(messages),
            Err(error) => {
                tracing::error!(%error, "a queued message cannot be read");
                self.close(&Fault::new(
                    541,
                    format_args!("a queued message cannot be read: {error}"),
                ));
                None
            }
        }
    }

    fn hold(&mut self, channel: u16, consumer_tag: Arc<str>, what: EarlyEvent) {
        self.early.push(Early {
            channel,
            consumer_tag,
            what,
        });
    }

    async fn consuming(&mut self, channel: u16, consumer_tag: Arc<str>) -> io::Result<()> {
        let Some(out) = self.channels.get_mut(&channel) else {
            return Ok(());
        };
        out.consumers.push(Arc::clone(&consumer_tag));
        let held = std::mem::take(&mut self.early);
        for early in held {
            if early.channel != channel || early.consumer_tag != consumer_tag {
                self.early.push(early);
                continue;
            }
            match early.what {
                EarlyEvent::Deliveries(pairs) => {
                    for (delivered, message) in &pairs {
                        self.deliver(channel, &consumer_tag, delivered, message)
                            .await?;
                    }
                }
                EarlyEvent::Cancelled => {
                    self.consumer_cancelled(channel, Arc::clone(&consumer_tag))
                }
            }
        }
        Ok(())
    }

    fn consumer_cancelled(&mut self, channel: u16, consumer_tag: Arc<str>) {
        let Some(out) = self.channels.get_mut(&channel) else {
            return;
        };
        let Some(at) = out.consumers.iter().position(|tag| *tag == consumer_tag) else {
            return self.hold(channel, consumer_tag, EarlyEvent::Cancelled);
        };
        out.consumers.swap_remove(at);
        let generation = out.generation;
        if self.agreed.tell_cancelled {
            let cancel = basic::Cancel {
                consumer_tag: short(&consumer_tag),
                nowait: true,
            };
            self.put(channel, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
        }
        self.note(Note::ConsumerEnded {
            channel,
            generation,
            consumer_tag,
        });
    }

    fn channel_error(&mut self, channel: u16, fault: &Fault) {
        if !fault.is_soft() {
            return self.close(fault);
        }
        let Some(out) = self.channels.get(&channel) else {
            return;
        };
        let generation = out.generation;
        self.forget(channel);
        self.output.put_encoded(&channel_close(channel, fault));
        self.note(Note::ChannelClosed {
            channel,
            generation,
        });
    }

    fn forget(&mut self, channel: u16) {
        self.channels.remove(&channel);
        self.early.retain(|early| early.channel != channel);
    }

    fn close(&mut self, fault: &Fault) {
        if !self.ended {
            self.ended = true;
            self.output.put_encoded(&connection_close(fault));
            self.note(Note::ConnectionClosed);
        }
    }

    fn put(&mut self, channel: u16, class: AMQPClass) {
        self.output.put_encoded(&encode(channel, class));
    }

    fn note(&self, note: Note) {
        // The reader may have ended; then nobody needs to know.
        let _ = self.notes.send(note);
    }

    async fn write(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.output.write_to(&mut self.writer).await?;
            self.last_write = Instant::now();
        }
        Ok(())
    }
}

/// channel.close.
pub(crate) fn channel_close(channel: u16, fault: &Fault) -> Vec<u8> {
    let close = channel::Close {
        reply_code: fault.code,
        reply_text: short(fault.short_text()),
        class_id: fault.method.0,
        method_id: fault.method.1,
    };
    encode(
        channel,
        AMQPClass::Channel(channel::AMQPMethod::Close(close)),
    )
}

/// connection.close.
pub(crate) fn connection_close(fault: &Fault) -> Vec<u8> {
    let close = connection::Close {
        reply_code: fault.code,
        reply_text: short(fault.short_text()),
        class_id: fault.method.0,
        method_id: fault.method.1,
    };
    encode(
        0,
        AMQPClass::Connection(connection::AMQPMethod::Close(close)),
    )
}
