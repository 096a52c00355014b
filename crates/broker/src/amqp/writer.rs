//! The writing half of a connection: the reader's replies and the engine's events, in one order.
//!
//! Memory stays bounded without asking how fast the client reads: replies wait in a bounded queue
//! (then the reader stops reading), events are taken only when those before them were written (then
//! the engine stops sending deliveries).

use super::fault::Fault;
use super::handshake::Agreed;
use super::output::{Output, encode, short};
use crate::log::LogReader;
use crate::message::{Delivered, Message};
use crate::session::{SessionEvent, SessionEvents};
use amq_protocol::protocol::{AMQPClass, channel, connection};
use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

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

/// What the writer tells the reader; at most one for each channel and consumer, and for each turn
/// of the disk.
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
    /// The client was told that the connection is blocked, or is not any more.
    Blocked(bool),
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

pub(super) struct State<W> {
    pub(super) output: Output,
    pub(super) writer: W,
    pub(super) log: LogReader,
    pub(super) notes: mpsc::UnboundedSender<Note>,
    pub(super) agreed: Agreed,
    pub(super) channels: HashMap<u16, ChannelOut>,
    /// Events of consumers whose consume-ok is not written yet. While there are any, no further
    /// events are waited for, so it holds one batch.
    pub(super) early: Vec<Early>,
    pub(super) last_write: Instant,
    pub(super) ended: bool,
}

/// What the writer knows of a channel.
#[derive(Debug, Default)]
pub(super) struct ChannelOut {
    pub(super) generation: u64,
    /// Up to this confirm number, all are answered.
    pub(super) answered: u64,
    pub(super) consumers: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Early {
    pub(super) channel: u16,
    pub(super) consumer_tag: Arc<str>,
    pub(super) what: EarlyEvent,
}

#[derive(Debug)]
pub(super) enum EarlyEvent {
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

    pub(super) fn forget(&mut self, channel: u16) {
        self.channels.remove(&channel);
        self.early.retain(|early| early.channel != channel);
    }

    pub(super) fn close(&mut self, fault: &Fault) {
        if !self.ended {
            self.ended = true;
            self.output.put_encoded(&connection_close(fault));
            self.note(Note::ConnectionClosed);
        }
    }

    pub(super) fn put(&mut self, channel: u16, class: AMQPClass) {
        self.output.put_encoded(&encode(channel, class));
    }

    pub(super) fn note(&self, note: Note) {
        // The reader may have ended; then nobody needs to know.
        let _ = self.notes.send(note);
    }

    pub(super) async fn write(&mut self) -> io::Result<()> {
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
