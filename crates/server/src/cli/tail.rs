//! `annals tail`: watch events as they are published.

use super::Context;
use crate::exit::{Exit, Failure, Result};
use crate::history::SelectionText;
use crate::http::tail::Note;
use crate::output::{Format, cell_text, printable};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  annals tail                              everything, from now on
  annals tail 'shop.#' 'mail.*.Sent'       some types
  annals tail --since -5m                  what was archived in the last 5 minutes, then live
  annals tail --since today --stop-at-end  history alone
  annals tail -n 10 -o jsonl               ten events in JSON";

/// Watch events as they are published
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Types, with AMQP wildcards: * is one word, # any number [default: all]
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Begin with what was archived since then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// One entity
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Stop after this many events
    #[arg(short = 'n', long = "count", value_name = "N")]
    pub count: Option<u64>,
    /// Stop where history ends
    #[arg(long, requires = "since")]
    pub stop_at_end: bool,
}

impl Args {
    fn query(&self) -> Result<Vec<(&'static str, String)>> {
        // A range of the grammar is open at the end if it is one instant and two dots.
        let range = self.since.as_ref().map(|since| format!("{since}.."));
        let selection = SelectionText {
            types: self.patterns.clone(),
            axis: range.as_ref().map(|_| "archive".to_owned()),
            range,
            subject: self.subject.clone(),
            ..SelectionText::default()
        };
        selection.parse(annals_core::Clock::now(&annals_core::system::SystemClock))?;
        let owned = |(name, value): (&'static str, &str)| (name, value.to_owned());
        let mut query: Vec<_> = selection.pairs().into_iter().map(owned).collect();
        if self.stop_at_end {
            query.push(("stop_at_end", "true".to_owned()));
        }
        Ok(query)
    }
}

/// Watches.
pub async fn run(args: Args, context: &mut Context) -> Result<()> {
    let query = args.query()?;
    let server = context.server().await?;
    let stream = server.tail(&query).await?;
    follow(stream, args.count, args.stop_at_end, context).await
}

async fn follow(
    stream: impl Stream<Item = Result<Bytes>> + Unpin,
    count: Option<u64>,
    ends: bool,
    context: &mut Context,
) -> Result<()> {
    let mut printer = EventPrinter::new(context.out.format_or(Format::Table));
    let mut lines = Lines::new(stream);
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(line) = lines.next().await? else {
            printer.end(context)?;
            return match ends {
                true => Ok(()),
                false => Err(
                    Failure::new(Exit::Unreachable, "the server ended the stream")
                        .next("annals up"),
                ),
            };
        };
        match serde_json::from_slice::<Note>(&line) {
            Ok(Note::Live) => context.say("— history ends, live from here —"),
            Ok(Note::Skipped { count }) => context.say(format_args!(
                "— {count} skipped: this reader is slower than the stream; the archive has them —"
            )),
            Err(_) => {
                printer.event(&line, context)?;
                left -= 1;
            }
        }
        if lines.is_drained() {
            context.out.flush()?;
        }
    }
    printer.end(context)
}

/// Lines of a stream of bytes.
pub(super) struct Lines<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: Stream<Item = Result<Bytes>> + Unpin> Lines<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Whether the next line has to be waited for.
    pub(super) fn is_drained(&self) -> bool {
        !self.buffer.contains(&b'\n')
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(end + 1).freeze();
                line.truncate(end);
                return Ok(Some(line));
            }
            match self.stream.next().await {
                Some(part) => self.buffer.extend_from_slice(&part?),
                None => return Ok(None),
            }
        }
    }
}

/// Prints events that come one by one, each as CloudEvents JSON.
#[derive(Debug)]
pub(super) struct EventPrinter {
    format: Format,
    printed: u64,
}

impl EventPrinter {
    pub(super) fn new(format: Format) -> Self {
        Self { format, printed: 0 }
    }

    /// Prints one event.
    pub(super) fn event(&mut self, line: &[u8], context: &mut Context) -> Result<()> {
        let text = match self.format {
            Format::Jsonl => return self.raw(b"", line, b"\n", context),
            Format::Json if self.printed == 0 => return self.raw(b"[\n", line, b"", context),
            Format::Json => return self.raw(b",\n", line, b"", context),
            Format::Table => self.row(line)?,
            Format::Csv => self.csv(line)?,
        };
        self.raw(b"", text.as_bytes(), b"", context)
    }

