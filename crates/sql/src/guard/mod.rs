//! What is a question at all: one statement that only reads, of a bounded size.
//!
//! Four layers, each enough against what it names: the tokens (length, first word, depth, one
//! statement), the tree (an allow-list of statements and clauses), the functions (only those of
//! the list are registered), and the plan (DataFusion's own options, patterns, expansion).

mod plan;
mod relations;
mod scopes;
mod statement;
mod tokens;

pub use relations::{EXPRESSIONS_MAX, IN_LIST_MAX, RELATIONS_MAX};
pub use tokens::{DEPTH_MAX, OPEN_MAX, TEXT_BYTES_MAX};

pub(crate) use plan::{check_optimized, check_planned};
pub(crate) use scopes::{Scopes, normal};
pub(crate) use statement::Asked;

use crate::limits::Limit;
use annals_core::{Error, ErrorKind, Result};

/// Whether this text is a question. An error names what is refused.
///
/// The engine checks by itself; this is for a caller that wants to know before it asks.
pub fn check(sql: &str) -> Result<()> {
    read(sql).map(|_| ())
}

/// The question in this text. Needs a deep stack: call it on the engine's threads.
pub(crate) fn read(sql: &str) -> Result<Asked> {
    let dialect = datafusion::sql::sqlparser::dialect::PostgreSqlDialect {};
    statement::read(tokens::read(sql, &dialect)?, &dialect)
}

/// The error for what a question may not do.
fn refused(what: &str) -> Error {
    Error::new(
        ErrorKind::NotAllowed,
        format!(
            "{what} is refused: questions only read; ask one SELECT, WITH, VALUES, EXPLAIN, \
             SHOW TABLES or DESCRIBE"
        ),
    )
}

/// The error for a question that is larger than it may be.
fn too_large(message: impl Into<String>) -> Error {
    Limit::Question.error_saying(message)
}
