//! A history in memory: two versions of an order, pushes of commits, and all of them as `events`.

use annals_core::{Error, Result};
use annals_sql::datafusion::arrow::array::{
    ArrayRef, AsArray, BinaryArray, Decimal128Array, Int32Array, Int64Array, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use annals_sql::datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type};
use annals_sql::datafusion::arrow::util::pretty::pretty_format_batches;
use annals_sql::datafusion::catalog::{MemTable, TableProvider};
use annals_sql::{
    Engine, EngineConfig, History, Pinned, Question, ScanCounters, Scanned, Summary, TableName,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const POSITION: u64 = 17;

#[derive(Debug, Clone)]
pub(crate) struct Memory {
    tables: BTreeMap<String, Arc<MemTable>>,
}

#[async_trait]
impl History for Memory {
    async fn pin(&self) -> Result<Arc<dyn Pinned>> {
        let counters = ScanCounters::default();
        counters.add_files(2);
        Ok(Arc::new(MemoryPinned {
            tables: self.tables.clone(),
            counters,
        }))
    }
}

#[derive(Debug)]
struct MemoryPinned {
    tables: BTreeMap<String, Arc<MemTable>>,
    counters: ScanCounters,
}

#[async_trait]
impl Pinned for MemoryPinned {
    fn position(&self) -> u64 {
        POSITION
    }

    fn tables(&self) -> Vec<TableName> {
        self.tables
            .keys()
            .map(|n| TableName::new(n.as_str()))
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let found = self.tables.get(name).cloned();
        Ok(found.map(|t| t as Arc<dyn TableProvider>))
    }

    fn scanned(&self) -> Scanned {
        self.counters.now()
    }
}

/// Subject, version, time in seconds, repository, commits.
pub(crate) type Push = (Option<&'static str>, Option<i128>, i64, &'static str, i64);

pub(crate) const PUSHES: [Push; 7] = [
    (Some("repo-1"), Some(1), 100, "annals", 3),
    (Some("repo-1"), Some(10), 90, "annals", 5),
    (Some("repo-1"), Some(9), 110, "annals", 4),
    (Some("repo-2"), None, 50, "docs", 1),
    (Some("repo-2"), None, 60, "docs", 2),
    (None, Some(99), 999, "nobody", 9),
    (Some("repo-3"), Some(1), 70, "site", 7),
];

pub(crate) fn history() -> Memory {
    let pushes = rows(&PUSHES, "vcs.v1.CommitPushed");
    let orders: [Push; 2] = [
        (Some("order-1"), Some(1), 10, "eu", 1),
        (Some("order-2"), Some(1), 20, "us", 2),
    ];
    let mut tables = BTreeMap::new();
    let mut add = |name: &str, batch: RecordBatch| {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        tables.insert(name.to_owned(), Arc::new(table));
    };
    add("vcs.v1.CommitPushed", typed(&pushes));
    add(
        "shop.v1.OrderPlaced",
        typed(&rows(&orders, "shop.v1.OrderPlaced")),
    );
    add(
        "shop.v2.OrderPlaced",
        typed(&rows(&orders, "shop.v2.OrderPlaced")),
    );
    add("events", pushes);
    Memory { tables }
}

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        memory_bytes: 64 << 20,
        threads: 2,
        queries_at_once: 3,
        ..EngineConfig::default()
    }
}

pub(crate) fn engine() -> Engine {
    Engine::new(Arc::new(history()), config()).unwrap()
}

/// All rows of a question.
pub(crate) async fn ask(engine: &Engine, sql: &str) -> Result<(Vec<RecordBatch>, Summary)> {
    engine.query(&Question::new(sql)).await?.collect().await
}

