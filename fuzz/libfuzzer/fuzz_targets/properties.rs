//! See `annals_fuzz::properties::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::properties::run(bytes));
