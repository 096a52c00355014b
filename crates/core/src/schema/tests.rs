//! Catalogs of small files: what compiles, what converts, and what the errors say.

use super::*;

const SHOP: &str = r#"
    syntax = "proto3";
    package shop.v1;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/any.proto";

    message OrderPlaced {
      string order_id = 1;
      Money total = 2;
      repeated Line lines = 3;
      map<string, int64> counts = 4;
      map<int32, Line> by_number = 5;
      google.protobuf.Timestamp placed_at = 6;
      google.protobuf.Struct extra = 7;
      optional bool gift = 8;
      google.protobuf.Any attachment = 9;
    }
    message Money { int64 units = 1; float rate = 2; bytes raw = 3; State state = 4; }
    message Line { string sku = 1; uint32 quantity = 2; }
    message Node { Node next = 1; }
    enum State { STATE_UNSPECIFIED = 0; STATE_PAID = 1; }
"#;

fn shop() -> Catalog {
    Catalog::from_files([("shop/v1/shop.proto", SHOP)]).unwrap()
}

#[test]
fn types_are_found_by_full_name() {
    let catalog = shop();
    assert!(catalog.get("shop.v1.OrderPlaced").is_some());
    assert!(catalog.get("shop.v1.Order").is_none());
    assert!(catalog.get("google.protobuf.Timestamp").is_some());
    let names: Vec<_> = catalog.types().map(|t| t.full_name().to_owned()).collect();
    assert_eq!(
        names,
        ["Line", "Money", "Node", "OrderPlaced"].map(|name| format!("shop.v1.{name}"))
    );
}

#[test]
fn a_payload_survives_the_way_to_protobuf_and_back() {
    let catalog = shop();
    let json = concat!(
        r#"{"attachment":{"@type":"type.googleapis.com/shop.v1.Line","quantity":1,"sku":"z"},"#,
        r#""by_number":{"-7":{"quantity":1,"sku":"a"},"3":{"quantity":0,"sku":""}},"#,
        r#""counts":{"":"9223372036854775807","a":"0","b":"-1","é":"4"},"#,
        r#""extra":{"a":[1.5,null,true],"z":"\u0001"},"lines":[{"quantity":4294967295,"sku":"x"}],"#,
        r#""order_id":"o-17","placed_at":"2026-11-21T09:30:15.250Z","#,
        r#""total":{"rate":0.1,"raw":"AP8=","state":"STATE_PAID","units":"42"}}"#
    );
    let bytes = catalog
        .json_to_protobuf("shop.v1.OrderPlaced", json.as_bytes())
        .unwrap();
    let back = catalog.protobuf_to_json("shop.v1.OrderPlaced", &bytes);
    assert_eq!(back.unwrap(), json);
}

