//! `payload_json(type, data)`: a Protobuf payload as JSON text, by the schemas the engine was given.

use super::json::is_text;
use annals_core::schema::Catalog;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most text one call makes of one batch.
const BATCH_BYTES_MAX: usize = 256 << 20;

pub(super) fn function(catalog: Option<Catalog>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(PayloadJson {
        catalog: catalog.map(Arc::new),
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

#[derive(Debug)]
struct PayloadJson {
    catalog: Option<Arc<Catalog>>,
    signature: Signature,
}

// All of an engine's sessions hold the one catalog of their time; its address tells it apart.
impl PartialEq for PayloadJson {
    fn eq(&self, other: &Self) -> bool {
        self.catalog.as_ref().map(Arc::as_ptr) == other.catalog.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for PayloadJson {}

impl Hash for PayloadJson {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.catalog.as_ref().map(Arc::as_ptr).hash(state);
    }
}

impl ScalarUDFImpl for PayloadJson {
    fn name(&self) -> &str {
        "payload_json"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [name, data] if is_text(name) && is_bytes(data) => {
                Ok(vec![DataType::Utf8, DataType::Binary])
            }
            _ => plan_err!("payload_json takes a type and its bytes: payload_json(type, data)"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let array = self.array(&args.args[0].to_array(rows)?, &args.args[1].to_array(rows)?)?;
        if all_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &array, 0,
            )?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

impl PayloadJson {
    fn array(&self, types: &ArrayRef, data: &ArrayRef) -> Result<ArrayRef> {
        let (types, data) = (types.as_string::<i32>(), data.as_binary::<i32>());
        let mut out = StringBuilder::with_capacity(types.len(), types.len() * 64);
        let mut bytes = 0;
        for row in 0..types.len() {
            let known = types.is_valid(row) && data.is_valid(row);
            let json = match &self.catalog {
                Some(catalog) if known => catalog
                    .protobuf_to_json(types.value(row), data.value(row))
                    .ok(),
                _ => None,
            };
            bytes += json.as_ref().map_or(0, String::len);
            if bytes > BATCH_BYTES_MAX {
                let limit = crate::Limit::Value {
                    bytes: BATCH_BYTES_MAX,
                };
                return Err(DataFusionError::External(Box::new(crate::limits::Reached(
                    limit,
                ))));
            }
            out.append_option(json);
        }
        Ok(Arc::new(out.finish()))
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
            | DataType::Null
    )
}
