//! Random schemas and payloads: every column of every row is what `prost-reflect` gives.

use crate::numbers::Numbers;
use crate::{cell, compile, messages, oracle, schemas};
use annals_columns::{Conflict, Difference, PayloadBuilder, Shape};
use arrow_array::Array;
use arrow_schema::{DataType, Fields};
use proptest::prelude::*;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use std::collections::HashSet;

/// What the decoder of `prost-reflect` does not look at.
pub(crate) const STRICTER: &str = "is a map's, and has another wire type";

/// A payload may be appended exactly if it decodes. Gives what it decodes to.
pub(crate) fn append(
    builder: &mut PayloadBuilder,
    descriptor: &MessageDescriptor,
    payload: &[u8],
) -> Option<DynamicMessage> {
    let rows = builder.len();
    let decoded = DynamicMessage::decode(descriptor.clone(), payload);
    match (builder.append(payload), decoded) {
        (Ok(()), Ok(message)) => {
            assert_eq!(builder.len(), rows + 1);
            Some(message)
        }
        (Err(error), decoded) => {
            assert_eq!(builder.len(), rows, "nothing was appended");
            let stricter = error.to_string().contains(STRICTER);
            assert!(
                decoded.is_err() || stricter,
                "only we refuse: {error}: {payload:02x?}"
            );
            None
        }
        (Ok(()), Err(error)) => panic!("only we accept: {error}: {payload:02x?}"),
    }
}

/// All rows of a builder are what is expected.
pub(crate) fn compare(
    shape: &Shape,
    builder: &mut PayloadBuilder,
    expected: &[Option<DynamicMessage>],
) {
    let rows = builder.finish();
    assert_eq!(rows.fields(), shape.fields());
    assert_eq!(rows.len(), expected.len());
    assert_eq!((builder.len(), builder.bytes()), (0, 0));
    for (i, expected) in expected.iter().enumerate() {
        let expected = match expected {
            Some(message) => oracle::row(shape.fields(), message),
            None => cell::Cell::Null,
        };
        oracle::compare(&cell::cell(&rows, i), &expected, &format!("row {i}"));
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut numbers = Numbers::new(seed);
    let source = schemas::random(&mut numbers);
    let descriptor = compile(&source).get("t.v1.M0").expect("it is there");
    let shape = Shape::of(&descriptor).expect("any message has columns");
    unique_names(shape.fields());
    let mut builder = PayloadBuilder::new(&shape);
    let mut refused = 0;
    for _ in 0..2 {
        let mut expected = Vec::new();
        for _ in 0..12 {
            let mut payload = oracle::encode(&messages::random(&mut numbers, &descriptor, 4));
            if !numbers.one_in(3) {
                payload = messages::rearrange(&mut numbers, &descriptor, &payload);
            }
            if numbers.one_in(2) {
                payload = messages::damage(&mut numbers, &payload);
            }
            match append(&mut builder, &descriptor, &payload) {
                Some(message) => expected.push(Some(message)),
                None => refused += 1,
            }
            if numbers.one_in(8) {
                builder.append_null();
                expected.push(None);
            }
        }
        compare(&shape, &mut builder, &expected);
    }
    (24 - refused, refused)
}

/// A table that two schemas, which share little but numbers and names, took turns to change.
fn run_revisions(seed: u64) -> usize {
    let mut numbers = Numbers::new(seed);
    let revisions = [(); 2].map(|()| {
        let catalog = compile(&schemas::random(&mut numbers));
        catalog.get("t.v1.M0").expect("it is there")
    });
    let mut table = Fields::empty();
    for descriptor in &revisions {
        let (shape, _) = Shape::merge(&table, descriptor).expect("a shape");
        assert!(table.len() <= shape.fields().len());
        table = shape.fields().clone();
    }
    let mut rows = 0;
    for descriptor in &revisions {
        let (shape, conflicts) = Shape::merge(&table, descriptor).expect("a shape");
        assert_eq!(*shape.fields(), table, "both were merged before");
        let is_new = |conflict: &Conflict| conflict.difference == Difference::Kind;
        assert!(!conflicts.iter().any(is_new));
        unique_names(&table);
        let mut builder = PayloadBuilder::new(&shape);
        let mut expected = Vec::new();
        for _ in 0..6 {
            let payload = oracle::encode(&messages::random(&mut numbers, descriptor, 3));
            let payload = messages::rearrange(&mut numbers, descriptor, &payload);
            expected.push(append(&mut builder, descriptor, &payload));
        }
        expected.retain(Option::is_some);
        rows += expected.len();
        compare(&shape, &mut builder, &expected);
    }
    rows
}

fn unique_names(fields: &Fields) {
    let names: HashSet<_> = fields.iter().map(|f| f.name().to_lowercase()).collect();
    assert_eq!(names.len(), fields.len(), "{fields:?}");
    for field in fields {
        let inner = match field.data_type() {
            DataType::List(element) => element.data_type(),
            other => other,
        };
        if let DataType::Struct(fields) = inner {
            unique_names(fields);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_column_of_every_row_is_what_the_second_opinion_gives(seed in any::<u64>()) {
        run(seed);
    }

    #[test]
    fn tables_that_changed_hold_the_rows_of_every_revision(seed in any::<u64>()) {
        run_revisions(seed);
    }
}

#[test]
fn random_payloads_are_accepted_and_refused() {
    let runs = (0..40).map(run);
    let (accepted, refused) = runs.fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
    assert!(accepted > 400 && refused > 100, "{accepted} {refused}");
}
