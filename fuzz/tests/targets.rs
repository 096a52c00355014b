//! Every target on its seeds, then on thousands of mutations of them, the same each run.

use annals_fuzz::mutate::{Numbers, mutate};
use annals_fuzz::{TARGETS, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) => default,
    }
}

/// Runs one target; a broken promise is reported with the input that broke it.
fn run(name: &str, rounds: u64) {
    let found = TARGETS.iter().find(|target| target.name == name);
    let target: &Target = found.expect("a target of this name");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let mut numbers = Numbers::new(setting("ANNALS_SEED", 20_261_121));
    let mutations = (0..setting("ANNALS_ROUNDS", rounds)).map(|_| mutate(&seeds, &mut numbers));
    for (i, input) in seeds.iter().cloned().chain(mutations).enumerate() {
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            panic!(
                "{name}: input {i} breaks it: {:?}",
                input.escape_ascii().to_string()
            );
        }
    }
}

#[test]
fn scanner_and_decoder_agree_on_every_envelope() {
    run("header", 200_000);
}

#[test]
fn events_in_json_settle_on_one_form() {
    run("json", 20_000);
}

#[test]
fn events_in_binary_mode_settle_on_one_form() {
    run("binary", 50_000);
}

#[test]
fn accepted_properties_can_be_read_to_the_end() {
    run("properties", 100_000);
}

#[test]
fn no_text_breaks_the_range_grammar() {
    run("range", 100_000);
}

#[test]
fn payloads_in_json_settle_on_one_form() {
    run("schema_json", 10_000);
}

#[test]
fn payloads_in_protobuf_settle_on_one_form() {
    run("schema_protobuf", 20_000);
}

#[test]
fn no_source_breaks_the_catalog() {
    run("schema_source", 2_000);
}

#[test]
fn mutations_reach_both_sides_of_the_scanner() {
    // A run of mutants that are all refused, or all accepted, would prove nothing.
    let seeds = annals_fuzz::header::seeds();
    let mut numbers = Numbers::new(7);
    let accepted = (0..10_000)
        .filter(|_| annals_core::Header::scan(&mutate(&seeds, &mut numbers)).is_ok())
        .count();
    assert!((1_000..9_000).contains(&accepted), "{accepted}");
}
