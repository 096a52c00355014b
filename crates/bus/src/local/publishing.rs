//! The publishing half of a local bus: confirm numbers out, outcomes back.
//!
//! A call takes a range of confirm numbers and waits for one answer to the range; what failed in
//! it is listed, so that a batch that is taken whole costs nothing per message.

use super::SessionSlot;
use crate::{Error, ErrorKind, Message, Outcome, message, reply};
use annals_broker::{Broker, Publish, Refusal, SessionEvent, SessionEvents};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The one channel of the session.
const CHANNEL: u16 = 1;
/// Messages handed over at once: a bigger batch goes in parts.
const PART_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) session: SessionSlot,
    /// Held while numbers are taken and messages handed over, so that both have one order.
    last: tokio::sync::Mutex<u64>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Calls whose messages are not all answered, in the order of their numbers.
#[derive(Debug, Default)]
struct Waiting {
    calls: VecDeque<Call>,
    /// The channel failed: nothing sent on it is answered until it is closed.
    channel_lost: bool,
    /// No event will come any more.
    ended: bool,
}

#[derive(Debug)]
struct Call {
    first: u64,
    last: u64,
    failed: Vec<(u64, Error)>,
    channel_lost: bool,
    answer: oneshot::Sender<Answer>,
}

/// What failed of a call's messages, by number.
#[derive(Debug)]
struct Answer {
    failed: Vec<(u64, Error)>,
    channel_lost: bool,
}

impl Publishing {
    pub(super) fn new(broker: &Broker) -> Self {
        let (session, events) = broker.session();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        tokio::spawn(pass_on(events, waiting.clone()));
        Self {
            session: SessionSlot::new(session),
            last: tokio::sync::Mutex::new(0),
            waiting,
        }
    }

    /// Publishes; the outcomes, and whether the channel failed meanwhile.
    pub(super) async fn publish(&self, batch: Vec<Message>) -> (Vec<Outcome>, bool) {
        let count = batch.len();
        if count == 0 {
            return (Vec::new(), false);
        }
        let (first, answer) = match self.hand_over(batch).await {
            Ok(handed_over) => handed_over,
            Err(error) => return (all_failed(count, &error), false),
        };
        let Ok(answer) = answer.await else {
            let unknown = Error::new(ErrorKind::Unknown, "the broker ended before it answered");
            return (all_failed(count, &unknown), true);
        };
        let mut outcomes: Vec<Outcome> = (0..count).map(|_| Outcome::Bus).collect();
        for (number, error) in answer.failed {
            outcomes[(number - first) as usize] = Outcome::Failed(error);
        }
        (outcomes, answer.channel_lost)
    }

    async fn hand_over(
        &self,
        batch: Vec<Message>,
    ) -> Result<(u64, oneshot::Receiver<Answer>), Error> {
        let mut last = self.last.lock().await;
        let session = self.session.get()?;
        let (first, answered) = loop {
            if self.waiting.lock().channel_lost {
                session.close_channel(CHANNEL).await;
                self.waiting.lock().channel_lost = false;
                *last = 0;
            }
            let first = *last + 1;
            // The channel may be lost in between: then the numbers begin anew.
            if let Some(answered) = self.waiting.lock().push(first, batch.len())? {
                break (first, answered);
            }
        };
        let handing = HandingOver {
            waiting: &self.waiting,
            last: &mut last,
            first,
        };
        let mut batch = batch.into_iter();
        while batch.len() > 0 {
            let sent = *handing.last;
            let part = batch.by_ref().take(PART_MAX).zip(sent + 1..);
            let part: Vec<Publish> = part.map(|(m, confirm)| to_publish(m, confirm)).collect();
            let count = part.len() as u64;
            session.publish(CHANNEL, part).await;
            *handing.last += count;
        }
        Ok((first, answered))
    }
}

/// A call that is being handed over. Dropped half-way, what was not sent is not waited for.
struct HandingOver<'a> {
    waiting: &'a Mutex<Waiting>,
    last: &'a mut u64,
    first: u64,
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.waiting.lock().cut(self.first, *self.last);
    }
}

