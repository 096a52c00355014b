//! The words of annals: what an event is, how it is named, selected and framed. No I/O.
//!
//! In reading order:
//!
//! - [`event`] — [`Event`], the canonical envelope as bytes, and [`EventBuilder`] that makes one
//! - [`header`] — [`Header`], the zero-copy scanner every hot path reads envelopes with
//! - [`names`] — [`EventType`], [`Source`], [`Subject`], [`EventId`]: checked newtypes
//! - [`envelope`] — the generated `io.cloudevents.v1` messages, for a full decode
//! - [`json`], [`binary`] — the two other bodies a plain client may publish, to and from canonical
//! - [`pattern`], [`range`], [`selection`] — which events: types, times, subjects, ids
//! - [`properties`] — what travels beside a body on AMQP: [`Properties`]
//! - [`frame`] — varint-length-delimited framing
//! - [`schema`] (feature `schema`) — types from `.proto` files, JSON ↔ Protobuf
//! - [`clock`], [`random`], [`disk`] — what is injected, so that a simulator can drive everything
//! - [`system`] (feature `system`) — the operating system behind those traits: the one door to I/O
//! - [`sim`] (feature `testkit`) — a disk that crashes on command, a clock moved by hand
//!
//! Invariant: outside [`system`] nothing here does I/O, reads a clock or spawns.

pub mod attribute;
pub mod binary;
pub mod clock;
pub mod disk;
pub mod envelope;
pub mod error;
pub mod event;
pub mod frame;
pub mod header;
pub mod json;
pub mod names;
pub mod pattern;
pub mod properties;
pub mod random;
pub mod range;
#[cfg(feature = "schema")]
pub mod schema;
pub mod selection;
#[cfg(any(test, feature = "testkit"))]
pub mod sim;
#[cfg(feature = "system")]
pub mod system;
pub mod wire;

pub use clock::Clock;
pub use disk::Disk;
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, EventBuilder};
pub use header::{Data, Header};
/// An instant, nanosecond precision, UTC. From the `jiff` crate.
pub use jiff::Timestamp;
pub use names::{EventId, EventType, Source, Subject};
pub use pattern::TypePattern;
pub use properties::Properties;
pub use random::Random;
pub use range::{Range, TimeAxis};
pub use selection::{EventSet, Selection};
