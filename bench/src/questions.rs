//! The questions of `sql`: each as we are asked it, and as DuckDB is.

use crate::generate::TYPES;
use crate::replay::events;
use annals_core::Timestamp;

/// Length of the window, of the whole time the events span: 3 minutes of 58.
const WINDOW: f64 = 3.0 / 58.0;
/// Microseconds between two events, and when the first is.
const STEP_US: u64 = 173;
const START_US: u64 = 1_760_000_000_000_000;

/// What a question is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Floor {
    /// Milliseconds.
    Ms(f64),
    /// Times what DuckDB takes.
    Ratio(f64),
}

/// A question; `{source}` and `{id}` stand for an event's, another one every time.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) name: &'static str,
    pub(crate) floor: Floor,
    pub(crate) ours: String,
    /// Ways to ask DuckDB.
    pub(crate) peers: Vec<String>,
}

impl Question {
    fn new(name: &'static str, floor: Floor, sql: impl Into<String>) -> Self {
        let sql = sql.into();
        Self {
            name,
            floor,
            peers: vec![sql.clone()],
            ours: sql,
        }
    }
}

/// A question's text about an event.
pub(crate) fn about(sql: &str, (source, id): &(String, String)) -> String {
    sql.replace("{source}", source).replace("{id}", id)
}

/// All of them.
pub(crate) fn all() -> Vec<Question> {
    let one = format!("\"{}\"", TYPES[0]);
    let newest =
        |columns: &str| format!("SELECT {columns} FROM events ORDER BY time DESC LIMIT 20");
    let text = |table: &str| {
        format!(
            "SELECT '{table}' AS type, count(*) AS n FROM \"{table}\" \
             WHERE payload.item LIKE '%amber-9%'"
        )
    };
    let everywhere: Vec<String> = TYPES.iter().map(|table| text(table)).collect();
    vec![
        Question::new(
            "count by type and day",
            Floor::Ms(50.0),
            "SELECT type, date, count(*) AS n FROM events GROUP BY type, date",
        ),
        Question::new(
            "one event by source and id",
            Floor::Ms(50.0),
            "SELECT * FROM events WHERE source = '{source}' AND id = '{id}'",
        ),
        Question::new(
            "one event by id alone",
            Floor::Ms(50.0),
            "SELECT * FROM events WHERE id = '{id}'",
        ),
        Question::new("window of time of a type", Floor::Ms(30.0), window(&one)),
        latest(&one),
        Question::new(
            "newest 20, four columns",
            Floor::Ms(50.0),
            newest("time, type, subject, id"),
        ),
        Question::new("newest 20, all columns", Floor::Ms(50.0), newest("*")),
        Question::new("text in one type", Floor::Ratio(1.5), text(TYPES[0])),
        Question::new(
            "text in eight types",
            Floor::Ratio(1.5),
            everywhere.join(" UNION ALL "),
        ),
    ]
}

/// In the middle of all there is.
fn window(table: &str) -> String {
    let span_us = events() * STEP_US;
    let length_us = (span_us as f64 * WINDOW) as u64;
    let from_us = START_US + (span_us - length_us) / 2;
    let at = |us: u64| Timestamp::from_microsecond(us.cast_signed()).unwrap_or_default();
    format!(
        "SELECT id, subject, time, payload.place AS place FROM {table} \
         WHERE time >= TIMESTAMPTZ '{}' AND time < TIMESTAMPTZ '{}' AND payload.item = 'amber-9'",
        at(from_us),
        at(from_us + length_us)
    )
}

/// How many entities stand at what. Times are distinct here, so that DuckDB may order by them alone.
fn latest(table: &str) -> Question {
    let by = |newest: &str| {
        format!("SELECT status, count(*) AS n, max(time) AS newest FROM ({newest}) GROUP BY status")
    };
    let name = table.trim_matches('"');
    Question {
        name: "latest of each entity of a type",
        floor: Floor::Ratio(1.5),
        ours: by(&format!(
            "SELECT payload.status AS status, time FROM latest('{name}')"
        )),
        peers: vec![
            by(&format!(
                "SELECT arg_max(payload.status, time) AS status, max(time) AS time \
                 FROM {table} GROUP BY subject"
            )),
            by(&format!(
                "SELECT payload.status AS status, time FROM {table} \
                 QUALIFY row_number() OVER (PARTITION BY subject ORDER BY time DESC) = 1"
            )),
        ],
    }
}