    /// Closes what the first event opened.
    pub(super) fn end(&mut self, context: &mut Context) -> Result<()> {
        if self.format == Format::Json {
            let close: &[u8] = if self.printed == 0 { b"[]\n" } else { b"\n]\n" };
            context.out.bytes(close)?;
        }
        context.out.flush()
    }

    fn raw(
        &mut self,
        before: &[u8],
        line: &[u8],
        after: &[u8],
        context: &mut Context,
    ) -> Result<()> {
        self.printed += 1;
        context.out.bytes(before)?;
        context.out.bytes(line)?;
        context.out.bytes(after)
    }

    fn row(&self, line: &[u8]) -> Result<String> {
        let [time, event_type, subject, source, data] = columns(line)?;
        let head = match self.printed {
            0 => format!(
                "{:30} {:32} {:24} {:20} DATA\n",
                "TIME", "TYPE", "SUBJECT", "SOURCE"
            ),
            _ => String::new(),
        };
        let cell = |value: &Value| cell_text(value);
        let data = printable(&shortened(&data));
        Ok(format!(
            "{head}{:30} {:32} {:24} {:20} {data}\n",
            cell(&time),
            cell(&event_type),
            cell(&subject),
            cell(&source)
        ))
    }

    fn csv(&self, line: &[u8]) -> Result<String> {
        let [time, event_type, subject, source, data] = columns(line)?;
        let data = Value::String(data.to_string());
        let mut table = crate::output::Table::new(["time", "type", "subject", "source", "data"]);
        table.row([time, event_type, subject, source, data]);
        let text = table.render(Format::Csv);
        let header = text.find('\n').map_or(0, |end| end + 1);
        let from = if self.printed == 0 { 0 } else { header };
        Ok(text[from..].to_owned())
    }
}

fn columns(line: &[u8]) -> Result<[Value; 5]> {
    let mut event: Value = serde_json::from_slice(line)
        .map_err(|e| Failure::new(Exit::Failed, format!("the server sent no JSON: {e}")))?;
    let mut take = |name: &str| event.get_mut(name).map_or(Value::Null, Value::take);
    let data = match take("data") {
        Value::Null => take("data_base64"),
        data => data,
    };
    Ok([
        take("time"),
        take("type"),
        take("subject"),
        take("source"),
        data,
    ])
}

/// The start of a value, for one line.
fn shortened(data: &Value) -> String {
    const CHARS: usize = 120;
    let text = match data {
        Value::Null => String::new(),
        other => other.to_string(),
    };
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use clap::Parser;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    async fn printed(format: Format, parts: &[&str], count: Option<u64>) -> String {
        let shared = Shared::default();
        let cli = crate::cli::Cli::try_parse_from(["annals", "-q", "version"]).unwrap();
        let mut context = Context::new(Output::new(shared.clone(), Some(format)), &cli.flags);
        let parts: Vec<_> = parts
            .iter()
            .map(|p| Ok(Bytes::copy_from_slice(p.as_bytes())))
            .collect();
        follow(futures::stream::iter(parts), count, true, &mut context)
            .await
            .unwrap();
        let bytes = shared.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    const PARTS: [&str; 3] = [
        "{\"type\":\"a\",\"time\":\"t\",\"data\":{\"x\":1}}\n{\"no",
        "te\":\"live\"}\n{\"type\":\"=b\\u001b\",\"data_base64\":\"AA==\"}\n",
        "{\"note\":\"skipped\",\"count\":3}\n",
    ];

    #[tokio::test]
    async fn lines_cut_anywhere_come_out_whole_in_every_format() {
        let jsonl = printed(Format::Jsonl, &PARTS, None).await;
        assert_eq!(jsonl.lines().count(), 2);
        let json: Value = serde_json::from_str(&printed(Format::Json, &PARTS, None).await).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 2);
        let table = printed(Format::Table, &PARTS, None).await;
        assert_eq!(table.lines().count(), 3);
        assert!(!table.contains('\u{1b}'), "{table}");
        let csv = printed(Format::Csv, &PARTS, None).await;
        assert_eq!(csv.lines().nth(1).unwrap(), "t,a,,,\"{\"\"x\"\":1}\"");
        assert!(csv.lines().nth(2).unwrap().contains("'=b"), "{csv}");
    }

    #[tokio::test]
    async fn a_count_ends_the_tail() {
        assert_eq!(
            printed(Format::Jsonl, &PARTS, Some(1))
                .await
                .lines()
                .count(),
            1
        );
        assert_eq!(printed(Format::Json, &[], Some(0)).await, "[]\n");
    }
}
