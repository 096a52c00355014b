//! See `annals_fuzz::cloud_events::run_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::cloud_events::run_json(bytes));
