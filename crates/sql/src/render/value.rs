//! One value as JSON or CSV.
//!
//! Numbers of any size are JSON numbers with all their digits, as Postgres and DuckDB write them;
//! NaN and infinities, which JSON lacks, are the strings Postgres and Protobuf use.

use super::failed;
use annals_core::{Result, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::types::{
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use std::io::Write as _;

/// A column's name as a JSON key, with its colon.
pub(super) fn key(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 3);
    quoted(name, &mut out);
    out.push(b':');
    out
}

/// A row as a JSON object.
pub(super) fn object(
    keys: &[Vec<u8>],
    columns: &[ArrayRef],
    row: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    out.push(b'{');
    for (i, (key, column)) in keys.iter().zip(columns).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key);
        json(column, row, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// The header of a CSV file.
pub(super) fn csv_header(schema: &Schema, out: &mut Vec<u8>) {
    for (i, field) in schema.fields().iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        csv_cell(field.name(), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// A row of a CSV file: null is an empty cell, empty text is two quotes.
pub(super) fn csv_row(columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<()> {
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if let Some(text) = text(column, row)? {
            csv_cell(&text, out);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// A value as text without quotes, nested ones as JSON; `None` for null.
pub(super) fn text(array: &dyn Array, row: usize) -> Result<Option<String>> {
    if is_null(array, row) {
        return Ok(None);
    }
    let plain = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        DataType::Utf8View => array.as_string_view().value(row),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let at = dictionary.normalized_keys()[row];
            return text(dictionary.values(), at);
        }
        other => {
            let mut out = Vec::new();
            json(array, row, &mut out)?;
            let quoted = out.first() == Some(&b'"') && !other.is_nested();
            let bytes = match quoted {
                true => out[1..out.len() - 1].to_vec(),
                false => out,
            };
            return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    };
    Ok(Some(plain.to_owned()))
}

fn csv_cell(text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() && !text.contains(['"', ',', '\r', '\n']) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for (i, part) in text.split('"').enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}

fn is_null(array: &dyn Array, row: usize) -> bool {
    array.data_type() == &DataType::Null || array.is_null(row)
}

fn json(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
    if is_null(array, row) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    macro_rules! number {
        ($type:ty) => {
            _ = write!(out, "{}", array.as_primitive::<$type>().value(row))
        };
    }
    macro_rules! decimal {
        ($type:ty) => {
            out.extend_from_slice(
                array
                    .as_primitive::<$type>()
                    .value_as_string(row)
                    .as_bytes(),
            )
        };
    }
    match array.data_type() {
        DataType::Boolean => _ = write!(out, "{}", array.as_boolean().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => float(
            f64::from(array.as_primitive::<Float16Type>().value(row)),
            out,
        ),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            match value.is_finite() {
                // Its own shortest digits: 0.1, not 0.10000000149011612.
                true => _ = serde_json::to_writer(out, &value),
                false => float(f64::from(value), out),
            }
        }
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal32(..) => decimal!(Decimal32Type),
        DataType::Decimal64(..) => decimal!(Decimal64Type),
        DataType::Decimal128(..) => decimal!(Decimal128Type),
        DataType::Decimal256(..) => decimal!(Decimal256Type),
        DataType::Utf8 => quoted(array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => quoted(array.as_string::<i64>().value(row), out),
        DataType::Utf8View => quoted(array.as_string_view().value(row), out),
        DataType::Binary => base64(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => base64(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => base64(array.as_binary_view().value(row), out),
        DataType::FixedSizeBinary(_) => base64(array.as_fixed_size_binary().value(row), out),
        DataType::Timestamp(unit, zone) => timestamp(array, row, *unit, zone.is_some(), out)?,
        _ => return nested(array, row, out),
    }
    Ok(())
}

fn nested(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
    match array.data_type() {
        DataType::Struct(fields) => {
            out.push(b'{');
            for (i, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                quoted(field.name(), out);
                out.push(b':');
                json(column, row, out)?;
            }
            out.push(b'}');
            Ok(())
        }
        DataType::List(_) => items(&array.as_list::<i32>().value(row), out),
        DataType::LargeList(_) => items(&array.as_list::<i64>().value(row), out),
        DataType::FixedSizeList(..) => items(&array.as_fixed_size_list().value(row), out),
        DataType::ListView(_) => items(&array.as_list_view::<i32>().value(row), out),
        DataType::LargeListView(_) => items(&array.as_list_view::<i64>().value(row), out),
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            out.push(b'{');
            for i in 0..entries.len() {
                if i > 0 {
                    out.push(b',');
                }
                quoted(&text(keys, i)?.unwrap_or_default(), out);
                out.push(b':');
                json(values, i, out)?;
            }
            out.push(b'}');
            Ok(())
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            json(dictionary.values(), dictionary.normalized_keys()[row], out)
        }
        _ => displayed(array, row, out),
    }
}

fn items(list: &ArrayRef, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'[');
    for i in 0..list.len() {
        if i > 0 {
            out.push(b',');
        }
        json(list, i, out)?;
    }
    out.push(b']');
    Ok(())
}

fn timestamp(
    array: &dyn Array,
    row: usize,
    unit: TimeUnit,
    zone: bool,
    out: &mut Vec<u8>,
) -> Result<()> {
    let instant = match unit {
        TimeUnit::Second => {
            Timestamp::from_second(array.as_primitive::<TimestampSecondType>().value(row))
        }
        TimeUnit::Millisecond => {
            Timestamp::from_millisecond(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        TimeUnit::Microsecond => {
            Timestamp::from_microsecond(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        TimeUnit::Nanosecond => Timestamp::from_nanosecond(i128::from(
            array.as_primitive::<TimestampNanosecondType>().value(row),
        )),
    };
    // Outside the years of RFC 3339 Arrow's own words are all there is.
    let Ok(instant) = instant else {
        return displayed(array, row, out);
    };
    let digits = match instant.subsec_nanosecond() % 1000 {
        0 => 6,
        _ => 9,
    };
    let text = format!("{instant:.digits$}");
    let text = match zone {
        true => text.as_str(),
        false => text.trim_end_matches('Z'),
    };
    quoted(text, out);
    Ok(())
}

/// Dates, times and intervals: ISO 8601, as Arrow displays them.
fn displayed(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<()> {
    let options = FormatOptions::default().with_duration_format(DurationFormat::ISO8601);
    let formatter = ArrayFormatter::try_new(array, &options).map_err(failed)?;
    let text = formatter.value(row).try_to_string().map_err(failed)?;
    quoted(&text, out);
    Ok(())
}

fn float(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        let _ = serde_json::to_writer(out, &value);
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value > 0.0 {
        out.extend_from_slice(b"\"Infinity\"");
    } else {
        out.extend_from_slice(b"\"-Infinity\"");
    }
}

fn quoted(text: &str, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let _ = write!(out, "\"{}\"", STANDARD.encode(bytes));
}
