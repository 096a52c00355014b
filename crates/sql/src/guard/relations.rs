//! The allow-list of what stands inside a query: tables, clauses, lists; each counted.

use super::{Scopes, refused, too_large};
use annals_core::{Error, Result};
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, ObjectName, Query, Select, SetExpr, Statement, TableFactor, Value, Visit,
    Visitor,
};
use std::ops::ControlFlow;

/// Most tables in one question, a common table expression counted wherever it is used.
pub const RELATIONS_MAX: usize = 64;
/// Most items of one `IN` list.
pub const IN_LIST_MAX: usize = 10_000;
/// Most expressions in one question, plain values left out.
pub const EXPRESSIONS_MAX: usize = 20_000;

/// Deepest subquery among expressions: the planner visits each level twice as often as the last.
const SUBQUERY_DEPTH_MAX: usize = 8;
/// Deepest `WITH` within a `WITH`, for the same reason.
const WITH_DEPTH_MAX: usize = 8;
/// Deepest call of a function in a function.
const CALL_DEPTH_MAX: usize = 14;
/// What all calls may cost, each twice what it would one level further out: so often are the
/// types of its arguments looked up.
const CALLS_COST_MAX: usize = 1 << 17;
/// Most items of `CUBE`, whose groupings double with each.
const CUBE_MAX: usize = 6;
/// Most items of `ROLLUP` and `GROUPING SETS`.
const GROUPINGS_MAX: usize = 64;
/// Most calls of functions whose answer is larger than what they are given.
const GROWING_CALLS_MAX: usize = 16;
/// The table functions there are.
const TABLE_FUNCTIONS: [&str; 4] = ["latest", "generate_series", "range", "unnest"];

/// Checks everything inside a query.
pub(super) fn check_query(query: &Query) -> Result<()> {
    let mut walk = Walk::default();
    match query.visit(&mut walk) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

#[derive(Default)]
struct Walk {
    scopes: Scopes,
    expressions: usize,
    growing: usize,
    relations: usize,
    subqueries: usize,
    withs: usize,
    calls: usize,
    calls_cost: usize,
}

impl Visitor for Walk {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        self.scopes.enter(query);
        self.withs += usize::from(query.with.is_some());
        if self.withs > WITH_DEPTH_MAX {
            return ControlFlow::Break(too_large(format!(
                "WITH is nested more than {WITH_DEPTH_MAX} deep: list the expressions in one"
            )));
        }
        to_flow(check_clauses(query))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        // What is written counts too: an expression that is never used is planned all the same.
        self.withs -= usize::from(query.with.is_some());
        let expanded = self.scopes.leave(query);
        if expanded > RELATIONS_MAX || self.relations > 2 * RELATIONS_MAX {
            return ControlFlow::Break(too_large(format!(
                "the question uses more than {RELATIONS_MAX} tables, common table expressions \
                 counted wherever they are used"
            )));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        to_flow(check_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        self.relations += 1;
        match check_factor(factor) {
            Ok(Some(name)) => {
                let weight = match name.0.as_slice() {
                    [part] => part.as_ident().and_then(|i| self.scopes.expression(i)),
                    _ => None,
                };
                self.scopes.uses(weight.unwrap_or(1));
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        if !matches!(expr, Expr::Value(_)) {
            self.expressions += 1;
        }
        self.subqueries += usize::from(is_subquery(expr));
        if self.subqueries > SUBQUERY_DEPTH_MAX {
            return ControlFlow::Break(too_large(format!(
                "subqueries are nested more than {SUBQUERY_DEPTH_MAX} deep: use WITH"
            )));
        }
        if let Expr::Function(function) = expr
            && crate::functions::grows(&function.name.to_string().to_ascii_lowercase())
        {
            self.growing += 1;
        }
        if self.expressions > EXPRESSIONS_MAX {
            return ControlFlow::Break(too_large(format!(
                "the question has more than {EXPRESSIONS_MAX} expressions"
            )));
        }
        if self.growing > GROWING_CALLS_MAX {
            return ControlFlow::Break(too_large(format!(
                "the question calls repeat, lpad, rpad, replace and the like more than \
                 {GROWING_CALLS_MAX} times"
            )));
        }
        if let Expr::Function(_) = expr {
            self.calls += 1;
            self.calls_cost += 1 << self.calls.min(CALL_DEPTH_MAX);
            if self.calls > CALL_DEPTH_MAX || self.calls_cost > CALLS_COST_MAX {
                return ControlFlow::Break(too_large(format!(
                    "calls of functions are nested too deeply, at most {CALL_DEPTH_MAX} deep"
                )));
            }
        }
        to_flow(check_expr(expr))
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.calls -= usize::from(matches!(expr, Expr::Function(_)));
        self.subqueries -= usize::from(is_subquery(expr));
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Error> {
        let text = statement.to_string();
        let first = text.split_whitespace().next().unwrap_or("a statement");
        ControlFlow::Break(refused(&format!("{first} inside a query")))
    }
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. }
    )
}

fn check_clauses(query: &Query) -> Result<()> {
    if query.with.as_ref().is_some_and(|w| w.recursive) {
        return Err(refused("WITH RECURSIVE"));
    }
    if !query.locks.is_empty() {
        return Err(refused("FOR UPDATE"));
    }
    if query.for_clause.is_some() {
        return Err(refused("FOR XML and FOR JSON"));
    }
    if query.settings.is_some() {
        return Err(refused("SETTINGS"));
    }
    if query.format_clause.is_some() {
        return Err(refused("FORMAT"));
    }
    if !query.pipe_operators.is_empty() {
        return Err(refused("a pipe operator"));
    }
    check_body(&query.body)
}

fn check_body(body: &SetExpr) -> Result<()> {
    // Unions lean left: the loop goes down that side, so that only right sides recurse.
    let mut body = body;
    loop {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => return Ok(()),
            SetExpr::SetOperation { left, right, .. } => {
                check_body(right)?;
                body = left;
            }
            SetExpr::Insert(_) => return Err(refused("INSERT")),
            SetExpr::Update(_) => return Err(refused("UPDATE")),
            SetExpr::Delete(_) => return Err(refused("DELETE")),
            SetExpr::Merge(_) => return Err(refused("MERGE")),
            SetExpr::Table(_) => return Err(refused("TABLE (write SELECT * FROM)")),
        }
    }
}

fn check_select(select: &Select) -> Result<()> {
    if select.into.is_some() {
        return Err(refused("SELECT INTO"));
    }
    if !select.lateral_views.is_empty() {
        return Err(refused("LATERAL VIEW"));
    }
    if !select.connect_by.is_empty() {
        return Err(refused("CONNECT BY"));
    }
    if select.prewhere.is_some() {
        return Err(refused("PREWHERE"));
    }
    match &select.group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)
            if !modifiers.is_empty() =>
        {
            Err(refused(
                "a GROUP BY modifier (write CUBE (…) or ROLLUP (…))",
            ))
        }
        GroupByExpr::Expressions(items, _) => {
            let sets =
                |e: &&Expr| matches!(e, Expr::Cube(_) | Expr::Rollup(_) | Expr::GroupingSets(_));
            if items.iter().filter(sets).count() > 1 {
                return Err(refused("more than one CUBE, ROLLUP or GROUPING SETS"));
            }
            Ok(())
        }
        GroupByExpr::All(_) => Ok(()),
    }
}

