//! Properties as the client library holds them, from and to the bytes of ours.
//!
//! The library keeps headers sorted by name: what arrives is the same fields, in that order.

use crate::{Error, Result};
use annals_core::Properties;
use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;
use lapin::types::{AMQPValue, FieldTable};

pub(super) fn to_client(properties: &Properties) -> Result<BasicProperties> {
    match parse_properties(&properties.bytes()[..]) {
        Ok((_, properties)) => Ok(properties),
        Err(_) => Err(Error::invalid("the properties cannot be sent")),
    }
}

pub(super) fn from_client(properties: &BasicProperties) -> Result<Properties> {
    let mut builder = Properties::builder();
    macro_rules! set {
        ($($theirs:ident => $ours:ident),* $(,)?) => {
            $(if let Some(value) = properties.$theirs() {
                builder = builder.$ours(value.as_str());
            })*
        };
    }
    set! {
        content_type => content_type,
        content_encoding => content_encoding,
        correlation_id => correlation_id,
        reply_to => reply_to,
        expiration => expiration,
        message_id => message_id,
        kind => message_type,
        user_id => user_id,
        app_id => app_id,
        cluster_id => cluster_id,
    }
    if let Some(mode) = properties.delivery_mode() {
        builder = builder.delivery_mode(*mode);
    }
    if let Some(priority) = properties.priority() {
        builder = builder.priority(*priority);
    }
    if let Some(timestamp) = properties.timestamp() {
        builder = builder.timestamp(*timestamp);
    }
    if let Some(headers) = properties.headers() {
        let mut fields = Vec::new();
        put_fields(headers, &mut fields);
        builder = builder.header_fields(&fields);
    }
    builder.build()
}

fn put_fields(table: &FieldTable, out: &mut Vec<u8>) {
    for (name, value) in table {
        out.push(name.as_str().len() as u8);
        out.extend_from_slice(name.as_str().as_bytes());
        put_value(value, out);
    }
}

fn put_value(value: &AMQPValue, out: &mut Vec<u8>) {
    let mut put = |letter: u8, bytes: &[u8]| {
        out.push(letter);
        out.extend_from_slice(bytes);
    };
    match value {
        AMQPValue::Boolean(v) => put(b't', &[u8::from(*v)]),
        AMQPValue::ShortShortInt(v) => put(b'b', &v.to_be_bytes()),
        AMQPValue::ShortShortUInt(v) => put(b'B', &v.to_be_bytes()),
        AMQPValue::ShortInt(v) => put(b's', &v.to_be_bytes()),
        AMQPValue::ShortUInt(v) => put(b'u', &v.to_be_bytes()),
        AMQPValue::LongInt(v) => put(b'I', &v.to_be_bytes()),
        AMQPValue::LongUInt(v) => put(b'i', &v.to_be_bytes()),
        AMQPValue::LongLongInt(v) => put(b'l', &v.to_be_bytes()),
        AMQPValue::Float(v) => put(b'f', &v.to_be_bytes()),
        AMQPValue::Double(v) => put(b'd', &v.to_be_bytes()),
        AMQPValue::DecimalValue(v) => {
            put(b'D', &[v.scale]);
            out.extend_from_slice(&v.value.to_be_bytes());
        }
        // Has no letter of its own on the wire; never parsed, so never here.
        AMQPValue::ShortString(v) => put_sized(b'S', v.as_str().as_bytes(), out),
        AMQPValue::LongString(v) => put_sized(b'S', v.as_bytes(), out),
        AMQPValue::ByteArray(v) => put_sized(b'x', v.as_slice(), out),
        AMQPValue::Timestamp(v) => put(b'T', &v.to_be_bytes()),
        AMQPValue::Void => put(b'V', &[]),
        AMQPValue::FieldArray(items) => {
            let mut inner = Vec::new();
            for item in items.as_slice() {
                put_value(item, &mut inner);
            }
            put_sized(b'A', &inner, out);
        }
        AMQPValue::FieldTable(table) => {
            let mut inner = Vec::new();
            put_fields(table, &mut inner);
            put_sized(b'F', &inner, out);
        }
    }
}

fn put_sized(letter: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(letter);
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_type_pass_the_client_unchanged() {
        let fields: &[&[u8]] = &[
            b"\x01AA\x00\x00\x00\x03t\x00V",
            b"\x01BB\xff",
            b"\x01DD\x02\x00\x00\x00\x07",
            b"\x01FF\x00\x00\x00\x04\x01kt\x01",
            b"\x01II\xff\xff\xff\xfe",
            b"\x01SS\x00\x00\x00\x02\xff\xfe",
            b"\x01TT\x00\x00\x00\x00\x65\x00\x00\x00",
            b"\x01VV",
            b"\x01bb\xff",
            b"\x01dd\x3f\xf0\x00\x00\x00\x00\x00\x00",
            b"\x01ff\x3f\x80\x00\x00",
            b"\x01ii\x00\x00\x00\x01",
            b"\x01ll\xff\xff\xff\xff\xff\xff\xff\xfe",
            b"\x01ss\xff\xfe",
            b"\x01tt\x01",
            b"\x01uu\x00\x01",
            b"\x01xx\x00\x00\x00\x03\x00\xff\x00",
        ];
        let properties = Properties::builder()
            .header_fields(&fields.concat())
            .expiration("10")
            .user_id("u")
            .cluster_id("c")
            .delivery_mode(1)
            .priority(0)
            .build()
            .unwrap();
        let again = from_client(&to_client(&properties).unwrap()).unwrap();
        assert_eq!(again.bytes(), properties.bytes());
        let none = from_client(&to_client(&Properties::none()).unwrap()).unwrap();
        assert_eq!(none, Properties::none());
    }
}
