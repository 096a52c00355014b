//! Random messages of a type, and what the wire may do to them without, and with, harm.

use crate::numbers::Numbers;
use prost_reflect::prost::Message;
use prost_reflect::prost::encoding::{decode_varint, encode_varint};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// A message, some of its fields set, messages in it down to a depth.
pub(crate) fn random(
    numbers: &mut Numbers,
    descriptor: &MessageDescriptor,
    depth: usize,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if numbers.one_in(3) {
            continue;
        }
        let value = field_value(numbers, &field, depth);
        if let Some(value) = value {
            message.set_field(&field, value);
        }
    }
    for field in descriptor.extensions() {
        if numbers.one_in(2) && depth > 0 {
            let value = match field.is_list() {
                true => list(numbers, &field.kind(), depth),
                false => value(numbers, &field.kind(), depth),
            };
            message.set_extension(&field, value.expect("there is room"));
        }
    }
    message
}

fn field_value(numbers: &mut Numbers, field: &FieldDescriptor, depth: usize) -> Option<Value> {
    let kind = field.kind();
    if field.is_map() {
        let entry = kind.as_message().expect("an entry");
        let (of_key, of_value) = (
            entry.map_entry_key_field().kind(),
            entry.map_entry_value_field().kind(),
        );
        let count = numbers.below(4);
        let entries = (0..count).map_while(|_| {
            let value = value(numbers, &of_value, depth)?;
            Some((key(numbers, &of_key), value))
        });
        return Some(Value::Map(entries.collect()));
    }
    match field.is_list() {
        true => list(numbers, &kind, depth),
        false => value(numbers, &kind, depth),
    }
}

fn list(numbers: &mut Numbers, kind: &Kind, depth: usize) -> Option<Value> {
    let count = numbers.below(4);
    let values = (0..count).map_while(|_| value(numbers, kind, depth));
    Some(Value::List(values.collect()))
}

