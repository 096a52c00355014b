//! History as Delta tables: converter, files, commits, rebuild.
//!
//! ```text
//!  ledger ──► Converter ──► rows ──► files (Parquet, named by content) ──► tables (Delta)
//!                                                                            │
//!                                                             Lake ◄─────────┘ ──► SQL
//! ```
//!
//! - [`rows`] — events as rows: the envelope's columns, and the payload's
//! - [`file`](mod@file) — rows to a Parquet file, and what is known of it
//! - `distinct` — which of its columns have dictionaries
//! - [`table`] — a Delta table: its files, its columns, how far it has come
//! - [`state`] — how far the tables have come together
//! - [`converter`] — keeps the tables up with the ledger
//! - [`lake`] — the tables, for those who read them
//! - [`layout`], [`store`] — where all that lies, and in which bucket
//!
//! All of it is derived: deleted, it is made again from the archive. docs/formats/lake.md.

pub mod converter;
mod distinct;
pub mod file;
pub mod lake;
pub mod layout;
pub mod rows;
pub mod state;
pub mod store;
pub mod table;

pub use annals_core::{Error, ErrorKind, Result};
pub use converter::Converter;
pub use lake::{Converted, Lake, Standing};
pub use layout::TableName;
pub use store::BucketStore;
pub use table::Table;
