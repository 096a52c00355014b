//! Questions to a history whose events lie in lake files, in ledger entries that are not converted
//! yet, and in an archiver's open batch: each event is there once, wherever it lies.

#[path = "../../../lake/tests/lake/world.rs"]
#[allow(dead_code, reason = "shared with the lake's own tests")]
mod world;

use annals_archive::Position;
use annals_archive::reader::{Archive, Batch, ReadOptions};
use annals_core::schema::Catalog;
use annals_core::{Result, Selection};
use annals_lake::TableName;
use annals_lake::converter::Schemas;
use annals_sql::render::{Format, Renderer};
use annals_sql::tables::{LakeHistory, Mending, OpenBatch, TypeCatalog};
use annals_sql::{Engine, EngineConfig, Question, Summary};
use async_trait::async_trait;
use std::sync::Arc;
use world::{BUS, HOUR_US, ORDER, ORDERS_V1, ORDERS_V2, World, builder, order, schemas};

#[derive(Debug)]
struct Fixed(Schemas);

impl TypeCatalog for Fixed {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.clone()
    }
}

/// The records of a ledger entry, as if they were in no entry yet.
#[derive(Debug)]
struct OfEntry(Batch);

#[async_trait]
impl OpenBatch for OfEntry {
    async fn open(&self) -> Result<Batch> {
        Ok(self.0.clone())
    }
}

fn engine(world: &World, schemas: Schemas, open: Option<Batch>) -> Engine {
    let open = open.map(|batch| Arc::new(OfEntry(batch)) as Arc<dyn OpenBatch>);
    let history = LakeHistory::new(world.ledger.clone(), Arc::new(Fixed(schemas)), open);
    Engine::new(Arc::new(history), EngineConfig::default()).unwrap()
}

