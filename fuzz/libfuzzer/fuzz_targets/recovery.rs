//! See `annals_fuzz::recovery::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::recovery::run(bytes));
