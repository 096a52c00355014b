//! [`Stats`]: what the broker counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges of a broker since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages taken.
    pub published: u64,
    /// Messages that reached no queue.
    pub unroutable: u64,
    /// Messages refused for lack of disk.
    pub refused: u64,
    /// Deliveries handed to consumers.
    pub delivered: u64,
    /// Deliveries settled, requeued ones not counted.
    pub settled: u64,
    /// Groups committed.
    pub commits: u64,
    /// Of those, groups made durable by a sync.
    pub syncs: u64,
    /// Bytes appended to the log.
    pub log_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Old segments that few messages keep: to be rewritten, or held by consumers that do not
    /// settle what they were given. If it stays and grows, the latter will fill the disk.
    pub sparse_segments: u64,
    /// Snapshots written.
    pub snapshots: u64,
    /// Messages rewritten forward.
    pub rewritten: u64,
    /// Messages in queues now, unsettled ones counted.
    pub messages: u64,
    /// Queues now.
    pub queues: u64,
    /// Consumers now.
    pub consumers: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Whether publishes are refused now for lack of disk.
    pub blocked: bool,
    /// Messages whose bytes cannot be read, with consumers in this process that set them aside:
    /// unsettled, in their queues. Not zero: damage.
    pub unreadable: u64,
}

/// What [`Stats::unreadable`] counts, for who reads messages.
#[derive(Debug, Clone, Default)]
pub struct Unreadable(Arc<AtomicU64>);

impl Unreadable {
    /// So many were set aside.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// So many of them are back in their queues.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The stats as the engine leaves them for readers, once a group.
#[derive(Debug, Default)]
pub(crate) struct StatsBoard(parking_lot::Mutex<Stats>);

impl StatsBoard {
    pub(crate) fn set(&self, stats: Stats) {
        *self.0.lock() = stats;
    }

    pub(crate) fn get(&self) -> Stats {
        *self.0.lock()
    }
}
