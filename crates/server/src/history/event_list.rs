//! [`EventList`]: a list of events as lines of text, from a file or a request's body.
//!
//! ```text
//!  {"source":"/shop","id":"o-1"}    other members are ignored: printed events are a list
//!  /shop<TAB>o-1
//!  o-1                              every event of this id, whatever its source
//!  # comment                        skipped, as blank lines are
//! ```

use crate::exit::{Exit, Failure, Result};
use annals_core::EventSet;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io::Read;
use std::sync::Arc;

/// Most events of a list, those listed twice counted twice.
pub const EVENTS_MAX: usize = 5_000_000;
/// Longest line, in bytes: an event in JSON fits.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// Bytes of a list that are sent or read at a time.
const PART_BYTES: usize = 64 << 10;

/// A list being read.
#[derive(Debug, Default)]
pub struct EventList {
    events: EventSet,
    /// Events taken, those listed twice counted twice.
    taken: usize,
    lines: u64,
    /// The beginning of a line whose end has not come yet.
    cut: Vec<u8>,
}

/// A line in JSON.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl EventList {
    /// Reads all there is.
    pub fn read(mut from: impl Read) -> Result<Arc<EventSet>> {
        let mut list = Self::default();
        let mut part = vec![0; PART_BYTES];
        loop {
            match from.read(&mut part)? {
                0 => return list.finish(),
                len => list.push(&part[..len])?,
            }
        }
    }

    /// Takes the next bytes, which may end anywhere.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some(at) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
            if self.cut.is_empty() {
                self.line(line)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.cut);
                self.line(&whole)?;
            }
            bytes = rest;
        }
        self.keep(bytes)
    }

    /// Takes the last line; the events, each once.
    pub fn finish(mut self) -> Result<Arc<EventSet>> {
        let last = std::mem::take(&mut self.cut);
        self.line(&last)?;
        Ok(Arc::new(self.events))
    }

    /// Adds an event that was not read from a line.
    pub fn add(&mut self, source: Option<&str>, id: &str) -> Result<()> {
        self.taken += 1;
        if self.taken > EVENTS_MAX {
            let message = format!("more than {EVENTS_MAX} events are listed; split the list");
            return Err(Failure::new(Exit::Invalid, message));
        }
        match source {
            Some(source) => self.events.insert(source, id)?,
            None => self.events.insert_id(id)?,
        };
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        if self.cut.len() + bytes.len() > LINE_BYTES_MAX {
            let message = format!(
                "line {} is longer than {LINE_BYTES_MAX} bytes",
                self.lines + 1
            );
            return Err(Failure::new(Exit::Invalid, message));
        }
        self.cut.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        self.lines += 1;
        let number = self.lines;
        self.take(line)
            .map_err(|failure| failure.context(format!("line {number}")))
    }

    fn take(&mut self, line: &[u8]) -> Result<()> {
        let invalid = |message: String| Failure::new(Exit::Invalid, message);
        let text = std::str::from_utf8(line).map_err(|_| invalid("it is no UTF-8".to_owned()))?;
        // A tab at the end is not trimmed: an id was to come after it.
        let text = text.trim_matches([' ', '\r']);
        if text.trim().is_empty() || text.starts_with('#') {
            return Ok(());
        }
        if text.starts_with('{') {
            let line: Line<'_> = serde_json::from_str(text)
                .map_err(|e| invalid(format!("no JSON object with source and id: {e}")))?;
            return self.add(line.source.as_deref(), &line.id);
        }
        match text.split_once('\t') {
            Some((source, id)) => self.add(Some(source), id),
            None => self.add(None, text),
        }
    }
}

/// A list as lines, in parts of bounded size; [`EventList`] reads them back.
pub fn parts(events: Arc<EventSet>) -> impl Iterator<Item = Bytes> + Send {
    let mut next = 0;
    std::iter::from_fn(move || {
        let mut part = Vec::with_capacity(PART_BYTES + 4096);
        while next < events.len() && part.len() < PART_BYTES {
            let (source, id) = events.get(next);
            let line = Line {
                source: source.map(Cow::Borrowed),
                id: Cow::Borrowed(id),
            };
            serde_json::to_writer(&mut part, &line).expect("text is written to memory");
            part.push(b'\n');
            next += 1;
        }
        (!part.is_empty()).then(|| part.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(Option<String>, String)>> {
        let events = EventList::read(text.as_bytes())?;
        let owned = |(s, id): (Option<&str>, &str)| (s.map(str::to_owned), id.to_owned());
        Ok(events.iter().map(owned).collect())
    }

    #[test]
    fn every_form_of_a_line_is_read_and_an_event_listed_twice_counts_once() {
        let text = "{\"specversion\":\"1.0\",\"id\":\"a\",\"source\":\"/s\",\"data\":{\"id\":7}}\r\n\
                    # o-0\n\n  \n/s\tb\n c d \n/s\ta\n{\"id\":\"\\u00e9\"}\nc d\n{\"source\":null,\"id\":\"e\"}";
        let pair = |source: Option<&str>, id: &str| (source.map(str::to_owned), id.to_owned());
        let expected = [
            pair(Some("/s"), "a"),
            pair(Some("/s"), "b"),
            pair(None, "c d"),
            pair(None, "é"),
            pair(None, "e"),
        ];
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn a_malformed_line_is_named_by_its_number() {
        #[track_caller]
        fn check(text: &str, line: u32, reason: &str) {
            let message = read(text).unwrap_err().message;
            assert!(message.starts_with(&format!("line {line}: ")), "{message}");
            assert!(message.contains(reason), "{message}");
        }
        check("a\n{\"source\":\"/s\"}\n", 2, "id");
        check("# one\n\n{nonsense\n", 3, "JSON");
        check("a\n/s\tb\tc\n", 2, "character");
        check("\tb", 1, "source");
        check("/s\t", 1, "id");
        check("{\"id\":7}", 1, "string");
        check(&format!("a\n{}\n", "x".repeat(256)), 2, "256 bytes");
        let binary = EventList::read(&b"a\n\xff\n"[..]).unwrap_err();
        assert!(binary.message.starts_with("line 2: "), "{binary}");
    }

    #[test]
    fn lines_may_be_cut_anywhere() {
        let text = "/s\ta\n{\"id\":\"b\"}\n# c\n\n/s\td";
        let whole = EventList::read(text.as_bytes()).unwrap();
        assert_eq!(whole.len(), 3);
        for at in 0..text.len() {
            let mut list = EventList::default();
            for part in [&text.as_bytes()[..at], &text.as_bytes()[at..]] {
                list.push(part).unwrap();
            }
            assert_eq!(list.finish().unwrap(), whole, "cut at {at}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_more_than_its_bound() {
        let mut list = EventList::default();
        let part = vec![b'x'; 1 << 20];
        let failed = (0..20).find_map(|_| list.push(&part).err()).unwrap();
        assert!(failed.message.starts_with("line 1 is longer"), "{failed}");
        assert!(list.cut.len() <= LINE_BYTES_MAX);
    }

    #[test]
    fn a_list_comes_back_as_it_was_sent() {
        let mut list = EventList::default();
        for n in 0..20_000 {
            let id = format!("#{n}\"\t ").trim().to_owned();
            list.add((n % 3 > 0).then_some("/s \"é"), &id).unwrap();
        }
        let sent = list.finish().unwrap();
        let mut read = EventList::default();
        for part in parts(Arc::clone(&sent)) {
            assert!(part.len() < PART_BYTES + 4096);
            read.push(&part).unwrap();
        }
        assert_eq!(read.finish().unwrap(), sent);
    }
}
