//! Schemas: hostile payloads against a fixed catalog, and hostile sources.

use annals_core::{json, schema::Catalog};
use std::sync::LazyLock;

const TYPE: &str = "test.v1.All";
const SOURCE: &str = r#"
    syntax = "proto3";
    package test.v1;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/any.proto";
    message All {
      All self = 1; repeated All list = 2; map<string, All> map = 3;
      double d = 4; float f = 5; int64 i = 6; uint64 u = 7; sint32 s = 8; fixed64 x = 9;
      bool b = 10; string t = 11; bytes y = 12; Kind k = 13; repeated sint64 packed = 14;
      google.protobuf.Timestamp at = 15; google.protobuf.Struct any_json = 16;
      google.protobuf.Any any = 17; optional int32 maybe = 18;
      oneof one { string first = 19; uint32 second = 20; }
    }
    enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; }
"#;
static CATALOG: LazyLock<Catalog> =
    LazyLock::new(|| Catalog::from_files([("test.proto", SOURCE)]).expect("it compiles"));

/// JSON that fits the type gives bytes that give JSON that gives the same bytes.
pub fn run_json(bytes: &[u8]) {
    let Ok(one) = CATALOG.json_to_protobuf(TYPE, bytes) else {
        return;
    };
    settle(&one);
}

/// Bytes of the type give JSON, or an error; never a panic.
pub fn run_protobuf(bytes: &[u8]) {
    settle(bytes);
}

fn settle(bytes: &[u8]) {
    let Ok(text) = CATALOG.protobuf_to_json(TYPE, bytes) else {
        return;
    };
    assert_eq!(
        CATALOG.protobuf_to_json(TYPE, bytes).ok().as_ref(),
        Some(&text)
    );
    // Deeper or longer as JSON than as Protobuf: refused by its bounds, not by the type.
    let Ok(back) = CATALOG.json_to_protobuf(TYPE, text.as_bytes()) else {
        return;
    };
    let again = CATALOG
        .protobuf_to_json(TYPE, &back)
        .expect("it did before");
    assert_eq!(
        CATALOG.json_to_protobuf(TYPE, again.as_bytes()).ok(),
        Some(back)
    );
}

/// Any source compiles or is refused; the types of one that compiles can be used.
pub fn run_source(bytes: &[u8]) {
    let Ok(catalog) = Catalog::from_files([("fuzz.proto", bytes)]) else {
        return;
    };
    for message in catalog.types() {
        let name = message.full_name();
        assert!(catalog.get(name).is_some(), "{name}");
        catalog
            .protobuf_to_json(name, &[])
            .expect("no bytes are an empty message of any type");
    }
}

/// The first lines of the real sample.
pub fn sample_lines(count: usize) -> Vec<Vec<u8>> {
    let packed = include_bytes!("../../examples/vcs/events-5000.jsonl.zst");
    let text = zstd::decode_all(&packed[..]).expect("the sample unpacks");
    let lines = text.split(|&byte| byte == b'\n').take(count);
    lines.map(<[u8]>::to_vec).collect()
}

/// Payloads with every kind of field.
pub fn json_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        r#"{"d":1.5,"f":0.1,"i":"-1","u":"18446744073709551615","s":-2,"x":3,"b":true,"t":"x"}"#,
        r#"{"y":"AP8=","k":"KIND_ONE","packed":["1","-1"],"at":"2026-11-21T09:30:15.25Z","maybe":0}"#,
        r#"{"anyJson":{"a":[1,null,{"b":"c"}]},"any":{"@type":"x/test.v1.All","t":"y"},"first":"z"}"#,
        r#"{"self":{"list":[{},{"map":{"k":{"second":1}}}]},"f":"NaN","d":"-Infinity"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    seeds.extend(sample_lines(3).iter().filter_map(|line| {
        let event = json::decode(line).ok()?;
        Some(event.header().data.bytes().to_vec())
    }));
    seeds
}

/// The same as bytes.
pub fn protobuf_seeds() -> Vec<Vec<u8>> {
    let convert = |seed: &Vec<u8>| CATALOG.json_to_protobuf(TYPE, seed).ok();
    json_seeds().iter().filter_map(convert).collect()
}

/// Sources.
pub fn source_seeds() -> Vec<Vec<u8>> {
    [
        SOURCE,
        include_str!("../../examples/vcs/vcs/v1/commit_pushed.proto"),
        r#"syntax = "proto2"; message A { required B b = 1; extensions 4 to max; message B {} }
           extend A { optional string c = 4 [default = "d"]; } option java_package = "e";
           service S { rpc R (A) returns (stream A); }"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
