//! A payload is read whole before anything is appended: by the types alone, columns or not.

use crate::kind::Scalar;
use crate::wire::{BYTES, GROUP, GROUP_END, LEVELS_MAX, Numbers, Span, Wire};
use annals_core::{Error, Result};
use prost_reflect::{Kind, MessageDescriptor};
use std::collections::HashMap;

/// The rules of a message type and of all it refers to.
#[derive(Debug)]
pub(crate) struct Checker {
    /// The payload's is the first.
    types: Vec<Type>,
}

#[derive(Debug, Default)]
struct Type {
    name: String,
    /// Fields of an entry of a map that nobody knows count as a level.
    is_entry: bool,
    numbers: Numbers,
    rules: Vec<Rule>,
    names: Vec<String>,
}

/// What a field must be.
#[derive(Debug, Clone, Copy)]
struct Rule {
    wire_type: u32,
    /// Whether many may come in one.
    packable: bool,
    inner: Inner,
}

/// What must hold inside a field; messages by index.
#[derive(Debug, Clone, Copy)]
enum Inner {
    Anything,
    Text,
    Message(u32),
    Group(u32),
    Entry(u32),
}

/// Where a payload is malformed; the path is built from the inside.
struct Fault {
    at: usize,
    path: Vec<String>,
    why: &'static str,
}

type Checked = std::result::Result<(), Box<Fault>>;

impl Checker {
    /// The rules of a payload.
    pub(crate) fn new(message: &MessageDescriptor) -> Self {
        let mut indices = HashMap::from([(message.full_name().to_owned(), 0)]);
        let mut found = vec![message.clone()];
        let mut types = Vec::new();
        while let Some(message) = found.get(types.len()).cloned() {
            let mut index = |message: &MessageDescriptor| {
                let next = found.len();
                let name = message.full_name().to_owned();
                *indices.entry(name).or_insert_with(|| {
                    found.push(message.clone());
                    next as u32
                })
            };
            types.push(Type::new(&message, &mut index));
        }
        Self { types }
    }

    /// Fails if the payload is malformed, and says where.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<()> {
        let all = Span {
            start: 0,
            end: payload.len() as u32,
        };
        let mut wire = Wire::new(payload, all);
        self.message(0, &mut wire, LEVELS_MAX, None)
            .map_err(|fault| {
                let path: Vec<_> = fault.path.into_iter().rev().collect();
                let (name, path) = (&self.types[0].name, path.join("."));
                let (at, why) = (fault.at, fault.why);
                Error::invalid(format!("{name}: field {path:?} at byte {at} {why}"))
            })
    }

    /// Reads a message to its end, or to the end of the group it is.
    fn message(&self, index: u32, wire: &mut Wire<'_>, levels: u32, group: Option<u32>) -> Checked {
        let rules = &self.types[index as usize];
        while !wire.is_at_end() {
            let at = wire.at();
            let Some(tag) = wire.tag() else {
                return fault(at, "has no valid number");
            };
            if tag.1 == GROUP_END && group == Some(tag.0) {
                return Ok(());
            }
            match rules.numbers.find(tag.0) {
                Some(place) => self
                    .field(rules.rules[place], tag, wire, levels)
                    .map_err(|fault| fault.within(&rules.names[place], at))?,
                None if tag.1 == GROUP_END => {
                    return fault(at, "ends a group that was not open");
                }
                None => {
                    if wire.skip(tag, levels, rules.is_entry).is_none() {
                        let cut: Checked = fault(at, "is unknown, and cut, or nested too deep");
                        return cut.map_err(|fault| fault.within(&tag.0.to_string(), at));
                    }
                }
            }
        }
        match group {
            None => Ok(()),
            Some(_) => fault(wire.at(), "ends before its group does"),
        }
    }

    #[inline(always)]
    fn field(&self, rule: Rule, tag: (u32, u32), wire: &mut Wire<'_>, levels: u32) -> Checked {
        let at = wire.at();
        if tag.1 != rule.wire_type {
            return match tag.1 == BYTES && rule.packable {
                true => packed(rule, wire),
                false if matches!(rule.inner, Inner::Entry(_)) => fault(at, NO_ENTRY),
                false => fault(at, "has a wire type that is not its kind's"),
            };
        }
        if let Inner::Group(index) = rule.inner {
            return match levels.checked_sub(1) {
                Some(levels) => self.message(index, wire, levels, Some(tag.0)),
                None => fault(at, TOO_DEEP),
            };
        }
        let Some(raw) = wire.raw(rule.wire_type) else {
            return fault(at, CUT);
        };
        match rule.inner {
            Inner::Anything | Inner::Group(_) => Ok(()),
            Inner::Text => match wire.text(Span::of(raw)) {
                true => Ok(()),
                false => fault(at, "is not UTF-8"),
            },
            Inner::Message(index) => match levels.checked_sub(1) {
                Some(levels) => self.message(index, &mut wire.part(Span::of(raw)), levels, None),
                None => fault(at, TOO_DEEP),
            },
            Inner::Entry(index) => self.message(index, &mut wire.part(Span::of(raw)), levels, None),
        }
    }
}

