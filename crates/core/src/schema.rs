//! Schemas: types from `.proto` files, JSON to and from Protobuf.
//!
//! A [`Catalog`] is compiled from names and bytes, in pure Rust; who reads the files hands them
//! in. Google's well-known types are always there, and cannot be replaced.
//!
//! ```
//! use annals_core::schema::Catalog;
//!
//! let source = r#"syntax = "proto3"; package shop.v1; message OrderPlaced { string order_id = 1; }"#;
//! let catalog = Catalog::from_files([("shop/v1/shop.proto", source)])?;
//! let bytes = catalog.json_to_protobuf("shop.v1.OrderPlaced", br#"{"order_id":"o-17"}"#)?;
//! assert_eq!(catalog.protobuf_to_json("shop.v1.OrderPlaced", &bytes)?, r#"{"order_id":"o-17"}"#);
//! # Ok::<(), annals_core::Error>(())
//! ```

mod deterministic;
mod keys;
mod locate;
mod source;

use crate::{Error, ErrorKind, Result, json};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use protox::Compiler;
use source::Files;
use std::collections::BTreeSet;

/// Most files in a catalog.
pub const FILES_MAX: usize = 1000;
/// Longest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Longest payload that is converted, in bytes, in either form.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Types, compiled from `.proto` files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    pool: DescriptorPool,
    /// Types whose order is not given by field numbers alone, as a map is somewhere in them.
    with_maps: std::sync::Arc<BTreeSet<String>>,
}

impl Catalog {
    /// Compiles files given by the name they are imported by (`shop/v1/shop.proto`) and content.
    ///
    /// Refuses a file given twice, a missing or cyclic import and a name defined twice, with the
    /// name and place.
    pub fn from_files<N: Into<String>, B: AsRef<[u8]>>(
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Result<Self> {
        let files = Files::new(files)?;
        let names = files.imports_first()?;
        let mut compiler = Compiler::with_file_resolver(files.into_resolver());
        for name in names {
            compiler
                .open_file(&name)
                .map_err(|e| Error::invalid(format!("{name} does not compile: {e}")))?;
        }
        let pool = compiler.descriptor_pool();
        let with_maps = std::sync::Arc::new(deterministic::types_with_maps(&pool));
        Ok(Self { pool, with_maps })
    }

    /// The type of this full name.
    pub fn get(&self, event_type: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(event_type)
    }

    /// All types but Google's, by name.
    pub fn types(&self) -> impl Iterator<Item = MessageDescriptor> + '_ {
        let mut types: Vec<_> = self
            .pool
            .all_messages()
            .filter(|m| !m.is_map_entry() && m.package_name() != "google.protobuf")
            .collect();
        types.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        types.into_iter()
    }

    /// Converts a payload in Protobuf's JSON mapping (either spelling of field names). Equal JSON
    /// gives equal bytes; an unknown field or wrong value is an error that names the field.
    pub fn json_to_protobuf(&self, event_type: &str, payload: &[u8]) -> Result<Vec<u8>> {
        let descriptor = self.require(event_type)?;
        check_len(payload)?;
        let text = json::check_bounds(payload)?;
        let message = parse(descriptor, text).map_err(|e| {
            let place = locate::path_at(text, e.line(), e.column());
            let place = place.map_or_else(String::new, |path| format!(" at {path}"));
            Error::invalid(format!("the JSON is no {event_type}{place}")).caused_by(e)
        })?;
        Ok(deterministic::encode(&message, &self.with_maps))
    }

    /// Converts a payload to Protobuf's JSON mapping: names as in the `.proto` file, fields in
    /// number order (by name in a type with maps), defaults written out. Fields the schema does
    /// not know are left out.
    pub fn protobuf_to_json(&self, event_type: &str, payload: &[u8]) -> Result<String> {
        let descriptor = self.require(event_type)?;
        check_len(payload)?;
        let wrong = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::invalid(format!("the payload is no {event_type}")).caused_by(e)
        };
        let with_maps = self.with_maps.contains(descriptor.full_name());
        let message =
            DynamicMessage::decode(descriptor, payload).map_err(|e| wrong(Box::new(e)))?;
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .skip_default_fields(false);
        let mut out = Vec::with_capacity(payload.len() * 2);
        message
            .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
            .map_err(|e| wrong(Box::new(e)))?;
        let text = String::from_utf8(out).expect("JSON is written in UTF-8");
        Ok(if with_maps {
            deterministic::sort_keys(&text)
        } else {
            text
        })
    }

    fn require(&self, event_type: &str) -> Result<MessageDescriptor> {
        self.get(event_type).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no schema defines the type {event_type:?}"),
            )
        })
    }
}

fn parse(descriptor: MessageDescriptor, text: &str) -> serde_json::Result<DynamicMessage> {
    keys::check_keys(text)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message =
        DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options)?;
    deserializer.end()?;
    Ok(message)
}

fn check_len(payload: &[u8]) -> Result<()> {
    if payload.len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a payload of {} bytes, at most {PAYLOAD_BYTES_MAX} are converted",
        payload.len()
    )))
}

#[cfg(test)]
mod tests;
