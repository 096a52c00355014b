//! [`Envelope`]: an event and its attributes, walked once for all tables that take it.

use annals_archive::reader::EventRef;
use annals_core::attribute;
use annals_core::header::{Value, attributes};

/// An event, its attributes found.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The event.
    pub event: &'a EventRef<'a>,
    /// Those with columns of their own, by [`Attribute`].
    columns: [Option<Value<'a>>; Attribute::COUNT],
    /// The others, by name.
    others: Vec<(&'a [u8], Value<'a>)>,
}

/// An attribute that has a column, or whose column is made of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    DataContentType,
    DataSchema,
    PartitionKey,
    CorrelationId,
    CausationId,
    TraceParent,
    TraceState,
    ProducerId,
    ProducerSeq,
    EntityVersion,
    RecordedTime,
    Subject,
    Time,
}

impl Attribute {
    const COUNT: usize = Self::Time as usize + 1;

    fn of(name: &[u8]) -> Option<Self> {
        macro_rules! named {
            ($($name:ident => $attribute:ident,)*) => {{
                $(const $name: &[u8] = attribute::$name.as_bytes();)*
                match name {
                    $($name => Some(Self::$attribute),)*
                    _ => None,
                }
            }};
        }
        named! {
            DATA_CONTENT_TYPE => DataContentType,
            DATA_SCHEMA => DataSchema,
            PARTITION_KEY => PartitionKey,
            CORRELATION_ID => CorrelationId,
            CAUSATION_ID => CausationId,
            TRACE_PARENT => TraceParent,
            TRACE_STATE => TraceState,
            PRODUCER_ID => ProducerId,
            PRODUCER_SEQ => ProducerSeq,
            ENTITY_VERSION => EntityVersion,
            RECORDED_TIME => RecordedTime,
            SUBJECT => Subject,
            TIME => Time,
        }
    }
}

impl<'a> Envelope<'a> {
    /// Walks the attributes; of one given several times the last counts.
    pub fn of(event: &'a EventRef<'a>) -> Self {
        let mut walked = Self {
            event,
            columns: [None; Attribute::COUNT],
            others: Vec::new(),
        };
        for (name, value) in attributes(event.event) {
            match Attribute::of(name) {
                Some(attribute) => walked.columns[attribute as usize] = Some(value),
                None => walked.others.push((name, value)),
            }
        }
        if walked.others.len() > 1 {
            // Both keep the first of equals.
            walked.others.reverse();
            walked.others.sort_by_key(|(name, _)| *name);
            walked.others.dedup_by_key(|(name, _)| *name);
        }
        walked
    }

    pub(super) fn value(&self, attribute: Attribute) -> Option<Value<'a>> {
        self.columns[attribute as usize]
    }

    /// The value of one that is a decimal number, as text.
    pub(super) fn number(&self, attribute: Attribute) -> Option<u64> {
        match self.value(attribute)? {
            Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The attributes without a column, by name.
    pub(super) fn others(&self) -> &[(&'a [u8], Value<'a>)] {
        &self.others
    }
}
