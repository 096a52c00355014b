//! The publishing half of an AMQP bus: one task that owns the channel, so that calls keep their
//! order, share the window of unconfirmed messages, and can be dropped without leaving a confirm
//! nobody awaits.

use super::link::{Link, failed};
use super::window::Window;
use super::{AmqpOptions, close, properties, short};
use crate::{Error, ErrorKind, Message, Outcome, Result};
use futures::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, PublisherConfirm};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Messages given to the client together.
const PART_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Publishing {
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
struct Call {
    batch: Vec<Message>,
    answer: oneshot::Sender<Answer>,
}

type Answer = (Vec<Outcome>, bool);

impl Publishing {
    pub(super) fn new(link: Arc<Link>, options: &AmqpOptions) -> Self {
        let (calls, coming) = mpsc::channel(options.calls_max.max(1));
        let publisher = ChannelPublisher {
            link,
            window: options.window.max(1),
            confirm_timeout: options.confirm_timeout,
            channel: None,
            open: VecDeque::new(),
            unsent: 0,
            sent: Window::default(),
        };
        tokio::spawn(publisher.run(coming));
        Self { calls }
    }

    /// Publishes; the outcomes, and whether the channel failed meanwhile.
    pub(super) async fn publish(&self, batch: Vec<Message>) -> Answer {
        let count = batch.len();
        if count == 0 {
            return (Vec::new(), false);
        }
        let (answer, answered) = oneshot::channel();
        let ended = |kind| {
            let error = || Error::new(kind, "the bus has ended");
            let outcomes = (0..count).map(|_| Outcome::Failed(error())).collect();
            (outcomes, true)
        };
        if self.calls.send(Call { batch, answer }).await.is_err() {
            return ended(ErrorKind::Closed);
        }
        match answered.await {
            Ok(answer) => answer,
            Err(_) => ended(ErrorKind::Unknown),
        }
    }
}

/// The task.
struct ChannelPublisher {
    link: Arc<Link>,
    window: usize,
    confirm_timeout: Duration,
    channel: Option<Channel>,
    /// Calls not yet answered, oldest first.
    open: VecDeque<OpenCall>,
    /// Messages of open calls that are not sent.
    unsent: usize,
    sent: Window,
}

struct OpenCall {
    unsent: std::vec::IntoIter<Message>,
    outcomes: Vec<Outcome>,
    count: usize,
    channel_lost: bool,
    answer: oneshot::Sender<Answer>,
}

impl ChannelPublisher {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        loop {
            while self.unsent < self.window
                && let Ok(call) = calls.try_recv()
            {
                self.accept(call);
            }
            let room = self.window.saturating_sub(self.sent.len());
            if self.unsent > 0 && room > 0 && !self.sent.is_draining() {
                self.send_part(room.min(PART_MAX)).await;
            } else if self.sent.is_empty() {
                match calls.recv().await {
                    Some(call) => self.accept(call),
                    None => return,
                }
            } else {
                tokio::select! {
                    biased;
                    in_time = self.sent.changed(self.confirm_timeout) => {
                        self.settle(in_time);
                    }
                    Some(call) = calls.recv(), if self.unsent == 0 => self.accept(call),
                }
            }
        }
    }

    fn accept(&mut self, call: Call) {
        let count = call.batch.len();
        self.unsent += count;
        self.open.push_back(OpenCall {
            unsent: call.batch.into_iter(),
            outcomes: Vec::with_capacity(count),
            count,
            channel_lost: false,
            answer: call.answer,
        });
    }

    /// Sends the next messages, at most so many.
    async fn send_part(&mut self, room: usize) {
        let open = self.open.iter_mut();
        let calls = open.filter(|call| call.unsent.len() > 0);
        let unsent = calls.flat_map(|call| call.unsent.by_ref());
        let part: Vec<Message> = unsent.take(room).collect();
        self.unsent -= part.len();
        let sent = match self.channel().await {
            // The frames are queued as each future is first polled: in order.
            Ok(channel) => join_all(part.iter().map(|message| publish(&channel, message))).await,
            Err(error) => part.iter().map(|_| Err(copy(&error))).collect(),
        };
        for (message, sent) in part.into_iter().zip(sent) {
            self.sent.push(message, sent);
        }
    }

    /// The channel, opened if there is none or it is gone.
    async fn channel(&mut self) -> Result<Channel> {
        if let Some(channel) = self.channel.as_ref().filter(|c| c.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.link.channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await.map_err(failed)?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    /// Answers what has become known.
    fn settle(&mut self, in_time: bool) {
        let mut lost = self.sent.look();
        if !in_time {
            self.sent.give_up();
            lost = true;
        }
        if lost && let Some(channel) = self.channel.take() {
            tokio::spawn(async move { close(&channel).await });
        }
        while let Some(outcome) = self.sent.pop() {
            let call = self.open.front_mut().expect("a message sent has its call");
            call.channel_lost |= lost;
            call.outcomes.push(outcome);
            if call.outcomes.len() == call.count {
                let call = self.open.pop_front().expect("it was just there");
                // An error says that the call was dropped: nobody wants to know.
                let _ = call.answer.send((call.outcomes, call.channel_lost));
            }
        }
    }
}

/// Hands a message to the client.
async fn publish(channel: &Channel, message: &Message) -> Result<PublisherConfirm> {
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        immediate: false,
    };
    let published = channel.basic_publish(
        short(&message.exchange)?,
        short(&message.routing_key)?,
        options,
        &message.body,
        properties::to_client(&message.properties)?,
    );
    published.await.map_err(|error| match error.kind() {
        // Refused by the client itself: nothing was sent.
        lapin::ErrorKind::InvalidChannelState(..)
        | lapin::ErrorKind::InvalidConnectionState(..) => failed(error),
        _ => Error::new(ErrorKind::Unknown, "sending failed").caused_by(error),
    })
}

fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}
