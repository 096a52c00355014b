//! A table for each rule of `docs/formats/columns.md`.

use crate::cell::{Cell, cell, fields, text};
use crate::{IMPORTS, compile, message};
use annals_columns::shape::{KIND, NUMBER};
use annals_columns::{PayloadBuilder, Shape};
use arrow_schema::{DataType, Field, Fields};
use prost_reflect::MessageDescriptor;

/// Columns as text: `name type kind number`.
pub(crate) fn columns(descriptor: &MessageDescriptor) -> Vec<String> {
    let shape = Shape::of(descriptor).expect("any message has columns");
    shape.fields().iter().map(|field| line(field)).collect()
}

fn line(field: &Field) -> String {
    assert!(field.is_nullable(), "{field:?}");
    let get = |key| field.metadata().get(key).map_or("-", String::as_str);
    let data_type = type_text(field.data_type());
    format!("{} {data_type} {} {}", field.name(), get(KIND), get(NUMBER))
}

fn type_text(data_type: &DataType) -> String {
    let all = |fields: &Fields| {
        let one = |f: &std::sync::Arc<Field>| format!("{}:{}", f.name(), type_text(f.data_type()));
        fields.iter().map(one).collect::<Vec<_>>().join(",")
    };
    match data_type {
        DataType::Struct(fields) => format!("{{{}}}", all(fields)),
        DataType::List(element) => {
            assert_eq!(
                (element.name().as_str(), element.is_nullable()),
                ("element", true)
            );
            format!("[{}]", type_text(element.data_type()))
        }
        DataType::Map(entry, sorted) => {
            let DataType::Struct(of) = entry.data_type() else {
                panic!("{entry:?}");
            };
            assert_eq!(
                (entry.name().as_str(), entry.is_nullable(), *sorted),
                ("key_value", false, false)
            );
            assert_eq!((of[0].is_nullable(), of[1].is_nullable()), (false, true));
            format!("<{}>", all(of))
        }
        other => other.to_string(),
    }
}

fn rows(descriptor: &MessageDescriptor, payloads: &[Vec<u8>]) -> Vec<Cell> {
    let mut builder = PayloadBuilder::new(&Shape::of(descriptor).expect("a shape"));
    for payload in payloads {
        builder.append(payload).expect("well-formed");
    }
    let rows = builder.finish();
    (0..payloads.len()).map(|i| cell(&rows, i)).collect()
}

/// Payloads in JSON, and their rows.
pub(crate) fn check<const N: usize>(content: &str, expected: [(&str, Cell); N]) {
    let source = format!("syntax = \"proto3\";\n{IMPORTS}package t.v1;\n{content}");
    let catalog = compile(&source);
    let descriptor = catalog.get("t.v1.M").expect("it defines M");
    let payload = |json: &str| {
        catalog
            .json_to_protobuf("t.v1.M", json.as_bytes())
            .unwrap_or_else(|error| panic!("{error}: {json}"))
    };
    let payloads: Vec<_> = expected.iter().map(|(json, _)| payload(json)).collect();
    let actual = rows(&descriptor, &payloads);
    for ((json, expected), actual) in expected.iter().zip(actual) {
        assert_eq!(actual, *expected, "{content}: {json}");
    }
}

/// Payloads as bytes, and the value of the only column.
pub(crate) fn check_bytes<const N: usize>(content: &str, expected: [(&[u8], Cell); N]) {
    let payloads: Vec<_> = expected.iter().map(|(bytes, _)| bytes.to_vec()).collect();
    let actual = rows(&message(content), &payloads);
    for ((bytes, expected), actual) in expected.into_iter().zip(actual) {
        let Cell::Struct(columns) = actual else {
            panic!("{actual:?}");
        };
        assert_eq!(columns[0].1, expected, "{content}: {bytes:02x?}");
    }
}

pub(crate) fn int(number: i128) -> Cell {
    Cell::Int(number)
}

