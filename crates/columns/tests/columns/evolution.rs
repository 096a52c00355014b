//! A table that exists, and descriptors that change.

use crate::cell::{Cell, cell, fields, text};
use crate::differential::append;
use crate::message;
use annals_columns::shape::{KIND, NUMBER};
use annals_columns::{Conflict, Difference, PayloadBuilder, Shape};
use arrow_schema::{DataType, Field, Fields};
use prost_reflect::MessageDescriptor;
use std::collections::HashMap;
use std::sync::Arc;

/// Merges revisions in order, each twice: the second time adds nothing and finds no new kinds.
fn merge(revisions: &[&MessageDescriptor]) -> (Fields, Vec<Conflict>) {
    let mut table = Fields::empty();
    let mut all = Vec::new();
    for descriptor in revisions {
        let (shape, conflicts) = Shape::merge(&table, descriptor).expect("a shape");
        let (again, repeated) = Shape::merge(shape.fields(), descriptor).expect("a shape");
        assert_eq!(again.fields(), shape.fields(), "it settles at once");
        let is_new = |conflict: &&Conflict| conflict.difference == Difference::Kind;
        assert_eq!(repeated.iter().find(is_new), None);
        for (before, after) in table.iter().zip(shape.fields()) {
            assert_eq!(
                (before.name(), before.metadata()),
                (after.name(), after.metadata())
            );
        }
        table = shape.fields().clone();
        all.extend(conflicts);
    }
    (table, all)
}

fn names(fields: &Fields) -> Vec<&str> {
    fields.iter().map(|field| field.name().as_str()).collect()
}

fn row(table: &Fields, descriptor: &MessageDescriptor, payload: &[u8]) -> Cell {
    let (shape, _) = Shape::merge(table, descriptor).expect("a shape");
    assert_eq!(shape.fields(), table, "nothing is new");
    let mut builder = PayloadBuilder::new(&shape);
    builder.append(payload).expect("well-formed");
    cell(&builder.finish(), 0)
}

fn conflict(texts: [&str; 4]) -> Conflict {
    let [path, existing, new, column] = texts.map(str::to_owned);
    Conflict {
        path,
        difference: Difference::Kind,
        existing,
        new,
        column,
    }
}

#[test]
fn new_fields_come_after_the_existing_and_gone_ones_stay() {
    let first = message("message M { int32 a = 1; I i = 5; } message I { string x = 2; }");
    let second = message(
        "message M { int32 z = 9; I i = 5; int32 b = 2; } message I { string w = 1; oneof o { bool y = 3; } }",
    );
    let (table, conflicts) = merge(&[&first, &second]);
    assert_eq!(conflicts, []);
    assert_eq!(names(&table), ["a", "i", "b", "z"]);
    let DataType::Struct(inner) = table[1].data_type() else {
        panic!("a struct");
    };
    assert_eq!(names(inner), ["x", "w", "y", "o"]);
    let expected = fields([
        ("a", Cell::Null),
        (
            "i",
            fields([
                ("x", Cell::Null),
                ("w", text("")),
                ("y", Cell::Bool(true)),
                ("o", text("y")),
            ]),
        ),
        ("b", Cell::Int(7)),
        ("z", Cell::Int(0)),
    ]);
    assert_eq!(row(&table, &second, b"\x10\x07\x2a\x02\x18\x01"), expected);
    let expected = fields([
        ("a", Cell::Int(3)),
        (
            "i",
            fields([
                ("x", text("v")),
                ("w", Cell::Null),
                ("y", Cell::Null),
                ("o", Cell::Null),
            ]),
        ),
        ("b", Cell::Null),
        ("z", Cell::Null),
    ]);
    assert_eq!(row(&table, &first, b"\x08\x03\x2a\x03\x12\x01v"), expected);
}

#[test]
fn a_rename_keeps_the_first_name_and_is_reported() {
    let first = message("message M { repeated I items = 1; } message I { int32 n = 1; }");
    let second = message("message M { repeated I entries = 1; } message I { int32 count = 1; }");
    let (table, conflicts) = merge(&[&first, &second]);
    let report = |path: &str, existing: &str, new: &str| Conflict {
        path: path.into(),
        difference: Difference::Name,
        existing: existing.into(),
        new: new.into(),
        column: existing.into(),
    };
    assert_eq!(
        conflicts,
        [
            report("items", "items", "entries"),
            report("items.n", "n", "count")
        ]
    );
    let items = Cell::List(vec![fields([("n", Cell::Int(4))])]);
    assert_eq!(
        row(&table, &second, b"\x0a\x02\x08\x04"),
        fields([("items", items)])
    );
}

