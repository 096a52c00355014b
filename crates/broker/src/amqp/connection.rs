//! A connection: handshake, then frames in their order until one side closes.
//!
//! The reader is this module; the writer runs as a task of its own. All publishes found in one
//! read of the socket go to the session as one batch per channel. While the session has no room,
//! nothing is read: that is what throttles a publisher.

use super::channel::{Channel, Link};
use super::codec::{Frame, Frames, HEARTBEAT, METHOD};
use super::fault::Fault;
use super::handshake::Agreed;
use super::intake::Intake;
use super::method::{Method, OtherMethod, PUBLISH, PublishMethod, decode};
use super::output::encode;
use super::writer::{Note, Reply, channel_close};
use amq_protocol::protocol::{AMQPClass, channel, connection};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The socket ended, or its heartbeats did.
    Gone,
    /// connection.close came.
    ByClient,
    /// The writer wrote connection.close.
    ByWriter,
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) struct Connection<R> {
    pub(super) intake: Intake<R>,
    pub(super) link: Link,
    pub(super) agreed: Agreed,
    /// The client was told not to publish.
    pub(super) is_blocked: bool,
    /// By number; channel 0 is the connection itself.
    pub(super) channels: Vec<Option<Box<Channel>>>,
    /// Channels that may have a batch.
    pub(super) touched: Vec<u16>,
    pub(super) generations: u64,
    /// Bytes of bodies that are not whole.
    pub(super) unfinished: usize,
    pub(super) notes: mpsc::UnboundedReceiver<Note>,
}

impl<R: AsyncRead + Unpin> Connection<R> {
    pub(super) async fn run(&mut self, mut shutdown: watch::Receiver<bool>) -> Stop {
        loop {
            if let Err(stop) = self.take_frames().await {
                return stop;
            }
            if let Err(stop) = self.wait(&mut shutdown).await {
                return stop;
            }
        }
    }

