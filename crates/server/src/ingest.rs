//! Events in from outside: CloudEvents JSON to the canonical envelope, payloads to Protobuf
//! where their type has a schema.

use annals_core::envelope::cloud_event::Data;
use annals_core::schema::Catalog;
use annals_core::system::SystemClock;
use annals_core::{Clock, Error, Event, EventBuilder, Result, attribute, json};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Turns events in JSON into canonical ones.
#[derive(Debug, Clone)]
pub struct Ingest {
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
}

/// Most events of one batch in JSON.
pub const BATCH_EVENTS_MAX: usize = 10_000;

impl Ingest {
    /// With the schemas of `catalog`; `clock` stamps events that have no time.
    pub fn new(catalog: Arc<Catalog>, clock: Arc<dyn Clock>) -> Self {
        Self { catalog, clock }
    }

    /// Leaves payloads as they are.
    pub fn without_schemas() -> Self {
        let none: [(&str, &str); 0] = [];
        let catalog = Catalog::from_files(none).expect("no file does not compile wrongly");
        Self::new(Arc::new(catalog), Arc::new(SystemClock))
    }

    /// The schemas payloads are converted with.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// One event.
    pub fn event(&self, text: &[u8]) -> Result<Event> {
        self.convert(json::decode(text)?)
    }

    /// An array of events; the first bad one is named by its place.
    pub fn batch(&self, text: &[u8]) -> Result<Vec<Event>> {
        let items: Vec<&RawValue> = serde_json::from_slice(text)
            .map_err(|e| Error::invalid("not a JSON array of events").caused_by(e))?;
        if items.len() > BATCH_EVENTS_MAX {
            return Err(Error::invalid(format!(
                "{} events in one batch, at most {BATCH_EVENTS_MAX} are taken",
                items.len()
            )));
        }
        let event = |(i, item): (usize, &&RawValue)| {
            self.event(item.get().as_bytes())
                .map_err(|e| e.context(format!("event {}", i + 1)))
        };
        items.iter().enumerate().map(event).collect()
    }

    /// Gives an event the time it lacks, and its JSON payload the Protobuf form of its type.
    fn convert(&self, event: Event) -> Result<Event> {
        let header = event.header();
        let is_json = header.data_content_type.is_none_or(json::is_json);
        let payload = header.data.bytes();
        let converts =
            is_json && !payload.is_empty() && self.catalog.get(header.event_type).is_some();
        if !converts && header.time.is_some() {
            return Ok(event);
        }
        let mut builder = EventBuilder::new(header.event_type, header.source, header.id)?;
        let envelope = event.decode()?;
        for (name, value) in envelope.attributes {
            if let Some(value) = value.attr {
                builder = builder.value(&name, value)?;
            }
        }
        if header.time.is_none() {
            builder = builder.time(self.clock.now());
        }
        if converts {
            let bytes = self.catalog.json_to_protobuf(header.event_type, payload)?;
            return builder.protobuf(bytes).build();
        }
        if let Some(data) = envelope.data {
            builder = builder.raw_data(data);
        }
        builder.build()
    }

    /// An event as JSON: its Protobuf payload as JSON too, where its type has a schema.
    pub fn to_json(&self, event: &Event) -> Result<Vec<u8>> {
        event_to_json(&self.catalog, event)
    }
}

/// An event as JSON: its Protobuf payload as JSON too, where `catalog` knows its type. A payload
/// that its schema does not fit is shown as it is.
pub fn event_to_json(catalog: &Catalog, event: &Event) -> Result<Vec<u8>> {
    let header = event.header();
    let is_protobuf = header.data_content_type == Some("application/protobuf");
    let Some(payload) = (is_protobuf && catalog.get(header.event_type).is_some())
        .then(|| {
            catalog
                .protobuf_to_json(header.event_type, header.data.bytes())
                .ok()
        })
        .flatten()
    else {
        return json::encode(event);
    };
    let mut builder = EventBuilder::new(header.event_type, header.source, header.id)?;
    for (name, value) in event.decode()?.attributes {
        match value.attr {
            Some(value) if name != attribute::DATA_CONTENT_TYPE => {
                builder = builder.value(&name, value)?;
            }
            _ => {}
        }
    }
    let shown = builder
        .raw_data(Data::BinaryData(payload.into()))
        .attribute(attribute::DATA_CONTENT_TYPE, "application/json")?
        .build()?;
    json::encode(&shown)
}
