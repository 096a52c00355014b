//! See `annals_fuzz::schema::run_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::schema::run_json(bytes));
