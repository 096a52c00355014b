//! The `annals` binary's insides: the platform in one process, its HTTP API, its verbs.
//!
//! ```text
//!  annals up ──► Platform ──┬── broker ◄── AMQP listener        (services publish and consume)
//!                           ├── archiver ──► bucket: segments, ledger ──► index
//!                           ├── converter ─► bucket: the lake's tables
//!                           └── HTTP API ◄── publish, tail, replay, archive, sql, lake, schema
//! ```
//!
//! In reading order:
//!
//! - [`cli`] — the verbs, one file each, and the flags all of them take
//! - [`bucket`] — where a platform's bucket lies: in its directory, or in an object store
//! - [`platform`] — [`platform::Platform`]: everything `annals up` runs, on one directory
//! - [`http`] — the control API on 127.0.0.1:7400, one file per resource
//! - [`history`] — what verbs and API ask of the archive: ledger, events, statistics, verification
//! - [`questions`] — SQL over the lake and what is not in it yet; [`lake`] — the lake in words
//! - [`replays`] — replays in words: read, planned, run
//! - [`ingest`] — CloudEvents JSON in, canonical events out
//! - [`sample`] — the events that come with annals
//! - [`schemas`] — numbered schema revisions in the bucket
//! - [`client`] — the other verbs' way to a running server
//! - [`address`] — `annals.json`: where the server of a directory listens
//! - [`tls`] — the one TLS provider of the process
//! - [`output`] — tables as text, JSON, JSON lines or CSV
//! - [`exit`] — exit codes, and errors that end with the next step

pub mod address;
pub mod bucket;
pub mod cli;
pub mod client;
pub mod exit;
pub mod history;
pub mod http;
pub mod ingest;
pub mod lake;
pub mod output;
pub mod platform;
pub mod questions;
pub mod replays;
pub mod sample;
pub mod schemas;
pub mod tls;
