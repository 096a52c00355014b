//! Everything that happened, raw: segments, ledger, archiver, reader, index, verify.
//!
//! ```text
//!  archive queue ──► Archiver ──► segments (raw/v1/…) ──► ledger entry ──► ack
//!                                      │                      │
//!                                      └────── Archive ◄──────┘ ──► reader, index, verify
//! ```
//!
//! In the order bytes are made:
//!
//! - [`record`] — [`RecordRef`]: a published envelope, verbatim, and how it arrived
//! - [`segment`] — records of one package in compressed frames, with an index at the end
//! - [`filter`] — split-block Bloom filters, in segments and in the index
//! - [`layout`] — the names of objects, both directions
//! - [`bucket`] — [`Bucket`]: where objects lie; a directory or an object store
//! - [`ledger`] — [`Ledger`]: the numbered, hash-chained list of segments that is the archive
//! - [`archiver`] — [`Archiver`]: from the archive queue to the ledger, then the ack
//! - [`reader`] — from the ledger back to events
//! - [`index`] — derived: duplicates, ids, counts
//! - [`verify`] — proves that all is there and intact
//!
//! Byte formats: docs/formats/{record,segment,ledger}.md; `proto/annals/archive/v1/archive.proto`.

pub mod archiver;
pub mod bucket;
pub mod filter;
pub mod index;
pub mod layout;
pub mod ledger;
pub mod reader;
pub mod record;
pub mod segment;
pub mod verify;

/// The generated messages of `annals.archive.v1`.
#[allow(missing_docs, reason = "generated")]
pub mod wire {
    include!("gen/annals.archive.v1.rs");
}

pub use annals_core::{Error, ErrorKind, Result};
pub use archiver::Archiver;
pub use bucket::Bucket;
pub use ledger::{Ledger, Position};
pub use record::RecordRef;
