//! See `annals_fuzz::pattern::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::pattern::run(bytes));
