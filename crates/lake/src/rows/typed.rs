//! [`TypeRows`]: the table of one type.

use super::attributes::Envelope;
use super::envelope::EnvelopeColumns;
use super::events::is_json;
use super::{DECODE_ERROR, PAYLOAD, column};
use annals_archive::reader::EventRef;
use annals_columns::{PayloadBuilder, Shape};
use annals_core::header::Data;
use annals_core::schema::Catalog;
use annals_core::{Error, ErrorKind, Result};
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema, SchemaRef};
use prost::Message;
use prost_types::Any;
use std::sync::Arc;

/// Builds rows of a type's table.
///
/// A payload that does not decode is null, and its row says why: the event itself is in the
/// archive, whole.
#[derive(Debug)]
pub struct TypeRows {
    event_type: String,
    schema: SchemaRef,
    catalog: Arc<Catalog>,
    envelope: EnvelopeColumns,
    payload: PayloadBuilder,
    decode_error: StringBuilder,
    rows: usize,
    bytes: usize,
}

impl TypeRows {
    /// Rows of a type whose payload has this shape.
    pub fn new(event_type: &str, shape: &Shape, catalog: Arc<Catalog>) -> Self {
        Self {
            event_type: event_type.to_owned(),
            schema: Self::schema_of(shape),
            catalog,
            envelope: EnvelopeColumns::new(),
            payload: PayloadBuilder::new(shape),
            decode_error: StringBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// The columns of a table whose payload has this shape, without the partition's.
    pub fn schema_of(shape: &Shape) -> SchemaRef {
        let mut fields = EnvelopeColumns::fields();
        fields.push(column(PAYLOAD, DataType::Struct(shape.fields().clone())));
        fields.push(column(DECODE_ERROR, DataType::Utf8));
        Arc::new(Schema::new(fields))
    }

    /// The rows' columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds an event of the type. On an error nothing was added: a column is full.
    pub fn push(&mut self, envelope: &Envelope<'_>) -> Result<()> {
        let event = envelope.event;
        match self.push_payload(event) {
            Ok(()) => self.decode_error.append_null(),
            Err(error) if error.kind() == ErrorKind::Invalid => {
                self.payload.append_null();
                self.decode_error.append_value(error.to_string());
            }
            Err(error) => return Err(error),
        }
        self.envelope.push(envelope);
        self.rows += 1;
        self.bytes += event.event.len() + EnvelopeColumns::ROW_BYTES;
        Ok(())
    }

    /// Rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Memory they take, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.payload.bytes()
    }

    /// Takes the rows.
    pub fn finish(&mut self) -> RecordBatch {
        let mut columns = self.envelope.finish();
        columns.push(Arc::new(self.payload.finish()) as ArrayRef);
        columns.push(Arc::new(self.decode_error.finish()));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(self.schema.clone(), columns).expect("the columns are the schema's")
    }

    fn push_payload(&mut self, event: &EventRef<'_>) -> Result<()> {
        let payload = event.header.data.bytes();
        if is_json(event.header.data_content_type) {
            let bytes = self.catalog.json_to_protobuf(&self.event_type, payload)?;
            return self.payload.append(&bytes);
        }
        match event.header.data {
            Data::Proto(any) => self
                .payload
                .append(&Any::decode(any).map_err(no_any)?.value),
            _ => self.payload.append(payload),
        }
    }
}

#[cold]
fn no_any(error: prost::DecodeError) -> Error {
    Error::invalid("proto_data is no google.protobuf.Any").caused_by(error)
}