    /// Deals with the whole frames that were read.
    async fn take_frames(&mut self) -> Result<(), Stop> {
        while let Ok(note) = self.notes.try_recv() {
            self.note(note).await?;
        }
        let (chunk, fault) = self.intake.take_frames();
        for frame in Frames::new(&chunk) {
            let number = frame.channel;
            match self.frame(&frame).await {
                Err(Stop::Fault(fault)) if fault.is_soft() && number > 0 => {
                    self.close_channel(number, &fault).await;
                }
                Ok(()) => {}
                Err(stop) => {
                    // What came before it counts: acks and a close often share a packet.
                    self.flush().await;
                    return Err(stop);
                }
            }
        }
        self.flush().await;
        match fault {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }

    /// Waits for more to do.
    async fn wait(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<(), Stop> {
        // Clients send nothing on a blocked connection, some not even heartbeats.
        let heartbeat = self.agreed.heartbeat.filter(|_| !self.is_blocked);
        let silence_max = heartbeat.map_or(Duration::MAX, |heartbeat| heartbeat * 2);
        let deadline = Instant::now().checked_add(silence_max);
        tokio::select! {
            biased;
            note = self.notes.recv() => match note {
                Some(note) => self.note(note).await,
                None => Err(Stop::Gone),
            },
            read = self.intake.fill() => match read {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(Stop::Gone),
            },
            // An error says that whoever could shut down is gone, which is a shutdown as well.
            () = async { shutdown.wait_for(|down| *down).await.map_or((), drop) } => {
                let reason = "broker forced connection closure with reason 'shutdown'";
                Err(Fault::new(320, reason).into())
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                tracing::debug!(connection = self.link.connection, "two heartbeats missed");
                Err(Stop::Gone)
            }
        }
    }

    async fn frame(&mut self, frame: &Frame<'_>) -> Result<(), Stop> {
        if frame.channel == 0 {
            return self.connection_frame(frame).await;
        }
        if frame.kind == HEARTBEAT {
            return Err(unexpected(frame).into());
        }
        match self
            .channels
            .get_mut(usize::from(frame.channel))
            .and_then(Option::as_mut)
        {
            None => self.unopened(frame).await,
            Some(channel) if channel.closing => self.closing(frame).await,
            Some(channel) => {
                if frame.kind != METHOD {
                    return self.content(frame);
                }
                if !channel.content.expects_method() {
                    return Err(channel.content.unexpected_method().into());
                }
                match decode(frame.payload)? {
                    Method::Publish(publish) => self.publish(frame.channel, publish),
                    Method::Settle(settle) => {
                        channel.settle(settle);
                        touch(&mut self.touched, frame.channel);
                        Ok(())
                    }
                    Method::Other(method) => self.method(frame.channel, method).await,
                }
            }
        }
    }

    async fn connection_frame(&mut self, frame: &Frame<'_>) -> Result<(), Stop> {
        match frame.kind {
            HEARTBEAT => return Ok(()),
            METHOD => {}
            _ => return Err(unexpected(frame).into()),
        }
        let out_of_place = Fault::new(504, "unexpected method in connection state running");
        let Method::Other(method) = decode(frame.payload)? else {
            return Err(out_of_place.into());
        };
        match method.class {
            AMQPClass::Connection(connection::AMQPMethod::Close(_)) => Err(Stop::ByClient),
            AMQPClass::Connection(connection::AMQPMethod::CloseOk(_)) => Ok(()),
            _ => Err(out_of_place.on(method.id).into()),
        }
    }

    /// A frame on a channel that is not open.
    async fn unopened(&mut self, frame: &Frame<'_>) -> Result<(), Stop> {
        if frame.kind != METHOD {
            return Err(unexpected(frame).into());
        }
        let Ok(Method::Other(method)) = decode(frame.payload) else {
            return Err(Fault::new(504, "expected 'channel.open'").into());
        };
        match method.class {
            AMQPClass::Channel(channel::AMQPMethod::Open(_)) => {
                self.open_channel(frame.channel).await
            }
            // The answer to a close that met the client's own.
            AMQPClass::Channel(channel::AMQPMethod::CloseOk(_)) => Ok(()),
            _ => Err(Fault::new(504, "expected 'channel.open'")
                .on(method.id)
                .into()),
        }
    }

    async fn open_channel(&mut self, number: u16) -> Result<(), Stop> {
        if number > self.agreed.channel_max {
            let max = self.agreed.channel_max;
            let detail =
                format_args!("channel {number} is over the negotiated channel_max ({max})");
            return Err(Fault::new(530, detail).on((20, 10)).into());
        }
        let at = usize::from(number);
        if self.channels.len() <= at {
            self.channels.resize_with(at + 1, || None);
        }
        self.generations += 1;
        self.channels[at] = Some(Box::new(Channel::new(number, self.generations)));
        let ok = channel::AMQPMethod::OpenOk(channel::OpenOk {});
        let reply = Reply::Opened {
            channel: number,
            generation: self.generations,
            frame: encode(number, AMQPClass::Channel(ok)),
        };
        self.link.reply(reply).await;
        Ok(())
    }

    /// A frame on a channel the broker closed: only its end matters.
    async fn closing(&mut self, frame: &Frame<'_>) -> Result<(), Stop> {
        if frame.kind != METHOD {
            return Ok(());
        }
        match frame.payload.first_chunk() {
            Some([0, 20, 0, 40]) => {
                let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                let frame = encode(frame.channel, AMQPClass::Channel(ok));
                self.link.reply(Reply::Frame(frame)).await;
            }
            Some([0, 20, 0, 41]) => self.channels[usize::from(frame.channel)] = None,
            _ => {}
        }
        Ok(())
    }

    fn publish(&mut self, number: u16, publish: PublishMethod<'_>) -> Result<(), Stop> {
        if publish.immediate {
            return Err(Fault::not_implemented("immediate=true").on(PUBLISH).into());
        }
        if let Some(channel) = self.channels[usize::from(number)].as_mut() {
            channel.content.start(publish);
        }
        Ok(())
    }

    /// A header or body frame.
    fn content(&mut self, frame: &Frame<'_>) -> Result<(), Stop> {
        let Some(channel) = self.channels[usize::from(frame.channel)].as_mut() else {
            return Ok(());
        };
        self.unfinished -= channel.content.held();
        let message_max = self.link.config.message_bytes_max as usize;
        let whole = channel.content.go_on(frame, message_max)?;
        self.unfinished += channel.content.held();
        if let Some(whole) = whole {
            channel.publish(whole, &self.link.user)?;
            touch(&mut self.touched, frame.channel);
        } else if self.unfinished > self.link.config.unfinished_bytes_max {
            let detail = "too many bytes of messages that are not whole";
            return Err(Fault::new(506, detail).on(PUBLISH).into());
        }
        Ok(())
    }

    /// A method that is not on the hot path; what came before it is handed over first.
    async fn method(&mut self, number: u16, method: OtherMethod<'_>) -> Result<(), Stop> {
        self.flush().await;
        if let AMQPClass::Channel(channel::AMQPMethod::Close(_)) = method.class {
            self.remove(number);
            self.link.session.close_channel(number).await;
            let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
            let reply = Reply::Closed {
                channel: number,
                frame: encode(number, AMQPClass::Channel(ok)),
            };
            self.link.reply(reply).await;
            return Ok(());
        }
        if let Some(channel) = self.channels[usize::from(number)].as_mut() {
            channel.method(&self.link, method).await?;
        }
        Ok(())
    }

    /// Hands all batches to the session.
    async fn flush(&mut self) {
        while let Some(number) = self.touched.pop() {
            if let Some(channel) = self.channels[usize::from(number)].as_mut() {
                channel.flush(&self.link.session).await;
            }
        }
    }

    /// Closes a channel over a fault.
    async fn close_channel(&mut self, number: u16, fault: &Fault) {
        self.flush().await;
        self.set_closing(number);
        self.link.session.close_channel(number).await;
        let reply = Reply::Closed {
            channel: number,
            frame: channel_close(number, fault),
        };
        self.link.reply(reply).await;
    }

    async fn note(&mut self, note: Note) -> Result<(), Stop> {
        match note {
            Note::ChannelClosed {
                channel,
                generation,
            } => {
                if self.live(channel, generation).is_some() {
                    self.set_closing(channel);
                    self.link.session.close_channel(channel).await;
                }
                Ok(())
            }
            Note::ConsumerEnded {
                channel,
                generation,
                consumer_tag,
            } => {
                if let Some(channel) = self.live(channel, generation) {
                    channel.consumer_ended(&consumer_tag);
                }
                Ok(())
            }
            Note::Blocked(blocked) => {
                self.is_blocked = blocked;
                Ok(())
            }
            Note::ConnectionClosed => Err(Stop::ByWriter),
        }
    }

    fn live(&mut self, number: u16, generation: u64) -> Option<&mut Channel> {
        let channel = self.channels.get_mut(usize::from(number))?.as_deref_mut()?;
        (channel.generation == generation && !channel.closing).then_some(channel)
    }

    /// Forgets a channel but for the close-ok that it waits for.
    fn set_closing(&mut self, number: u16) {
        if let Some(old) = self.remove(number) {
            let mut closing = Channel::new(number, old.generation);
            closing.closing = true;
            self.channels[usize::from(number)] = Some(Box::new(closing));
        }
    }

    fn remove(&mut self, number: u16) -> Option<Box<Channel>> {
        let channel = self.channels.get_mut(usize::from(number))?.take()?;
        self.unfinished -= channel.content.held();
        Some(channel)
    }
}

fn touch(touched: &mut Vec<u16>, number: u16) {
    if touched.last() != Some(&number) {
        touched.push(number);
    }
}

fn unexpected(frame: &Frame<'_>) -> Fault {
    Fault::unexpected_frame(format_args!(
        "type {} (channel {})",
        frame.kind, frame.channel
    ))
}
