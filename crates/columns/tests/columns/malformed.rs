//! Malformed payloads: refused, with field and byte, and nothing appended.

use crate::differential::append;
use crate::message;
use annals_columns::{PayloadBuilder, Shape};
use annals_core::ErrorKind;

const RICH: &str = "message M { int32 n = 1; string s = 2; I i = 3; repeated fixed32 f = 4; map<string, I> m = 5;
    oneof o { string a = 6; I b = 7; } google.protobuf.Timestamp t = 8; google.protobuf.Value v = 9; M again = 10;
    bool flag = 11; double d = 12; repeated string l = 13; }
    message I { bool x = 1; string y = 2; }";

#[test]
fn an_error_names_the_field_and_the_byte() {
    let cases: [(&[u8], &str); 18] = [
        (
            b"\x08",
            "t.v1.M: field \"n\" at byte 0 is cut, or a number above 64 bits",
        ),
        (
            b"\x0b\x0c",
            "field \"n\" at byte 0 has a wire type that is not its kind's",
        ),
        (b"\x08\x01\x12\x02x", "field \"s\" at byte 2 is cut"),
        (
            b"\x12\x01\xff\x12\x01x",
            "field \"s\" at byte 0 is not UTF-8",
        ),
        (
            b"\x1a\x03\x12\x01\xff",
            "field \"i.y\" at byte 2 is not UTF-8",
        ),
        (
            b"\x32\x01\xff\x3a\x00",
            "field \"a\" at byte 0 is not UTF-8",
        ),
        (b"\x22\x03\0\0\0", "field \"f\" at byte 0 is cut"),
        (
            b"\x2a\x05\x12\x03\x12\x01\xff",
            "field \"m.value.y\" at byte 4 is not UTF-8",
        ),
        (b"\x28\x00", "field \"m\" at byte 0 is a map's"),
        (
            b"\x4a\x03\x1a\x01\xff",
            "field \"v.string_value\" at byte 2 is not UTF-8",
        ),
        (
            b"\x52\x04\x52\x02\x12\x05",
            "field \"again.again.s\" at byte 4 is cut",
        ),
        (
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            "field \"n\" at byte 0 is cut, or a number above 64 bits",
        ),
        (b"\0", "field \"\" at byte 0 has no valid number"),
        (
            b"\xf4\x01",
            "field \"\" at byte 0 ends a group that was not open",
        ),
        (
            b"\x0c",
            "field \"n\" at byte 0 has a wire type that is not its kind's",
        ),
        (b"\x2c\x00", "field \"m\" at byte 0 is a map's"),
        (
            b"\xf3\x01\x08\x01",
            "field \"30\" at byte 0 is unknown, and cut",
        ),
        (
            b"\x66\x01",
            "field \"d\" at byte 0 has a wire type that is not its kind's",
        ),
    ];
    let descriptor = message(RICH);
    let mut builder = PayloadBuilder::new(&Shape::of(&descriptor).expect("a shape"));
    for (payload, expected) in cases {
        let error = builder.append(payload).expect_err("malformed");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error.to_string().contains(expected),
            "{payload:02x?}: {error}"
        );
        assert!(builder.is_empty());
        assert_eq!(append(&mut builder, &descriptor, payload), None);
    }
}

#[test]
fn every_truncation_is_accepted_or_refused_as_by_the_second_opinion() {
    let descriptor = message(RICH);
    let mut builder = PayloadBuilder::new(&Shape::of(&descriptor).expect("a shape"));
    let payload = b"\x08\x96\x01\x12\x03abc\x1a\x05\x08\x01\x12\x01y\x22\x08\x01\0\0\0\x02\0\0\0\x25\x03\0\0\0\
        \x2a\x09\x0a\x01k\x12\x04\x08\x01\x12\x00\x3a\x00\x42\x04\x08\x01\x10\x02\x4a\x02\x08\x00\
        \x52\x02\x08\x01\x58\x01\x61\0\0\0\0\0\0\xf0\x3f\x6a\x01z\xfb\x01\x08\x01\xfc\x01";
    let cut = (0..=payload.len())
        .filter(|&end| append(&mut builder, &descriptor, &payload[..end]).is_some());
    let accepted = cut.count();
    assert!((10..payload.len()).contains(&accepted), "{accepted}");
    assert_eq!(builder.len(), accepted);
}

/// A field of bytes around others.
fn around(tag: &[u8], inner: Vec<u8>) -> Vec<u8> {
    let mut out = tag.to_vec();
    let mut length = inner.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    [out, inner].concat()
}

#[test]
fn nesting_is_followed_exactly_as_deep_as_by_the_second_opinion() {
    let source =
        "message M { M m = 1; map<string, M> by = 2; google.protobuf.Value v = 3; string s = 4; }";
    let descriptor = message(source);
    let mut builder = PayloadBuilder::new(&Shape::of(&descriptor).expect("a shape"));
    let tags: [&[&[u8]]; 3] = [
        &[b"\x0a"],
        // An entry is no level of its own.
        &[b"\x12", b"\x12"],
        &[b"\x2a", b"\x0a", b"\x12"],
    ];
    let insides: [&[u8]; 6] = [
        b"",
        b"\x22\x00",
        b"\xf8\x07\x01",
        b"\xfb\x07\xfc\x07",
        b"\xfb\x07\x08\x01\xfc\x07",
        b"\x12\x03\xf8\x07\x01",
    ];
    for tags in tags {
        let mut all = 0;
        for inside in insides {
            let mut accepted = 0;
            let levels = 95..=103;
            // A struct and a value of JSON are two levels.
            for depth in levels.map(|levels| levels / tags.len().div_ceil(2)) {
                let mut payload = inside.to_vec();
                for _ in 0..depth {
                    for tag in tags.iter().rev() {
                        payload = around(tag, payload);
                    }
                }
                if tags.len() == 3 {
                    // A value of JSON: struct, entry, value.
                    payload = around(b"\x1a", payload);
                }
                accepted += usize::from(append(&mut builder, &descriptor, &payload).is_some());
            }
            assert!(accepted < 9, "{tags:?} {inside:?}: {accepted}");
            all += accepted;
        }
        assert!(all > 15, "{tags:?}: {all}");
    }
    for depth in 95..=103 {
        for content in [&b""[..], b"\x08\x01", b"\x1a\x01x"] {
            let groups = [vec![0x3b; depth], content.to_vec(), vec![0x3c; depth]].concat();
            append(&mut builder, &descriptor, &groups);
            append(&mut builder, &descriptor, &around(b"\x12", groups));
        }
    }
    assert!(!builder.is_empty());
}

#[test]
fn a_refused_payload_leaves_no_trace_in_the_next_row() {
    let descriptor = message(RICH);
    let shape = Shape::of(&descriptor).expect("a shape");
    let mut builder = PayloadBuilder::new(&shape);
    let full = b"\x08\x01\x12\x01a\x1a\x02\x08\x01\x3a\x00\x6a\x01z";
    let broken = [&full[..], b"\x0b"].concat();
    let mut expected = Vec::new();
    for payload in [&broken[..], b"", &broken, full, &broken] {
        if let Some(message) = append(&mut builder, &descriptor, payload) {
            expected.push(Some(message));
        }
    }
    assert_eq!(expected.len(), 2);
    crate::differential::compare(&shape, &mut builder, &expected);
}
