//! Payloads as columns: hostile bytes against one rich type.
//!
//! They are a row exactly if `prost-reflect` decodes them, but for the wire type of maps, which it
//! does not look at; and the row is that of the message as it encodes it again.

use annals_columns::{PayloadBuilder, Shape};
use annals_core::schema::Catalog;
use arrow_array::cast::AsArray;
use arrow_array::{Array, StructArray};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use std::sync::LazyLock;

const TYPE: &str = "test.v1.All";
// A float without presence, as a map's value or in a wrapper is left out when it is -0.0, and
// would be 0.0 afterwards: floats have presence here.
const SOURCE: &str = r#"
    syntax = "proto3";
    package test.v1;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message All {
      optional double d = 1; optional float f = 2; int64 i = 3; uint64 u = 4; sint32 s = 5;
      fixed64 x = 6; bool b = 7; string t = 8; bytes y = 9; Kind k = 10;
      repeated sint64 packed = 11; repeated fixed32 fixed = 12; repeated string texts = 13;
      repeated Kind kinds = 14; optional int32 maybe = 15; Inner inner = 16;
      repeated Inner many = 17; map<string, Inner> by_text = 18; map<sint32, Kind> by_number = 19;
      oneof one { string first = 20; Inner second = 21; google.protobuf.Empty third = 22; }
      google.protobuf.Timestamp at = 23; google.protobuf.Duration took = 24;
      google.protobuf.Struct object = 25; google.protobuf.Value value = 26;
      google.protobuf.ListValue list = 27; google.protobuf.FieldMask mask = 28;
      google.protobuf.Any any = 29; google.protobuf.StringValue text = 30;
      repeated google.protobuf.UInt64Value wrapped = 31; All again = 32; sfixed64 far = 70000;
    }
    message Inner { int32 n = 1; Deep deep = 2; repeated bool flags = 3; }
    message Deep { string t = 1; map<bool, bytes> m = 2; optional uint32 u = 3; }
    enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; KIND_MINUS = -1; }
"#;

static CATALOG: LazyLock<Catalog> =
    LazyLock::new(|| Catalog::from_files([("test.proto", SOURCE)]).expect("it compiles"));
static SHAPE: LazyLock<(MessageDescriptor, Shape)> = LazyLock::new(|| {
    let descriptor = CATALOG.get(TYPE).expect("it is there");
    let shape = Shape::of(&descriptor).expect("any message has columns");
    (descriptor, shape)
});

/// A row or an error as the second opinion has it, and the same row from the same message.
pub fn run(bytes: &[u8]) {
    let (descriptor, shape) = &*SHAPE;
    let mut builder = PayloadBuilder::new(shape);
    let message = match (
        builder.append(bytes),
        DynamicMessage::decode(descriptor.clone(), bytes),
    ) {
        (Ok(()), Ok(message)) => message,
        (Err(error), decoded) => {
            assert_eq!(builder.finish().len(), 0, "nothing was appended");
            let stricter = error.to_string().contains("is a map's");
            assert!(decoded.is_err() || stricter, "only columns refuse: {error}");
            return;
        }
        (Ok(()), Err(error)) => panic!("only columns accept: {error}"),
    };
    builder
        .append(&message.encode_to_vec())
        .expect("it was encoded by the book");
    same(&builder.finish(), 0);
}

/// Both rows are the same; a message kept encoded is the same if its rows are.
fn same(rows: &StructArray, depth: usize) {
    for (field, column) in rows.fields().iter().zip(rows.columns()) {
        if field.name() != "again" {
            let [one, other] = [column.slice(0, 1), column.slice(1, 1)];
            assert!(one.as_ref() == other.as_ref(), "{one:?} {other:?}");
            continue;
        }
        let messages = column.as_binary::<i32>();
        assert_eq!(messages.is_null(0), messages.is_null(1));
        // As deep as a payload can be.
        if messages.is_null(0) || depth > 100 {
            continue;
        }
        let mut builder = PayloadBuilder::new(&SHAPE.1);
        for row in 0..2 {
            let inner = messages.value(row);
            builder.append(inner).expect("it was checked with the rest");
        }
        same(&builder.finish(), depth + 1);
    }
}

/// Payloads with every kind of field.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = [
        r#"{"d":1.5,"f":"NaN","i":"-1","u":"18446744073709551615","s":-2,"x":3,"b":true,"t":"xä"}"#,
        r#"{"y":"AP8=","k":"KIND_MINUS","packed":["1","-1"],"fixed":[1,2],"texts":["","a"]}"#,
        r#"{"kinds":["KIND_ONE"],"maybe":0,"inner":{"n":7,"deep":{"t":"u","m":{"true":"AA=="}}}}"#,
        r#"{"many":[{},{"flags":[true,false]}],"by_text":{"b":{"n":1},"a":{}},"by_number":{"-5":"KIND_ONE"}}"#,
        r#"{"second":{"deep":{"u":4}},"at":"2026-11-21T09:30:15.25Z","took":"-1.5s","mask":"aB.c,d"}"#,
        r#"{"third":{},"object":{"a":[1,null,{"b":"c"}]},"value":[true,{"x":-0.5}],"list":["y"]}"#,
        r#"{"any":{"@type":"x/test.v1.Deep","t":"y"},"text":"z","wrapped":["9"],"first":"f"}"#,
        r#"{"again":{"t":"in","again":{"many":[{}],"far":"1"}},"far":"-9"}"#,
    ]
    .iter()
    .map(|text| {
        let made = CATALOG.json_to_protobuf(TYPE, text.as_bytes());
        made.unwrap_or_else(|error| panic!("{error}: {text}"))
    })
    .collect();
    // A oneof that changes its mind, a message in pieces, groups, a map's entry in disorder.
    seeds.push(b"\xa2\x01\x01a\xaa\x01\x02\x08\x01\xa2\x01\x00\xaa\x01\x02\x1a\x00".to_vec());
    seeds.push(b"\x82\x01\x02\x08\x01\x82\x01\x04\x12\x02\x18\x05\x82\x01\x00".to_vec());
    seeds.push(b"\xfb\x07\x08\x01\x0b\x0c\xfc\x07\x92\x01\x07\x12\x02\x08\x01\x0a\x01k".to_vec());
    seeds
}
