//! Random `.proto` files: every kind of field there is, in messages that refer to each other.

use crate::IMPORTS;
use crate::numbers::Numbers;
use std::collections::BTreeSet;
use std::fmt::Write;

const SCALARS: [&str; 15] = [
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32",
    "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes",
];
const KNOWN: [&str; 16] = [
    "Timestamp",
    "Duration",
    "Any",
    "Empty",
    "Struct",
    "Value",
    "ListValue",
    "FieldMask",
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "BytesValue",
];
/// Names that differ by case, which proto2 allows, and some that look generated.
const NAMES: [&str; 16] = [
    "alpha", "Alpha", "ALPHA", "beta", "Beta", "gamma", "gamma_7", "Gamma_7", "name", "number",
    "key", "value", "order", "select", "_present", "zeta",
];

pub(crate) struct Schema<'a> {
    numbers: &'a mut Numbers,
    proto2: bool,
    messages: usize,
    out: String,
}

/// A file whose payload is `t.v1.M0`.
pub(crate) fn random(numbers: &mut Numbers) -> String {
    let (proto2, messages) = (numbers.one_in(3), 1 + numbers.below(4));
    let mut schema = Schema {
        numbers,
        proto2,
        messages,
        out: String::new(),
    };
    schema.file();
    schema.out
}

impl Schema<'_> {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a string takes all");
    }

    fn file(&mut self) {
        let syntax = if self.proto2 { "proto2" } else { "proto3" };
        self.put(format_args!(
            "syntax = \"{syntax}\";\n{IMPORTS}package t.v1;\n"
        ));
        let first = if self.proto2 && self.numbers.one_in(2) {
            4
        } else {
            0
        };
        self.put(format_args!(
            "enum E {{ option allow_alias = true; E_FIRST = {first}; E_ONE = 1; E_ALSO_ONE = 1; \
             E_FAR = 70000; E_LESS = -3; }}\n"
        ));
        for index in 0..self.messages {
            self.message(index);
        }
        if self.proto2 {
            self.put(format_args!(
                "extend M0 {{ optional M0 ext = 150; repeated sint32 exts = 151 [packed = true]; }}\n"
            ));
        }
    }

    fn message(&mut self, index: usize) {
        self.put(format_args!("message M{index} {{\n"));
        let mut numbers = BTreeSet::new();
        let mut names: Vec<&str> = NAMES.to_vec();
        if !self.proto2 {
            names.retain(|name| name.chars().all(|c| !c.is_ascii_uppercase()));
        }
        self.numbers.shuffle(&mut names);
        let count = self.numbers.below(9);
        let mut oneof = 0;
        for _ in 0..count {
            if oneof == 0 && self.numbers.one_in(6) && names.len() > 4 {
                oneof = 1 + self.numbers.below(3);
                let name = ["choice", "Choice", "kind"][oneof - 1];
                self.put(format_args!("oneof {name} {{\n"));
                for _ in 0..oneof {
                    let name = names.pop().expect("enough names");
                    self.member(name, &mut numbers);
                }
                self.put(format_args!("}}\n"));
                continue;
            }
            let Some(name) = names.pop() else { break };
            self.field(name, &mut numbers);
        }
        if self.proto2 && index == 0 {
            self.put(format_args!("extensions 150 to 160;\n"));
        }
        self.put(format_args!("}}\n"));
    }

    fn number(&mut self, taken: &mut BTreeSet<usize>) -> usize {
        loop {
            let number = match self.numbers.below(8) {
                0 => 161 + self.numbers.below(900),
                1 => *self.numbers.pick(&[2_000, 18_999, 20_000, 536_870_911]),
                _ => 1 + self.numbers.below(20),
            };
            if taken.insert(number) {
                return number;
            }
        }
    }

    fn member(&mut self, name: &str, taken: &mut BTreeSet<usize>) {
        let number = self.number(taken);
        if self.proto2 && self.numbers.one_in(6) {
            self.put(format_args!(
                "group Go{number} = {number} {{ optional string s = 1; }}\n"
            ));
            return;
        }
        let kind = self.kind();
        self.put(format_args!("{kind} {name} = {number};\n"));
    }

    fn field(&mut self, name: &str, taken: &mut BTreeSet<usize>) {
        let number = self.number(taken);
        if self.proto2 && self.numbers.one_in(10) {
            let label = ["optional", "repeated"][self.numbers.below(2)];
            self.put(format_args!(
                "{label} group Gr{number} = {number} {{ optional M0 m = 1; repeated int32 n = 2; }}\n"
            ));
            return;
        }
        let kind = self.kind();
        if self.numbers.one_in(5) {
            let keys: Vec<_> = SCALARS[2..14].to_vec();
            let key = self.numbers.pick(&keys);
            // The types of entries are named after their fields, without case.
            self.put(format_args!("map<{key}, {kind}> map{number} = {number};\n"));
            return;
        }
        let label = match (self.numbers.below(4), self.proto2) {
            (0, _) => "repeated",
            (1 | 2, false) => "",
            _ => "optional",
        };
        let is_number = SCALARS[..13].contains(&kind.as_str()) || kind == "E";
        let options = match label == "repeated" && is_number && self.numbers.one_in(2) {
            true => [" [packed = true]", " [packed = false]"][self.numbers.below(2)],
            false => "",
        };
        self.put(format_args!("{label} {kind} {name} = {number}{options};\n"));
    }

    fn kind(&mut self) -> String {
        match self.numbers.below(10) {
            0 => "E".to_owned(),
            1 | 2 => format!("M{}", self.numbers.below(self.messages)),
            3 | 4 => format!("google.protobuf.{}", self.numbers.pick(&KNOWN)),
            _ => (*self.numbers.pick(&SCALARS)).to_owned(),
        }
    }
}
