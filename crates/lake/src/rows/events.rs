//! [`EventRows`]: the table of all events.

use super::attributes::{Attribute, Envelope};
use super::envelope::EnvelopeColumns;
use super::{PAYLOAD_JSON, TYPE, column, decimal, timestamp};
use annals_archive::reader::EventRef;
use annals_core::header::{Data, Value, timestamp as instant};
use annals_core::{Result, attribute};
use arrow_array::builder::{
    Decimal128Builder, Int64Builder, MapBuilder, MapFieldNames, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// Attributes that have a text column, in the columns' order.
const TEXTS: [(&str, Attribute); 8] = [
    (attribute::DATA_CONTENT_TYPE, Attribute::DataContentType),
    (attribute::DATA_SCHEMA, Attribute::DataSchema),
    (attribute::PARTITION_KEY, Attribute::PartitionKey),
    (attribute::CORRELATION_ID, Attribute::CorrelationId),
    (attribute::CAUSATION_ID, Attribute::CausationId),
    (attribute::TRACE_PARENT, Attribute::TraceParent),
    (attribute::TRACE_STATE, Attribute::TraceState),
    (attribute::PRODUCER_ID, Attribute::ProducerId),
];
const EXTENSIONS: &str = "extensions";
const UNDECODABLE: &str = "undecodable";
const PAYLOAD_BYTES: &str = "payload_bytes";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = EnvelopeColumns::fields();
    fields.push(column(TYPE, DataType::Utf8));
    fields.extend(TEXTS.map(|(name, _)| column(name, DataType::Utf8)));
    fields.push(column(attribute::PRODUCER_SEQ, decimal()));
    fields.push(column(attribute::RECORDED_TIME, timestamp()));
    fields.push(column(EXTENSIONS, DataType::Map(entries(), false)));
    fields.push(column(UNDECODABLE, DataType::Utf8));
    fields.push(column(PAYLOAD_BYTES, DataType::Int64));
    fields.push(column(PAYLOAD_JSON, DataType::Utf8));
    Arc::new(Schema::new(fields))
});

/// Builds rows of the table of all events.
#[derive(Debug)]
pub struct EventRows {
    envelope: EnvelopeColumns,
    event_type: StringBuilder,
    texts: [StringBuilder; TEXTS.len()],
    producer_seq: Decimal128Builder,
    recorded_time: TimestampMicrosecondBuilder,
    extensions: MapBuilder<StringBuilder, StringBuilder>,
    undecodable: StringBuilder,
    payload_bytes: Int64Builder,
    payload_json: StringBuilder,
    rows: usize,
    bytes: usize,
}

impl Default for EventRows {
    fn default() -> Self {
        let names = MapFieldNames {
            entry: "key_value".into(),
            key: "key".into(),
            value: "value".into(),
        };
        Self {
            envelope: EnvelopeColumns::new(),
            event_type: StringBuilder::new(),
            texts: Default::default(),
            producer_seq: Decimal128Builder::new().with_data_type(decimal()),
            recorded_time: TimestampMicrosecondBuilder::new().with_data_type(timestamp()),
            extensions: MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new()),
            undecodable: StringBuilder::new(),
            payload_bytes: Int64Builder::new(),
            payload_json: StringBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }
}

impl EventRows {
    /// The table's columns, without the partition's.
    pub fn schema() -> SchemaRef {
        SCHEMA.clone()
    }

    /// Adds an event.
    pub fn push(&mut self, envelope: &Envelope<'_>) -> Result<()> {
        let event = envelope.event;
        self.envelope.push(envelope);
        self.event_type.append_value(event.header.event_type);
        for ((_, attribute), column) in TEXTS.iter().zip(&mut self.texts) {
            match envelope.value(*attribute) {
                Some(value) => column.append_value(&*text(value)),
                None => column.append_null(),
            }
        }
        let producer_seq = envelope.number(Attribute::ProducerSeq);
        self.producer_seq
            .append_option(producer_seq.map(i128::from));
        let recorded = envelope.value(Attribute::RecordedTime).and_then(time);
        self.recorded_time
            .append_option(recorded.map(|t| t.as_microsecond()));
        for (name, value) in envelope.others() {
            self.extensions
                .keys()
                .append_value(String::from_utf8_lossy(name));
            self.extensions.values().append_value(text(*value));
        }
        self.extensions
            .append(true)
            .expect("a key is appended with every value");
        let undecodable = event.record()?.delivery.undecodable;
        self.undecodable
            .append_option(Some(undecodable).filter(|why| !why.is_empty()));
        self.push_payload(event);
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

    /// Memory they take, about; at most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the rows.
    pub fn finish(&mut self) -> RecordBatch {
        let mut columns = self.envelope.finish();
        columns.push(Arc::new(self.event_type.finish()));
        let texts = self.texts.iter_mut();
        columns.extend(texts.map(|column| Arc::new(column.finish()) as ArrayRef));
        columns.push(Arc::new(self.producer_seq.finish()));
        columns.push(Arc::new(self.recorded_time.finish()));
        columns.push(Arc::new(self.extensions.finish()));
        columns.push(Arc::new(self.undecodable.finish()));
        columns.push(Arc::new(self.payload_bytes.finish()));
        columns.push(Arc::new(self.payload_json.finish()));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(Self::schema(), columns).expect("the columns are the schema's")
    }

    fn push_payload(&mut self, event: &EventRef<'_>) {
        let payload = event.header.data.bytes();
        match event.header.data {
            Data::None => self.payload_bytes.append_null(),
            _ => self.payload_bytes.append_value(payload.len() as i64),
        }
        let json = is_json(event.header.data_content_type).then_some(payload);
        let json = json.filter(|json| !json.is_empty());
        self.payload_json
            .append_option(json.and_then(|json| std::str::from_utf8(json).ok()));
    }
}

/// Whether a media type is JSON's.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim_end();
    let ends = |suffix: &str| {
        let at = essence.len().checked_sub(suffix.len());
        at.and_then(|at| essence.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    ends("/json") || ends("+json")
}

fn entries() -> Arc<Field> {
    let fields = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    Arc::new(Field::new("key_value", DataType::Struct(fields), false))
}

/// A value in CloudEvents' text form.
fn text(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::None => Cow::Borrowed(""),
        Value::Boolean(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Value::Integer(value) => Cow::Owned(value.to_string()),
        Value::Text(text) => String::from_utf8_lossy(text),
        Value::Bytes(bytes) => Cow::Owned(BASE64.encode(bytes)),
        Value::Timestamp(seconds, nanos) => match instant(seconds, nanos) {
            Ok(time) => Cow::Owned(time.to_string()),
            Err(_) => Cow::Owned(format!("{seconds} s {nanos} ns")),
        },
    }
}

fn time(value: Value<'_>) -> Option<annals_core::Timestamp> {
    match value {
        Value::Timestamp(seconds, nanos) => instant(seconds, nanos).ok(),
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_media_type() {
        #[track_caller]
        fn check(content_type: &str, expected: bool) {
            assert_eq!(is_json(Some(content_type)), expected, "{content_type}");
        }
        check("application/json", true);
        check("application/JSON; charset=utf-8", true);
        check("application/vnd.api+json", true);
        check("text/json ;a=b", true);
        check("application/protobuf", false);
        check("json", false);
        check("application/jsonl", false);
        check("ä/json", true);
        check("", false);
        assert!(!is_json(None));
    }
}
