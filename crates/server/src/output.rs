//! What verbs print: one [`Table`], rendered as text, JSON, JSON lines or CSV.
//!
//! Values come from events, so from strangers: control characters never reach a terminal, and a
//! cell that a spreadsheet would take for a formula is quoted out of it.

use crate::exit::{Failure, Result};
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::Write;

/// How data is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
}

/// Rows under named columns; or one record, shown name by name.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
    record: bool,
}

impl Table {
    /// An empty table. Column names are JSON keys: lower case, `_` between words.
    pub fn new(columns: impl Into<Vec<&'static str>>) -> Self {
        Self {
            columns: columns.into(),
            ..Self::default()
        }
    }

    /// One thing with named fields.
    pub fn record(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let (columns, row) = fields.into_iter().unzip();
        Self {
            columns,
            rows: vec![row],
            record: true,
        }
    }

    /// Adds a row: one value per column.
    pub fn row(&mut self, values: impl Into<Vec<Value>>) {
        let values = values.into();
        debug_assert_eq!(values.len(), self.columns.len());
        self.rows.push(values);
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Renders it.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Table if self.record => self.render_record(),
            Format::Table => self.render_columns(),
            Format::Json => self.render_json(),
            Format::Jsonl => self.render_jsonl(),
            Format::Csv => self.render_csv(),
        }
    }

    fn render_record(&self) -> String {
        let width = self.columns.iter().map(|c| c.len()).max().unwrap_or(0);
        let mut out = String::new();
        for (column, value) in self.columns.iter().zip(self.rows.iter().flatten()) {
            let _ = writeln!(out, "{column:width$}  {}", cell_text(value));
        }
        out
    }

    fn render_columns(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(self.columns.iter().map(|c| c.to_uppercase()));
        for row in &self.rows {
            table.add_row(row.iter().map(|value| {
                let cell = comfy_table::Cell::new(cell_text(value));
                match value {
                    Value::Number(_) => cell.set_alignment(comfy_table::CellAlignment::Right),
                    _ => cell,
                }
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        text.lines().fold(String::new(), |mut out, line| {
            let _ = writeln!(out, "{}", line.trim_end());
            out
        })
    }

    fn render_json(&self) -> String {
        let objects: Vec<Value> = self.objects().collect();
        let document = match objects.as_slice() {
            [one] if self.record => one.clone(),
            _ => Value::Array(objects),
        };
        format!("{document:#}\n")
    }

    fn render_jsonl(&self) -> String {
        self.objects().fold(String::new(), |mut out, object| {
            let _ = writeln!(out, "{object}");
            out
        })
    }

    fn render_csv(&self) -> String {
        let mut out = csv_line(self.columns.iter().map(|c| (*c).to_owned()));
        for row in &self.rows {
            out += &csv_line(row.iter().map(csv_text));
        }
        out
    }

    fn objects(&self) -> impl Iterator<Item = Value> + '_ {
        self.rows.iter().map(|row| {
            let fields = self.columns.iter().map(|c| (*c).to_owned());
            Value::Object(fields.zip(row.iter().cloned()).collect::<Map<_, _>>())
        })
    }
}

/// Standard output, or what stands for it in a test; and how to write to it.
pub struct Output {
    writer: Box<dyn Write + Send>,
    format: Option<Format>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Writes to `writer`, in `format` where one was asked for.
    pub fn new(writer: impl Write + Send + 'static, format: Option<Format>) -> Self {
        Self {
            writer: Box::new(writer),
            format,
        }
    }

    /// The format asked for, or else the verb's own.
    pub fn format_or(&self, default: Format) -> Format {
        self.format.unwrap_or(default)
    }

    /// Writes a table in the format asked for.
    pub fn table(&mut self, table: &Table) -> Result<()> {
        let text = table.render(self.format_or(Format::Table));
        self.bytes(text.as_bytes())?;
        self.flush()
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(output_failure)
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(output_failure)
    }
}

/// A reader that closed the pipe has what it wanted.
pub fn output_failure(error: std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::closed_pipe(),
        _ => Failure::from(error).context("standard output"),
    }
}

/// A value as one cell of a text table: one line, no control characters.
pub fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        other => printable(&other.to_string()),
    }
}

/// Text that is safe on a terminal: control characters and those that reorder text are written
/// as escapes.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let reorders = matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A count with thousands separated: 232,985.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes for people: 13.2 MiB.
pub fn bytes_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

fn csv_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => {
            let text = printable(text);
            // What a spreadsheet would run: made text by a leading apostrophe.
            let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
            if formula { format!("'{text}") } else { text }
        }
        other => other.to_string(),
    }
}

fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells
        .map(|cell| {
            if cell.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell
            }
        })
        .collect();
    cells.join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Table {
        let mut table = Table::new(["type", "count"]);
        table.row([json!("shop.v1.OrderPlaced"), json!(12345)]);
        table.row([json!("a,\"b\"\n\u{1b}[31m"), Value::Null]);
        table
    }

    #[test]
    fn a_table_shows_the_same_rows_in_every_format() {
        let text = sample().render(Format::Table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["TYPE", "COUNT"]
        );
        assert!(lines[1].ends_with("12,345"), "{text}");
        let json: Value = serde_json::from_str(&sample().render(Format::Json)).unwrap();
        assert_eq!(
            json[0],
            json!({"type": "shop.v1.OrderPlaced", "count": 12345})
        );
        assert_eq!(sample().render(Format::Jsonl).lines().count(), 2);
        let csv = sample().render(Format::Csv);
        assert!(
            csv.starts_with("type,count\r\nshop.v1.OrderPlaced,12345\r\n"),
            "{csv}"
        );
    }

    #[test]
    fn a_record_is_one_object_in_json_and_a_list_of_fields_as_text() {
        let record = Table::record([("pid", json!(7)), ("address", json!("x"))]);
        assert_eq!(record.render(Format::Table), "pid      7\naddress  x\n");
        let json: Value = serde_json::from_str(&record.render(Format::Json)).unwrap();
        assert_eq!(json, json!({"pid": 7, "address": "x"}));
    }

    #[test]
    fn control_characters_never_reach_a_terminal_or_a_csv_file() {
        for format in [Format::Table, Format::Json, Format::Jsonl, Format::Csv] {
            assert!(!sample().render(format).contains('\u{1b}'), "{format:?}");
        }
        assert_eq!(printable("a\u{202e}b\tc"), "a\\u{202e}b\\tc");
        assert_eq!(printable("Zoë 漢字"), "Zoë 漢字");
    }

    #[test]
    fn cells_that_a_spreadsheet_would_run_are_made_text_in_csv() {
        let mut table = Table::new(["x"]);
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)"] {
            table.row([json!(formula)]);
        }
        table.row([json!(-1)]);
        let csv = table.render(Format::Csv);
        let lines: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(lines, ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "-1"]);
    }

    #[test]
    fn counts_and_sizes_read_easily() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(232_985), "232,985");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(13 * 1024 * 1024 + 200 * 1024), "13.2 MiB");
    }

    #[test]
    fn a_closed_pipe_ends_quietly_with_done() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let failure = Output::new(Closed, None).table(&sample()).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Done);
        assert!(failure.message.is_empty());
    }
}
