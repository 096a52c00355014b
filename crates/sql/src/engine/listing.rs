//! `SHOW TABLES` and `DESCRIBE`, answered from names and schemas alone.

use crate::names::Names;
use annals_core::Result;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use std::sync::Arc;

/// How deep fields of fields are listed.
const DEPTH_MAX: usize = 8;
/// Most rows of a description.
const ROWS_MAX: usize = 10_000;

/// One row per table.
pub(super) fn tables(names: &Names) -> Result<RecordBatch> {
    let all = names.all().iter().map(|t| Some(t.as_str()));
    batch(&["table_name"], vec![all.collect()])
}

/// One row per column, and one per field of a nested column, as it is written in a question.
pub(super) fn columns(schema: &Schema) -> Result<RecordBatch> {
    let mut rows = Vec::new();
    for field in schema.fields() {
        describe(field, String::new(), 0, &mut rows);
    }
    let names: StringArray = rows.iter().map(|r| Some(r.name.as_str())).collect();
    let types: StringArray = rows.iter().map(|r| Some(r.data_type.as_str())).collect();
    let nulls: StringArray = rows.iter().map(|r| Some(r.nullable)).collect();
    batch(
        &["column_name", "data_type", "is_nullable"],
        vec![names, types, nulls],
    )
}

struct Row {
    name: String,
    data_type: String,
    nullable: &'static str,
}

fn describe(field: &FieldRef, before: String, depth: usize, rows: &mut Vec<Row>) {
    if rows.len() >= ROWS_MAX {
        return;
    }
    let quoted = match field.name().chars().all(plain) {
        true => field.name().clone(),
        false => format!("\"{}\"", field.name().replace('"', "\"\"")),
    };
    let name = format!("{before}{quoted}");
    rows.push(Row {
        name: name.clone(),
        data_type: type_name(field.data_type()),
        nullable: if field.is_nullable() { "YES" } else { "NO" },
    });
    if let DataType::Struct(fields) = field.data_type()
        && depth < DEPTH_MAX
    {
        for inner in fields {
            describe(inner, format!("{name}."), depth + 1, rows);
        }
    }
}

/// A type in a word or two; a nested one by its kind, its fields follow as rows.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(_) => "struct".to_owned(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("list of {}", type_name(item.data_type()))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => format!(
                "map of {} to {}",
                type_name(fields[0].data_type()),
                type_name(fields[1].data_type())
            ),
            _ => "map".to_owned(),
        },
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".to_owned(),
        DataType::FixedSizeBinary(n) => format!("{n} bytes"),
        DataType::Timestamp(_, Some(zone)) => format!("timestamp {zone}"),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Float32 => "float32".to_owned(),
        DataType::Float64 => "float64".to_owned(),
        other => other.to_string().to_ascii_lowercase(),
    }
}

fn plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

fn batch(names: &[&str], columns: Vec<StringArray>) -> Result<RecordBatch> {
    let fields: Vec<Field> = names
        .iter()
        .map(|n| Field::new(*n, DataType::Utf8, false))
        .collect();
    let columns = columns.into_iter().map(|c| Arc::new(c) as ArrayRef);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect())
        .map_err(|e| crate::failure::internal(e.into()))
}
