//! [`Stats`]: what the broker counts.

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
