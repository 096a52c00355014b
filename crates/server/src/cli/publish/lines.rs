//! The file side of `publish --from`: lines, unpacked and converted, in batches of bounded size.

use super::BATCH_EVENTS;
use crate::exit::{Failure, Result, at_path};
use crate::ingest::Ingest;
use annals_core::Event;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::Sender;

/// Longest line, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;
/// Bytes of envelopes after which a batch is sent however few they are.
const BATCH_BYTES: usize = 8 << 20;

/// Some lines of a file.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Their events, in order.
    pub(super) events: Vec<Event>,
    /// How many lines it took, empty ones not counted.
    pub(super) lines: u64,
    /// Number and reason of each line that is no event.
    pub(super) bad: Vec<(u64, String)>,
    /// Bytes of the file read so far.
    pub(super) position: u64,
    bytes: usize,
}

/// Length of the file, for a progress bar; 0 where it is not known.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Reads the whole file into batches. Ends early when nobody takes them any more, and after the
/// first bad line unless told to keep going.
pub(super) fn read(
    path: &Path,
    ingest: &Ingest,
    keep_going: bool,
    batches: &Sender<Batch>,
) -> Result<()> {
    let position = Arc::new(AtomicU64::new(0));
    let mut reader = open(path, position.clone())?;
    let mut batch = Batch::default();
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(LINE_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|e| Failure::from(e).context(format!("after line {number}")))?;
        if read == 0 {
            break;
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        batch.take(number, &line, ingest);
        let ends = !keep_going && !batch.bad.is_empty();
        if ends || batch.is_full() {
            batch.position = position.load(Ordering::Relaxed);
            let full = std::mem::take(&mut batch);
            if batches.blocking_send(full).is_err() || ends {
                return Ok(());
            }
        }
        if line.len() > LINE_BYTES_MAX {
            skip_line(&mut reader)?;
        }
    }
    batch.position = position.load(Ordering::Relaxed);
    let _ = batches.blocking_send(batch);
    Ok(())
}

impl Batch {
    fn take(&mut self, number: u64, line: &[u8], ingest: &Ingest) {
        self.lines += 1;
        let event = if line.len() > LINE_BYTES_MAX {
            Err(format!("longer than {LINE_BYTES_MAX} bytes"))
        } else {
            ingest.event(line.trim_ascii()).map_err(|e| e.to_string())
        };
        match event {
            Ok(event) => {
                self.bytes += event.bytes().len();
                self.events.push(event);
            }
            Err(reason) => self.bad.push((number, reason)),
        }
    }

    fn is_full(&self) -> bool {
        self.events.len() + self.bad.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES
    }
}

fn open(path: &Path, position: Arc<AtomicU64>) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(at_path(path))?;
    let file = Counted { file, position };
    if path.extension().is_some_and(|e| e == "zst") {
        let unpacked = zstd::Decoder::new(file).map_err(at_path(path))?;
        return Ok(Box::new(BufReader::with_capacity(1 << 18, unpacked)));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 18, file)))
}

fn skip_line(reader: &mut dyn BufRead) -> Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|b| *b == b'\n');
        let length = end.map_or(buffer.len(), |i| i + 1);
        reader.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// A file that says how far it has been read.
struct Counted {
    file: File,
    position: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-11-21T00:00:00Z","data":{"a":1}}"#;

    fn batches(text: &[u8], name: &str, keep_going: bool) -> Vec<Batch> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
        read(&path, &Ingest::without_schemas(), keep_going, &sender).unwrap();
        drop(sender);
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_in_the_file() {
        let text = format!("{GOOD}\n\n{{}}\n{GOOD}\nnonsense\n{GOOD}");
        let all = batches(text.as_bytes(), "a.jsonl", true);
        assert_eq!(all.len(), 1);
        let numbers: Vec<u64> = all[0].bad.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [3, 5]);
        assert_eq!((all[0].events.len(), all[0].lines), (3, 5));
    }

    #[test]
    fn reading_ends_at_the_first_bad_line_unless_told_to_keep_going() {
        let text = format!("{GOOD}\nnonsense\n{GOOD}\n");
        let all = batches(text.as_bytes(), "a.jsonl", false);
        assert_eq!((all[0].events.len(), all[0].bad.len()), (1, 1));
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn packed_files_are_unpacked_and_batches_are_bounded() {
        let text = format!("{GOOD}\n").repeat(2 * BATCH_EVENTS + 1);
        let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let all = batches(&packed, "a.jsonl.zst", false);
        let sizes: Vec<usize> = all.iter().map(|b| b.events.len()).collect();
        assert_eq!(sizes, [BATCH_EVENTS, BATCH_EVENTS, 1]);
        assert_eq!(all[2].position, packed.len() as u64);
    }

    #[test]
    fn a_line_that_never_ends_is_a_bad_line_and_no_more() {
        let mut text = vec![b'x'; LINE_BYTES_MAX * 2];
        text.extend_from_slice(format!("\n{GOOD}\n").as_bytes());
        let all = batches(&text, "a.jsonl", true);
        assert_eq!((all[0].events.len(), all[0].bad.len()), (1, 1));
        assert!(all[0].bad[0].1.contains("longer than"));
    }
}
