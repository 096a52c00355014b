//! See `annals_fuzz::record::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::record::run(bytes));