fn value(numbers: &mut Numbers, kind: &Kind, depth: usize) -> Option<Value> {
    let wide = numbers.wide();
    Some(match kind {
        Kind::Double => Value::F64(match numbers.below(3) {
            0 => f64::from_bits(wide),
            1 => wide as i64 as f64,
            _ => wide as i32 as f64 / 8.0,
        }),
        Kind::Float => Value::F32(f32::from_bits(wide as u32)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(wide as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(wide as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(wide as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(wide),
        Kind::Bool => Value::Bool(wide & 1 == 1),
        Kind::String => Value::String(string(numbers)),
        Kind::Bytes => Value::Bytes(wide.to_be_bytes()[numbers.below(9)..].to_vec().into()),
        Kind::Enum(_) => Value::EnumNumber(match numbers.below(3) {
            0 => wide as i32,
            _ => *numbers.pick(&[0, 1, 4, 70_000, -3]),
        }),
        Kind::Message(_) if depth == 0 => return None,
        Kind::Message(of) => Value::Message(match (of.full_name(), numbers.below(2)) {
            // Most random instants are none.
            ("google.protobuf.Timestamp" | "google.protobuf.Duration", 0) => {
                let mut message = DynamicMessage::new(of.clone());
                let seconds = (wide as i32).into();
                message.set_field_by_number(1, Value::I64(seconds));
                let nanos = (numbers.below(1_000_000_000) as i32) * seconds.signum() as i32;
                message.set_field_by_number(2, Value::I32(nanos));
                message
            }
            _ => random(numbers, of, depth - 1),
        }),
    })
}

fn key(numbers: &mut Numbers, kind: &Kind) -> MapKey {
    match value(numbers, kind, 0) {
        Some(Value::Bool(key)) => MapKey::Bool(key),
        Some(Value::I32(key)) => MapKey::I32(key),
        Some(Value::I64(key)) => MapKey::I64(key),
        Some(Value::U32(key)) => MapKey::U32(key),
        Some(Value::U64(key)) => MapKey::U64(key),
        Some(Value::String(key)) => MapKey::String(key),
        other => panic!("{other:?} is no key"),
    }
}

fn string(numbers: &mut Numbers) -> String {
    const PARTS: [&str; 12] = [
        "",
        "a",
        "b_c",
        "A",
        ".",
        "_",
        "\u{0}",
        "\"",
        "ä",
        "\u{2028}",
        "𝄞",
        "snake_case.path_2",
    ];
    (0..numbers.below(4))
        .map(|_| *numbers.pick(&PARTS))
        .collect()
}

/// A field on the wire.
#[derive(Clone)]
struct Part {
    number: u32,
    wire_type: u32,
    /// Without the tag; of bytes without their length.
    body: Vec<u8>,
}

/// The fields of a message without groups.
fn parts(mut bytes: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let tag = decode_varint(&mut bytes).ok()? as u32;
        let before = bytes;
        let skip = match tag & 7 {
            0 => {
                decode_varint(&mut bytes).ok()?;
                0
            }
            1 => 8,
            5 => 4,
            2 => {
                let length = decode_varint(&mut bytes).ok()? as usize;
                let body = bytes.get(..length)?.to_vec();
                bytes = &bytes[length..];
                parts.push(Part {
                    number: tag >> 3,
                    wire_type: 2,
                    body,
                });
                continue;
            }
            _ => return None,
        };
        bytes = bytes.get(skip..)?;
        parts.push(Part {
            number: tag >> 3,
            wire_type: tag & 7,
            body: before[..before.len() - bytes.len()].to_vec(),
        });
    }
    Some(parts)
}

fn join(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        encode_varint(u64::from(part.number << 3 | part.wire_type), &mut out);
        if part.wire_type == 2 {
            encode_varint(part.body.len() as u64, &mut out);
        }
        out.extend_from_slice(&part.body);
    }
    out
}

/// The same type's bytes in another way: fields repeated, moved, in pieces, unpacked, unknown.
pub(crate) fn rearrange(
    numbers: &mut Numbers,
    descriptor: &MessageDescriptor,
    bytes: &[u8],
) -> Vec<u8> {
    let Some(mut all) = parts(bytes) else {
        return bytes.to_vec();
    };
    let mut out = Vec::new();
    for part in all.drain(..) {
        let field = descriptor.get_field(part.number);
        let kind = field.as_ref().map(FieldDescriptor::kind);
        match (part.wire_type, kind) {
            (2, Some(Kind::Message(inner))) => {
                let body = rearrange(numbers, &inner, &part.body);
                let pieces = match numbers.one_in(3) {
                    true => split(numbers, &body),
                    false => vec![body],
                };
                let piece = |body| Part {
                    body,
                    ..part.clone()
                };
                out.extend(pieces.into_iter().map(piece));
            }
            (2, Some(kind)) if field.is_some_and(|f| f.is_list()) && numbers.one_in(2) => {
                out.extend(unpack(&part, &kind));
            }
            _ => out.push(part),
        }
    }
    if numbers.one_in(3) {
        let again = random(numbers, descriptor, 1).encode_to_vec();
        out.extend(parts(&again).unwrap_or_default());
    }
    if numbers.one_in(3) && !out.is_empty() {
        let copy = numbers.pick(&out).clone();
        out.push(copy);
    }
    if numbers.one_in(3) {
        numbers.shuffle(&mut out);
    }
    let mut bytes = join(&out);
    if numbers.one_in(4) {
        // An unknown group, with what may be in one.
        let group: [&[u8]; 5] = [
            &[0xfb, 0x06],
            &[0x08, 1],
            &[0x0b, 0x0c],
            &[0x12, 0],
            &[0xfc, 0x06],
        ];
        bytes.extend(group.concat());
        bytes.extend([0xfd, 0x06, 1, 2, 3, 4]);
    }
    bytes
}

/// A message as two, at a field.
fn split(numbers: &mut Numbers, bytes: &[u8]) -> Vec<Vec<u8>> {
    match parts(bytes) {
        None => vec![bytes.to_vec()],
        Some(all) => {
            let at = numbers.below(all.len() + 1);
            vec![join(&all[..at]), join(&all[at..])]
        }
    }
}

/// Packed numbers one by one; anything else as it was.
fn unpack(part: &Part, kind: &Kind) -> Vec<Part> {
    let (wire_type, width) = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => (1, 8),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => (5, 4),
        Kind::String | Kind::Bytes | Kind::Message(_) => return vec![part.clone()],
        _ => (0, 0),
    };
    let mut rest = &part.body[..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let length = match width {
            0 => rest.iter().take_while(|&&byte| byte >= 0x80).count() + 1,
            width => width,
        };
        out.push(Part {
            number: part.number,
            wire_type,
            body: rest[..length.min(rest.len())].to_vec(),
        });
        rest = &rest[length.min(rest.len())..];
    }
    out
}

/// Some bytes changed, cut or inserted.
pub(crate) fn damage(numbers: &mut Numbers, bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(out.len() + 1);
        match numbers.below(5) {
            0 if at < out.len() => out[at] ^= 1 << numbers.below(8),
            1 if at < out.len() => out[at] = numbers.next() as u8,
            2 => out.truncate(at),
            3 if at < out.len() => drop(out.remove(at)),
            _ => out.insert(
                at,
                *numbers.pick(&[0, 1, 8, 0x0a, 0x0b, 0x0c, 0x12, 0x80, 0xff]),
            ),
        }
    }
    out
}