#[test]
fn equal_payloads_give_equal_bytes_whatever_the_order_of_a_map() {
    let catalog = shop();
    let payload = |keys: &mut dyn Iterator<Item = u32>| {
        let counts: Vec<_> = keys.map(|k| format!(r#""k{k}":"{k}""#)).collect();
        let json = format!(r#"{{"counts":{{{}}},"orderId":"o"}}"#, counts.join(","));
        catalog
            .json_to_protobuf("shop.v1.OrderPlaced", json.as_bytes())
            .unwrap()
    };
    let bytes = payload(&mut (0..100));
    assert_eq!(bytes, payload(&mut (0..100).rev()));
    let json = || catalog.protobuf_to_json("shop.v1.OrderPlaced", &bytes);
    assert_eq!(json().unwrap(), json().unwrap());
}

#[test]
fn a_payload_that_does_not_fit_is_refused_with_the_field() {
    #[track_caller]
    fn check(json: &str, reason: &str) {
        let error = shop()
            .json_to_protobuf("shop.v1.OrderPlaced", json.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    check(r#"{"order":"o"}"#, "order");
    check(r#"{"order_id":7}"#, "at order_id");
    check(r#"{"total":{"units":"x"}}"#, "at total.units");
    check(r#"{"total":{"state":"STATE_GONE"}}"#, "at total.state");
    check(r#"{"total":{"raw":"?"}}"#, "at total.raw");
    check(r#"{"lines":[{},{"quantity":-1}]}"#, "at lines[1].quantity");
    check(r#"{"counts":{"a":"b"}}"#, "at counts.a");
    check(r#"{"placed_at":"yesterday"}"#, "at placed_at");
    check(r#"{"order_id":"a","order_id":"b"}"#, "at order_id");
    check(r#"{"extra":{"a":[{"b":1,"b":2}]}}"#, "at extra.a[0].b");
    check("[]", "no shop.v1.OrderPlaced");
    check("", "no shop.v1.OrderPlaced");
    check("{} {}", "no shop.v1.OrderPlaced");
    let unknown = shop().json_to_protobuf("shop.v1.Gone", b"{}").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    let damaged = shop().protobuf_to_json("shop.v1.Line", &[0x0a, 9]);
    assert!(damaged.unwrap_err().to_string().contains("shop.v1.Line"));
}

#[test]
fn deep_and_long_payloads_end_with_an_error() {
    let catalog = shop();
    let deep = format!("{}{}", r#"{"next":"#.repeat(70), "{}") + &"}".repeat(70);
    assert!(
        catalog
            .json_to_protobuf("shop.v1.Node", deep.as_bytes())
            .is_err()
    );
    let mut bytes = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![0x0a];
        crate::frame::put(&bytes, &mut outer);
        bytes = outer;
    }
    assert!(catalog.protobuf_to_json("shop.v1.Node", &bytes).is_err());
    let long = vec![b' '; PAYLOAD_BYTES_MAX + 1];
    assert!(catalog.json_to_protobuf("shop.v1.Node", &long).is_err());
    assert!(catalog.protobuf_to_json("shop.v1.Node", &long).is_err());
}

#[test]
fn files_that_do_not_compile_are_refused_with_the_reason() {
    #[track_caller]
    fn check(files: &[(&str, &str)], reason: &str) {
        let error = Catalog::from_files(files.iter().copied())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
    const A: &str = r#"syntax = "proto3"; import "b.proto";"#;
    const B: &str = r#"syntax = "proto3"; import "a.proto";"#;
    check(&[("a.proto", A), ("b.proto", B)], "cycle");
    check(&[("a.proto", A)], "b.proto");
    check(&[("a.proto", "syntax = \"proto3\"; message {")], "a.proto");
    check(&[("a.proto", "message A {}"), ("a.proto", "")], "twice");
    check(
        &[("a.proto", "message A {}"), ("b.proto", "message A {}")],
        "A",
    );
    check(
        &[("a.proto", "syntax = \"proto3\"; message A { Gone g = 1; }")],
        "Gone",
    );
    check(&[("a.proto", &"{".repeat(100_000))], "deeper");
    check(&[("a.proto", &" ".repeat(FILE_BYTES_MAX + 1))], "at most");
    let many = (0..=FILES_MAX).map(|i| (format!("{i}.proto"), ""));
    assert!(Catalog::from_files(many).is_err());
    assert!(Catalog::from_files([("a.proto", [0xff])]).is_err());
}

#[test]
fn a_long_chain_of_imports_and_googles_own_files_do_no_harm() {
    let chain = (0..FILES_MAX).map(|i| {
        let import = format!("import \"{:04}.proto\";", i + 1);
        let import = if i + 1 == FILES_MAX {
            String::new()
        } else {
            import
        };
        (
            format!("{i:04}.proto"),
            format!("syntax = \"proto3\"; {import}"),
        )
    });
    let mut chain: Vec<_> = chain.collect();
    Catalog::from_files(chain.clone()).unwrap();
    let (_, last) = chain.last_mut().unwrap();
    last.push_str("import \"0000.proto\";");
    let error = Catalog::from_files(chain).unwrap_err().to_string();
    assert!(error.contains("cycle"), "{error}");
    let fake = [(
        "google/protobuf/timestamp.proto",
        r#"syntax = "proto3"; package google.protobuf; message Timestamp { string lie = 1; }"#,
    )];
    let time = Catalog::from_files(fake).unwrap();
    let time = time.get("google.protobuf.Timestamp").unwrap();
    assert!(time.get_field_by_name("seconds").is_some());
}
