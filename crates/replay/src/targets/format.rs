//! [`Format`]: events one after the other, as bytes.

use annals_archive::reader::EventRef;
use annals_core::{Error, Event, Result, frame, json};
use std::path::Path;

/// How events are written one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The published envelopes, verbatim, each after its length as a varint (`.binpb`).
    Protobuf,
    /// One CloudEvent in JSON a line (`.jsonl`).
    JsonLines,
}

impl Format {
    /// The format a file's name asks for.
    pub fn of_path(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("binpb") => Ok(Format::Protobuf),
            Some("jsonl") => Ok(Format::JsonLines),
            _ => Err(Error::invalid(format!(
                "{} ends with neither .binpb nor .jsonl",
                path.display()
            ))),
        }
    }

    /// Appends an event.
    pub(super) fn put(self, event: &EventRef<'_>, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Format::Protobuf => frame::put(event.event, out),
            Format::JsonLines => {
                let start = out.len();
                out.extend_from_slice(&json::encode(&Event::parse(event.to_bytes())?)?);
                // A line break in JSON is white space; within a string it is written `\n`.
                for byte in &mut out[start..] {
                    if matches!(byte, b'\n' | b'\r') {
                        *byte = b' ';
                    }
                }
                out.push(b'\n');
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_its_format() {
        let of = |name: &str| Format::of_path(Path::new(name));
        assert_eq!(of("a/b.binpb").unwrap(), Format::Protobuf);
        assert_eq!(of("b.jsonl").unwrap(), Format::JsonLines);
        for name in ["b.json", "b", ".jsonl", "b.jsonl.gz"] {
            assert!(of(name).is_err(), "{name}");
        }
    }
}
