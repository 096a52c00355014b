//! See `annals_fuzz::frames::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::frames::run(bytes));
