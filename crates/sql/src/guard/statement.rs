//! The allow-list of statements, on the parsed tree.

use super::relations::check_query;
use super::{refused, too_large};
use annals_core::{Error, Result};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{self, ObjectName};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

/// How deep the parser may go: each open parenthesis takes a few calls.
const RECURSION_MAX: usize = 6 * super::tokens::OPEN_MAX;

/// A question, parsed and found harmless.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A query, or `EXPLAIN` of one.
    Query(Box<Statement>),
    /// `DESCRIBE` of this table.
    Describe(ObjectName),
    /// `SHOW TABLES`.
    Tables,
}

pub(super) fn read(tokens: Vec<TokenWithSpan>, dialect: &dyn Dialect) -> Result<Asked> {
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(dialect)
        .with_recursion_limit(RECURSION_MAX)
        .build()
        .map_err(|e| not_sql(&e))?;
    let mut statements = parser.parse_statements().map_err(|e| not_sql(&e))?;
    let Some(statement) = statements.pop_front() else {
        return Err(Error::invalid("the question is empty: ask a SELECT"));
    };
    if !statements.is_empty() {
        return Err(refused("a second statement"));
    }
    allow(statement)
}

fn allow(statement: Statement) -> Result<Asked> {
    match &statement {
        Statement::Statement(sql) => match &**sql {
            ast::Statement::Query(query) => {
                check_query(query)?;
                Ok(Asked::Query(Box::new(statement)))
            }
            ast::Statement::ExplainTable { table_name, .. } => {
                Ok(Asked::Describe(table_name.clone()))
            }
            ast::Statement::ShowTables { show_options, .. } => {
                if show_options.to_string().trim().is_empty() {
                    return Ok(Asked::Tables);
                }
                Err(refused("SHOW TABLES with a filter"))
            }
            other => Err(refused(&name_of(other))),
        },
        Statement::Explain(explain) => {
            match &*explain.statement {
                Statement::Statement(sql) => match &**sql {
                    ast::Statement::Query(query) => check_query(query)?,
                    other => return Err(refused(&format!("EXPLAIN {}", name_of(other)))),
                },
                _ => return Err(refused("EXPLAIN of anything but a query")),
            }
            Ok(Asked::Query(Box::new(statement)))
        }
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(refused("COPY")),
        Statement::Reset(_) => Err(refused("RESET")),
    }
}

/// The first two words of a statement, as it is written.
fn name_of(statement: &ast::Statement) -> String {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    words.join(" ").chars().take(60).collect()
}

/// The parser's words, which hold line and column.
fn not_sql(error: &datafusion::error::DataFusionError) -> Error {
    let text = error.strip_backtrace();
    if text.contains("RecursionLimitExceeded") || text.contains("recursion limit") {
        return too_large("the question is nested too deeply");
    }
    let text = text.strip_prefix("SQL error: ").unwrap_or(&text);
    let text = text
        .strip_prefix("ParserError(\"")
        .and_then(|t| t.strip_suffix("\")"))
        .unwrap_or(text);
    let shown: String = text.chars().take(400).collect();
    Error::invalid(format!("not SQL: {shown}"))
}
