//! Which names are common table expressions, at each point of a walk over a query.

use datafusion::sql::sqlparser::ast::{Ident, Query};

/// The scopes open during a walk, outermost first. Call [`Scopes::enter`] before a query's parts
/// are walked and [`Scopes::leave`] after.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    frames: Vec<Frame>,
}

/// One query with its `WITH`: an expression is visible once its own query has been walked.
#[derive(Debug)]
struct Frame {
    names: Vec<String>,
    bodies: Vec<usize>,
    weights: Vec<usize>,
    weight: usize,
}

impl Scopes {
    pub(crate) fn enter(&mut self, query: &Query) {
        let tables = query.with.iter().flat_map(|w| &w.cte_tables);
        self.frames.push(Frame {
            names: tables.clone().map(|t| normal(&t.alias.name)).collect(),
            bodies: tables.map(|t| address(&t.query)).collect(),
            weights: Vec::new(),
            weight: 0,
        });
    }

    /// Leaves a query; its weight: the relations in it, each expression counted where it is used,
    /// at least one.
    pub(crate) fn leave(&mut self, query: &Query) -> usize {
        let weight = self.frames.pop().map_or(0, |frame| frame.weight).max(1);
        if let Some(parent) = self.frames.last_mut() {
            let next = parent.weights.len();
            if parent.bodies.get(next) == Some(&address(query)) {
                parent.weights.push(weight);
            } else {
                parent.weight = parent.weight.saturating_add(weight);
            }
        }
        weight
    }

    /// Counts a relation used in the query that is walked.
    pub(crate) fn uses(&mut self, weight: usize) {
        if let Some(frame) = self.frames.last_mut() {
            frame.weight = frame.weight.saturating_add(weight);
        }
    }

    /// The weight of the expression of this name, if one is visible here.
    pub(crate) fn expression(&self, name: &Ident) -> Option<usize> {
        let name = normal(name);
        self.frames.iter().rev().find_map(|frame| {
            let visible = &frame.names[..frame.weights.len()];
            let at = visible.iter().rposition(|n| *n == name)?;
            Some(frame.weights[at])
        })
    }
}

/// Tells the body of a `WITH` from other subqueries of the same query: compared, never followed.
fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

/// An identifier as it is compared: lower case unless it was quoted.
pub(crate) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}
