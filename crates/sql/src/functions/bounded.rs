//! Functions whose answer is larger than what they are given, each with a bound on that answer.
//!
//! DataFusion accounts for what operators keep, not for what one call allocates: without this,
//! `repeat('x', 2000000000)` takes two gigabytes before anybody can say no.

use crate::Limit;
use crate::limits::Reached;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{cast, concat, kernels::length::length};
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};
use std::sync::Arc;

/// Most bytes of one value that is made of small ones.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of one batch of such values.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Most bytes of one batch that is made of text which was there before.
const TEXT_BYTES_MAX: usize = 256 << 20;

/// Whether a function's answer can be larger than its arguments by more than their sum.
pub(crate) fn grows(name: &str) -> bool {
    Growth::of(name).is_some()
}

/// The same function, with a bound if its answer grows.
pub(super) fn bound(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match Growth::of(function.name()) {
        Some(growth) => Arc::new(ScalarUDF::new_from_impl(Bounded { function, growth })),
        None => function,
    }
}

/// How many bytes a call makes of its arguments, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// `repeat(text, times)`
    Times,
    /// `lpad(text, characters, fill)`
    Padding,
    /// `replace(text, from, to)`, `regexp_replace(text, pattern, to)`: `to` between all bytes.
    Replacing,
    /// `array_to_string(list, between)`
    Joining,
}

impl Growth {
    fn of(name: &str) -> Option<Self> {
        match name {
            "repeat" => Some(Self::Times),
            "lpad" | "rpad" => Some(Self::Padding),
            "replace" | "regexp_replace" => Some(Self::Replacing),
            "array_to_string" | "array_join" | "list_to_string" | "list_join" => {
                Some(Self::Joining)
            }
            _ => None,
        }
    }

    /// Bytes of one row's answer, at most.
    fn bytes(self, sizes: &[Sizes], row: usize) -> usize {
        let size = |arg: usize| sizes.get(arg).map_or(0, |s| s.at(row));
        match self {
            Self::Times => size(0).saturating_mul(size(1)),
            Self::Padding => size(1).saturating_mul(4),
            Self::Replacing => (size(0) + 1).saturating_mul(1 + 2 * size(2)),
            Self::Joining => size(0).saturating_mul(1 + size(1) + size(2)),
        }
    }

    fn value_max(self) -> usize {
        match self {
            Self::Times | Self::Padding => VALUE_BYTES_MAX,
            Self::Replacing | Self::Joining => TEXT_BYTES_MAX,
        }
    }

    fn batch_max(self) -> usize {
        match self {
            Self::Times | Self::Padding => BATCH_BYTES_MAX,
            Self::Replacing | Self::Joining => TEXT_BYTES_MAX,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    function: Arc<ScalarUDF>,
    growth: Growth,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    /// Runs over as many rows at a time as stay within the bound at worst, then adds up what
    /// was really made.
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let sizes: Vec<Sizes> = args.args.iter().map(Sizes::new).collect::<Result<_>>()?;
        let all_one = sizes.iter().all(|s| matches!(s, Sizes::One(_)));
        if all_one {
            self.check(self.growth.bytes(&sizes, 0), self.growth.value_max())?;
            return self.function.invoke_with_args(args);
        }
        let mut parts: Vec<ArrayRef> = Vec::new();
        let mut made = 0;
        let mut from = 0;
        while from < rows {
            let mut to = from;
            let mut expected = 0_usize;
            while to < rows {
                let bytes = self.growth.bytes(&sizes, to);
                self.check(bytes, self.growth.value_max())?;
                expected = expected.saturating_add(bytes);
                if to > from && expected > self.growth.batch_max() {
                    break;
                }
                to += 1;
            }
            let part = self.part(&args, from, to - from)?;
            made += part.get_array_memory_size();
            self.check(made, self.growth.batch_max().saturating_mul(2))?;
            parts.push(part);
            from = to;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        if parts.is_empty() {
            return self.function.invoke_with_args(args);
        }
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

impl Bounded {
    fn part(&self, args: &ScalarFunctionArgs, from: usize, rows: usize) -> Result<ArrayRef> {
        let mut part = args.clone();
        part.number_rows = rows;
        for arg in &mut part.args {
            if let ColumnarValue::Array(array) = arg {
                *array = array.slice(from, rows);
            }
        }
        self.function.invoke_with_args(part)?.into_array(rows)
    }

    fn check(&self, bytes: usize, most: usize) -> Result<()> {
        if bytes <= most {
            return Ok(());
        }
        let limit = Limit::Value { bytes: most };
        Err(DataFusionError::External(Box::new(Reached(limit))))
    }
}

/// The size of an argument in each row: bytes of a text, items of a list, a number itself.
enum Sizes {
    One(usize),
    Each(ArrayRef),
}

impl Sizes {
    fn new(arg: &ColumnarValue) -> Result<Self> {
        match arg {
            ColumnarValue::Scalar(ScalarValue::Null) => Ok(Self::One(0)),
            ColumnarValue::Scalar(scalar) => {
                let one = Self::each(&scalar.to_array_of_size(1)?)?;
                Ok(Self::One(one.at(0)))
            }
            ColumnarValue::Array(array) => Self::each(array),
        }
    }

    fn each(array: &ArrayRef) -> Result<Self> {
        let sizes = match array.data_type() {
            t if t.is_integer() => cast(array, &DataType::Int64)?,
            DataType::Null => return Ok(Self::One(0)),
            // Nested lists are joined flat: all their items count.
            DataType::List(item) if item.data_type().is_nested() => {
                return Ok(Self::One(array.get_array_memory_size()));
            }
            _ => cast(&length(array)?, &DataType::Int64)?,
        };
        Ok(Self::Each(sizes))
    }

    fn at(&self, row: usize) -> usize {
        match self {
            Self::One(size) => *size,
            Self::Each(sizes) => {
                let sizes = sizes.as_primitive::<Int64Type>();
                match sizes.is_null(row) {
                    true => 0,
                    false => usize::try_from(sizes.value(row)).unwrap_or(0),
                }
            }
        }
    }
}
