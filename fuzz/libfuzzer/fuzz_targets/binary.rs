//! See `annals_fuzz::cloud_events::run_binary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::cloud_events::run_binary(bytes));