#[test]
fn every_scalar_has_its_type() {
    let types = [
        ("double", "Float64"),
        ("float", "Float32"),
        ("int32", "Int32"),
        ("sint32", "Int32"),
        ("sfixed32", "Int32"),
        ("int64", "Int64"),
        ("sint64", "Int64"),
        ("sfixed64", "Int64"),
        ("uint32", "Int64"),
        ("fixed32", "Int64"),
        ("uint64", "Decimal128(20, 0)"),
        ("fixed64", "Decimal128(20, 0)"),
        ("bool", "Boolean"),
        ("string", "Utf8"),
        ("bytes", "Binary"),
    ];
    for (kind, data_type) in types {
        let one = columns(&message(&format!("message M {{ {kind} f = 7; }}")));
        assert_eq!(one, [format!("f {data_type} {kind} 7")]);
        let many = columns(&message(&format!("message M {{ repeated {kind} f = 7; }}")));
        assert_eq!(many, [format!("f [{data_type}] repeated {kind} 7")]);
        let map = columns(&message(&format!(
            "message M {{ map<string, {kind}> f = 7; }}"
        )));
        assert_eq!(
            map,
            [format!(
                "f <key:Utf8,value:{data_type}> map<string, {kind}> 7"
            )]
        );
    }
}

#[test]
fn the_known_types_have_theirs() {
    let wrappers = [
        ("DoubleValue", "Float64"),
        ("FloatValue", "Float32"),
        ("Int64Value", "Int64"),
        ("UInt64Value", "Decimal128(20, 0)"),
        ("Int32Value", "Int32"),
        ("UInt32Value", "Int64"),
        ("BoolValue", "Boolean"),
        ("StringValue", "Utf8"),
        ("BytesValue", "Binary"),
    ];
    let others = [
        ("Timestamp", "Timestamp(µs, \"UTC\")"),
        ("Duration", "Int64"),
        ("Struct", "Utf8"),
        ("Value", "Utf8"),
        ("ListValue", "Utf8"),
        ("FieldMask", "Utf8"),
        ("Any", "{type_url:Utf8,value:Binary}"),
        ("Empty", "{_present:Boolean}"),
    ];
    for (name, data_type) in wrappers.into_iter().chain(others) {
        let one = columns(&message(&format!(
            "message M {{ google.protobuf.{name} f = 1; }}"
        )));
        assert_eq!(
            one,
            [format!("f {data_type} message google.protobuf.{name} 1")]
        );
    }
}

#[test]
fn the_largest_and_smallest_numbers_are_exact() {
    check(
        "message M { uint64 u = 1; int64 i = 2; uint32 v = 3; sint32 s = 4; double d = 5; float f = 6; }",
        [
            (
                r#"{"u":"18446744073709551615","i":"-9223372036854775808","v":4294967295,"s":-2147483648,"d":1e308,"f":"-Infinity"}"#,
                fields([
                    ("u", int(u64::MAX.into())),
                    ("i", int(i64::MIN.into())),
                    ("v", int(u32::MAX.into())),
                    ("s", int(i32::MIN.into())),
                    ("d", Cell::Double(1e308_f64.to_bits())),
                    ("f", Cell::Float(f32::NEG_INFINITY.to_bits())),
                ]),
            ),
            (
                r#"{"s":2147483647,"d":"NaN"}"#,
                fields([
                    ("u", int(0)),
                    ("i", int(0)),
                    ("v", int(0)),
                    ("s", int(i32::MAX.into())),
                    ("d", Cell::Double(f64::NAN.to_bits())),
                    ("f", Cell::Float(0)),
                ]),
            ),
        ],
    );
}

