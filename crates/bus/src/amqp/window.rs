//! The messages sent and not answered, and which of them were returned.
//!
//! The client hands a returned message out with *some* confirm, not always its own: a confirm takes
//! the oldest return that waits, and confirms of several messages at once go in any order. Two
//! things hold. A message's return has come by the time its confirm has; and a confirm without a
//! return found none waiting. So:
//!
//! - while no return was seen, a message is held by the bus once its confirm is in and every confirm
//!   that was in before has been looked at;
//! - when one is seen, nothing more is sent until all confirms are in; then all returns are, too, and
//!   each is matched with a message by what it says.

use super::link::failed;
use super::properties;
use crate::{Error, ErrorKind, Message, Outcome, Result, message};
use lapin::message::BasicReturnMessage;
use lapin::{Confirmation, PublisherConfirm};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Default)]
pub(super) struct Window {
    /// Oldest first.
    sent: VecDeque<Sent>,
    returned: Vec<BasicReturnMessage>,
    /// The channel has failed.
    lost: bool,
}

struct Sent {
    message: Message,
    state: State,
}

/// What came with a confirm.
#[derive(Default)]
struct Seen {
    /// A message that was returned, of whatever confirm.
    returned: Option<BasicReturnMessage>,
    /// No confirm, but the channel's end.
    lost: bool,
}

enum State {
    Waiting(PublisherConfirm),
    Answered(Outcome),
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether nothing may be sent until all confirms are in.
    pub(super) fn is_draining(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Adds a message that was sent, or could not be.
    pub(super) fn push(&mut self, message: Message, sent: Result<PublisherConfirm>) {
        let state = match sent {
            Ok(confirm) => State::Waiting(confirm),
            Err(error) => State::Answered(Outcome::Failed(error)),
        };
        self.sent.push_back(Sent { message, state });
    }

    /// Waits for the oldest confirm that is not in; `false` if that takes too long. Can be dropped.
    pub(super) async fn changed(&mut self, timeout: Duration) -> bool {
        let Some(oldest) = self.sent.iter_mut().find(|sent| sent.is_waiting()) else {
            return true;
        };
        let confirmed = std::future::poll_fn(|context| oldest.poll(context));
        match tokio::time::timeout(timeout, confirmed).await {
            Ok(seen) => self.note(seen),
            Err(_) => return false,
        }
        true
    }

    /// Looks at every confirm; whether the channel has failed since the last look.
    pub(super) fn look(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        for place in 0..self.sent.len() {
            if let Poll::Ready(seen) = self.sent[place].poll(&mut context) {
                self.note(seen);
            }
        }
        if self.is_draining() && !self.sent.iter().any(Sent::is_waiting) {
            self.match_returned();
        }
        std::mem::take(&mut self.lost)
    }

    fn note(&mut self, seen: Seen) {
        self.returned.extend(seen.returned);
        self.lost |= seen.lost;
    }

    /// The channel is given up: what waits for a confirm is unknown.
    pub(super) fn give_up(&mut self) {
        for sent in self.sent.iter_mut().filter(|sent| sent.is_waiting()) {
            sent.state = unknown("no confirm in time");
        }
        self.match_returned();
    }

    /// Takes the oldest message's outcome, if it is certain.
    pub(super) fn pop(&mut self) -> Option<Outcome> {
        if self.is_draining() {
            return None;
        }
        let sent = self.sent.pop_front_if(|sent| !sent.is_waiting())?;
        match sent.state {
            State::Answered(outcome) => Some(outcome),
            State::Waiting(_) => None,
        }
    }

    fn match_returned(&mut self) {
        for returned in std::mem::take(&mut self.returned) {
            let mut sent = self.sent.iter_mut();
            if let Some(sent) = sent.find(|sent| sent.is(&returned)) {
                let Message {
                    exchange,
                    routing_key,
                    ..
                } = &sent.message;
                let error = message::no_queue(exchange, routing_key);
                sent.state = State::Answered(Outcome::Failed(error));
                continue;
            }
            tracing::error!("a message was returned that was not published");
        }
    }
}

impl Sent {
    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// Whether its confirm has come just now, and what with it.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Seen> {
        let State::Waiting(confirm) = &mut self.state else {
            return Poll::Pending;
        };
        let Poll::Ready(confirmed) = Pin::new(confirm).poll(context) else {
            return Poll::Pending;
        };
        let mut seen = Seen::default();
        self.state = match confirmed {
            Ok(Confirmation::Ack(with)) => {
                seen.returned = with;
                State::Answered(Outcome::Bus)
            }
            // Of several queues, some may have taken it.
            Ok(Confirmation::Nack(with)) => {
                seen.returned = with;
                unknown("the bus did not confirm the message")
            }
            Ok(Confirmation::NotRequested) => State::Answered(Outcome::Failed(Error::new(
                ErrorKind::Internal,
                "published on a channel without confirms",
            ))),
            Err(error) => {
                seen.lost = true;
                let error = Error::new(ErrorKind::Unknown, "no confirm").caused_by(failed(error));
                State::Answered(Outcome::Failed(error))
            }
        };
        Poll::Ready(seen)
    }

    /// Whether a returned message is this one; equal ones share their fate, so either will do.
    fn is(&self, returned: &BasicReturnMessage) -> bool {
        let held = matches!(&self.state, State::Answered(o) if o.is_bus() || is_unknown(o));
        let message = &self.message;
        let same_properties = || {
            let sent = properties::to_client(&message.properties);
            sent.is_ok_and(|sent| sent == returned.properties)
        };
        held && message.mandatory
            && *message.exchange == *returned.exchange.as_str()
            && *message.routing_key == *returned.routing_key.as_str()
            && message.body == returned.data
            && same_properties()
    }
}

fn unknown(reason: &str) -> State {
    State::Answered(Outcome::Failed(Error::new(ErrorKind::Unknown, reason)))
}

fn is_unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(error) if error.is_ambiguous())
}
