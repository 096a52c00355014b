//! The types of `google.protobuf` that are no structs.

use crate::cell::{Cell, fields, text};
use crate::compile;
use crate::mapping::{check, check_bytes, columns, int};

#[test]
fn a_timestamp_is_microseconds_rounded_down_and_null_where_there_is_no_such_time() {
    let column = |json: &'static str, micros: Option<i128>| {
        (json, fields([("t", micros.map_or(Cell::Null, int))]))
    };
    check(
        "message M { google.protobuf.Timestamp t = 1; }",
        [
            column("{}", None),
            column(r#"{"t":"1970-01-01T00:00:00.000001999Z"}"#, Some(1)),
            column(r#"{"t":"1969-12-31T23:59:59.999999999Z"}"#, Some(-1)),
            column(
                r#"{"t":"0001-01-01T00:00:00Z"}"#,
                Some(-62_135_596_800_000_000),
            ),
            column(
                r#"{"t":"9999-12-31T23:59:59.999999999Z"}"#,
                Some(253_402_300_799_999_999),
            ),
        ],
    );
    let cases = [
        (vec![(253_402_300_800, 0)], Cell::Null),
        (vec![(-62_135_596_801, 0)], Cell::Null),
        (vec![(0, 1_000_000_000)], Cell::Null),
        (vec![(0, -1)], Cell::Null),
        (vec![(i64::MAX, 0)], Cell::Null),
        // In pieces.
        (vec![(1, 0), (0, 1_000)], int(1_000_001)),
    ];
    for (pieces, expected) in cases {
        let content = "message M { google.protobuf.Timestamp t = 1; }";
        check_bytes(content, [(&seconds_and_nanos(&pieces), expected)]);
    }
}

/// Field 1: a timestamp or duration, in pieces; zeros are left out.
fn seconds_and_nanos(pieces: &[(i64, i32)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (seconds, nanos) in pieces {
        let mut inner = Vec::new();
        for (tag, value) in [(0x08, *seconds as u64), (0x10, i64::from(*nanos) as u64)] {
            if value != 0 {
                inner.push(tag);
                prost::encoding::encode_varint(value, &mut inner);
            }
        }
        out.extend([0x0a, inner.len() as u8]);
        out.extend(inner);
    }
    out
}

#[test]
fn a_duration_is_microseconds_rounded_down_and_null_out_of_range() {
    let column = |json: &'static str, micros: i128| (json, fields([("d", int(micros))]));
    check(
        "message M { google.protobuf.Duration d = 1; }",
        [
            column(r#"{"d":"1.500000999s"}"#, 1_500_000),
            column(r#"{"d":"-0.000000001s"}"#, -1),
            column(r#"{"d":"-1.5s"}"#, -1_500_000),
            column(r#"{"d":"315576000000s"}"#, 315_576_000_000_000_000),
        ],
    );
    let cases = [
        (315_576_000_001, 0),
        (-315_576_000_001, 0),
        (0, 1_000_000_000),
        (1, -1),
        (-1, 1),
        (i64::MIN, 0),
    ];
    for case in cases {
        let content = "message M { google.protobuf.Duration d = 1; }";
        check_bytes(content, [(&seconds_and_nanos(&[case]), Cell::Null)]);
    }
}

#[test]
fn wrappers_are_null_or_their_value() {
    check(
        "message M { google.protobuf.Int32Value i = 1; google.protobuf.StringValue s = 2;
                     repeated google.protobuf.BoolValue b = 3; }",
        [
            (
                "{}",
                fields([
                    ("i", Cell::Null),
                    ("s", Cell::Null),
                    ("b", Cell::List(vec![])),
                ]),
            ),
            (
                r#"{"i":0,"s":"","b":[true,false]}"#,
                fields([
                    ("i", int(0)),
                    ("s", text("")),
                    ("b", Cell::List(vec![Cell::Bool(true), Cell::Bool(false)])),
                ]),
            ),
        ],
    );
}

#[test]
fn free_json_is_text_in_one_form() {
    let column = |json: &'static str, value: &str| (json, fields([("v", text(value))]));
    check(
        "message M { google.protobuf.Value v = 1; }",
        [
            ("{}", fields([("v", Cell::Null)])),
            column(r#"{"v":null}"#, "null"),
            column(
                r#"{"v":{"b":1,"a":[true,null,"x\n\"ä"],"":{}}}"#,
                r#"{"":{},"a":[true,null,"x\n\"ä"],"b":1}"#,
            ),
            column(
                r#"{"v":[0,-0.0,1e15,9007199254740991,9007199254740992,1e300,0.1,-2.50]}"#,
                "[0,-0.0,1000000000000000,9007199254740991,9007199254740992.0,1e300,0.1,-2.5]",
            ),
        ],
    );
    let number = |number: f64| [&b"\x0a\x09\x11"[..], &number.to_le_bytes()].concat();
    let (nan, infinite) = (number(f64::NAN), number(f64::NEG_INFINITY));
    check_bytes(
        "message M { google.protobuf.Value v = 1; }",
        [
            (&nan, text("\"NaN\"")),
            (&infinite, text("\"-Infinity\"")),
            (b"\x0a\x00", text("null")),
        ],
    );
    // A key twice: the last stands, and is not merged with the first.
    let twice =
        b"\x0a\x14\x0a\x07\x0a\x01k\x12\x02\x20\x01\x0a\x09\x0a\x01k\x12\x04\x20\x01\x20\x00";
    let content = "message M { google.protobuf.Struct s = 1; }";
    check_bytes(content, [(twice, text(r#"{"k":false}"#))]);
    check_bytes(content, [(b"\x0a\x00", text("{}"))]);
}

#[test]
fn a_field_mask_is_its_paths() {
    let mask = |paths: &[&str]| {
        let paths = paths
            .iter()
            .map(|path| [&[0x0a, path.len() as u8], path.as_bytes()].concat());
        let body: Vec<u8> = paths.flatten().collect();
        [vec![0x0a, body.len() as u8], body].concat()
    };
    let cases = [
        (mask(&[]), text("")),
        (
            mask(&["user.display_name", "photo"]),
            text("user.displayName,photo"),
        ),
        (
            mask(&["alreadyCamel", "a__b", "a_", "a_1"]),
            text("alreadyCamel,a__b,a_,a_1"),
        ),
    ];
    for (bytes, expected) in cases {
        check_bytes(
            "message M { google.protobuf.FieldMask f = 1; }",
            [(&bytes, expected)],
        );
    }
}

#[test]
fn a_type_that_only_has_a_known_name_is_a_message() {
    let source = "syntax = \"proto3\"; package google.protobuf; message M { Timestamp t = 1; }
        message Timestamp { string when = 1; }";
    let descriptor = compile(source)
        .get("google.protobuf.M")
        .expect("it defines M");
    assert_eq!(
        columns(&descriptor),
        ["t {when:Utf8} message google.protobuf.Timestamp 1"]
    );
}
