//! Taking messages: route, append, enqueue; or refuse them, where there is no room.

use super::{Engine, is_refusal};
use crate::core::record;
use crate::core::spec::Refusal;
use crate::message::{Publish, put_head};
use crate::session::SessionEvent;
use annals_core::Result;

impl Engine {
    pub(super) fn publish(&mut self, session: u64, number: u16, batch: Vec<Publish>) -> Result<()> {
        if self.state.channel(session, number).is_none() {
            return Ok(());
        }
        let mut confirmed = 0;
        for publish in batch {
            let confirm = publish.confirm;
            let taken = match self.take(session, number, publish) {
                Ok(taken) => taken?,
                Err(refusal) => {
                    self.confirm(session, number, &mut confirmed);
                    self.state.fail_channel(session, number, refusal);
                    return Ok(());
                }
            };
            if taken {
                confirmed = confirm.max(confirmed);
            } else {
                self.confirm(session, number, &mut confirmed);
                self.refuse(session, number, confirm);
            }
        }
        self.confirm(session, number, &mut confirmed);
        Ok(())
    }

    /// Takes one message: `false` if there is no room for it.
    #[inline]
    fn take(
        &mut self,
        session: u64,
        number: u16,
        publish: Publish,
    ) -> Result<Result<bool>, Refusal> {
        let route = self.state.route(&publish.exchange, &publish.routing_key)?;
        if route.is_empty() {
            self.stats.unroutable += 1;
            if publish.mandatory {
                self.group.held += publish.cost();
                let event = SessionEvent::Returned {
                    channel: number,
                    code: 312,
                    text: "NO_ROUTE",
                    publish: Box::new(publish),
                };
                self.state.tell(session, event);
            }
            return Ok(Ok(true));
        }
        let persistent = publish.properties.is_persistent();
        let mut bytes = self.put_head(&route, &publish, persistent);
        let bytes_max = self.config.log.message_bytes_max as usize;
        if bytes > bytes_max {
            let text = format!("message size {bytes} is larger than max size {bytes_max}");
            return Err(Refusal::new(406, text));
        }
        if self.blocked.is_none() && !self.log().has_room(bytes) {
            if let Err(error) = self.make_room() {
                return Ok(Err(error));
            }
            // That used the scratch.
            bytes = self.put_head(&route, &publish, persistent);
        }
        let log = self.log.as_mut().expect("open until the end");
        if self.blocked.is_some() || !log.has_room(bytes) {
            self.block();
            return Ok(Ok(false));
        }
        let properties = publish.properties.bytes();
        let parts = [self.head.as_slice(), properties, &publish.body];
        let lsn = match log.append(record::PUBLISH, &parts) {
            Ok(lsn) => lsn,
            Err(error) if is_refusal(&error) => {
                self.block();
                return Ok(Ok(false));
            }
            Err(error) => return Ok(Err(error)),
        };
        self.group.is_empty = false;
        self.group.is_durable |= !self.copies.is_empty();
        self.state.enqueue(&route, lsn, persistent);
        self.stats.published += 1;
        Ok(Ok(true))
    }

    /// Writes the start of a message's record into the scratch; how long the record is.
    #[inline]
    fn put_head(&mut self, route: &[u32], publish: &Publish, persistent: bool) -> usize {
        let properties = publish.properties.bytes().len();
        self.copies.clear();
        if persistent {
            self.state.copies(route, &mut self.copies);
        }
        self.head.clear();
        put_head(
            &self.copies,
            &publish.exchange,
            &publish.routing_key,
            properties,
            &mut self.head,
        );
        self.head.len() + properties + publish.body.len()
    }

    fn confirm(&mut self, session: u64, channel: u16, up_to: &mut u64) {
        let up_to = std::mem::take(up_to);
        if up_to > 0 {
            let event = SessionEvent::Confirmed { channel, up_to };
            self.state.tell(session, event);
        }
    }

    fn refuse(&mut self, session: u64, channel: u16, confirm: u64) {
        self.stats.refused += 1;
        if let Some(reason) = &self.blocked
            && self.told.insert(session)
        {
            let event = SessionEvent::Blocked(reason.clone());
            self.state.tell(session, event);
        }
        if confirm > 0 {
            self.group.held += size_of::<SessionEvent>();
            let event = SessionEvent::Nacked {
                channel,
                from: confirm,
                up_to: confirm,
            };
            self.state.tell(session, event);
        }
    }

    fn block(&mut self) {
        if self.blocked.is_none() {
            let reason = "low on disk";
            tracing::warn!("publishes are refused: {reason}");
            self.blocked = Some(reason.to_owned());
        }
    }

    /// Takes publishes again, once there is room for more than a few.
    pub(super) fn unblock(&mut self) {
        if self.blocked.is_some() && self.log().has_spare() {
            self.group.is_urgent = true;
            let reason = self.blocked.take();
            tracing::info!(?reason, "publishes are taken again");
            for session in std::mem::take(&mut self.told) {
                self.state.tell(session, SessionEvent::Unblocked);
            }
        }
    }
}
