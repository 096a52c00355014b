//! The columns that every table has: where an event lies, what it is, whom it is about, when.

use super::attributes::{Attribute, Envelope};
use super::{
    ARCHIVED_AT, ENTITY_VERSION, ID, ORDINAL, POSITION, SOURCE, SUBJECT, TIME, column, decimal,
    timestamp,
};
use arrow_array::ArrayRef;
use arrow_array::builder::{
    Decimal128Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field};
use std::sync::Arc;

/// Builds the first columns of a table.
#[derive(Debug)]
pub(super) struct EnvelopeColumns {
    position: Int64Builder,
    ordinal: Int32Builder,
    archived_at: TimestampMicrosecondBuilder,
    id: StringBuilder,
    source: StringBuilder,
    subject: StringBuilder,
    time: TimestampMicrosecondBuilder,
    entity_version: Decimal128Builder,
}

impl EnvelopeColumns {
    pub(super) fn new() -> Self {
        Self {
            position: Int64Builder::new(),
            ordinal: Int32Builder::new(),
            archived_at: TimestampMicrosecondBuilder::new().with_data_type(timestamp()),
            id: StringBuilder::new(),
            source: StringBuilder::new(),
            subject: StringBuilder::new(),
            time: TimestampMicrosecondBuilder::new().with_data_type(timestamp()),
            entity_version: Decimal128Builder::new().with_data_type(decimal()),
        }
    }

    pub(super) fn fields() -> Vec<Field> {
        vec![
            column(POSITION, DataType::Int64),
            column(ORDINAL, DataType::Int32),
            column(ARCHIVED_AT, timestamp()),
            column(ID, DataType::Utf8),
            column(SOURCE, DataType::Utf8),
            column(SUBJECT, DataType::Utf8),
            column(TIME, timestamp()),
            column(ENTITY_VERSION, decimal()),
        ]
    }

    pub(super) fn push(&mut self, envelope: &Envelope<'_>) {
        let event = envelope.event;
        self.position
            .append_value(event.location.position.0.cast_signed());
        // At most 2^24 records to an entry.
        self.ordinal
            .append_value(event.location.ordinal.cast_signed());
        self.archived_at.append_value(event.received_at_us);
        self.id.append_value(event.header.id);
        self.source.append_value(event.header.source);
        self.subject.append_option(event.header.subject);
        self.time
            .append_option(event.header.time.map(|t| t.as_microsecond()));
        let version = envelope.number(Attribute::EntityVersion);
        self.entity_version.append_option(version.map(i128::from));
    }

    pub(super) fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.position.finish()),
            Arc::new(self.ordinal.finish()),
            Arc::new(self.archived_at.finish()),
            Arc::new(self.id.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.subject.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.entity_version.finish()),
        ]
    }

    /// Bytes a row takes beside its text.
    pub(super) const ROW_BYTES: usize = 64;
}
