//! Questions to all of history: DataFusion over the lake and the raw tail.

pub mod history;
pub mod limits;

pub use datafusion;
pub use history::{EVENTS, History, Pinned, ScanCounters, Scanned, TableName};
pub use limits::{EngineConfig, Limit};
