//! From an archived record back to the message that was published, marked as replayed.

use annals_archive::reader::EventRef;
use annals_bus::Message;
use annals_core::event::CONTENT_TYPE;
use annals_core::properties::{PropertiesBuilder, REPLAY_ID};
use annals_core::{Event, Properties, Result, binary, json};
use bytes::Bytes;
use std::sync::Arc;

/// The message of an archived event for an exchange: body and routing key as published.
pub(super) fn message_of(
    event: &EventRef<'_>,
    exchange: &Arc<str>,
    replay: &str,
) -> Result<Message> {
    let record = event.record()?;
    let delivery = record.delivery;
    let archived = match delivery.properties {
        [] => Properties::none(),
        bytes => Properties::parse(bytes.to_vec())?,
    };
    let (properties, body) = if !delivery.undecodable.is_empty() {
        // No event was published, but what now is the made event's payload.
        let body = event.to_bytes().slice_ref(event.header.data.bytes());
        (archived.to_builder().persistent(), body)
    } else {
        let named = named(archived.to_builder(), event);
        match record.original {
            None => (named.content_type(CONTENT_TYPE), event.to_bytes()),
            Some(original) => {
                let body = Bytes::copy_from_slice(original);
                (published(named, &archived, event)?, body)
            }
        }
    };
    Ok(Message {
        exchange: exchange.clone(),
        routing_key: delivery.routing_key.into(),
        properties: properties.build()?.with_header(REPLAY_ID, replay)?,
        body,
        mandatory: true,
    })
}

/// What the archive leaves out because the envelope says it.
fn named(builder: PropertiesBuilder, event: &EventRef<'_>) -> PropertiesBuilder {
    builder
        .persistent()
        .message_id(event.header.id)
        .message_type(event.header.event_type)
}

/// Properties of a body that was not the canonical one: JSON as it is, binary mode with its
/// attributes, which are not archived as headers.
fn published(
    builder: PropertiesBuilder,
    archived: &Properties,
    event: &EventRef<'_>,
) -> Result<PropertiesBuilder> {
    let media = archived.content_type().unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(json::CONTENT_TYPE) {
        return Ok(builder);
    }
    let (attributes, _) = binary::encode(&Event::parse(event.to_bytes())?)?;
    Ok(builder.header_fields(attributes.header_table()))
}
