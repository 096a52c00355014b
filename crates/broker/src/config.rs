//! [`Config`]: where the broker keeps its data, and every bound of it.

use crate::log::LogConfig;
use std::path::PathBuf;

/// Settings of a broker; see each field for its bound.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of the log; made if it is not there.
    pub directory: PathBuf,
    /// Bounds of the log: segments, disk, message length.
    pub log: LogConfig,
    /// Most bytes of commands waiting for the engine; senders wait for room.
    pub commands_bytes_max: u32,
    /// Deliveries a consumer without prefetch may have that its session has not taken.
    pub window: u32,
    /// Deliveries a consumer without prefetch may have unsettled.
    pub unsettled_max: u32,
    /// Most bytes of returned messages waiting for a session to take them; over it, the session
    /// is closed.
    pub returned_bytes_max: usize,
    /// Bytes of log after which the state is written as a snapshot.
    pub snapshot_every_bytes: u64,
    /// A sealed segment with fewer live messages than this share (per cent) is rewritten forward.
    pub rewrite_below_percent: u8,
}

impl Config {
    /// The defaults, for a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            log: LogConfig::default(),
            commands_bytes_max: 32 << 20,
            window: 4_096,
            unsettled_max: 1 << 20,
            returned_bytes_max: 64 << 20,
            snapshot_every_bytes: 256 << 20,
            rewrite_below_percent: 10,
        }
    }
}
