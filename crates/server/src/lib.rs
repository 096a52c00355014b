//! The `annals` binary's insides: the platform in one process, its HTTP API, its verbs.
//!
//! ```text
//!  annals up ──► Platform ──┬── broker ◄── AMQP listener        (services publish and consume)
//!                           ├── archiver ──► bucket: segments, ledger ──► index
//!                           └── HTTP API ◄── publish, tail, replay, archive, schema
//! ```
//!
//! In reading order:
//!
//! - [`cli`] — the verbs, one file each, and the flags all of them take
//! - [`platform`] — [`platform::Platform`]: everything `annals up` runs, on one directory
//! - [`bucket`] — where a platform's bucket lies: in its directory, or in an object store
//! - [`http`] — the control API on 127.0.0.1:7400, one file per resource
//! - [`history`] — what verbs and API ask of the archive: ledger, events, statistics, verification
//! - [`replays`] — replays in words: read, planned, run
//! - [`ingest`] — CloudEvents JSON in, canonical events out
//! - [`schemas`] — numbered schema revisions in the bucket
//! - [`client`] — the other verbs' way to a running server
//! - [`address`] — `annals.json`: where the server of a directory listens
//! - [`output`] — tables as text, JSON, JSON lines or CSV
//! - [`exit`] — exit codes, and errors that end with the next step

//! - [`tls`] — the one TLS provider of the process
pub mod address;
pub mod cli;
pub mod client;
pub mod exit;
pub mod bucket;
pub mod history;
pub mod http;
pub mod ingest;
pub mod output;
pub mod platform;
pub mod replays;
pub mod schemas;
pub mod tls;
