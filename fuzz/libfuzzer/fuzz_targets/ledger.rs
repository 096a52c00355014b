//! See `annals_fuzz::ledger::run`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::ledger::run(bytes));
