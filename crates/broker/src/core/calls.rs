//! Calls: what clients ask of the topology and of consumers, granted or refused as RabbitMQ does.

use super::arguments::Arguments;
use super::channel::{Consumer, Given};
use super::queue::Queue;
use super::record;
use super::spec::{
    BindingSpec, ConsumeSpec, Destination, ExchangeSpec, QueueInfo, QueueSpec, Refusal, Settle,
};
use super::state::State;
use crate::command::{Answer, Call};
use crate::message::Delivered;
use crate::session::SessionEvent;
use std::collections::VecDeque;
use std::sync::Arc;

type Granted<T = ()> = Result<T, Refusal>;

impl State {
    /// Does what a session asks.
    pub(crate) fn call(&mut self, session: u64, call: Call) -> Granted<Answer> {
        match call {
            Call::DeclareExchange(spec) => self.declare_exchange(spec).map(|()| Answer::Done),
            Call::DeleteExchange { name, if_unused } => self
                .delete_exchange(&name, if_unused)
                .map(|()| Answer::Done),
            Call::Bind(spec) => self.bind(session, &spec).map(|()| Answer::Done),
            Call::Unbind(spec) => self.unbind(session, &spec).map(|()| Answer::Done),
            Call::DeclareQueue(spec) => self.declare_queue(session, spec).map(Answer::Queue),
            Call::DeleteQueue {
                name,
                if_unused,
                if_empty,
            } => self
                .delete_queue(session, &name, if_unused, if_empty)
                .map(Answer::Count),
            Call::PurgeQueue { name } => self.purge_queue(session, &name).map(Answer::Count),
            Call::Consume(spec) => self.consume(session, spec).map(|()| Answer::Done),
            Call::Cancel {
                channel,
                consumer_tag,
            } => {
                self.cancel(session, channel, &consumer_tag);
                Ok(Answer::Done)
            }
            Call::Get {
                channel,
                queue,
                no_ack,
            } => self.get(session, channel, &queue, no_ack).map(Answer::Got),
            Call::CloseChannel { channel } => {
                self.close_channel(session, channel);
                Ok(Answer::Done)
            }
        }
    }

    fn declare_exchange(&mut self, spec: ExchangeSpec) -> Granted {
        if spec.passive {
            // The default exchange is there for whoever asks.
            return match spec.name.as_str() {
                "" => Ok(()),
                name => self.exchanges.find(name).map(drop),
            };
        }
        check_not_default(&spec.name)?;
        if let Some(exchange) = self.exchanges.get(&spec.name) {
            return exchange.check_same(&spec);
        }
        check_name("exchange", &spec.name)?;
        Arguments::without_effect(&spec.arguments, &format!("exchange '{}'", spec.name))?;
        self.exchanges.insert(&spec);
        if spec.durable {
            self.records.push(record::exchange(&spec));
        }
        Ok(())
    }

    fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Granted {
        check_not_default(name)?;
        if name.starts_with("amq.") {
            let text = format!("deletion of system exchange '{name}' in vhost '/' not allowed");
            return Err(Refusal::new(403, text));
        }
        let Some(exchange) = self.exchanges.get(name) else {
            return Ok(());
        };
        if if_unused && exchange.is_used() {
            let text = format!("exchange '{name}' in vhost '/' in use");
            return Err(Refusal::new(406, text));
        }
        self.delete_idle(vec![name.to_owned()]);
        Ok(())
    }

    /// Deletes exchanges, and those that are idle for it in turn.
    pub(super) fn delete_idle(&mut self, mut names: Vec<String>) {
        while let Some(name) = names.pop() {
            let Some(exchange) = self.exchanges.get(&name) else {
                continue;
            };
            if exchange.durable {
                self.records.push(record::exchange_gone(&name));
            }
            names.extend(self.exchanges.remove(&name).idle);
        }
    }

    fn bind(&mut self, session: u64, spec: &BindingSpec) -> Granted {
        check_not_default(&spec.source)?;
        let durable = self.check_destination(session, spec)?;
        let source = self.exchanges.find(&spec.source)?;
        let durable = durable && source.durable;
        Arguments::without_effect(&spec.arguments, "a binding")?;
        if self.exchanges.bind(spec)? && durable {
            self.records.push(record::bound(spec));
        }
        Ok(())
    }

    fn unbind(&mut self, session: u64, spec: &BindingSpec) -> Granted {
        check_not_default(&spec.source)?;
        let durable = match self.check_destination(session, spec) {
            Err(refusal) if refusal.code == 404 => false,
            checked => checked?,
        };
        let durable = durable && self.exchanges.get(&spec.source).is_some_and(|e| e.durable);
        let (found, idle) = self.exchanges.unbind(spec);
        if found && durable {
            self.records.push(record::unbound(spec));
        }
        if idle {
            self.delete_idle(vec![spec.source.clone()]);
        }
        Ok(())
    }

