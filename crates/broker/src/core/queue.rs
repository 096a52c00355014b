//! [`Queue`]: what one is, and who takes from it.

use super::arguments::Arguments;
use super::index::Index;
use super::spec::{QueueSpec, Refusal};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Queue {
    /// Names it in the log, for ever.
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    pub(crate) durable: bool,
    /// The session whose alone it is.
    pub(crate) owner: Option<u64>,
    pub(crate) auto_delete: bool,
    /// Arguments as declared.
    pub(crate) table: Bytes,
    pub(crate) arguments: Arguments,
    pub(crate) index: Index,
    /// Places of consumers, in turn.
    pub(crate) consumers: Vec<u32>,
    pub(crate) turn: usize,
    pub(crate) has_exclusive_consumer: bool,
    /// Messages with consumers and getters.
    pub(crate) unsettled: u64,
    /// Ranges settled in this group, to be recorded: first, last.
    pub(crate) settled: Vec<(u64, u64)>,
    /// Only messages below this number are delivered; it is in the log, so that a restart knows
    /// what may have been.
    pub(crate) delivered: u64,
    /// Whether dispatch is to look at it.
    pub(crate) is_dirty: bool,
    /// Deleted; kept until the last message it had given out is settled.
    pub(crate) is_dead: bool,
}

impl Queue {
    pub(crate) fn new(id: u32, spec: &QueueSpec, arguments: Arguments, owner: Option<u64>) -> Self {
        Self {
            id,
            name: spec.name.as_str().into(),
            durable: spec.durable,
            owner,
            auto_delete: spec.auto_delete,
            table: spec.arguments.clone(),
            arguments,
            index: Index::default(),
            consumers: Vec::new(),
            turn: 0,
            has_exclusive_consumer: false,
            unsettled: 0,
            settled: Vec::new(),
            delivered: 0,
            is_dirty: false,
            is_dead: false,
        }
    }

    /// Whether it outlives a restart.
    #[inline]
    pub(crate) fn is_recorded(&self) -> bool {
        self.durable && self.owner.is_none()
    }

    /// Whether a message of this number may be delivered.
    #[inline]
    pub(crate) fn may_deliver(&self) -> bool {
        !self.is_recorded() || self.index.next_ready() < self.delivered
    }

    pub(crate) fn check_access(&self, session: u64) -> Result<(), Refusal> {
        match self.owner {
            Some(owner) if owner != session => Err(self.locked()),
            _ => Ok(()),
        }
    }

    /// Whether a declaration describes this queue.
    pub(crate) fn check_same(
        &self,
        spec: &QueueSpec,
        arguments: &Arguments,
    ) -> Result<(), Refusal> {
        for (what, received, current) in [
            ("durable", spec.durable, self.durable),
            ("auto_delete", spec.auto_delete, self.auto_delete),
        ] {
            if received != current {
                return Err(Refusal::new(
                    406,
                    format!(
                        "inequivalent arg '{what}' for queue '{}' in vhost '/': received \
                         '{received}' but current is '{current}'",
                        self.name
                    ),
                ));
            }
        }
        if spec.exclusive != self.owner.is_some() {
            return Err(self.locked());
        }
        self.arguments
            .check_same(arguments, &format!("queue '{}'", self.name))
    }

    /// Notes a settled message for the log.
    #[inline]
    pub(crate) fn note_settled(&mut self, sequence: u64) {
        match self.settled.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => self.settled.push((sequence, sequence)),
        }
    }

    fn locked(&self) -> Refusal {
        Refusal::new(
            405,
            format!(
                "cannot obtain exclusive access to locked queue '{}' in vhost '/'. It could be \
                 originally declared on another connection or the exclusive property value does \
                 not match that of the original declaration.",
                self.name
            ),
        )
    }
}