async fn ask(engine: &Engine, sql: &str) -> (String, Summary) {
    let answer = engine.query(&Question::new(sql)).await;
    let mut answer = answer.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut renderer = Renderer::new(Format::Csv, answer.schema()).unwrap();
    let mut out = Vec::new();
    while let Some(batch) = answer.next().await {
        let batch = batch.unwrap_or_else(|e| panic!("{sql}: {e}"));
        renderer.batch(batch, &mut out).unwrap();
    }
    renderer.finish(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap().replace("\r\n", "\n");
    let rows = text.split_once('\n').map_or("", |(_, rows)| rows);
    (rows.trim_end().to_owned(), answer.summary())
}

async fn check(engine: &Engine, sql: &str, expected: &str) -> Summary {
    let (rows, summary) = ask(engine, sql).await;
    assert_eq!(rows, expected, "{sql}");
    summary
}

#[tokio::test(flavor = "multi_thread")]
async fn converted_archived_and_open_events_are_one_table() {
    let mut world = World::new().await;
    world.archive(&[order("a", 1, 1), order("b", 2, 2)]).await;
    world.convert(ORDERS_V1).await;
    world.archive(&[order("c", 3, 3), order("b", 2, 2)]).await;
    // The open batch: made as an entry of another archive that has the same ones before it.
    let mut other = World::new().await;
    other.archive(&[order("a", 1, 1)]).await;
    other.archive(&[order("x", 1, 1)]).await;
    other
        .archive(&[order("d", 4, 4), order("a", 1, 1), order("d", 4, 4)])
        .await;
    let options = ReadOptions {
        from_position: Position(3),
        duplicates: true,
        ..ReadOptions::default()
    };
    let archive = Archive::at(other.ledger.clone());
    let mut events = archive.select(&Selection::all(), &options).await.unwrap();
    let open = events.next().await.unwrap();
    let engine = engine(&world, schemas(1, ORDERS_V1), open);
    let summary = check(&engine, "SELECT id FROM events ORDER BY id", "a\nb\nc\nd").await;
    assert_eq!((summary.position, summary.scanned.tail_rows), (2, 2));
    check(
        &engine,
        "SELECT id, payload.cents FROM shop.v1.Order ORDER BY id",
        "a,1\nb,2\nc,3\nd,4",
    )
    .await;
    check(&engine, "SELECT count(*) FROM events", "4").await;
    check(
        &engine,
        "SELECT count(*) FROM shop.v1.Order WHERE date = '2026-11-21'",
        "4",
    )
    .await;
    check(
        &engine,
        "SELECT subject, payload.cents FROM latest('shop.v1.Order') ORDER BY subject",
        "o-0,3\no-1,4\no-2,2",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_without_a_schema_is_asked_by_its_name_too() {
    let mut world = World::new().await;
    let json = |id: &str| {
        builder("mail.v1.Sent", id)
            .json(br#"{"to":{"name":"ada"}}"#)
            .build()
            .unwrap()
    };
    world.archive(&[json("m-1"), order("a", 1, 1)]).await;
    world.convert(ORDERS_V1).await;
    world.archive(&[json("m-2")]).await;
    let engine = engine(&world, schemas(1, ORDERS_V1), None);
    let sql = "SELECT id, json_get_str(payload_json, 'to', 'name') FROM mail.v1.Sent ORDER BY id";
    check(&engine, sql, "m-1,ada\nm-2,ada").await;
    check(&engine, "SELECT count(*) FROM shop.v1.Refund", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_that_can_matter_are_opened() {
    let mut world = World::new().await;
    for n in 0..6_u32 {
        world
            .archive(&[order(&format!("a{n}"), i64::from(n) * 100, 1)])
            .await;
        world.convert(ORDERS_V1).await;
        world.wait_us(HOUR_US);
    }
    let engine = engine(&world, schemas(1, ORDERS_V1), None);
    let by_time = "SELECT id FROM events WHERE time >= '1970-01-01T00:03:00Z' AND time < '1970-01-01T00:04:00Z'";
    assert_eq!(check(&engine, by_time, "a2").await.scanned.files, 1);
    let by_position = "SELECT id FROM shop.v1.Order WHERE position = 5";
    assert_eq!(check(&engine, by_position, "a4").await.scanned.files, 1);
    let by_date = "SELECT count(id) FROM events WHERE date = '2026-11-22'";
    assert_eq!(check(&engine, by_date, "4").await.scanned.files, 4);
    let by_type = "SELECT count(id) FROM events WHERE type = 'zoo.v1.Fed'";
    assert_eq!(check(&engine, by_type, "0").await.scanned.files, 0);
    assert_eq!(
        check(&engine, "SELECT count(id) FROM events", "6")
            .await
            .scanned
            .files,
        6
    );
}

/// Events on two days: converted, archived only, twice, and in no ledger entry yet.
async fn everywhere() -> (World, Engine) {
    let mut world = World::new().await;
    let json = |id: &str| {
        let mail = builder("mail.v1.Sent", id);
        mail.json(b"{}").build().unwrap()
    };
    world
        .archive(&[order("a", 1, 1), json("j"), order("b", 2, 2)])
        .await;
    world.wait_us(24 * HOUR_US);
    world.archive(&[order("c", 3, 3), order("a", 1, 1)]).await;
    world.convert(ORDERS_V1).await;
    world.archive(&[order("d", 4, 4), json("m")]).await;
    let mut other = World::new().await;
    for _ in 0..3 {
        other.archive(&[order("x", 1, 1)]).await;
    }
    other.wait_us(24 * HOUR_US);
    other
        .archive(&[order("e", 5, 5), order("a", 1, 1), json("n"), json("n")])
        .await;
    let options = ReadOptions {
        from_position: Position(4),
        duplicates: true,
        ..ReadOptions::default()
    };
    let archive = Archive::at(other.ledger.clone());
    let mut events = archive.select(&Selection::all(), &options).await.unwrap();
    let open = events.next().await.unwrap();
    let engine = engine(&world, schemas(1, ORDERS_V1), open);
    (world, engine)
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_by_type_and_day_are_those_of_the_rows_and_read_none() {
    let (_world, engine) = everywhere().await;
    for (sql, same) in [
        ("SELECT count(*) AS n FROM events", ""),
        (
            "SELECT 1 + count(1) AS n FROM events HAVING count(*) > 3",
            "",
        ),
        (
            "SELECT type, date, count(*) AS n FROM events GROUP BY type, date",
            " ORDER BY 1, 2",
        ),
        (
            "SELECT date, count(*) AS n, type FROM events GROUP BY 1, 3 HAVING count(*) > 1",
            " ORDER BY 1, 3",
        ),
        (
            "SELECT e.type AS t, count(*) AS n FROM events e WHERE date > '2026-11-21' GROUP BY e.type",
            " ORDER BY 1",
        ),
        (
            "SELECT count(*) AS n FROM events WHERE type LIKE 'mail.%' AND date IS NOT NULL",
            "",
        ),
        (
            "SELECT count(*) AS n FROM events WHERE type = 'no.such.Type'",
            "",
        ),
        (
            "SELECT date_trunc('month', date) AS m, count(*) AS n FROM events GROUP BY 1",
            " ORDER BY 1",
        ),
        (
            "SELECT split_part(t, '.', 1) AS p, count(*) AS n FROM (SELECT type AS t, id, date FROM events) GROUP BY 1",
            " ORDER BY 1",
        ),
        (
            "SELECT date, count(*) AS n FROM shop.v1.Order GROUP BY date",
            " ORDER BY 1",
        ),
        (
            "SELECT count(*) AS n FROM shop.v1.Order WHERE date = '2026-11-21'",
            "",
        ),
        ("SELECT count(*) AS n FROM mail.v1.Sent", ""),
        (
            "SELECT type, count(*) AS n FROM events GROUP BY ROLLUP(type)",
            " ORDER BY 1 NULLS LAST",
        ),
        (
            "SELECT count(*) AS n FROM events WHERE date = (SELECT max(date) FROM events)",
            "",
        ),
    ] {
        let (known, summary) = ask(&engine, &format!("{sql}{same}")).await;
        // The same of the rows themselves.
        let rows = sql
            .replace("count(*)", "count(id)")
            .replace("count(1)", "count(id)");
        let (counted, _) = ask(&engine, &format!("{rows}{same}")).await;
        assert_eq!(known, counted, "{sql}");
        let scans = sql.contains("max(date)");
        let read = summary.scanned.files + summary.scanned.tail_rows;
        assert_eq!(read > 0, scans, "{sql}");
    }
    // What depends on more than type and day is counted.
    for (sql, expected) in [
        ("SELECT count(*) FROM events WHERE id = 'a'", "1"),
        ("SELECT count(DISTINCT type) FROM events", "2"),
        (
            "SELECT count(*) FILTER (WHERE type = 'mail.v1.Sent') FROM events",
            "3",
        ),
        ("SELECT count(*) FROM events WHERE random() < 2", "8"),
        ("SELECT count(*), max(id) FROM events", "8,n"),
        (
            "SELECT count(*) FROM (SELECT type FROM events LIMIT 3)",
            "3",
        ),
        (
            "SELECT count(*) FROM events a JOIN events b ON a.type = b.type",
            "34",
        ),
    ] {
        check(&engine, sql, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_looked_up_wherever_their_events_lie() {
    let (_world, engine) = everywhere().await;
    let source = ask(&engine, "SELECT min(source) FROM events").await.0;
    for (filter, expected, files) in [
        ("id = 'a'", "1|shop.v1.Order|a", 1),
        ("'c' = id", "2|shop.v1.Order|c", 1),
        (
            "id IN ('c', 'd', 'zz')",
            "2|shop.v1.Order|c 3|shop.v1.Order|d",
            1,
        ),
        (
            "id IN ('b', 'c', 'd', 'e', 'n', 'zz')",
            "1|shop.v1.Order|b 2|shop.v1.Order|c 3|shop.v1.Order|d 4|mail.v1.Sent|n 4|shop.v1.Order|e",
            2,
        ),
        ("id = 'd'", "3|shop.v1.Order|d", 0),
        ("id = 'e'", "4|shop.v1.Order|e", 0),
        ("id = 'zz'", "", 0),
        ("id = ''", "", 2),
        (
            "(id = 'c' OR id = 'd') AND type = 'shop.v1.Order'",
            "2|shop.v1.Order|c 3|shop.v1.Order|d",
            1,
        ),
        ("id = 'a' AND id = 'b'", "", 0),
        (
            "id = 'c' OR type = 'mail.v1.Sent'",
            "1|mail.v1.Sent|j 2|shop.v1.Order|c 3|mail.v1.Sent|m 4|mail.v1.Sent|n",
            2,
        ),
        ("source = '/no/such' AND id = 'a'", "", 0),
        (
            "id = 'b' AND source IN ('/no/such', '$source')",
            "1|shop.v1.Order|b",
            1,
        ),
    ] {
        let filter = filter.replace("$source", &source);
        let sql = format!(
            "SELECT string_agg(row, ' ' ORDER BY row) FROM (SELECT concat_ws('|', position, type, id) AS row              FROM events WHERE {filter})"
        );
        let summary = check(&engine, &sql, expected).await;
        assert_eq!(summary.scanned.files, files, "{filter}");
    }
    let typed =
        "SELECT id, payload.cents FROM shop.v1.Order WHERE id IN ('a', 'd', 'e') ORDER BY id";
    check(&engine, typed, "a,1\nd,4\ne,5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_field_is_there_before_anything_of_it_is_converted() {
    let mut world = World::new().await;
    world.archive(&[order("a", 1, 1)]).await;
    world.convert(ORDERS_V1).await;
    let second = schemas(2, ORDERS_V2);
    let json = br#"{"order_id":"n","ship_to":{"country":"SE"}}"#;
    let payload = second.catalog.json_to_protobuf(ORDER, json).unwrap();
    world
        .archive(&[builder(ORDER, "n").protobuf(payload).build().unwrap()])
        .await;
    let sql = "SELECT id, payload.ship_to.country FROM shop.v1.Order ORDER BY id";
    check(&engine(&world, second.clone(), None), sql, "a,\nn,SE").await;
    world.converter(second.clone()).catch_up().await.unwrap();
    check(&engine(&world, second, None), sql, "a,\nn,SE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_read_from_the_archive_and_others_go_on() {
    let mut world = World::new().await;
    for n in 0..3_u32 {
        world.archive(&[order(&format!("a{n}"), 1, 1)]).await;
        world.convert(ORDERS_V1).await;
    }
    let name = TableName::of_type(ORDER).unwrap();
    let log = format!("{}/_delta_log/00000000000000000001.json", name.folder(BUS));
    world.bucket.put(&log, "{".into()).await.unwrap();
    let engine = engine(&world, schemas(1, ORDERS_V1), None);
    let summary = check(&engine, "SELECT count(id) FROM shop.v1.Order", "3").await;
    assert_eq!(summary.scanned.tail_rows, 3);
    let summary = check(&engine, "SELECT count(id) FROM events", "3").await;
    assert_eq!(summary.scanned.tail_rows, 0);
}

/// Remembers what it is told of.
#[derive(Debug, Default)]
struct Told(parking_lot::Mutex<Vec<TableName>>);

impl Mending for Told {
    fn mend(&self, tables: Vec<TableName>) {
        self.0.lock().extend(tables);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_data_file_is_told_of_and_the_archive_is_read_until_it_is_made_anew() {
    for damage in ["", "PAR1", "missing", "cut", "middle"] {
        let mut world = World::new().await;
        for n in 0..3_i64 {
            let orders: Vec<_> = (0..50).map(|i| order(&format!("{n}-{i}"), i, 1)).collect();
            world.archive(&orders).await;
            world.convert(ORDERS_V1).await;
            world.wait_us(24 * HOUR_US);
        }
        let name = TableName::of_type(ORDER).unwrap();
        let table = world.table(&name).await.unwrap();
        let path = format!("{}/{}", table.folder(), table.files().unwrap()[1].path);
        let whole = world.bucket.get(&path).await.unwrap();
        match damage {
            "missing" => world.bucket.delete(&path).await.unwrap(),
            "cut" => {
                let cut = whole.slice(..whole.len() / 2);
                world.bucket.put(&path, cut).await.unwrap();
            }
            // The data pages, not what describes them.
            "middle" => {
                let mut bytes = whole.to_vec();
                let end = bytes.len() / 2;
                bytes[4..end].fill(0xa5);
                world.bucket.put(&path, bytes.into()).await.unwrap();
            }
            text => world.bucket.put(&path, text.into()).await.unwrap(),
        }
        let told = Arc::new(Told::default());
        let history = LakeHistory::new(
            world.ledger.clone(),
            Arc::new(Fixed(schemas(1, ORDERS_V1))),
            None,
        );
        let history = history.mended_by(told.clone());
        let engine = Engine::new(Arc::new(history), EngineConfig::default()).unwrap();
        let sql = "SELECT count(id), sum(payload.cents) FROM shop.v1.Order";
        let summary = check(&engine, sql, "150,150").await;
        assert_eq!(summary.scanned.tail_rows, 150, "{damage}");
        assert_eq!(
            told.0.lock().as_slice(),
            std::slice::from_ref(&name),
            "{damage}"
        );
        check(&engine, sql, "150,150").await;
        check(&engine, "SELECT count(id) FROM events", "150").await;
        assert_eq!(told.0.lock().len(), 1, "{damage}");

        let mended = world
            .converter(schemas(1, ORDERS_V1))
            .mend(&name)
            .await
            .unwrap();
        assert_eq!(
            (
                mended.files,
                mended.damage.len(),
                mended.days.len(),
                mended.rows
            ),
            (3, 1, 1, 50),
            "{damage}"
        );
        let summary = check(&engine, sql, "150,150").await;
        assert_eq!(summary.scanned.tail_rows, 0, "{damage}");
        let again = world
            .converter(schemas(1, ORDERS_V1))
            .mend(&name)
            .await
            .unwrap();
        assert_eq!((again.files, again.damage.len()), (3, 0), "{damage}");
        check(&engine, sql, "150,150").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_events_are_converted_every_question_sees_each_once() {
    let mut world = World::new().await;
    let mut converter = world.converter(schemas(1, ORDERS_V1));
    let engine = Arc::new(engine(&world, schemas(1, ORDERS_V1), None));
    for n in 0..12_u32 {
        world
            .archive(&[order(&format!("a{n}"), 1, 1), order(&format!("b{n}"), 2, 2)])
            .await;
        let asked = engine.clone();
        let asking = tokio::spawn(async move {
            let sql = "SELECT (SELECT count(id) FROM events) AS a, (SELECT count(DISTINCT id) FROM events) AS b, \
                       (SELECT count(id) FROM shop.v1.Order) AS c, (SELECT count(*) FROM events) AS d";
            ask(&asked, sql).await
        });
        converter.catch_up().await.unwrap();
        let (rows, summary) = asking.await.unwrap();
        let count = summary.position * 2;
        assert_eq!(rows, format!("{count},{count},{count},{count}"));
        assert!(summary.position > u64::from(n));
    }
}
