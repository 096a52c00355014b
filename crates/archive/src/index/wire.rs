//! The messages of the index's objects. Derived data that only annals reads; docs/formats/index.md
//! gives them as `.proto`.

use prost::bytes::Bytes;

/// What a run says beside its rows.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Run {
    /// Ledger entries it covers, both ends included.
    #[prost(uint64, tag = "1")]
    pub(crate) first: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) last: u64,
    /// Its rows, in ascending ranges of keys.
    #[prost(message, repeated, tag = "3")]
    pub(crate) parts: Vec<Part>,
    /// One skip list per ledger entry.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(crate) skips: Vec<Bytes>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) counts: Vec<Count>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) producers: Vec<Producer>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) conflicts: Vec<Conflict>,
    /// Sources of its events, sorted; none where there are too many.
    #[prost(string, repeated, tag = "8")]
    pub(crate) sources: Vec<String>,
    #[prost(bool, tag = "9")]
    pub(crate) many_sources: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Part {
    #[prost(uint64, tag = "1")]
    pub(crate) rows: u64,
    /// Length of the object, bytes.
    #[prost(uint64, tag = "2")]
    pub(crate) length: u64,
    /// First key, 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) first_key: Bytes,
    /// CRC-32C of its footer.
    #[prost(fixed32, tag = "4")]
    pub(crate) footer_crc32c: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Count {
    #[prost(string, tag = "1")]
    pub(crate) r#type: String,
    /// By the day of archiving; else by that of the event's time.
    #[prost(bool, tag = "2")]
    pub(crate) archived: bool,
    #[prost(sint32, tag = "3")]
    pub(crate) day: i32,
    /// The events have no time.
    #[prost(bool, tag = "4")]
    pub(crate) untimed: bool,
    #[prost(uint64, tag = "5")]
    pub(crate) count: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Producer {
    #[prost(string, tag = "1")]
    pub(crate) producer: String,
    /// First and last of each interval, in turn.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) ends: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Conflict {
    #[prost(uint64, tag = "1")]
    pub(crate) first_entry: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) first_ordinal: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) other_entry: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) other_ordinal: u32,
}

/// How far the index is, and its runs.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct State {
    #[prost(string, tag = "1")]
    pub(crate) bus: String,
    #[prost(uint64, tag = "2")]
    pub(crate) position: u64,
    /// Hash of the ledger entry at the position, 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) ledger_hash: Bytes,
    #[prost(message, repeated, tag = "4")]
    pub(crate) runs: Vec<RunRef>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunRef {
    #[prost(uint64, tag = "1")]
    pub(crate) first: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) last: u64,
    /// BLAKE3 of the run's object, 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) hash: Bytes,
}

/// An object: a message and its hash.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Checked {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) message: Bytes,
    /// BLAKE3 of `message`, 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) hash: Bytes,
}