#[test]
fn without_presence_absent_is_the_default_and_with_it_null() {
    let present = |number: Cell, text: Cell, message: Cell| {
        let zero = fields([("name", super::cell::text("A")), ("number", int(0))]);
        fields([
            ("plain", int(0)),
            ("flag", Cell::Bool(false)),
            ("kind", zero),
            ("maybe", number),
            ("words", text),
            ("inner", message),
        ])
    };
    check(
        "message M { int32 plain = 1; bool flag = 2; E kind = 3; optional int32 maybe = 4;
                     optional string words = 5; I inner = 6; } message I { int32 x = 1; } enum E { A = 0; }",
        [
            ("{}", present(Cell::Null, Cell::Null, Cell::Null)),
            (
                r#"{"maybe":0,"words":"","inner":{}}"#,
                present(int(0), text(""), fields([("x", int(0))])),
            ),
        ],
    );
}

#[test]
fn defaults_of_proto2_are_not_filled_in() {
    let source = "syntax = \"proto2\"; package t.v1; message M { optional int32 a = 1 [default = 5]; \
        required string b = 2; optional E e = 3; } enum E { FIRST = 3; }";
    let descriptor = compile(source).get("t.v1.M").expect("it defines M");
    let null = fields([("a", Cell::Null), ("b", Cell::Null), ("e", Cell::Null)]);
    assert_eq!(rows(&descriptor, &[vec![]]), [null]);
}

#[test]
fn an_enum_is_its_first_name_and_its_number() {
    let value = |name: Cell, number| fields([("name", name), ("number", int(number))]);
    check_bytes(
        "message M { E e = 1; } enum E { option allow_alias = true; A = 0; B = 1; C = 1; FAR = 9999; NEG = -1; }",
        [
            (b"", value(text("A"), 0)),
            (b"\x08\x01", value(text("B"), 1)),
            (b"\x08\x02", value(Cell::Null, 2)),
            (b"\x08\x8f\x4e", value(text("FAR"), 9_999)),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                value(text("NEG"), -1),
            ),
            // More than 32 bits are cut, as everywhere in Protobuf.
            (b"\x08\x81\x80\x80\x80\x10", value(text("B"), 1)),
        ],
    );
}

#[test]
fn messages_nest_and_an_empty_one_says_that_it_is_there() {
    let content = "message M { I i = 1; Nothing n = 2; } message I { J j = 1; } message J { string s = 1; } message Nothing {}";
    assert_eq!(
        columns(&message(content)),
        [
            "i {j:{s:Utf8}} message t.v1.I 1",
            "n {_present:Boolean} message t.v1.Nothing 2"
        ]
    );
    let there = fields([("_present", Cell::Bool(true))]);
    let j = fields([("j", fields([("s", text("x"))]))]);
    check(
        content,
        [
            ("{}", fields([("i", Cell::Null), ("n", Cell::Null)])),
            (
                r#"{"n":{},"i":{}}"#,
                fields([("i", fields([("j", Cell::Null)])), ("n", there.clone())]),
            ),
            (
                r#"{"i":{"j":{"s":"x"}}}"#,
                fields([("i", j), ("n", Cell::Null)]),
            ),
        ],
    );
    check("message M {}", [("{}", there)]);
}

#[test]
fn lists_are_empty_where_nothing_is_and_null_only_without_their_message() {
    let element = |x| fields([("x", int(x)), ("l", Cell::List(vec![]))]);
    check(
        "message M { repeated sint32 n = 1; repeated I m = 2; I one = 3; } message I { int32 x = 1; repeated bool l = 2; }",
        [
            (
                "{}",
                fields([
                    ("n", Cell::List(vec![])),
                    ("m", Cell::List(vec![])),
                    ("one", Cell::Null),
                ]),
            ),
            (
                r#"{"n":[1,-1],"m":[{"x":1},{}],"one":{}}"#,
                fields([
                    ("n", Cell::List(vec![int(1), int(-1)])),
                    ("m", Cell::List(vec![element(1), element(0)])),
                    ("one", element(0)),
                ]),
            ),
        ],
    );
    check_bytes(
        "message M { repeated uint32 n = 1; }",
        [(
            b"\x0a\x02\x01\x02\x08\x03\x0a\x00\x0a\x01\x04",
            Cell::List((1..5).map(int).collect()),
        )],
    );
    check_bytes(
        "message M { repeated google.protobuf.Timestamp t = 1; }",
        [(b"\x0a\x00\x0a\x02\x10\x01\x0a\x03\x10\xe8\x07\x0a\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
          Cell::List(vec![int(0), int(0), int(1), Cell::Null]))],
    );
}

