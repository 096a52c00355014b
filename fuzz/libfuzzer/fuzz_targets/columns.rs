//! See `annals_fuzz::columns::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::columns::run(bytes));