impl Waiting {
    /// Notes a call; `None` if the channel is lost.
    fn push(
        &mut self,
        first: u64,
        count: usize,
    ) -> Result<Option<oneshot::Receiver<Answer>>, Error> {
        if self.ended {
            return Err(Error::new(ErrorKind::Closed, "the broker has ended"));
        }
        if self.channel_lost {
            return Ok(None);
        }
        let (answer, answered) = oneshot::channel();
        self.calls.push_back(Call {
            first,
            last: first + count as u64 - 1,
            failed: Vec::new(),
            channel_lost: false,
            answer,
        });
        Ok(Some(answered))
    }

    /// The newest call, if it starts at `first`, was sent up to `last` only.
    fn cut(&mut self, first: u64, last: u64) {
        let Some(call) = self.calls.back_mut().filter(|call| call.first == first) else {
            return;
        };
        if last < first {
            self.calls.pop_back();
        } else {
            call.last = last;
        }
    }

    fn take(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Confirmed { up_to, .. } => self.answer_up_to(up_to),
            SessionEvent::Nacked { from, up_to, .. } => {
                for number in from..=up_to {
                    let text = "the broker does not take messages for now";
                    self.fail(number, Error::new(ErrorKind::Unavailable, text));
                }
                self.answer_up_to(up_to);
            }
            SessionEvent::Returned { publish, .. } => {
                let error = message::no_queue(&publish.exchange, &publish.routing_key);
                self.fail(publish.confirm, error);
            }
            SessionEvent::ChannelError { refusal, .. } => {
                self.channel_lost = true;
                self.give_up(&refusal);
            }
            SessionEvent::Closed(refusal) => {
                self.ended = true;
                self.give_up(&refusal);
            }
            SessionEvent::Blocked(reason) => tracing::warn!(reason, "the broker is blocked"),
            SessionEvent::Unblocked => tracing::info!("the broker is unblocked"),
            // Nothing is consumed on this session.
            SessionEvent::Deliveries { .. } | SessionEvent::ConsumerCancelled { .. } => {}
        }
    }

    fn fail(&mut self, number: u64, error: Error) {
        let place = self.calls.partition_point(|call| call.last < number);
        match self.calls.get_mut(place) {
            Some(call) if call.first <= number => call.failed.push((number, error)),
            // Its call was dropped.
            _ => {}
        }
    }

    fn answer_up_to(&mut self, number: u64) {
        while let Some(call) = self.calls.pop_front_if(|call| call.last <= number) {
            call.answer();
        }
    }

    /// Nobody will say what became of what is waiting.
    fn give_up(&mut self, refusal: &Refusal) {
        for mut call in std::mem::take(&mut self.calls) {
            let error = reply::error(refusal.code, &refusal.text);
            let unknown = Error::new(ErrorKind::Unknown, "no answer").caused_by(error);
            call.failed = errors(call.first..=call.last, &unknown);
            call.channel_lost = true;
            call.answer();
        }
    }
}

impl Call {
    fn answer(self) {
        let answer = Answer {
            failed: self.failed,
            channel_lost: self.channel_lost,
        };
        // An error says that the call was dropped: nobody wants to know.
        let _ = self.answer.send(answer);
    }
}

/// Takes a session's events until it ends.
async fn pass_on(mut events: SessionEvents, waiting: Arc<Mutex<Waiting>>) {
    while let Some(events) = events.next().await {
        let mut waiting = waiting.lock();
        for event in events {
            waiting.take(event);
        }
    }
    let mut waiting = waiting.lock();
    waiting.ended = true;
    waiting.give_up(&Refusal::new(320, "the session has ended"));
}

fn to_publish(message: Message, confirm: u64) -> Publish {
    Publish {
        exchange: message.exchange,
        routing_key: message.routing_key,
        properties: message.properties,
        body: message.body,
        mandatory: message.mandatory,
        confirm,
    }
}

fn errors(numbers: impl Iterator<Item = u64>, error: &Error) -> Vec<(u64, Error)> {
    let error = |number| (number, Error::new(error.kind(), error.to_string()));
    numbers.map(error).collect()
}

fn all_failed(count: usize, error: &Error) -> Vec<Outcome> {
    let failed = errors(0..count as u64, error).into_iter();
    failed.map(|(_, error)| Outcome::Failed(error)).collect()
}