#[test]
fn the_set_member_of_a_oneof_is_named_by_its_column() {
    let first = message("message M { oneof o { int32 a = 1; string b = 2; } }");
    let second = message("message M { oneof o { int32 renamed = 1; int64 b = 2; } }");
    let (table, _) = merge(&[&first, &second]);
    assert_eq!(names(&table), ["a", "b", "o", "b_int64"]);
    let row = |payload| row(&table, &second, payload);
    let expected = |a, b, o| fields([("a", a), ("b", Cell::Null), ("o", text(o)), ("b_int64", b)]);
    assert_eq!(row(b"\x08\x01"), expected(Cell::Int(1), Cell::Null, "a"));
    assert_eq!(
        row(b"\x10\x01"),
        expected(Cell::Null, Cell::Int(1), "b_int64")
    );
}

#[test]
fn a_new_kind_gets_a_new_column_once() {
    let source = |kind: &str| {
        message(&format!(
            "message M {{ {kind} f = 3; }} message I {{ int32 x = 1; }} enum E {{ A = 0; }}"
        ))
    };
    let kinds = [
        ("int32", "f_int32"),
        ("string", "f_string"),
        ("repeated string", "f_repeated_string"),
        ("I", "f_message_I"),
        ("map<string, I>", "f_map_string_message_I"),
        ("E", "f_enum_E"),
        ("google.protobuf.Duration", "f_message_Duration"),
        ("int64", "f_int64"),
        ("google.protobuf.Struct", "f_message_Struct"),
    ];
    for (first, _) in kinds {
        for (second, name) in kinds {
            let is_same = first == second;
            let (first, second) = (source(first), source(second));
            let (table, conflicts) = merge(&[&first, &second, &first, &second]);
            if is_same {
                assert_eq!((names(&table), conflicts), (vec!["f"], vec![]));
                continue;
            }
            assert_eq!(names(&table), ["f", name]);
            let kind = |i: usize| table[i].metadata()[KIND].clone();
            assert_eq!(conflicts, [conflict(["f", &kind(0), &kind(1), name])]);
        }
    }
}

#[test]
fn kinds_with_the_same_column_keep_it() {
    let classes: [&[&str]; 7] = [
        &[
            "int32",
            "sint32",
            "sfixed32",
            "optional int32",
            "google.protobuf.Int32Value",
        ],
        &[
            "int64",
            "sint64",
            "sfixed64",
            "uint32",
            "fixed32",
            "google.protobuf.Int64Value",
            "google.protobuf.UInt32Value",
        ],
        &["uint64", "fixed64", "google.protobuf.UInt64Value"],
        &["string", "optional string", "google.protobuf.StringValue"],
        &["repeated bool", "repeated google.protobuf.BoolValue"],
        &["map<int32, uint32>", "map<sint32, int64>"],
        &["bytes", "google.protobuf.BytesValue"],
    ];
    for class in classes {
        for first in class {
            for second in class {
                let [a, b] =
                    [first, second].map(|kind| message(&format!("message M {{ {kind} f = 3; }}")));
                let (table, conflicts) = merge(&[&a, &b]);
                assert_eq!(
                    (names(&table), conflicts),
                    (vec!["f"], vec![]),
                    "{first} {second}"
                );
            }
        }
    }
}

#[test]
fn a_conflict_deep_inside_names_its_path() {
    let first = message(
        "message M { map<string, I> m = 1; } message I { repeated J j = 2; } message J { int32 x = 1; }",
    );
    let second = message(
        "message M { map<string, I> m = 1; } message I { repeated J j = 2; } message J { string x = 1; }",
    );
    let (_, conflicts) = merge(&[&first, &second]);
    assert_eq!(
        conflicts,
        [conflict(["m.j.x", "int32", "string", "x_string"])]
    );
    assert_eq!(
        conflicts[0].to_string(),
        "column m.j.x is int32, its field is now string: values go to x_string"
    );
}

#[test]
fn what_is_encoded_stays_so_and_what_is_unfolded_too() {
    let recursive = message("message M { I i = 1; } message I { M m = 1; int32 x = 2; }");
    let shape = Shape::of(&recursive).expect("a shape");
    // A table whose column i was encoded, as it had no room then.
    let metadata = HashMap::from([
        (NUMBER.to_owned(), "1".to_owned()),
        (KIND.to_owned(), "encoded t.v1.I".to_owned()),
    ]);
    let encoded = Field::new("i", DataType::Binary, true).with_metadata(metadata);
    let table = Fields::from(vec![encoded]);
    let (merged, conflicts) = Shape::merge(&table, &recursive).expect("a shape");
    assert_eq!((merged.fields(), conflicts), (&table, vec![]));
    assert_eq!(
        row(&table, &recursive, b"\x0a\x02\x10\x05"),
        fields([("i", Cell::Bytes(b"\x10\x05".to_vec()))])
    );
    assert!(matches!(shape.fields()[0].data_type(), DataType::Struct(_)));
}

