//! An event as columns: the type mapping, Protobuf wire to Arrow.
//!
//! A [`Shape`] says which columns the payloads of a message type have, in a new table or in one
//! that exists; a [`PayloadBuilder`] fills them, straight from the wire. What the columns are and
//! hold is written down in `docs/formats/columns.md`.
//!
//! In reading order:
//!
//! - [`shape`] — [`Shape`]: descriptor (and existing schema) to columns; [`Conflict`]
//! - [`builder`] — [`PayloadBuilder`]: payloads in, a struct array out
//! - `kind` — words for what a field is; `plan` — which field fills which column
//! - `merge` — how a plan is made
//! - `wire`, `check` — reading Protobuf; a payload is checked whole before anything is appended
//! - `leaf`, `element`, `known`, `node` — the builders, from single values to messages

pub mod builder;
mod check;
mod element;
mod kind;
mod known;
mod leaf;
mod merge;
mod node;
mod plan;
pub mod shape;
mod wire;

pub use builder::PayloadBuilder;
pub use shape::{Conflict, Difference, Shape};
