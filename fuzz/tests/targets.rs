//! Every target on its seeds, its corpus and what a fuzzer once found, then on thousands of
//! mutations of them, the same each run.

use annals_fuzz::mutate::{Numbers, mutate};
use annals_fuzz::{TARGETS, Target};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) => default,
    }
}

/// The files of `corpus/<name>/`, in order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let paths: BTreeSet<_> = match folder.read_dir() {
        Ok(entries) => entries
            .map(|entry| entry.expect("readable").path())
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    let read = |path| std::fs::read(path).expect("the file can be read");
    paths.iter().map(read).collect()
}

/// Names in a folder of this package, up to the first dot.
fn names_in(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = folder.read_dir().expect("the folder is there");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let name = |name: std::ffi::OsString| name.into_string().expect("a plain name");
    let stem = |name: String| name.split('.').next().unwrap_or_default().to_owned();
    names.map(name).map(stem).collect()
}

/// Runs one target; a broken promise is reported with the input that broke it.
fn run(name: &str, rounds: u64) {
    let found = TARGETS.iter().find(|target| target.name == name);
    let target: &Target = found.expect("a target of this name");
    let mut seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds.extend(corpus(name));
    let mut numbers = Numbers::new(setting("ANNALS_SEED", 20_261_121));
    let mutations = (0..setting("ANNALS_ROUNDS", rounds)).map(|_| mutate(&seeds, &mut numbers));
    for (i, input) in seeds.iter().cloned().chain(mutations).enumerate() {
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            let wrote = std::fs::write(&kept, &input);
            let text = input.escape_ascii().to_string();
            panic!("{name}: input {i} ({kept:?}, {wrote:?}) breaks it: {text:?}");
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
fn patterns_match_what_their_definition_says() {
    run("pattern", 100_000);
}

#[test]
fn no_bytes_of_a_client_break_the_front() {
    run("frames", 50_000);
}

#[test]
fn no_damage_of_the_log_changes_a_record() {
    run("log", 1_000);
}

#[test]
fn no_content_of_the_log_breaks_the_start_of_the_broker() {
    run("recovery", 1_000);
}

#[test]
fn scanner_and_decoder_agree_on_every_record() {
    run("record", 100_000);
}

#[test]
fn a_segment_that_verifies_reads_the_same_every_way() {
    run("segment", 2_000);
}

#[test]
fn no_ledger_entry_breaks_a_reader() {
    run("ledger", 1_000);
}

#[test]
fn no_index_breaks_a_reader() {
    run("index", 1_000);
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
fn a_payload_is_the_row_of_the_message_it_is() {
    run("columns", 50_000);
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

#[test]
fn every_target_runs_under_both_fuzzers_and_every_corpus_is_of_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
    assert_eq!(names_in("libfuzzer/fuzz_targets"), targets);
    assert!(names_in("corpus").is_subset(&targets));
    let manifest = include_str!("../libfuzzer/Cargo.toml");
    let tests = include_str!("targets.rs");
    for name in targets {
        assert!(
            manifest.contains(&format!("\nname = \"{name}\"\n")),
            "{name}"
        );
        assert!(tests.contains(&format!("run(\"{name}\", ")), "{name}");
    }
}
