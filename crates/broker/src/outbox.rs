//! Where the engine leaves a session's events until the client takes them.

use crate::core::spec::Refusal;
use crate::session::SessionEvent;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Events that may lie there; only a client that takes none gets near it.
const EVENTS_MAX: usize = 1 << 18;

/// Deliveries that count against a consumer's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) consumer: u64,
    pub(crate) count: u32,
}

/// One session's events.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<Left>,
    ready: Notify,
    returned_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Left {
    events: Vec<SessionEvent>,
    taken: Vec<Taken>,
    returned_bytes: usize,
    ended: bool,
}

impl Outbox {
    pub(crate) fn new(returned_bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            ready: Notify::new(),
            returned_bytes_max,
        }
    }

    /// Appends events; `false` if the client lets too many returned messages lie.
    pub(crate) fn push(&self, events: &mut Vec<SessionEvent>, taken: &mut Vec<Taken>) -> bool {
        let mut left = self.state.lock();
        if left.ended {
            events.clear();
            taken.clear();
            return true;
        }
        for event in events.iter() {
            if let SessionEvent::Returned { publish, .. } = event {
                left.returned_bytes += publish.cost();
            }
        }
        join(&mut left.events, events);
        left.taken.append(taken);
        let within =
            left.returned_bytes <= self.returned_bytes_max && left.events.len() <= EVENTS_MAX;
        drop(left);
        self.ready.notify_one();
        within
    }

    /// The last event.
    pub(crate) fn end(&self, refusal: Option<Refusal>) {
        let mut left = self.state.lock();
        if !left.ended {
            left.ended = true;
            left.events.extend(refusal.map(SessionEvent::Closed));
        }
        drop(left);
        self.ready.notify_one();
    }

    /// Waits for events and takes them all.
    pub(crate) async fn take(&self) -> Option<(Vec<SessionEvent>, Vec<Taken>)> {
        loop {
            {
                let mut left = self.state.lock();
                if !left.events.is_empty() {
                    left.returned_bytes = 0;
                    let left = &mut *left;
                    return Some((
                        std::mem::take(&mut left.events),
                        std::mem::take(&mut left.taken),
                    ));
                }
                if left.ended {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }
}

/// Appends, letting a confirm that reaches further stand for the one before it: so a client that
/// takes nothing leaves one confirm per channel and turn, not one per commit.
fn join(left: &mut Vec<SessionEvent>, events: &mut Vec<SessionEvent>) {
    for event in events.drain(..) {
        if let (
            SessionEvent::Confirmed { channel, up_to },
            Some(SessionEvent::Confirmed {
                channel: last,
                up_to: reached,
            }),
        ) = (&event, left.last_mut())
            && channel == last
        {
            *reached = *up_to;
            continue;
        }
        left.push(event);
    }
}
