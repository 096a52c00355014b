//! DataFusion's errors as ours: a kind, a place in the text, near names, the limit that was hit.

use crate::limits::{Limit, Reached};
use crate::names::distance;
use annals_core::{Error, ErrorKind};
use datafusion::arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use std::error::Error as StdError;

/// Most columns an error lists.
const LISTED_MAX: usize = 20;
/// Longest text of an error taken over, in characters.
const TEXT_MAX: usize = 600;

/// The error of planning or running a question under this memory bound.
pub(crate) fn of_question(error: &DataFusionError, memory_bytes: usize) -> Error {
    if let Some(found) = carried(error) {
        return found;
    }
    let root = error.find_root();
    if let DataFusionError::ResourcesExhausted(which) = root {
        tracing::debug!("a question ran out of memory: {which}");
        return Limit::Memory {
            bytes: memory_bytes,
        }
        .error();
    }
    let place = place(error);
    if let DataFusionError::SchemaError(schema, _) = root
        && let SchemaError::FieldNotFound {
            field,
            valid_fields,
        } = &**schema
    {
        return Error::invalid(format!("{}{place}", no_column(field, valid_fields)));
    }
    Error::new(kind(root), format!("{}{place}", text(root)))
}

/// An error that no question should be able to cause.
pub(crate) fn internal(error: DataFusionError) -> Error {
    Error::new(ErrorKind::Internal, "the query engine failed").caused_by(error)
}

/// An error of ours, or a limit, that travelled through DataFusion.
fn carried(error: &DataFusionError) -> Option<Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = next {
        if let Some(Reached(limit)) = e.downcast_ref::<Reached>() {
            return Some(limit.error());
        }
        if let Some(ours) = e.downcast_ref::<Error>() {
            return Some(Error::new(ours.kind(), ours.to_string()));
        }
        next = e.source();
    }
    None
}

fn kind(root: &DataFusionError) -> ErrorKind {
    match root {
        // DataFusion takes a pattern that does not compile for a bug of its own.
        DataFusionError::Internal(text) if text.contains("did not compile") => ErrorKind::Invalid,
        DataFusionError::ParquetError(_) => ErrorKind::Corrupt,
        DataFusionError::ArrowError(e, _) if matches!(**e, ArrowError::ParquetError(_)) => {
            ErrorKind::Corrupt
        }
        DataFusionError::ObjectStore(e) => match &**e {
            datafusion::object_store::Error::NotFound { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        },
        DataFusionError::IoError(_) => ErrorKind::Unavailable,
        DataFusionError::Internal(_)
        | DataFusionError::ExecutionJoin(_)
        | DataFusionError::Ffi(_) => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    }
}

/// The root's own words, without what DataFusion puts around them.
fn text(root: &DataFusionError) -> String {
    let text = root.strip_backtrace();
    let mut text = text.as_str();
    for prefix in [
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
        "External error: ",
        "Optimizer rule ",
        "Internal error: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let text = text
        .split("\nThis issue was likely caused")
        .next()
        .unwrap_or(text);
    let mut shown: String = text.chars().take(TEXT_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown.trim_end_matches(['.', '\n', ' ']).to_owned()
}

/// ` (line 1, column 8)`, where the planner knows it.
fn place(error: &DataFusionError) -> String {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = next {
        if let Some(DataFusionError::Diagnostic(diagnostic, _)) = e.downcast_ref() {
            return diagnostic.span.as_ref().map_or_else(String::new, |span| {
                format!(" (line {}, column {})", span.start.line, span.start.column)
            });
        }
        next = e.source();
    }
    String::new()
}

fn no_column(field: &Column, valid: &[Column]) -> String {
    let wanted = field.name.to_ascii_lowercase();
    let mut near: Vec<(usize, &str)> = valid
        .iter()
        .map(|c| {
            (
                distance(&c.name.to_ascii_lowercase(), &wanted),
                c.name.as_str(),
            )
        })
        .filter(|(d, name)| *d <= 1 + wanted.len() / 4 && wanted.len() + name.len() < 512)
        .collect();
    near.sort_unstable();
    near.dedup();
    let quote = |name: &str| match name.chars().any(|c| c.is_ascii_uppercase()) {
        true => format!("\"{name}\" (with the quotes)"),
        false => name.to_owned(),
    };
    let next = match near.first() {
        Some((_, name)) => format!("did you mean {}?", quote(name)),
        None if valid.is_empty() => "there are no columns here".to_owned(),
        None => {
            let names: Vec<&str> = valid.iter().map(|c| c.name.as_str()).collect();
            let more = match names.len().saturating_sub(LISTED_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let shown = &names[..names.len().min(LISTED_MAX)];
            format!("there are {}{more}", shown.join(", "))
        }
    };
    let shown: String = field.name.chars().take(200).collect();
    format!("there is no column {shown}: {next}")
}