/// The name this relation counts under; `None` for those whose parts are walked by themselves.
fn check_factor(factor: &TableFactor) -> Result<Option<&ObjectName>> {
    match factor {
        TableFactor::Table {
            name,
            args,
            with_hints,
            version,
            partitions,
            json_path,
            sample,
            index_hints,
            ..
        } => {
            if args.is_some() {
                check_table_function(name)?;
            }
            if version.is_some() {
                return Err(refused(
                    "FOR SYSTEM_TIME (a question stands at one position)",
                ));
            }
            if sample.is_some() {
                return Err(refused("TABLESAMPLE"));
            }
            let plain = with_hints.is_empty()
                && partitions.is_empty()
                && json_path.is_none()
                && index_hints.is_empty();
            if !plain {
                return Err(refused("a table hint"));
            }
            Ok(Some(name))
        }
        TableFactor::Function { name, .. } => {
            check_table_function(name)?;
            Ok(Some(name))
        }
        TableFactor::Derived { sample: None, .. }
        | TableFactor::NestedJoin { .. }
        | TableFactor::UNNEST { .. } => Ok(None),
        TableFactor::Derived { .. } => Err(refused("TABLESAMPLE")),
        TableFactor::TableFunction { .. } => Err(refused("TABLE(…)")),
        TableFactor::Pivot { .. } => Err(refused("PIVOT")),
        TableFactor::Unpivot { .. } => Err(refused("UNPIVOT")),
        TableFactor::MatchRecognize { .. } => Err(refused("MATCH_RECOGNIZE")),
        TableFactor::JsonTable { .. } => Err(refused("JSON_TABLE")),
        TableFactor::OpenJsonTable { .. } => Err(refused("OPENJSON")),
        TableFactor::XmlTable { .. } => Err(refused("XMLTABLE")),
        _ => Err(refused("this kind of table")),
    }
}

fn check_table_function(name: &ObjectName) -> Result<()> {
    let written = name.to_string();
    if TABLE_FUNCTIONS.contains(&written.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    let shown: String = written.chars().take(80).collect();
    Err(refused(&format!(
        "the table function {shown} (there are {})",
        TABLE_FUNCTIONS.join(", ")
    )))
}

fn check_expr(expr: &Expr) -> Result<()> {
    match expr {
        Expr::InList { list, .. } if list.len() > IN_LIST_MAX => Err(too_large(format!(
            "an IN list has {} items, at most {IN_LIST_MAX} are read: use a subquery",
            list.len()
        ))),
        Expr::Cube(items) if items.len() > CUBE_MAX => {
            Err(too_large(format!("CUBE of more than {CUBE_MAX} items")))
        }
        Expr::Rollup(items) | Expr::GroupingSets(items) if items.len() > GROUPINGS_MAX => {
            Err(too_large(format!(
                "ROLLUP or GROUPING SETS of more than {GROUPINGS_MAX} items"
            )))
        }
        Expr::Cast { data_type, .. }
        | Expr::Convert {
            data_type: Some(data_type),
            ..
        } => check_type(&data_type.to_string()),
        Expr::TypedString(typed) => check_type(&typed.data_type.to_string()),
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => Err(Error::invalid(format!(
                "the parameter {name} has no value: write the value itself"
            ))),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A list of a fixed size takes its memory before it has a value.
fn check_type(written: &str) -> Result<()> {
    let mut after_bracket = written.split('[').skip(1);
    if after_bracket.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Err(refused("a list of a fixed size"));
    }
    Ok(())
}

fn to_flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}
