//! Every type in every format.

use super::*;
use datafusion::arrow::array::types::Int32Type;
use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int64Array, ListArray, MapBuilder, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field};
use std::sync::Arc;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

fn render(format: Format, batches: &[RecordBatch]) -> String {
    let mut renderer = Renderer::new(format, &batches[0].schema()).unwrap();
    let mut out = Vec::new();
    for batch in batches {
        renderer.batch(batch.clone(), &mut out).unwrap();
    }
    renderer.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json_of(array: ArrayRef) -> String {
    let line = render(Format::JsonLines, &[batch(vec![("v", array)])]);
    let line = line.lines().next().unwrap();
    line[5..line.len() - 1].to_owned()
}

#[test]
fn every_type_has_its_json() {
    let map = {
        let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        builder.keys().append_value("k\"1");
        builder.values().append_null();
        builder.append(true).unwrap();
        builder.finish()
    };
    let inner: ArrayRef = Arc::new(StringArray::from(vec!["b"]));
    let field = Arc::new(Field::new("a", DataType::Utf8, true));
    let dictionary: DictionaryArray<Int32Type> = vec!["x"].into_iter().collect();
    let us = 1_700_000_000_123_456_i64;
    let cases: Vec<(ArrayRef, &str)> = vec![
        (Arc::new(BooleanArray::from(vec![true])), "true"),
        (
            Arc::new(Int64Array::from(vec![i64::MIN])),
            "-9223372036854775808",
        ),
        (
            Arc::new(UInt64Array::from(vec![u64::MAX])),
            "18446744073709551615",
        ),
        (Arc::new(Float32Array::from(vec![0.1])), "0.1"),
        (Arc::new(Float64Array::from(vec![f64::NAN])), "\"NaN\""),
        (
            Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])),
            "\"-Infinity\"",
        ),
        (Arc::new(Float64Array::from(vec![1e300])), "1e+300"),
        (
            Arc::new(
                Decimal128Array::from(vec![-12345])
                    .with_precision_and_scale(20, 2)
                    .unwrap(),
            ),
            "-123.45",
        ),
        (
            Arc::new(StringArray::from(vec!["a\"\n\u{1}é"])),
            "\"a\\\"\\n\\u0001é\"",
        ),
        (
            Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])),
            "\"AP8=\"",
        ),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC")),
            "\"2023-11-14T22:13:20.123456Z\"",
        ),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![0])),
            "\"1970-01-01T00:00:00.000000\"",
        ),
        (
            Arc::new(TimestampNanosecondArray::from(vec![1]).with_timezone("+00:00")),
            "\"1970-01-01T00:00:00.000000001Z\"",
        ),
        (
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1), None]),
            ])),
            "[1,null]",
        ),
        (
            Arc::new(StructArray::from(vec![(field, inner)])),
            "{\"a\":\"b\"}",
        ),
        (Arc::new(map), "{\"k\\\"1\":null}"),
        (Arc::new(dictionary), "\"x\""),
        (Arc::new(StringArray::from(vec![None::<&str>])), "null"),
    ];
    for (array, expected) in cases {
        let data_type = array.data_type().clone();
        let got = json_of(array);
        assert_eq!(got, expected, "{data_type}");
        serde_json::from_str::<serde_json::Value>(&got).unwrap();
    }
}

#[test]
fn a_json_array_is_one_whether_of_many_batches_or_none() {
    let one = batch(vec![("n", Arc::new(Int64Array::from(vec![1, 2])))]);
    let text = render(Format::Json, &[one.clone(), one.clone()]);
    let parsed: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed.len(), 4);
    assert_eq!(render(Format::Json, &[one.slice(0, 0)]), "[]\n");
}

#[test]
fn csv_quotes_what_must_be_and_tells_null_from_empty() {
    let values = vec![
        Some("plain"),
        Some(""),
        None,
        Some("a,\"b\"\r\n"),
        Some("=1+1"),
    ];
    let numbers = Int64Array::from(vec![1, 2, 3, 4, 5]);
    let rows = batch(vec![
        ("a,b", Arc::new(StringArray::from(values))),
        ("n", Arc::new(numbers)),
    ]);
    let expected = "\"a,b\",n\r\nplain,1\r\n\"\",2\r\n,3\r\n\"a,\"\"b\"\"\r\n\",4\r\n=1+1,5\r\n";
    assert_eq!(render(Format::Csv, std::slice::from_ref(&rows)), expected);
    assert_eq!(render(Format::Csv, &[rows.slice(0, 0)]), "\"a,b\",n\r\n");
}

#[test]
fn a_table_is_aligned_and_cannot_steer_the_terminal() {
    let rows = batch(vec![
        (
            "name",
            Arc::new(StringArray::from(vec!["a\u{1b}[2Jb", "c"])),
        ),
        ("n", Arc::new(Int64Array::from(vec![1, 200]))),
    ]);
    let expected = [
        " name        |   n",
        "-------------+-----",
        " a\\u{1b}[2Jb |   1",
        " c           | 200",
        "(2 rows)",
    ];
    let text = render(Format::Table, &[rows]);
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert!(!text.contains('\u{1b}'));
    let wide = batch(vec![(
        "w",
        Arc::new(StringArray::from(vec!["x".repeat(10_000)])),
    )]);
    let text = render(Format::Table, &[wide]);
    assert!(text.lines().all(|l| l.chars().count() <= 82), "{text}");
    assert!(text.contains('…'));
}

#[test]
fn arrow_is_read_back_by_arrow() {
    let rows = batch(vec![("n", Arc::new(Int64Array::from(vec![1, 2, 3])))]);
    let mut renderer = Renderer::new(Format::Arrow, &rows.schema()).unwrap();
    let mut out = Vec::new();
    renderer.batch(rows.clone(), &mut out).unwrap();
    renderer.batch(rows.clone(), &mut out).unwrap();
    renderer.finish(&mut out).unwrap();
    let reader = arrow_ipc::reader::StreamReader::try_new(out.as_slice(), None).unwrap();
    let read: Vec<RecordBatch> = reader.map(|b| b.unwrap()).collect();
    assert_eq!(read, vec![rows.clone(), rows]);
}

#[test]
fn a_format_is_known_by_name() {
    for (name, format) in [
        ("jsonl", Format::JsonLines),
        ("json", Format::Json),
        ("csv", Format::Csv),
        ("arrow", Format::Arrow),
        ("table", Format::Table),
    ] {
        assert_eq!(name.parse::<Format>().unwrap(), format);
    }
    assert!("xml".parse::<Format>().is_err());
}
