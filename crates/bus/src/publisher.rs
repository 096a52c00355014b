//! [`Publisher`]: what a service publishes events through. Stamps, hands over, waits for the
//! confirm, tries again where nobody knows, and says for each event what became of it.
//!
//! ```
//! use annals_bus::{Bus, MemoryBus, Publisher, PublisherOptions, Topology};
//! use annals_core::{EventBuilder, system::{SystemClock, SystemRandom}};
//! use std::sync::Arc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> annals_core::Result<()> {
//! let bus = Arc::new(MemoryBus::new());
//! bus.declare(&Topology::of_bus("main")).await?;
//! let options = PublisherOptions::of_bus("main", "shop");
//! let publisher = Publisher::new(bus, options, Arc::new(SystemClock), Arc::new(SystemRandom));
//!
//! let event = EventBuilder::new("shop.v1.OrderPlaced", "/shop", "o-17-placed")?.json("{}");
//! let receipt = publisher.publish_one(event).await?;
//! assert_eq!(receipt.event.header().producer_seq, Some(1));
//! # Ok(())
//! # }
//! ```

use crate::{Bus, Error, ErrorKind, Message, Outcome, Result, topology};
use annals_core::event::CONTENT_TYPE;
use annals_core::{Clock, Event, EventBuilder, EventId, Properties, Random, attribute, random};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Publishes a service's events to one exchange, as one incarnation: one `producerid`, and a
/// `producerseq` from 1 without gaps.
///
/// Shared by reference; concurrent calls are in flight together. Events reach the bus in the order
/// of their sequence numbers, but for what is sent again.
#[derive(Debug)]
pub struct Publisher {
    bus: Arc<dyn Bus>,
    options: PublisherOptions,
    exchange: Arc<str>,
    clock: Arc<dyn Clock>,
    producer_id: EventId,
    numbers: Mutex<Numbers>,
}

/// Settings of a [`Publisher`].
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// Exchange to publish to.
    pub exchange: String,
    /// The service: property `app_id`.
    pub service: String,
    /// Times an event of unknown fate is sent again before it is reported.
    pub retries: u32,
    /// Wait before the first of these; doubles each time.
    pub retry_delay: Duration,
    /// Longest envelope in bytes; a longer one is refused before it is sent.
    pub event_bytes_max: usize,
}

impl PublisherOptions {
    /// For a service that publishes to a bus's top-level exchange.
    pub fn of_bus(bus: &str, service: &str) -> Self {
        Self {
            exchange: topology::bus_exchange(bus),
            service: service.to_owned(),
            retries: 3,
            retry_delay: Duration::from_millis(50),
            event_bytes_max: 1 << 20,
        }
    }
}

/// Says that an event was accepted, and by whom.
#[derive(Debug, Clone)]
pub struct PublishReceipt {
    /// Who holds it.
    pub holder: Holder,
    /// The event as it was sent.
    pub event: Event,
}

/// Who holds an accepted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// The bus, durably.
    Bus,
}

/// Why an event was not accepted.
#[derive(Debug)]
pub struct PublishError {
    /// The reason. [`ErrorKind::Unknown`]: it may have arrived; of any other kind: it has not.
    pub error: Error,
    /// The event as it was sent, if its fate is unknown: pass these bytes to
    /// [`Publisher::publish_events`] to try again.
    pub event: Option<Event>,
}

