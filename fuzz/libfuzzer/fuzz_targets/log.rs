//! See `annals_fuzz::log::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::log::run(bytes));