#[test]
fn maps_are_sorted_and_the_last_of_equal_keys_stands() {
    let map = |entries: &[(i128, &str)]| {
        Cell::Map(entries.iter().map(|(k, v)| (int(*k), text(v))).collect())
    };
    check_bytes(
        "message M { map<sint32, string> m = 1; }",
        [
            (b"", map(&[])),
            (
                b"\x0a\x05\x08\x02\x12\x01a\x0a\x05\x08\x01\x12\x01b\x0a\x05\x08\x02\x12\x01c",
                map(&[(-1, "b"), (1, "c")]),
            ),
            // Value before key, either twice, both missing, an unknown field.
            (b"\x0a\x08\x12\x01a\x08\x02\x12\x01b", map(&[(1, "b")])),
            (b"\x0a\x04\x08\x02\x08\x04", map(&[(2, "")])),
            (b"\x0a\x02\x18\x07", map(&[(0, "")])),
        ],
    );
    let texts =
        |keys: &[&str]| Cell::Map(keys.iter().map(|k| (text(k), Cell::Bool(true))).collect());
    check(
        "message M { map<string, bool> m = 1; }",
        [(
            r#"{"m":{"b":true,"":true,"ä":true,"aa":true,"B":true}}"#,
            fields([("m", texts(&["", "B", "aa", "b", "ä"]))]),
        )],
    );
    let empty = fields([("x", int(0))]);
    check_bytes(
        "message M { map<bool, I> m = 1; } message I { int32 x = 1; }",
        [(
            b"\x0a\x02\x08\x01\x0a\x00\x0a\x0a\x12\x02\x08\x05\x12\x04\x08\x07\x10\x01",
            Cell::Map(vec![
                (Cell::Bool(false), fields([("x", int(7))])),
                (Cell::Bool(true), empty),
            ]),
        )],
    );
}

#[test]
fn a_oneof_names_the_column_that_is_set() {
    let content = "message M { oneof pick { int32 a = 1; I b = 2; string c = 3; } } message I { int32 x = 1; int32 y = 2; }";
    assert_eq!(
        columns(&message(content)).last().map(String::as_str),
        Some("pick Utf8 oneof pick -")
    );
    let row = |a: Cell, b: Cell, c: Cell, pick: Cell| {
        fields([("a", a), ("b", b), ("c", c), ("pick", pick)])
    };
    let inner = |x, y| fields([("x", int(x)), ("y", int(y))]);
    let null = || Cell::Null;
    let payloads: [&[u8]; 5] = [
        b"",
        b"\x08\x00",
        b"\x08\x05\x1a\x00",
        // A message, another member, the message again: it starts empty.
        b"\x12\x02\x08\x01\x08\x05\x12\x02\x10\x02",
        // In pieces without another in between they are one.
        b"\x12\x02\x08\x01\x12\x02\x10\x02",
    ];
    let expected = [
        row(null(), null(), null(), null()),
        row(int(0), null(), null(), text("a")),
        row(null(), null(), text(""), text("c")),
        row(null(), inner(0, 2), null(), text("b")),
        row(null(), inner(1, 2), null(), text("b")),
    ];
    assert_eq!(
        rows(&message(content), &payloads.map(<[u8]>::to_vec)),
        expected
    );
    let optional = columns(&message("message M { optional int32 a = 1; }"));
    assert_eq!(
        optional,
        ["a Int32 int32 1"],
        "what optional implies has no column"
    );
}

