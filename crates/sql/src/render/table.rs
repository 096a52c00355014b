//! A table for a terminal. Widths come from the first rows; wider values are cut with `…`.

use super::value;
use annals_core::Result;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use std::io::Write as _;

/// Widest column, in characters.
const WIDTH_MAX: usize = 80;

#[derive(Debug)]
pub(super) struct Table {
    names: Vec<String>,
    right: Vec<bool>,
    /// Known once the first rows were seen.
    widths: Vec<usize>,
}

impl Table {
    pub(super) fn new(schema: &Schema) -> Self {
        let fields = schema.fields();
        Self {
            names: fields.iter().map(|f| cell(f.name())).collect(),
            right: fields.iter().map(|f| f.data_type().is_numeric()).collect(),
            widths: Vec::new(),
        }
    }

    pub(super) fn rows(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| {
                Ok(value::text(column, row)?.map_or_else(String::new, |text| cell(&text)))
            });
            rows.push(cells.collect::<Result<Vec<String>>>()?);
        }
        if self.widths.is_empty() {
            self.begin(&rows, out);
        }
        for cells in &rows {
            self.line(cells, out);
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, rows: u64, out: &mut Vec<u8>) {
        if self.widths.is_empty() {
            self.begin(&[], out);
        }
        let rows = match rows {
            1 => "(1 row)\n".to_owned(),
            n => format!("({n} rows)\n"),
        };
        out.extend_from_slice(rows.as_bytes());
    }

    fn begin(&mut self, rows: &[Vec<String>], out: &mut Vec<u8>) {
        self.widths = (0..self.names.len())
            .map(|i| {
                let cells = rows.iter().map(|cells| &cells[i]);
                let widest = cells
                    .chain([&self.names[i]])
                    .map(|c| c.chars().count())
                    .max();
                widest.unwrap_or(0).max(1)
            })
            .collect();
        let names = std::mem::take(&mut self.names);
        self.line(&names, out);
        self.names = names;
        for (i, width) in self.widths.iter().enumerate() {
            let between = if i > 0 { "+" } else { "" };
            let _ = write!(out, "{between}{}", "-".repeat(width + 2));
        }
        out.push(b'\n');
    }

    fn line(&self, cells: &[String], out: &mut Vec<u8>) {
        let mut line = String::new();
        for (i, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            let between = if i > 0 { "|" } else { "" };
            let cell = cut(cell, *width);
            line += &match self.right[i] {
                true => format!("{between} {cell:>width$} "),
                false => format!("{between} {cell:<width$} "),
            };
        }
        out.extend_from_slice(line.trim_end().as_bytes());
        out.push(b'\n');
    }
}

/// Text that cannot steer a terminal, of bounded width.
fn cell(text: &str) -> String {
    let mut shown = String::new();
    // One more than fits, so that it shows as cut.
    for c in text.chars().take(WIDTH_MAX + 1) {
        match c {
            // Bidirectional overrides reorder what stands around them.
            c if c.is_control()
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                shown.extend(c.escape_default());
            }
            c => shown.push(c),
        }
    }
    cut(&shown, WIDTH_MAX)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}
