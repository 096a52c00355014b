//! The session's events as frames: confirms, returns, deliveries, and what ends.

use super::fault::Fault;
use super::method::{ACK, PUBLISH};
use super::output::{Deliver, short};
use super::writer::{ChannelOut, Early, EarlyEvent, Note, State, channel_close};
use crate::message::{Delivered, Message};
use crate::session::SessionEvent;
use amq_protocol::protocol::{AMQPClass, basic, connection};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWrite;

/// Bytes of messages loaded at a time.
const LOAD_BYTES: usize = 256 << 10;
/// Most messages loaded at a time.
const LOAD_MAX: usize = 256;

impl<W: AsyncWrite + Unpin> State<W> {
    pub(super) async fn events(&mut self, batch: Vec<SessionEvent>) -> io::Result<()> {
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
                if self.is_current(channel, publish.confirm) {
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
                    self.note(Note::Blocked(true));
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
                    self.note(Note::Blocked(false));
                }
            }
            SessionEvent::Closed(refusal) => {
                self.close(&Fault::refused(refusal.code, refusal.text))
            }
        }
        Ok(())
    }

    fn confirmed(&mut self, channel: u16, up_to: u64) {
        let Some((out, up_to)) = self.confirming(channel, up_to) else {
            return;
        };
        if up_to > out.answered {
            let multiple = up_to > out.answered + 1;
            out.answered = up_to;
            self.output.put_ack(channel, up_to, multiple);
        }
    }

    fn nacked(&mut self, channel: u16, from: u64, up_to: u64) {
        let Some((out, up_to)) = self.confirming(channel, up_to) else {
            return;
        };
        let Some(from) = confirm_tag(out.generation, from) else {
            return;
        };
        if from == out.answered + 1 {
            out.answered = up_to;
            self.output.put_nack(channel, up_to, up_to > from);
        } else {
            // Earlier ones are open still: one by one, so that they are not meant too.
            for tag in from..=up_to {
                self.output.put_nack(channel, tag, false);
            }
        }
    }

    /// Whether a returned message is of the channel that has the number now.
    fn is_current(&self, channel: u16, number: u64) -> bool {
        let out = self.channels.get(&channel);
        out.is_some_and(|out| number == 0 || confirm_tag(out.generation, number).is_some())
    }

    /// The channel that a confirm number is of, and its delivery tag there; `None` if it is of a
    /// channel that had the number before.
    fn confirming(&mut self, channel: u16, number: u64) -> Option<(&mut ChannelOut, u64)> {
        let out = self.channels.get_mut(&channel)?;
        let tag = confirm_tag(out.generation, number)?;
        Some((out, tag))
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
    pub(super) fn load(&mut self, deliveries: &[Delivered]) -> Option<Vec<Message>> {
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

    pub(super) async fn consuming(
        &mut self,
        channel: u16,
        consumer_tag: Arc<str>,
    ) -> io::Result<()> {
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
}

/// Bits of a confirm number that are the delivery tag; the others are the channel's generation, so
/// that a late confirm never counts for the next channel of the same number.
const TAG_BITS: u32 = 40;

/// The number under which the session answers a channel's publish; never 0.
pub(crate) fn confirm_number(generation: u64, tag: u64) -> u64 {
    (generation << TAG_BITS) | (tag & ((1 << TAG_BITS) - 1))
}

/// The delivery tag of a confirm number, if it is of this generation.
fn confirm_tag(generation: u64, number: u64) -> Option<u64> {
    (confirm_number(generation, number) == number).then_some(number & ((1 << TAG_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirm_counts_for_its_own_generation_only() {
        for generation in [1, 2, 1 << 24, (1 << 24) + 1] {
            for tag in [1, 7, 1 << 39] {
                let number = confirm_number(generation, tag);
                assert_ne!(number, 0);
                assert_eq!(confirm_tag(generation, number), Some(tag));
                assert_eq!(confirm_tag(generation + 1, number), None);
            }
        }
    }
}