impl Publisher {
    /// A new incarnation.
    pub fn new(
        bus: Arc<dyn Bus>,
        options: PublisherOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            bus,
            exchange: options.exchange.as_str().into(),
            options,
            producer_id: random::mint_id(&*clock, &*random),
            clock,
            numbers: Mutex::default(),
        }
    }

    /// Names this incarnation: attribute `producerid` of its events.
    pub fn producer_id(&self) -> &EventId {
        &self.producer_id
    }

    /// Stamps events with `producerid`, `producerseq` and, where it is absent, `time`; publishes
    /// them; and returns when it is known what became of each, in order.
    ///
    /// A number given to an event that did not reach the bus goes to a later event, so that a gap
    /// in the numbers always means an event of unknown fate.
    pub async fn publish(
        &self,
        events: Vec<EventBuilder>,
    ) -> Vec<Result<PublishReceipt, PublishError>> {
        let stamp = |numbers: &mut Numbers| {
            let stamp_one = |event| self.stamp(event, numbers);
            events.into_iter().map(stamp_one).collect()
        };
        let mut attempts = self.hand_over(stamp).await;
        self.retry(&mut attempts).await;
        let mut numbers = self.numbers.lock();
        for attempt in &attempts {
            if let (Some(number), Some(Err(error))) = (attempt.number, &attempt.result)
                && !error.is_ambiguous()
            {
                numbers.give_back(number);
            }
        }
        attempts.into_iter().map(Attempt::report).collect()
    }

    /// Publishes one event; see [`Publisher::publish`].
    pub async fn publish_one(&self, event: EventBuilder) -> Result<PublishReceipt, PublishError> {
        let mut results = self.publish(vec![event]).await;
        results.pop().expect("one event has one result")
    }

    /// Publishes events as they are: bytes untouched, nothing stamped.
    pub async fn publish_events(
        &self,
        events: Vec<Event>,
    ) -> Vec<Result<PublishReceipt, PublishError>> {
        let as_is = |_: &mut Numbers| {
            let attempt = |event| self.attempt(event, None);
            let attempts = events.into_iter().map(attempt);
            attempts
                .map(|a| a.unwrap_or_else(Attempt::refused))
                .collect()
        };
        let mut attempts = self.hand_over(as_is).await;
        self.retry(&mut attempts).await;
        attempts.into_iter().map(Attempt::report).collect()
    }

    fn stamp(&self, event: EventBuilder, numbers: &mut Numbers) -> Attempt {
        let number = numbers.next();
        let stamped = event
            .attribute(attribute::PRODUCER_ID, self.producer_id.as_str())
            .and_then(|e| e.attribute(attribute::PRODUCER_SEQ, number.to_string()))
            .map(|e| match e.has(attribute::TIME) {
                true => e,
                false => e.time(self.clock.now()),
            })
            .and_then(EventBuilder::build);
        match stamped.and_then(|event| self.attempt(event, Some(number))) {
            Ok(attempt) => attempt,
            Err(error) => {
                numbers.give_back(number);
                Attempt::refused(error)
            }
        }
    }

    fn attempt(&self, event: Event, number: Option<u64>) -> Result<Attempt> {
        let (length, most) = (event.bytes().len(), self.options.event_bytes_max);
        if length > most {
            return Err(Error::invalid(format!(
                "the event is {length} bytes long, at most {most} are sent"
            )));
        }
        let message = Message {
            exchange: self.exchange.clone(),
            routing_key: event.header().event_type.into(),
            properties: event_properties(&event, &self.options.service)?,
            body: event.bytes().clone(),
            mandatory: true,
        };
        Ok(Attempt {
            sent: Some((event, message)),
            number,
            result: None,
            doubt: None,
        })
    }

    /// Numbers events and begins to publish them under one lock, so that the order of the numbers
    /// is the order on the bus; then waits for the outcomes.
    async fn hand_over(&self, prepare: impl FnOnce(&mut Numbers) -> Vec<Attempt>) -> Vec<Attempt> {
        let mut prepare = Some(prepare);
        let mut attempts = Vec::new();
        let mut publishing = None;
        let outcomes = std::future::poll_fn(|context| {
            if let Some(prepare) = prepare.take() {
                let mut numbers = self.numbers.lock();
                attempts = prepare(&mut numbers);
                let batch = messages(&attempts);
                if batch.is_empty() {
                    return Poll::Ready(Vec::new());
                }
                let publishing = publishing.insert(self.bus.publish(batch));
                return publishing.as_mut().poll(context);
            }
            let publishing = publishing.as_mut().expect("begun when first polled");
            publishing.as_mut().poll(context)
        })
        .await;
        take_outcomes(&mut attempts, outcomes);
        attempts
    }

    /// Sends events of unknown fate again: the same bytes, a bounded number of times.
    async fn retry(&self, attempts: &mut [Attempt]) {
        let mut delay = self.options.retry_delay;
        for _ in 0..self.options.retries {
            let mut again = Vec::new();
            for (place, attempt) in attempts.iter_mut().enumerate() {
                if matches!(&attempt.result, Some(Err(error)) if error.is_ambiguous()) {
                    attempt.doubt = attempt.result.take().and_then(Result::err);
                    again.push(place);
                }
            }
            if again.is_empty() {
                return;
            }
            tracing::warn!(events = again.len(), "publishing again: fate unknown");
            tokio::time::sleep(delay).await;
            delay *= 2;
            let batch = messages(attempts);
            let outcomes = self.bus.publish(batch).await;
            take_outcomes(attempts, outcomes);
            for place in again {
                attempts[place].stay_in_doubt();
            }
        }
    }
}

