//! Which columns a message type has: in a new table, or in one that exists.

use crate::check::Checker;
use crate::merge;
use crate::plan::MessagePlan;
use annals_core::{Error, Result};
use arrow_schema::Fields;
use prost_reflect::MessageDescriptor;
use std::fmt;
use std::sync::Arc;

/// Key of a column's metadata: the number of the field it came from.
pub const NUMBER: &str = "annals.number";
/// Key of a column's metadata: what it came from.
pub const KIND: &str = "annals.kind";

/// The columns of a message type, and how its payloads fill them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shape {
    pub(crate) plan: Arc<MessagePlan>,
    pub(crate) checker: Arc<Checker>,
}

impl Shape {
    /// The columns of a new table.
    pub fn of(message: &MessageDescriptor) -> Result<Self> {
        Ok(Self::merge(&Fields::empty(), message)?.0)
    }

    /// The columns of a table that exists, and what the message adds to them; and what differs
    /// between the two.
    pub fn merge(existing: &Fields, message: &MessageDescriptor) -> Result<(Self, Vec<Conflict>)> {
        if message.is_map_entry() {
            let name = message.full_name();
            return Err(Error::invalid(format!(
                "{name} is an entry of a map, not a payload"
            )));
        }
        let (plan, conflicts) = merge::plan(existing, message);
        let shape = Self {
            plan: Arc::new(plan),
            checker: Arc::new(Checker::new(message)),
        };
        Ok((shape, conflicts))
    }

    /// The columns.
    pub fn fields(&self) -> &Fields {
        &self.plan.fields
    }
}

/// A field that is not what the column it had came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The column it had: names from the outermost column, with points between.
    pub path: String,
    /// In what they differ.
    pub difference: Difference,
    /// What the table has.
    pub existing: String,
    /// What the descriptor has.
    pub new: String,
    /// Name of the column the values go to.
    pub column: String,
}

/// In what a field and its column differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Difference {
    /// The kind: values go to a new column. Reported when it is added.
    Kind,
    /// The name: values go to the same column. Reported each time.
    Name,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            existing,
            new,
            column,
            ..
        } = self;
        match self.difference {
            Difference::Kind => write!(
                f,
                "column {path} is {existing}, its field is now {new}: values go to {column}"
            ),
            Difference::Name => {
                write!(
                    f,
                    "the field of column {path} is now called {new}: the column stays"
                )
            }
        }
    }
}
