//! See `annals_fuzz::segment::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::segment::run(bytes));