/// The properties an event travels with: docs/formats/envelope.md.
pub fn event_properties(event: &Event, service: &str) -> Result<Properties> {
    let header = event.header();
    Properties::builder()
        .content_type(CONTENT_TYPE)
        .persistent()
        .message_id(header.id)
        .message_type(header.event_type)
        .app_id(service)
        .build()
}

/// The sequence numbers of an incarnation.
#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    /// Given out, and come back unused.
    free: BTreeSet<u64>,
}

impl Numbers {
    fn next(&mut self) -> u64 {
        self.free.pop_first().unwrap_or_else(|| {
            self.last += 1;
            self.last
        })
    }

    fn give_back(&mut self, number: u64) {
        self.free.insert(number);
        while self.last > 0 && self.free.remove(&self.last) {
            self.last -= 1;
        }
    }
}

/// An event on its way.
#[derive(Debug)]
struct Attempt {
    /// The event and its message; absent if they could not be made.
    sent: Option<(Event, Message)>,
    /// Its sequence number, if it was stamped.
    number: Option<u64>,
    /// What became of it; absent while it has to be sent.
    result: Option<Result<()>>,
    /// Why its fate was unknown before it was sent again.
    doubt: Option<Error>,
}

impl Attempt {
    fn refused(error: Error) -> Self {
        Self {
            sent: None,
            number: None,
            result: Some(Err(error)),
            doubt: None,
        }
    }

    /// What may have arrived once is not undone by a later refusal.
    fn stay_in_doubt(&mut self) {
        if let (Some(Err(error)), Some(doubt)) = (&mut self.result, self.doubt.take())
            && !error.is_ambiguous()
        {
            *error = Error::new(ErrorKind::Unknown, doubt.to_string())
                .context(&*error)
                .context("sent again and refused");
        }
    }

    fn report(self) -> Result<PublishReceipt, PublishError> {
        match (self.result, self.sent.map(|(event, _)| event)) {
            (Some(Ok(())), Some(event)) => Ok(PublishReceipt {
                holder: Holder::Bus,
                event,
            }),
            (Some(Err(error)), event) => Err(PublishError {
                event: event.filter(|_| error.is_ambiguous()),
                error,
            }),
            (_, event) => Err(PublishError {
                error: Error::new(ErrorKind::Unknown, "the bus gave no outcome"),
                event,
            }),
        }
    }
}

/// The messages of attempts that have no result yet.
fn messages(attempts: &[Attempt]) -> Vec<Message> {
    let open = attempts.iter().filter(|a| a.result.is_none());
    let message = |a: &Attempt| a.sent.as_ref().map(|(_, message)| message.clone());
    open.filter_map(message).collect()
}

/// Gives outcomes to the attempts that were sent, in order.
fn take_outcomes(attempts: &mut [Attempt], outcomes: Vec<Outcome>) {
    let open = attempts.iter_mut().filter(|a| a.result.is_none());
    for (attempt, outcome) in open.zip(outcomes) {
        attempt.result = Some(outcome.into_result());
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        error.error
    }
}