/// The answer as text, a line per row, cells between bars.
pub(crate) async fn lines(engine: &Engine, sql: &str) -> Vec<String> {
    let (batches, _) = ask(engine, sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let rows = text.lines().skip(3).filter(|l| l.starts_with('|'));
    let cells = |l: &str| {
        let cells: Vec<&str> = l.trim_matches('|').split('|').map(str::trim).collect();
        cells.join("|")
    };
    rows.map(cells).collect()
}

pub(crate) async fn error(engine: &Engine, sql: &str) -> Error {
    match ask(engine, sql).await {
        Ok((batches, _)) => panic!("{sql}: answered {batches:?}"),
        Err(error) => error,
    }
}

/// The one number an answer consists of.
pub(crate) async fn number(engine: &Engine, sql: &str) -> i64 {
    let (batches, _) = ask(engine, sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

fn rows(pushes: &[Push], event_type: &str) -> RecordBatch {
    let n = pushes.len();
    let json = |p: &Push| {
        format!(
            r#"{{"repo":"{}","commits":[{},0],"deep":{{"x":true}}}}"#,
            p.3, p.4
        )
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "position",
            Arc::new((0..n as i64).map(Some).collect::<Int64Array>()),
        ),
        ("ordinal", Arc::new(Int32Array::from(vec![0; n]))),
        (
            "id",
            Arc::new(
                (0..n)
                    .map(|i| Some(format!("e-{i}")))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "source",
            Arc::new(StringArray::from(vec!["/service/vcs"; n])),
        ),
        ("type", Arc::new(StringArray::from(vec![event_type; n]))),
        (
            "subject",
            Arc::new(pushes.iter().map(|p| p.0).collect::<StringArray>()),
        ),
        ("time", Arc::new(times(pushes))),
        ("entityversion", Arc::new(versions(pushes))),
        (
            "data",
            Arc::new(BinaryArray::from_iter_values(pushes.iter().map(protobuf))),
        ),
        (
            "json",
            Arc::new(
                pushes
                    .iter()
                    .map(|p| Some(json(p)))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "repo",
            Arc::new(StringArray::from_iter_values(pushes.iter().map(|p| p.3))),
        ),
        (
            "commits",
            Arc::new(Int64Array::from_iter_values(pushes.iter().map(|p| p.4))),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

fn times(pushes: &[Push]) -> TimestampMicrosecondArray {
    let times = pushes.iter().map(|p| p.2 * 1_000_000);
    TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")
}

fn versions(pushes: &[Push]) -> Decimal128Array {
    let versions: Decimal128Array = pushes.iter().map(|p| p.1).collect();
    versions.with_precision_and_scale(20, 0).unwrap()
}

/// `message CommitPushed { string repo = 1; int64 commits = 2; }`
fn protobuf(push: &Push) -> Vec<u8> {
    let mut bytes = vec![0x0a, push.3.len() as u8];
    bytes.extend_from_slice(push.3.as_bytes());
    bytes.extend_from_slice(&[0x10, push.4 as u8]);
    bytes
}

/// The same rows with a nested payload: `payload { repo, commits, author { name, "eMail" } }`.
fn typed(events: &RecordBatch) -> RecordBatch {
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["ann"; events.num_rows()]));
    let author_fields = Fields::from(vec![text("name"), text("eMail")]);
    let author = StructArray::new(author_fields.clone(), vec![Arc::clone(&names), names], None);
    let fields = Fields::from(vec![
        text("repo"),
        Arc::new(Field::new("commits", DataType::Int64, true)),
        Arc::new(Field::new("author", DataType::Struct(author_fields), true)),
    ]);
    let column = |name: &str| Arc::clone(events.column_by_name(name).unwrap());
    let payload: ArrayRef = Arc::new(StructArray::new(
        fields,
        vec![column("repo"), column("commits"), Arc::new(author)],
        None,
    ));
    let mut columns: Vec<(&str, ArrayRef)> = [
        "position",
        "ordinal",
        "id",
        "subject",
        "time",
        "entityversion",
    ]
    .map(|n| (n, column(n)))
    .to_vec();
    columns.push(("payload", payload));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

/// A table of one column of the numbers below `rows`, for questions that are heavy.
pub(crate) fn with_numbers(rows: i64) -> Memory {
    let mut history = history();
    let part = |from: i64| {
        let numbers: ArrayRef = Arc::new((from..rows.min(from + 8192)).collect::<Int64Array>());
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    };
    let parts: Vec<RecordBatch> = (0..rows).step_by(8192).map(part).collect();
    let table = MemTable::try_new(parts[0].schema(), vec![parts]).unwrap();
    history
        .tables
        .insert("big.v1.Number".to_owned(), Arc::new(table));
    history
}
