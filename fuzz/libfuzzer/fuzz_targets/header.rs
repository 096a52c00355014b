//! See `annals_fuzz::header::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::header::run(bytes));
