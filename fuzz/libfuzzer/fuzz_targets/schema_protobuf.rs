//! See `annals_fuzz::schema::run_protobuf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::schema::run_protobuf(bytes));