    /// Whether a binding's destination is there, may be used and outlives a restart.
    fn check_destination(&self, session: u64, spec: &BindingSpec) -> Granted<bool> {
        match &spec.destination {
            Destination::Exchange(name) => {
                check_not_default(name)?;
                Ok(self.exchanges.find(name)?.durable)
            }
            Destination::Queue(name) => Ok(self.queue(session, name)?.1.is_recorded()),
        }
    }

    fn declare_queue(&mut self, session: u64, mut spec: QueueSpec) -> Granted<QueueInfo> {
        if spec.passive {
            return self
                .queue(session, &spec.name)
                .map(|(_, queue)| info(queue));
        }
        if spec.name.is_empty() {
            spec.name = self.mint_name();
        } else {
            check_name("queue", &spec.name)?;
        }
        if let Some(&place) = self.queue_names.get(spec.name.as_str()) {
            let Some(queue) = self.queues.get(place) else {
                return Err(no_queue(&spec.name));
            };
            queue.check_access(session)?;
            let arguments = Arguments::of_queue(&spec.arguments, &spec.name, true, false)?;
            queue.check_same(&spec, &arguments)?;
            return Ok(info(queue));
        }
        let arguments =
            Arguments::of_queue(&spec.arguments, &spec.name, spec.durable, spec.exclusive)?;
        self.queue_ids += 1;
        let owner = spec.exclusive.then_some(session);
        let queue = Queue::new(self.queue_ids, &spec, arguments, owner);
        if queue.is_recorded() {
            self.records.push(record::queue(queue.id, &spec));
        }
        let info = info(&queue);
        self.insert_queue(queue);
        Ok(info)
    }

    pub(super) fn insert_queue(&mut self, queue: Queue) {
        let name = Arc::clone(&queue.name);
        let place = self.queues.insert(queue);
        self.queue_names.insert(name, place);
        self.exchanges.changed();
    }

    pub(super) fn record_queue_gone(&mut self, id: u32) {
        self.records.push(record::queue_gone(id));
    }

