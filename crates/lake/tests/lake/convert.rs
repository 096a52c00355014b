//! What is in the tables.

use crate::world::{BUS, HOUR_US, ORDER, ORDERS_V1, ORDERS_V2, World, builder, order, schemas};
use annals_lake::converter::{Config, Days};
use annals_lake::layout::Date;
use annals_lake::{Converter, Lake, TableName};

fn orders() -> TableName {
    TableName::of_type(ORDER).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_has_a_row_and_those_of_a_type_with_a_schema_their_columns() {
    let mut world = World::new().await;
    let plain = builder("mail.v1.Sent", "m-1")
        .attribute("correlationid", "c-7")
        .and_then(|b| b.attribute("color", "red"))
        .and_then(|b| b.json(br#"{"to":"ada"}"#).build())
        .unwrap();
    world
        .archive(&[order("a", 20, 5), plain, order("b", 10, 7)])
        .await;
    let progress = world.convert(ORDERS_V1).await;
    assert_eq!((progress.events, progress.typed, progress.files), (3, 2, 2));
    let columns = [
        "id",
        "type",
        "time",
        "correlationid",
        "extensions",
        "payload_json",
    ];
    assert_eq!(
        world.rows(&TableName::Events, &columns).await,
        [
            "a | shop.v1.Order | 1970-01-01T00:00:20Z | null | {} | null",
            "b | shop.v1.Order | 1970-01-01T00:00:10Z | null | {} | null",
            "m-1 | mail.v1.Sent | null | c-7 | {color: red} | {\"to\":\"ada\"}",
        ]
    );
    assert_eq!(
        world
            .rows(
                &orders(),
                &["id", "position", "ordinal", "payload", "decode_error"]
            )
            .await,
        [
            "a | 1 | 0 | {order_id: a, cents: 5} | null",
            "b | 1 | 2 | {order_id: b, cents: 7} | null",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_left_out_and_files_lie_by_day_of_archiving() {
    let mut world = World::new().await;
    world.archive(&[order("a", 1, 1), order("b", 2, 2)]).await;
    world.wait_us(3 * HOUR_US);
    world.archive(&[order("b", 2, 2), order("c", 3, 3)]).await;
    world.convert(ORDERS_V1).await;
    assert_eq!(world.rows(&orders(), &["id"]).await, ["a", "b", "c"]);
    let files = world.table(&orders()).await.unwrap().files().unwrap();
    let mut days: Vec<(String, u64)> = files
        .iter()
        .map(|f| (f.date.to_string(), f.stats.num_records))
        .collect();
    days.sort();
    assert_eq!(days, [("2026-11-21".into(), 2), ("2026-11-22".into(), 1)]);
    assert_eq!(
        files
            .iter()
            .filter_map(|f| f.stats.numbers("position"))
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_does_not_decode_is_null_and_says_why() {
    let mut world = World::new().await;
    let broken = builder(ORDER, "x")
        .protobuf(vec![0x0a, 0x7f])
        .build()
        .unwrap();
    let json = builder(ORDER, "y")
        .json(br#"{"order_id":"y"}"#)
        .build()
        .unwrap();
    let wrong = builder(ORDER, "z")
        .json(br#"{"order":"y"}"#)
        .build()
        .unwrap();
    world.archive(&[broken, json, wrong]).await;
    world.convert(ORDERS_V1).await;
    let rows = world
        .rows(&orders(), &["id", "payload", "decode_error"])
        .await;
    assert!(rows[0].starts_with("x | null | "), "{rows:?}");
    assert_eq!(rows[1], "y | {order_id: y, cents: 0} | null");
    assert!(
        rows[2].starts_with("z | null | ") && rows[2].contains("order"),
        "{rows:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_comes_late_gives_a_type_its_history() {
    let mut world = World::new().await;
    world.archive(&[order("a", 1, 1)]).await;
    let mut converter = world.converter(schemas(0, "syntax = \"proto3\"; package none;"));
    converter.catch_up().await.unwrap();
    assert_eq!(world.table(&orders()).await.unwrap().version(), None);
    converter.set_schemas(schemas(1, ORDERS_V1));
    converter.catch_up().await.unwrap();
    assert_eq!(world.rows(&orders(), &["id"]).await, ["a"]);
    world.archive(&[order("b", 1, 1)]).await;
    converter.catch_up().await.unwrap();
    assert_eq!(world.rows(&orders(), &["id"]).await, ["a", "b"]);
    let lake = Lake::new(world.bucket.clone(), BUS);
    assert_eq!(lake.table(&orders()).await.unwrap().position.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_field_appears_old_rows_are_null_and_files_are_not_split() {
    let mut world = World::new().await;
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    world.archive(&[order("a", 1, 1)]).await;
    converter.catch_up().await.unwrap();
    let second = schemas(2, ORDERS_V2);
    let json = br#"{"order_id":"n","ship_to":{"country":"SE"}}"#;
    let payload = second.catalog.json_to_protobuf(ORDER, json).unwrap();
    let new = |id: &str| {
        builder(ORDER, id)
            .protobuf(payload.clone())
            .build()
            .unwrap()
    };
    converter.set_schemas(second);
    world
        .archive(&[order("b", 1, 2), new("n-1"), order("c", 1, 3), new("n-2")])
        .await;
    let progress = converter.catch_up().await.unwrap();
    assert_eq!(progress.files, 2, "one of events, one of orders");
    let table = world.table(&orders()).await.unwrap();
    assert_eq!(table.files().unwrap().len(), 2);
    let schema = format!("{:?}", table.schema().unwrap());
    assert!(schema.contains("country"), "{schema}");
    let rows = world.rows(&orders(), &["id", "payload"]).await;
    assert_eq!(
        rows,
        [
            "a | {order_id: a, cents: 1}",
            "b | {order_id: b, cents: 2, ship_to: null}",
            "c | {order_id: c, cents: 3, ship_to: null}",
            "n-1 | {order_id: n, cents: 0, ship_to: {country: SE}}",
            "n-2 | {order_id: n, cents: 0, ship_to: {country: SE}}",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_schema_leaves_the_column_and_names_both_revisions() {
    let mut world = World::new().await;
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    world.archive(&[order("a", 1, 1)]).await;
    converter.catch_up().await.unwrap();
    converter.set_schemas(schemas(
        4,
        &ORDERS_V1.replace("int64 cents = 2", "string cents = 2"),
    ));
    world.archive(&[order("b", 1, 1)]).await;
    converter.catch_up().await.unwrap();
    let lake = Lake::new(world.bucket.clone(), BUS);
    let state = lake.standing().await.unwrap().state;
    let conflicts = &state.unwrap().types[ORDER].conflicts;
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(
        (conflicts[0].revision_before, conflicts[0].revision),
        (1, 4)
    );
    let rows = world.rows(&orders(), &["id", "decode_error"]).await;
    assert_eq!(rows[0], "a | null");
    assert!(
        rows[1].starts_with("b | ") && rows[1] != "b | null",
        "{rows:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn days_made_anew_have_the_same_rows() {
    let mut world = World::new().await;
    for day in 0..3 {
        world
            .archive(&[
                order(&format!("a{day}"), 9, 1),
                order(&format!("b{day}"), 3, 2),
            ])
            .await;
        world.wait_us(HOUR_US);
        world
            .archive(&[order(&format!("c{day}"), 9, 1), order("a0", 9, 1)])
            .await;
        world.wait_us(23 * HOUR_US);
    }
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    converter.catch_up().await.unwrap();
    let columns = ["id", "position", "ordinal", "time", "source", "subject"];
    for name in [TableName::Events, orders()] {
        let before = world.rows(&name, &columns).await;
        assert_eq!(before.len(), 9);
        let days = Days {
            from: Date::parse("2026-11-22"),
            until: Date::parse("2026-11-23"),
        };
        let rebuilt = converter.rebuild(&name, days).await.unwrap();
        assert_eq!((rebuilt.rows_before, rebuilt.rows), (3, 3));
        assert_eq!(world.rows(&name, &columns).await, before);
        let rebuilt = converter.rebuild(&name, Days::default()).await.unwrap();
        assert_eq!((rebuilt.rows_before, rebuilt.rows), (9, 9));
        assert_eq!(world.rows(&name, &columns).await, before);
    }
    world.archive(&[order("last", 1, 1)]).await;
    converter.catch_up().await.unwrap();
    assert_eq!(world.rows(&orders(), &["id"]).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_runs_and_long_ones_make_the_same_rows() {
    let mut world = World::new().await;
    for n in 0..12 {
        world
            .archive(&[order(&format!("a{n}"), 12 - n, 1), order("again", 1, 1)])
            .await;
    }
    let config = Config {
        run_rows: 3,
        ..Config::default()
    };
    let mut converter = Converter::new(world.ledger.clone(), schemas(1, ORDERS_V1), config);
    let progress = converter.catch_up().await.unwrap();
    assert_eq!((progress.events, progress.typed), (13, 13));
    assert_eq!(world.counts(&[ORDER]).await[ORDER], 13);
    assert!(progress.files > 4);
    assert_eq!(converter.catch_up().await.unwrap().files, 0);
}
