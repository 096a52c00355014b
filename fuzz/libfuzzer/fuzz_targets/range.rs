//! See `annals_fuzz::range::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::range::run(bytes));
