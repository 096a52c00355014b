//! How large things get: wide and deep messages, rows that unfold, full columns, memory.

use crate::cell::{Cell, cell};
use crate::message;
use annals_columns::builder::VALUES_MAX;
use annals_columns::{PayloadBuilder, Shape};
use annals_core::ErrorKind;
use arrow_array::Array;
use arrow_schema::{DataType, Fields};
use std::fmt::Write;

fn leaves(fields: &Fields) -> usize {
    let of = |data_type: &DataType| match data_type {
        DataType::Struct(fields) => leaves(fields),
        _ => 1,
    };
    fields.iter().map(|field| of(field.data_type())).sum()
}

fn depth(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => {
            1 + fields
                .iter()
                .map(|f| depth(f.data_type()))
                .max()
                .unwrap_or_default()
        }
        _ => 0,
    }
}

/// Messages M0 to Mn, each with so many fields of the next.
fn chain(length: usize, fields: usize) -> String {
    let mut out = "message M { M0 m = 1; }".to_owned();
    for i in 0..length {
        write!(out, "message M{i} {{").expect("a string takes all");
        for field in 1..=fields {
            write!(out, "M{} f{field} = {field};", i + 1).expect("a string takes all");
        }
        out.push('}');
    }
    write!(out, "message M{length} {{ int32 x = 1; }}").expect("a string takes all");
    out
}

#[test]
fn columns_lie_at_most_16_deep() {
    let shape = Shape::of(&message(&chain(30, 1))).expect("a shape");
    assert_eq!(depth(&DataType::Struct(shape.fields().clone())), 16);
    assert_eq!(leaves(shape.fields()), 1);
}

#[test]
fn a_table_has_at_most_2000_leaves_and_outer_messages_come_first() {
    // 10 in 10 in 10 in 10 in 10: 100,000 if all were unfolded.
    let descriptor = message(&chain(5, 10));
    let shape = Shape::of(&descriptor).expect("a shape");
    let count = leaves(shape.fields());
    assert!((1_990..=2_000).contains(&count), "{count}");
    let DataType::Struct(outer) = shape.fields()[0].data_type() else {
        panic!("a struct");
    };
    let depths: Vec<_> = outer.iter().map(|f| depth(f.data_type())).collect();
    assert_eq!(depths, [3, 3, 2, 2, 2, 2, 2, 2, 2, 2], "level by level");
    let (again, conflicts) = Shape::merge(shape.fields(), &descriptor).expect("a shape");
    assert_eq!((again.fields(), conflicts), (shape.fields(), vec![]));
}

#[test]
fn the_payloads_own_fields_all_have_columns() {
    let fields: String = (1..=3_000).map(|i| format!("int32 f{i} = {i};")).collect();
    let shape = Shape::of(&message(&format!(
        "message M {{ {fields} I i = 5000; }} message I {{ int32 x = 1; int32 y = 2; }}"
    )));
    let shape = shape.expect("a shape");
    assert_eq!(leaves(shape.fields()), 3_001);
    assert_eq!(*shape.fields()[3_000].data_type(), DataType::Binary);
}

#[test]
fn a_payload_that_unfolds_too_far_is_refused_and_taken_back() {
    let fields: String = (1..=400).map(|i| format!("int64 f{i} = {i};")).collect();
    let descriptor = message(&format!(
        "message M {{ string s = 1; repeated I many = 2; }} message I {{ {fields} }}"
    ));
    let mut builder = PayloadBuilder::new(&Shape::of(&descriptor).expect("a shape"));
    builder.append(b"\x0a\x01a\x12\x00").expect("small");
    let bytes = builder.bytes();
    // Two bytes each, 400 columns each.
    let bomb = [
        &b"\x0a\x01b"[..],
        &[0x12, 0x00].repeat(VALUES_MAX / 400 + 1),
    ]
    .concat();
    let error = builder.append(&bomb).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("16777216 values"), "{error}");
    assert_eq!((builder.len(), builder.bytes()), (1, bytes));
    builder.append(b"\x0a\x01c").expect("small");
    let rows = builder.finish();
    assert_eq!(
        (rows.len(), cell(rows.column(0), 1)),
        (2, Cell::Text("c".into()))
    );
    assert_eq!(cell(rows.column(1), 1), Cell::List(vec![]));
    let Cell::List(first) = cell(rows.column(1), 0) else {
        panic!("a list");
    };
    assert_eq!(first.len(), 1);
}

#[test]
fn names_of_a_packed_enum_count() {
    let name = "A".repeat(2_000);
    let descriptor = message(&format!(
        "message M {{ repeated E e = 1; }} enum E {{ {name} = 0; }}"
    ));
    let mut builder = PayloadBuilder::new(&Shape::of(&descriptor).expect("a shape"));
    let mut payload = vec![0x0a];
    prost::encoding::encode_varint(100_000, &mut payload);
    payload.resize(payload.len() + 100_000, 0);
    let error = builder.append(&payload).expect_err("200 MB of names");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(builder.finish().len(), 0);
}

#[test]
fn bytes_grow_with_what_is_appended_and_are_gone_after() {
    let descriptor = message(
        "message M { string s = 1; repeated int64 n = 2; I i = 3; } message I { int32 x = 1; int32 y = 2; }",
    );
    let mut builder = PayloadBuilder::new(&Shape::of(&descriptor).expect("a shape"));
    let mut last = builder.bytes();
    assert_eq!(last, 0);
    let long = [&b"\x0a\x64"[..], &[b'x'; 100]].concat();
    for (payload, least) in [
        (&b""[..], 20),
        (&long, 120),
        (b"\x12\x04\x01\x02\x03\x04", 50),
        (b"\x1a\x00", 30),
    ] {
        builder.append(payload).expect("well-formed");
        assert!(
            (least..least * 3).contains(&(builder.bytes() - last)),
            "{}",
            builder.bytes() - last
        );
        last = builder.bytes();
    }
    builder.append_null();
    assert!(builder.bytes() > last);
    assert_eq!(builder.finish().len(), 5);
    assert!(builder.is_empty());
    assert_eq!(builder.bytes(), 0);
}

#[test]
fn a_null_row_is_null_in_every_column() {
    let descriptor = message(
        "message M { int32 a = 1; repeated I l = 2; map<string, I> m = 3; I i = 4; oneof o { int32 p = 5; } google.protobuf.Value v = 6; E e = 7; } message I {} enum E { A = 0; }",
    );
    let mut builder = PayloadBuilder::new(&Shape::of(&descriptor).expect("a shape"));
    builder
        .append(b"\x12\x00\x12\x00\x1a\x00")
        .expect("well-formed");
    builder.append_null();
    builder.append(b"").expect("well-formed");
    let rows = builder.finish();
    assert!(rows.is_null(1));
    assert!(rows.columns().iter().all(|column| column.is_null(1)));
    assert_eq!(rows.null_count(), 1);
    assert_eq!(cell(rows.column(1), 2), Cell::List(vec![]));
}
