//! The tour's questions: SQL before anything is converted and after, with the same answers.

use super::figures::Figures;
use super::steps::{Expected, agree};
use crate::exit::{Exit, Failure, Result};
use crate::output::{bytes_text, grouped};
use crate::platform::Parts;
use annals_sql::datafusion::arrow::array::{Array, AsArray};
use annals_sql::datafusion::arrow::datatypes::Int64Type;
use annals_sql::{Question, Summary};
use std::collections::BTreeMap;

/// Of the rows themselves: `count(*)` by type and day is known without reading any.
const BY_TYPE: &str = "SELECT type, count(id) FROM events GROUP BY type";
const BY_SUBJECT: &str =
    "SELECT subject, count(*) FROM events WHERE subject IS NOT NULL GROUP BY subject";

/// Asks of the archive, converts it to tables, and asks the same of them.
pub(super) async fn ask(parts: &Parts, expected: &Expected, figures: &mut Figures) -> Result<()> {
    let (raw, summary) = counts(parts, BY_TYPE).await?;
    check("events by type, of the archive", &raw, &expected.types)?;
    agree(
        "rows of the archive",
        summary.scanned.tail_rows,
        expected.distinct,
    )?;
    figures.events(
        "ask",
        summary.scanned.tail_rows,
        format!("SQL over the archive as it is: {} types counted", raw.len()),
    );
    let progress = parts.converting().catch_up().await?;
    agree("rows of events", progress.events, expected.distinct)?;
    figures.events(
        "convert",
        progress.events,
        format!(
            "{} rows of events, {} of their types, in {} files",
            grouped(progress.events),
            grouped(progress.typed),
            progress.files
        ),
    );
    let (types, _) = counts(parts, BY_TYPE).await?;
    check("events by type, of the lake", &types, &expected.types)?;
    let (subjects, summary) = counts(parts, BY_SUBJECT).await?;
    check("events by subject", &subjects, &expected.subjects)?;
    agree("rows not in the lake", summary.scanned.tail_rows, 0)?;
    figures.events(
        "ask",
        expected.distinct,
        format!(
            "the same of the tables: {} subjects counted, {} read",
            subjects.len(),
            bytes_text(summary.scanned.bytes)
        ),
    );
    Ok(())
}

/// Asks once more, when every event was published twice.
pub(super) async fn ask_again(parts: &Parts, types: &BTreeMap<String, u64>) -> Result<()> {
    let (counted, _) = counts(parts, BY_TYPE).await?;
    check("events by type after publishing twice", &counted, types)
}

/// The answer to a question for text and a count.
async fn counts(parts: &Parts, sql: &str) -> Result<(BTreeMap<String, u64>, Summary)> {
    let answer = parts.engine().query(&Question::new(sql)).await?;
    let (batches, summary) = answer.collect().await?;
    let mut counts = BTreeMap::new();
    for batch in batches {
        let names = annals_sql::datafusion::arrow::compute::cast(
            batch.column(0),
            &annals_sql::datafusion::arrow::datatypes::DataType::Utf8,
        )
        .map_err(|e| Failure::new(Exit::Failed, format!("the answer: {e}")))?;
        let names = names.as_string::<i32>();
        let numbers = batch.column(1).as_primitive::<Int64Type>();
        for row in 0..names.len() {
            let count = u64::try_from(numbers.value(row)).unwrap_or(0);
            counts.insert(names.value(row).to_owned(), count);
        }
    }
    Ok((counts, summary))
}

fn check(
    what: &str,
    found: &BTreeMap<String, u64>,
    expected: &BTreeMap<String, u64>,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!("{what}: {found:?}, not {expected:?}");
    Err(Failure::new(Exit::Difference, message))
}