#[test]
fn present_stays_true_when_fields_come() {
    let first = message("message M { I i = 1; } message I {}");
    let second = message("message M { I i = 1; } message I { int32 _present = 4; }");
    let (table, conflicts) = merge(&[&first, &second]);
    assert_eq!(conflicts, []);
    let inner = fields([("_present", Cell::Bool(true)), ("_present_4", Cell::Int(2))]);
    assert_eq!(
        row(&table, &second, b"\x0a\x02\x20\x02"),
        fields([("i", inner)])
    );
}

#[test]
fn columns_of_others_stay_and_keep_their_names() {
    let lying = HashMap::from([
        (NUMBER.to_owned(), "1".to_owned()),
        (KIND.to_owned(), "int32".to_owned()),
    ]);
    let table = Fields::from(vec![
        Field::new("A", DataType::Utf8, false),
        Field::new("liar", DataType::Utf8, true).with_metadata(lying),
        Field::new("wild", DataType::LargeBinary, true),
    ]);
    let descriptor = message("message M { int32 a = 1; }");
    let (shape, conflicts) = Shape::merge(&table, &descriptor).expect("a shape");
    assert_eq!(names(shape.fields()), ["A", "liar", "wild", "a_int32"]);
    assert_eq!(conflicts, [conflict(["liar", "int32", "int32", "a_int32"])]);
    let mut builder = PayloadBuilder::new(&shape);
    builder.append(b"\x08\x07").expect("well-formed");
    let rows = builder.finish();
    let last = rows.column(3);
    assert_eq!(cell(last, 0), Cell::Int(7));
    assert!((0..3).all(|i| rows.column(i).is_null(0)));
}

#[test]
fn names_of_lists_and_nullability_of_a_table_read_back_make_no_difference() {
    let descriptor = message(
        "message M { repeated I l = 1; map<string, E> m = 2; E e = 3; } message I { int32 x = 1; } enum E { A = 0; }",
    );
    let shape = Shape::of(&descriptor).expect("a shape");
    let other = |field: &Arc<Field>| {
        let data_type = match field.data_type() {
            DataType::List(element) => {
                let element = element
                    .as_ref()
                    .clone()
                    .with_name("item")
                    .with_nullable(false);
                DataType::List(Arc::new(element))
            }
            DataType::Map(entry, _) => {
                DataType::Map(Arc::new(entry.as_ref().clone().with_name("entries")), true)
            }
            other => other.clone(),
        };
        field.as_ref().clone().with_data_type(data_type)
    };
    let read_back: Fields = shape.fields().iter().map(other).collect();
    let (merged, conflicts) = Shape::merge(&read_back, &descriptor).expect("a shape");
    assert_eq!((merged.fields(), conflicts), (shape.fields(), vec![]));
}

#[test]
fn rows_of_two_revisions_are_built_by_one_shape() {
    let first = message(
        "message M { int32 a = 1; I i = 2; repeated string gone = 3; } message I { int32 x = 1; }",
    );
    let second = message(
        "message M { sint64 extra = 7; int32 a = 1; I i = 2; oneof o { string s = 8; I j = 9; } } message I { int32 x = 1; I more = 2; }",
    );
    let (table, _) = merge(&[&first, &second]);
    let (shape, _) = Shape::merge(&table, &second).expect("a shape");
    let mut builder = PayloadBuilder::new(&shape);
    let old: &[u8] = b"\x08\x01\x12\x02\x08\x05\x1a\x01g";
    let new: &[u8] = b"\x38\x03\x12\x04\x08\x06\x12\x00\x42\x01s\x08\x02";
    let mut expected = Vec::new();
    for payload in [old, new, old, b"", new] {
        expected.push(append(&mut builder, &second, payload).expect("well-formed"));
    }
    let rows = builder.finish();
    assert_eq!(
        names(rows.fields()),
        ["a", "i", "gone", "extra", "s", "j", "o"]
    );
    for (i, message) in expected.iter().enumerate() {
        let expected = crate::oracle::row(shape.fields(), message);
        crate::oracle::compare(&cell(&rows, i), &expected, &format!("row {i}"));
    }
    assert_eq!(
        cell(rows.column(2), 0),
        Cell::Null,
        "what the newer revision does not know"
    );
}