#[test]
fn a_member_without_a_column_clears_the_others() {
    let source = "syntax = \"proto2\"; package t.v1; message M { oneof pick { int32 a = 1; \
        group G = 2 { optional int32 x = 1; } } }";
    let descriptor = compile(source).get("t.v1.M").expect("it defines M");
    assert_eq!(
        columns(&descriptor),
        ["a Int32 int32 1", "pick Utf8 oneof pick -"]
    );
    let row = |a: Cell, pick: Cell| fields([("a", a), ("pick", pick)]);
    let payloads = [
        b"\x08\x05\x13\x08\x01\x14".to_vec(),
        b"\x13\x14\x08\x05".to_vec(),
    ];
    let expected = [row(Cell::Null, Cell::Null), row(int(5), text("a"))];
    assert_eq!(rows(&descriptor, &payloads), expected);
}

#[test]
fn recursion_is_kept_as_bytes() {
    let content =
        "message M { int32 x = 1; M self = 2; repeated M many = 3; map<string, I> by = 4; }
        message I { M back = 1; I again = 2; }";
    let descriptor = message(content);
    assert_eq!(
        columns(&descriptor),
        [
            "x Int32 int32 1",
            "self Binary encoded t.v1.M 2",
            "many [Binary] repeated encoded t.v1.M 3",
            "by <key:Utf8,value:{back:Binary,again:Binary}> map<string, message t.v1.I> 4",
        ]
    );
    let shape = Shape::of(&descriptor).expect("a shape");
    let DataType::Map(entry, _) = shape.fields()[3].data_type() else {
        panic!("a map");
    };
    let DataType::Struct(entry) = entry.data_type() else {
        panic!("an entry");
    };
    let DataType::Struct(inner) = entry[1].data_type() else {
        panic!("a struct");
    };
    assert_eq!(
        line(&inner[1]),
        "again Binary encoded t.v1.I 2",
        "metadata is on every column"
    );

    let row = rows(
        &descriptor,
        &[b"\x12\x02\x08\x01\x1a\x00\x12\x02\x08\x02\x1a\x02\x08\x07".to_vec()],
    );
    let bytes = |bytes: &[u8]| Cell::Bytes(bytes.to_vec());
    let expected = fields([
        ("x", int(0)),
        ("self", bytes(b"\x08\x01\x08\x02")),
        ("many", Cell::List(vec![bytes(b""), bytes(b"\x08\x07")])),
        ("by", Cell::Map(vec![])),
    ]);
    assert_eq!(row, [expected]);
}

#[test]
fn names_that_differ_by_case_get_their_number() {
    let source = "syntax = \"proto2\"; package t.v1; message M { optional int32 A = 9; optional int32 a = 2; \
        optional int32 a_9 = 3; oneof AA { int32 aa = 4; } optional int32 order = 5; }";
    let descriptor = compile(source).get("t.v1.M").expect("it defines M");
    let names: Vec<_> = columns(&descriptor)
        .iter()
        .map(|c| c.split(' ').next().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["a", "a_9", "aa", "order", "A_9_9", "AA_oneof"]);
    let row = rows(&descriptor, &[b"\x20\x01".to_vec()]);
    let Cell::Struct(columns) = &row[0] else {
        panic!("{row:?}");
    };
    assert_eq!(columns.last().map(|c| &c.1), Some(&text("aa")));
}

#[test]
fn groups_and_extensions_have_no_column() {
    let source = "syntax = \"proto2\"; package t.v1; message M { repeated group G = 2 { optional int32 x = 1; } \
        extensions 5 to 9; } extend M { optional int32 e = 5; }";
    let descriptor = compile(source).get("t.v1.M").expect("it defines M");
    assert_eq!(columns(&descriptor), ["_present Boolean present -"]);
    let there = fields([("_present", Cell::Bool(true))]);
    assert_eq!(
        rows(&descriptor, &[b"\x13\x08\x01\x14\x28\x01".to_vec()]),
        [there]
    );
}