const CUT: &str = "is cut, or a number above 64 bits";
const NO_ENTRY: &str = "is a map's, and has another wire type than an entry";
const TOO_DEEP: &str = "is nested too deep";

/// Numbers in one field.
fn packed(rule: Rule, wire: &mut Wire<'_>) -> Checked {
    let at = wire.at();
    let Some(span) = wire.span() else {
        return fault(at, CUT);
    };
    let mut numbers = wire.part(span);
    while !numbers.is_at_end() {
        if numbers.raw(rule.wire_type).is_none() {
            return fault(numbers.at(), CUT);
        }
    }
    Ok(())
}

#[cold]
fn fault(at: usize, why: &'static str) -> Checked {
    let path = Vec::new();
    Err(Box::new(Fault { at, path, why }))
}

impl Fault {
    /// As a fault of the field it lies in, whose tag is at a byte.
    #[cold]
    fn within(mut self: Box<Self>, name: &str, tag: usize) -> Box<Self> {
        if self.path.is_empty() {
            self.at = tag;
        }
        self.path.push(name.to_owned());
        self
    }
}

impl Type {
    fn new(message: &MessageDescriptor, index: &mut dyn FnMut(&MessageDescriptor) -> u32) -> Self {
        let mut this = Self {
            name: message.full_name().to_owned(),
            is_entry: message.is_map_entry(),
            ..Self::default()
        };
        let mut numbers = Vec::new();
        for field in message.fields() {
            let shape = (field.is_map(), field.is_group(), field.is_list());
            numbers.push((field.number(), this.rules.len()));
            this.rules.push(Rule::of(&field.kind(), shape, index));
            this.names.push(field.name().to_owned());
        }
        for field in message.extensions() {
            let shape = (field.is_map(), field.is_group(), field.is_list());
            numbers.push((field.number(), this.rules.len()));
            this.rules.push(Rule::of(&field.kind(), shape, index));
            this.names.push(field.full_name().to_owned());
        }
        this.numbers = Numbers::new(numbers);
        this
    }
}

impl Rule {
    fn of(
        kind: &Kind,
        (is_map, is_group, is_list): (bool, bool, bool),
        index: &mut dyn FnMut(&MessageDescriptor) -> u32,
    ) -> Self {
        let (wire_type, inner) = match (kind, Scalar::of(kind)) {
            (_, Some(Scalar::String)) => (BYTES, Inner::Text),
            (_, Some(scalar)) => (scalar.wire_type(), Inner::Anything),
            (Kind::Message(entry), None) if is_map => (BYTES, Inner::Entry(index(entry))),
            (Kind::Message(message), None) if is_group => (GROUP, Inner::Group(index(message))),
            (Kind::Message(message), None) => (BYTES, Inner::Message(index(message))),
            (_, None) => (crate::wire::VARINT, Inner::Anything),
        };
        Self {
            wire_type,
            packable: is_list && wire_type != BYTES && wire_type != GROUP,
            inner,
        }
    }
}
