//! Payloads in, a struct array out.

use crate::check::Checker;
use crate::leaf::{Row, Stop};
use crate::node::Node;
use crate::shape::Shape;
use crate::wire::Span;
use annals_core::{Error, ErrorKind, Result};
use arrow_array::StructArray;
use std::sync::Arc;

/// How many values one payload may unfold to.
///
/// A row of a list can be two bytes on the wire and hundreds of columns wide.
pub const VALUES_MAX: usize = 1 << 24;

/// Rows of a message type, from its payloads.
#[derive(Debug)]
pub struct PayloadBuilder {
    checker: Arc<Checker>,
    root: Node,
    bytes: usize,
}

impl PayloadBuilder {
    /// Without rows.
    pub fn new(shape: &Shape) -> Self {
        Self {
            checker: shape.checker.clone(),
            root: Node::new(&shape.plan),
            bytes: 0,
        }
    }

    /// Appends a payload as a row.
    ///
    /// On an error nothing was appended. [`Invalid`](ErrorKind::Invalid): the payload is
    /// malformed, or unfolds to more than [`VALUES_MAX`] values. [`Unavailable`](ErrorKind::Unavailable):
    /// there is no room; [`finish`](Self::finish), and append it again.
    pub fn append(&mut self, payload: &[u8]) -> Result<()> {
        if i32::try_from(payload.len()).is_err() {
            return Err(Error::invalid("the payload is longer than 2 GiB"));
        }
        self.checker.check(payload)?;
        let all = Span {
            start: 0,
            end: payload.len() as u32,
        };
        let mut row = Row {
            payload,
            cells: VALUES_MAX,
            text: 0,
        };
        let rows = self.len();
        if let Err(stop) = self.root.push(&[all], &mut row) {
            self.root.truncate(rows);
            return Err(refusal(stop, rows));
        }
        self.bytes += row.text + (VALUES_MAX - row.cells) * CELL_BYTES;
        Ok(())
    }

    /// Appends a row that is null in every column.
    pub fn append_null(&mut self) {
        let mut row = Row {
            payload: &[],
            cells: usize::MAX,
            text: 0,
        };
        let pushed = self.root.push_null(&mut row);
        debug_assert_eq!(pushed, Ok(()), "nulls always have room");
        self.bytes += (usize::MAX - row.cells) * CELL_BYTES;
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.root.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory the rows take, by what was appended: good enough to decide when to finish.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows; the builder is empty afterwards.
    pub fn finish(&mut self) -> StructArray {
        self.bytes = 0;
        self.root.finish()
    }
}

/// What a value takes, text aside.
const CELL_BYTES: usize = 8;

fn refusal(stop: Stop, rows: usize) -> Error {
    match stop {
        Stop::TooMany => Error::invalid(format!(
            "the payload unfolds to more than {VALUES_MAX} values"
        )),
        Stop::Full if rows == 0 => {
            Error::invalid("the payload alone is too much text for one column")
        }
        Stop::Full => Error::new(
            ErrorKind::Unavailable,
            "a column has no room for this payload: finish the batch, and append it again",
        ),
    }
}
