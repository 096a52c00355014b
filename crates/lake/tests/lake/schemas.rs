//! Schemas that come late, again, or in several revisions at a time.

use crate::world::{BUS, ORDER, ORDERS_V1, ORDERS_V2, World, builder, order, schemas};
use annals_core::Event;
use annals_lake::state::SchemaConflict;
use annals_lake::{Lake, TableName};

fn orders() -> TableName {
    TableName::of_type(ORDER).unwrap()
}

/// An order as a revision's publisher writes it.
fn order_of(proto: &str, id: &str, json: &str) -> Event {
    let catalog = schemas(1, proto).catalog;
    let payload = catalog.json_to_protobuf(ORDER, json.as_bytes()).unwrap();
    builder(ORDER, id).protobuf(payload).build().unwrap()
}

/// The n-th of an import: every other one by a publisher that has the second revision.
fn imported(n: usize, mixed: bool) -> Event {
    let id = format!("o-{n:04}");
    match mixed && n % 2 == 1 {
        true => {
            let json =
                format!(r#"{{"order_id":"{id}","cents":"{n}","ship_to":{{"country":"SE"}}}}"#);
            order_of(ORDERS_V2, &id, &json)
        }
        false => {
            let json = format!(r#"{{"order_id":"{id}","cents":"{n}"}}"#);
            order_of(ORDERS_V1, &id, &json)
        }
    }
}

/// An import of 1,000 events in 20 ledger entries.
async fn import(mixed: bool) -> World {
    let mut world = World::new().await;
    let events: Vec<Event> = (0..1_000).map(|n| imported(n, mixed)).collect();
    for entry in events.chunks(50) {
        world.archive(entry).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn two_revisions_in_turn_make_no_more_files_than_one() {
    let mut files = Vec::new();
    for mixed in [false, true] {
        let world = import(mixed).await;
        let mut converter = world.converter(schemas(2, ORDERS_V2));
        let progress = converter.catch_up().await.unwrap();
        let table = world.table(&orders()).await.unwrap();
        files.push((progress.files, table.files().unwrap().len()));
        let rows = world.rows(&orders(), &["id", "payload"]).await;
        assert_eq!(rows.len(), 1_000);
        let shipped = rows
            .iter()
            .filter(|row| row.contains("ship_to: {country: SE}"));
        assert_eq!(shipped.count(), if mixed { 500 } else { 0 });
    }
    assert_eq!(files[0], files[1]);
    assert_eq!(files[0], (2, 1), "one of all events, one of the type's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_not_known_yet_makes_no_more_files_either() {
    // What the second revision adds is in the archive, and in the table once it is known.
    let world = import(true).await;
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    assert_eq!(converter.catch_up().await.unwrap().files, 2);
    let rows = world.rows(&orders(), &["payload"]).await;
    assert_eq!(rows.len(), 1_000);
    assert!(rows.iter().all(|row| !row.contains("ship_to")));
    converter.set_schemas(schemas(2, ORDERS_V2));
    converter
        .rebuild(&orders(), Default::default())
        .await
        .unwrap();
    let rows = world.rows(&orders(), &["payload"]).await;
    let shipped = rows
        .iter()
        .filter(|row| row.contains("ship_to: {country: SE}"));
    assert_eq!((rows.len(), shipped.count()), (1_000, 500));
    assert_eq!(
        world.table(&orders()).await.unwrap().files().unwrap().len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_pushed_again_changes_nothing() {
    let mut world = World::new().await;
    world.archive(&[order("a", 1, 1)]).await;
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    converter.catch_up().await.unwrap();
    let columns = world.table(&orders()).await.unwrap().schema();
    for revision in [2, 3] {
        converter.set_schemas(schemas(revision, ORDERS_V1));
        assert_eq!(converter.catch_up().await.unwrap().files, 0);
        world.archive(&[order(&format!("b{revision}"), 1, 1)]).await;
        converter.catch_up().await.unwrap();
    }
    let table = world.table(&orders()).await.unwrap();
    assert_eq!(table.schema(), columns);
    assert_eq!(table.version(), Some(2), "a commit for each entry");
    assert_eq!(world.rows(&orders(), &["id"]).await, ["a", "b2", "b3"]);
    assert_eq!(conflicts(&world).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_changes_a_field_and_changes_it_back_keeps_all_rows_and_is_told_of() {
    let changed = ORDERS_V1.replace("int64 cents = 2", "string cents = 2");
    let mut world = World::new().await;
    let mut converter = world.converter(schemas(3, ORDERS_V1));
    let revisions = [
        (3, ORDERS_V1, "5"),
        (5, &changed, "five"),
        (6, ORDERS_V1, "7"),
    ];
    for (revision, proto, cents) in revisions {
        converter.set_schemas(schemas(revision, proto));
        let json = format!(r#"{{"order_id":"o","cents":"{cents}"}}"#);
        let event = order_of(proto, &format!("r{revision}"), &json);
        world.archive(&[event]).await;
        converter.catch_up().await.unwrap();
    }
    let told = [SchemaConflict {
        field: "cents".into(),
        column: "int64".into(),
        changed_to: "string".into(),
        revision_before: 3,
        revision: 5,
    }];
    assert_eq!(conflicts(&world).await, told);
    let expected = [
        "r3 | {order_id: o, cents: 5} | null",
        "r5 | {order_id: o, cents: null, cents_string: five} | null",
        "r6 | {order_id: o, cents: 7, cents_string: null} | null",
    ];
    let columns = ["id", "payload", "decode_error"];
    assert_eq!(world.rows(&orders(), &columns).await, expected);
    // Another converter finds the same columns, and tells of nothing new.
    let more = order_of(ORDERS_V1, "r7", r#"{"order_id":"o","cents":"8"}"#);
    world.archive(&[more]).await;
    let mut converter = world.converter(schemas(6, ORDERS_V1));
    assert_eq!(converter.catch_up().await.unwrap().rebuilt, []);
    assert_eq!(conflicts(&world).await, told);
    assert_eq!(world.rows(&orders(), &columns).await[..3], expected);
}

async fn conflicts(world: &World) -> Vec<SchemaConflict> {
    let lake = Lake::new(world.bucket.clone(), BUS);
    let state = lake.standing().await.unwrap().state;
    state.unwrap().types[ORDER].conflicts.clone()
}
