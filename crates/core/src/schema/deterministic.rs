//! The same message gives the same bytes and the same text: maps, which a dynamic message holds in
//! no order, are written by key.

use crate::frame::{put, put_varint};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Full names of the types that have a map in them, at any depth, or an `Any`, which may.
pub(super) fn types_with_maps(pool: &DescriptorPool) -> BTreeSet<String> {
    let mut found = BTreeSet::from(["google.protobuf.Any".to_owned()]);
    loop {
        let more: Vec<String> = pool
            .all_messages()
            .filter(|m| !found.contains(m.full_name()))
            .filter(|m| {
                m.fields().any(|field| match field.kind() {
                    Kind::Message(inner) => field.is_map() || found.contains(inner.full_name()),
                    _ => false,
                })
            })
            .map(|m| m.full_name().to_owned())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Encodes a message: fields in number order, map entries in key order.
pub(super) fn encode(message: &DynamicMessage, with_maps: &BTreeSet<String>) -> Vec<u8> {
    if !with_maps.contains(message.descriptor().full_name()) {
        return message.encode_to_vec();
    }
    if let Some(bytes) = encode_any(message, with_maps) {
        return bytes;
    }
    let mut out = Vec::new();
    for (field, value) in message.fields() {
        match value {
            Value::Map(map) => {
                let entries: BTreeMap<_, _> = map.iter().collect();
                for (key, value) in entries {
                    let entry = encode_entry(&field, key.clone().into(), value, with_maps);
                    put_message(&field, &entry, &mut out);
                }
            }
            Value::Message(inner) if !field.is_group() => {
                put_message(&field, &encode(inner, with_maps), &mut out);
            }
            Value::List(items) if is_message(&field) => {
                for item in items.iter().filter_map(Value::as_message) {
                    put_message(&field, &encode(item, with_maps), &mut out);
                }
            }
            other => {
                let mut alone = DynamicMessage::new(message.descriptor());
                alone.set_field(&field, other.clone());
                out.extend_from_slice(&alone.encode_to_vec());
            }
        }
    }
    out
}

/// An `Any`, with the message in it encoded in order; `None` for other messages and for an `Any`
/// of an unknown type.
fn encode_any(message: &DynamicMessage, with_maps: &BTreeSet<String>) -> Option<Vec<u8>> {
    if message.descriptor().full_name() != "google.protobuf.Any" {
        return None;
    }
    let any: prost_types::Any = message.transcode_to().ok()?;
    let name = any.type_url.rsplit('/').next()?;
    let pool = message.descriptor().parent_pool().clone();
    let inner = DynamicMessage::decode(pool.get_message_by_name(name)?, &any.value[..]).ok()?;
    let value = encode(&inner, with_maps);
    Some(prost_types::Any { value, ..any }.encode_to_vec())
}

fn encode_entry(
    field: &FieldDescriptor,
    key: Value,
    value: &Value,
    with_maps: &BTreeSet<String>,
) -> Vec<u8> {
    let Kind::Message(entry) = field.kind() else {
        unreachable!("a map field's type is its entry");
    };
    let mut alone = DynamicMessage::new(entry.clone());
    alone.set_field(&entry.map_entry_key_field(), key);
    let value_field = entry.map_entry_value_field();
    match value {
        Value::Message(inner) => {
            let mut out = alone.encode_to_vec();
            put_message(&value_field, &encode(inner, with_maps), &mut out);
            out
        }
        scalar => {
            alone.set_field(&value_field, scalar.clone());
            alone.encode_to_vec()
        }
    }
}

fn is_message(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(_)) && !field.is_group()
}

fn put_message(field: &FieldDescriptor, bytes: &[u8], out: &mut Vec<u8>) {
    const LENGTH_DELIMITED: u64 = 2;
    put_varint(u64::from(field.number()) << 3 | LENGTH_DELIMITED, out);
    put(bytes, out);
}

/// JSON with the keys of every object in order. The depth was bounded when it was written.
pub(super) fn sort_keys(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    put_sorted(json, &mut out);
    out
}

fn put_sorted(json: &str, out: &mut String) {
    const OWN: &str = "this JSON was written by annals";
    let items: Vec<String> = match json.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).expect(OWN);
            let member = |(key, value): (&String, &&RawValue)| {
                let mut text = serde_json::to_string(key).expect("text can be written");
                text.push(':');
                put_sorted(value.get(), &mut text);
                text
            };
            members.iter().map(member).collect()
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(json).expect(OWN);
            items.iter().map(|item| sort_keys(item.get())).collect()
        }
        _ => return out.push_str(json),
    };
    let (open, close) = if json.starts_with('{') {
        ('{', '}')
    } else {
        ('[', ']')
    };
    out.push(open);
    out.push_str(&items.join(","));
    out.push(close);
}
