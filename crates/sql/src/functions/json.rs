//! `json_get` and its kin, over JSON as text. What is no JSON, or not there, is null.

use super::json_path::{self, Step};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Array, Int64Builder,
    StringArray, StringBuilder,
};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// Most steps of a path.
const STEPS_MAX: usize = 64;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        ("json_get", Gives::Json),
        ("json_get_str", Gives::Text),
        ("json_get_int", Gives::Int),
        ("json_get_float", Gives::Float),
        ("json_get_bool", Gives::Bool),
        ("json_length", Gives::Length),
        ("json_contains", Gives::Contains),
    ];
    all.map(|(name, gives)| Arc::new(function(name, gives)))
        .to_vec()
}

/// `->`
pub(super) fn get() -> ScalarUDF {
    function("json_get", Gives::Json)
}

/// `->>`
pub(super) fn get_str() -> ScalarUDF {
    function("json_get_str", Gives::Text)
}

/// `?`
pub(super) fn contains() -> ScalarUDF {
    function("json_contains", Gives::Contains)
}

fn function(name: &'static str, gives: Gives) -> ScalarUDF {
    ScalarUDF::new_from_impl(Json {
        name,
        gives,
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

/// What a function makes of the value its path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Gives {
    Json,
    Text,
    Int,
    Float,
    Bool,
    Length,
    Contains,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Json {
    name: &'static str,
    gives: Gives,
    signature: Signature,
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.gives {
            Gives::Json | Gives::Text => DataType::Utf8,
            Gives::Int | Gives::Length => DataType::Int64,
            Gives::Float => DataType::Float64,
            Gives::Bool | Gives::Contains => DataType::Boolean,
        })
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let needed = 1 + usize::from(self.gives == Gives::Contains);
        if types.len() < needed || types.len() > 1 + STEPS_MAX {
            return plan_err!(
                "{} takes JSON as text and up to {STEPS_MAX} keys",
                self.name
            );
        }
        let coerced = types.iter().enumerate().map(|(i, t)| match t {
            _ if is_text(t) => Ok(DataType::Utf8),
            t if i > 0 && t.is_integer() => Ok(DataType::Int64),
            _ if i == 0 => plan_err!("{} takes JSON as text, not {t}", self.name),
            _ => plan_err!("{} takes text and numbers as keys, not {t}", self.name),
        });
        coerced.collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let keys: Vec<Key> = args.args[1..].iter().map(Key::new).collect::<Result<_>>()?;
        let texts = args.args[0].to_array(rows)?;
        let texts = texts.as_string::<i32>();
        let value = |row: usize| {
            if texts.is_null(row) {
                return None;
            }
            let steps: Option<Vec<Step<'_>>> = keys.iter().map(|k| k.step(row)).collect();
            json_path::find(texts.value(row), steps?)
        };
        let array = self.array(rows, texts, value);
        if all_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &array, 0,
            )?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

impl Json {
    fn array<'a>(
        &self,
        rows: usize,
        texts: &StringArray,
        value: impl Fn(usize) -> Option<&'a str>,
    ) -> ArrayRef {
        match self.gives {
            Gives::Json => text(rows, |row| value(row).map(Into::into)),
            Gives::Text => text(rows, |row| value(row).and_then(json_path::plain)),
            Gives::Int => {
                let mut out = Int64Builder::with_capacity(rows);
                (0..rows).for_each(|row| out.append_option(number(value(row))));
                Arc::new(out.finish())
            }
            Gives::Float => {
                let mut out = Float64Builder::with_capacity(rows);
                (0..rows).for_each(|row| out.append_option(number(value(row))));
                Arc::new(out.finish())
            }
            Gives::Bool => {
                let mut out = BooleanBuilder::with_capacity(rows);
                (0..rows).for_each(|row| {
                    out.append_option(match value(row) {
                        Some("true") => Some(true),
                        Some("false") => Some(false),
                        _ => None,
                    });
                });
                Arc::new(out.finish())
            }
            Gives::Length => {
                let mut out = Int64Builder::with_capacity(rows);
                (0..rows).for_each(|row| {
                    let length = value(row).and_then(json_path::length);
                    out.append_option(length.and_then(|n| i64::try_from(n).ok()));
                });
                Arc::new(out.finish())
            }
            Gives::Contains => {
                let mut out = BooleanBuilder::with_capacity(rows);
                (0..rows).for_each(|row| {
                    out.append_option((!texts.is_null(row)).then(|| value(row).is_some()));
                });
                Arc::new(out.finish())
            }
        }
    }
}

/// One key of a path: the same for all rows, or one per row.
enum Key {
    Text(StringArray),
    Index(Int64Array),
    One(ScalarValue),
}

impl Key {
    fn new(arg: &ColumnarValue) -> Result<Self> {
        Ok(match arg {
            ColumnarValue::Scalar(scalar) => Self::One(scalar.clone()),
            ColumnarValue::Array(array) if *array.data_type() == DataType::Int64 => {
                Self::Index(array.as_primitive::<Int64Type>().clone())
            }
            ColumnarValue::Array(array) => Self::Text(array.as_string::<i32>().clone()),
        })
    }

    fn step(&self, row: usize) -> Option<Step<'_>> {
        match self {
            Self::Text(keys) => keys.is_valid(row).then(|| Step::Key(keys.value(row))),
            Self::Index(keys) => keys.is_valid(row).then(|| Step::Index(keys.value(row))),
            Self::One(ScalarValue::Utf8(Some(key))) => Some(Step::Key(key)),
            Self::One(ScalarValue::Int64(Some(index))) => Some(Step::Index(*index)),
            Self::One(_) => None,
        }
    }
}

/// A number as it is written, or in a string, as Protobuf writes 64-bit integers in JSON.
fn number<T: std::str::FromStr>(value: Option<&str>) -> Option<T> {
    json_path::plain(value?)?.parse().ok()
}

fn text<'a>(rows: usize, value: impl Fn(usize) -> Option<std::borrow::Cow<'a, str>>) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(rows, rows * 16);
    (0..rows).for_each(|row| out.append_option(value(row)));
    Arc::new(out.finish())
}

pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}
