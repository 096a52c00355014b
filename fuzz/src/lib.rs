//! Every decoder against hostile bytes.
//!
//! A [`Target`] is a plain function that takes any bytes and panics where a promise is broken: a
//! panic inside the decoder, or a disagreement with a second opinion. The same functions run two
//! ways:
//!
//! - `cargo test -p annals-fuzz`: all seeds, then thousands of seeded mutations of them
//!   ([`mutate`]); part of CI. `ANNALS_SEED=<n>` repeats a run, `ANNALS_ROUNDS=<n>` lengthens it.
//! - `libfuzzer/`: the same targets under cargo-fuzz, guided by coverage, for as long as one likes:
//!   see its `Cargo.toml` for the command.
//!
//! What a fuzzer found lies in `corpus/<target>/`, one small file each, and is run as a seed.

pub mod archive;
pub mod bucket;
pub mod cloud_events;
pub mod columns;
pub mod frames;
pub mod header;
pub mod index;
pub mod ledger;
pub mod log;
pub mod mutate;
pub mod pattern;
pub mod properties;
pub mod range;
pub mod record;
pub mod recovery;
pub mod schema;
pub mod segment;

/// One decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name, as in `libfuzzer/fuzz_targets/`.
    pub name: &'static str,
    /// Panics where the decoder breaks a promise on these bytes.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "header",
        run: header::run,
        seeds: header::seeds,
    },
    Target {
        name: "json",
        run: cloud_events::run_json,
        seeds: cloud_events::json_seeds,
    },
    Target {
        name: "binary",
        run: cloud_events::run_binary,
        seeds: cloud_events::binary_seeds,
    },
    Target {
        name: "properties",
        run: properties::run,
        seeds: properties::seeds,
    },
    Target {
        name: "range",
        run: range::run,
        seeds: range::seeds,
    },
    Target {
        name: "pattern",
        run: pattern::run,
        seeds: pattern::seeds,
    },
    Target {
        name: "schema_json",
        run: schema::run_json,
        seeds: schema::json_seeds,
    },
    Target {
        name: "schema_protobuf",
        run: schema::run_protobuf,
        seeds: schema::protobuf_seeds,
    },
    Target {
        name: "schema_source",
        run: schema::run_source,
        seeds: schema::source_seeds,
    },
    Target {
        name: "columns",
        run: columns::run,
        seeds: columns::seeds,
    },
    Target {
        name: "frames",
        run: frames::run,
        seeds: frames::seeds,
    },
    Target {
        name: "log",
        run: log::run,
        seeds: log::seeds,
    },
    Target {
        name: "recovery",
        run: recovery::run,
        seeds: recovery::seeds,
    },
    Target {
        name: "record",
        run: record::run,
        seeds: record::seeds,
    },
    Target {
        name: "segment",
        run: segment::run,
        seeds: segment::seeds,
    },
    Target {
        name: "ledger",
        run: ledger::run,
        seeds: ledger::seeds,
    },
    Target {
        name: "index",
        run: index::run,
        seeds: index::seeds,
    },
];