    fn delete_queue(
        &mut self,
        session: u64,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Granted<u32> {
        let (place, queue) = match self.queue(session, name) {
            Err(refusal) if refusal.code == 404 => return Ok(0),
            found => found?,
        };
        if if_unused && !queue.consumers.is_empty() {
            let text = format!("queue '{name}' in vhost '/' in use");
            return Err(Refusal::new(406, text));
        }
        if if_empty && queue.index.ready() > 0 {
            let text = format!("queue '{name}' in vhost '/' not empty");
            return Err(Refusal::new(406, text));
        }
        Ok(count(self.remove_queue(place)))
    }

    fn purge_queue(&mut self, session: u64, name: &str) -> Granted<u32> {
        let (place, _) = self.queue(session, name)?;
        let Some(queue) = self.queues.get_mut(place) else {
            return Ok(0);
        };
        let was_settling = !queue.settled.is_empty();
        let (segments, totals, settled) =
            (&mut self.segments, &mut self.totals, &mut queue.settled);
        let purged = queue.index.purge(|message| {
            segments.sub(message.lsn.segment());
            totals.messages -= 1;
            totals.dropped += 1;
            if !message.transient {
                match settled.last_mut() {
                    Some((_, last)) if *last + 1 == message.sequence => *last += 1,
                    _ => settled.push((message.sequence, message.sequence)),
                }
            }
        });
        if !was_settling && !queue.settled.is_empty() {
            self.settling.push(place);
        }
        Ok(count(purged))
    }

    fn consume(&mut self, session: u64, spec: ConsumeSpec) -> Granted {
        let (place, queue) = self.queue(session, &spec.queue)?;
        let is_taken = queue.has_exclusive_consumer;
        let has_consumers = !queue.consumers.is_empty();
        Arguments::without_effect(&spec.arguments, "a consumer")?;
        if is_taken || spec.exclusive && has_consumers {
            let text = format!("queue '{}' in vhost '/' in exclusive use", spec.queue);
            return Err(Refusal::new(403, text));
        }
        let channel_place = self.open_channel(session, spec.channel)?;
        let tag: Arc<str> = spec.consumer_tag.as_str().into();
        let Some(channel) = self.channels.get_mut(channel_place) else {
            return Err(Refusal::closed());
        };
        if channel.consumers.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Refusal::new(530, text));
        }
        self.consumer_ids += 1;
        let consumer = self.consumers.insert(Consumer {
            id: 0,
            session,
            channel: channel_place,
            tag: Arc::clone(&tag),
            queue: place,
            no_ack: spec.no_ack,
            exclusive: spec.exclusive,
            prefetch: spec.prefetch,
            unsettled: 0,
            untaken: 0,
            in_flight: VecDeque::new(),
            pending: Vec::new(),
            is_dead: false,
        });
        channel.consumers.insert(tag, consumer);
        if let Some(made) = self.consumers.get_mut(consumer) {
            made.id = self.consumer_ids << 32 | u64::from(consumer);
        }
        if let Some(queue) = self.queues.get_mut(place) {
            queue.consumers.push(consumer);
            queue.has_exclusive_consumer = spec.exclusive;
        }
        self.touch(place);
        Ok(())
    }

    fn cancel(&mut self, session: u64, number: u16, tag: &str) {
        let Some(place) = self.channel(session, number) else {
            return;
        };
        let consumer = self
            .channels
            .get_mut(place)
            .and_then(|channel| channel.consumers.remove(tag));
        if let Some(queue) = consumer.and_then(|consumer| self.stop_consumer(consumer)) {
            self.touch(queue);
            self.delete_if_abandoned(queue);
        }
    }

    /// A consumer whose queue is gone.
    pub(super) fn cancel_by_broker(&mut self, place: u32) {
        let Some(consumer) = self.consumers.get(place) else {
            return;
        };
        let (session, channel, tag) = (consumer.session, consumer.channel, consumer.tag.clone());
        self.stop_consumer(place);
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        channel.consumers.remove(&tag);
        let event = SessionEvent::ConsumerCancelled {
            channel: channel.number,
            consumer_tag: tag,
        };
        self.tell(session, event);
    }

    fn get(
        &mut self,
        session: u64,
        number: u16,
        name: &str,
        no_ack: bool,
    ) -> Granted<Option<(Delivered, u32)>> {
        let (place, _) = self.queue(session, name)?;
        let channel = self.open_channel(session, number)?;
        self.raise_mark(place);
        let (Some(queue), Some(channel)) =
            (self.queues.get_mut(place), self.channels.get_mut(channel))
        else {
            return Ok(None);
        };
        let Some(message) = queue.index.take() else {
            return Ok(None);
        };
        queue.unsettled += 1;
        let left = count(queue.index.ready());
        let given = Given {
            sequence: message.sequence,
            queue: place,
            consumer: u32::MAX,
        };
        let tag = channel.unsettled.push(given);
        if no_ack {
            let settlement = super::spec::Settlement {
                tag,
                multiple: false,
                how: Settle::Ack,
            };
            self.settle(session, number, &[settlement]);
        }
        let delivered = Delivered {
            tag,
            redelivered: message.redelivered,
            lsn: message.lsn,
        };
        self.totals.delivered += 1;
        Ok(Some((delivered, left)))
    }

    fn open_channel(&mut self, session: u64, number: u16) -> Granted<u32> {
        self.channel(session, number)
            .ok_or_else(|| Refusal::new(504, format!("channel {number} is closing")))
    }

    /// A queue a session may use.
    fn queue(&self, session: u64, name: &str) -> Granted<(u32, &Queue)> {
        let place = self.queue_names.get(name).copied();
        let found = place.and_then(|place| Some((place, self.queues.get(place)?)));
        let (place, queue) = found.ok_or_else(|| no_queue(name))?;
        queue.check_access(session)?;
        Ok((place, queue))
    }

    fn mint_name(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        format!("amq.gen-{:032x}", u128::from_be_bytes(bytes))
    }
}

fn info(queue: &Queue) -> QueueInfo {
    QueueInfo {
        name: queue.name.to_string(),
        messages: count(queue.index.ready()),
        consumers: queue.consumers.len() as u32,
    }
}

fn check_not_default(exchange: &str) -> Granted {
    if exchange.is_empty() {
        let text = "operation not permitted on the default exchange";
        return Err(Refusal::new(403, text));
    }
    Ok(())
}

fn check_name(of: &str, name: &str) -> Granted {
    if name.starts_with("amq.") {
        let text = format!("{of} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Refusal::new(403, text));
    }
    if name.len() > 255 {
        let text = format!("{of} name of {} bytes is over 255", name.len());
        return Err(Refusal::new(406, text));
    }
    Ok(())
}

fn no_queue(name: &str) -> Refusal {
    Refusal::new(404, format!("no queue '{name}' in vhost '/'"))
}

fn count(messages: u64) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}
