//! Puts full names, each as one identifier, where a question names tables in its own way.

use super::Names;
use crate::guard::{Scopes, normal};
use annals_core::{Error, Result};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, OrderByKind,
    Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, Subscript,
    TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Rewrites all names; gives the tables that `latest` was asked of.
pub(crate) fn rewrite(statement: &mut Statement, names: &Names) -> Result<BTreeSet<String>> {
    let mut relations = Relations {
        names,
        scopes: Scopes::default(),
        bare: BTreeSet::new(),
        aliases: BTreeSet::new(),
        latest: BTreeSet::new(),
    };
    if let ControlFlow::Break(error) = VisitMut::visit(statement, &mut relations) {
        return Err(error);
    }
    let Relations {
        bare,
        aliases,
        latest,
        ..
    } = relations;
    let mut columns = Columns { bare, aliases };
    let _ = VisitMut::visit(statement, &mut columns);
    Ok(latest)
}

/// The dotted text of a name.
pub(crate) fn dotted(name: &ObjectName) -> Result<String> {
    let parts: Option<Vec<&str>> = name
        .0
        .iter()
        .map(|p| p.as_ident().map(|i| i.value.as_str()))
        .collect();
    parts
        .map(|p| p.join("."))
        .ok_or_else(|| Error::invalid(format!("{name} is no name of a table")))
}

/// The first pass: names of tables. Common table expressions and aliases go before tables.
struct Relations<'a> {
    names: &'a Names,
    scopes: Scopes,
    /// Full names of tables used without an alias: their columns may be qualified by them.
    bare: BTreeSet<String>,
    aliases: BTreeSet<String>,
    latest: BTreeSet<String>,
}

impl VisitorMut for Relations<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.enter(query);
        let expressions = query.with.iter().flat_map(|w| &w.cte_tables);
        self.aliases
            .extend(expressions.map(|c| normal(&c.alias.name)));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.leave(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let done = match factor {
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                ..
            } => {
                self.aliases.extend(alias.iter().map(|a| normal(&a.name)));
                self.function(name, &mut args.args)
            }
            TableFactor::Function {
                name, args, alias, ..
            } => {
                self.aliases.extend(alias.iter().map(|a| normal(&a.name)));
                self.function(name, args)
            }
            TableFactor::Table { name, alias, .. } => {
                let alias = alias.as_ref().map(|a| normal(&a.name));
                self.table(name, alias)
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => {
                self.aliases.extend(alias.iter().map(|a| normal(&a.name)));
                Ok(())
            }
            _ => Ok(()),
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Relations<'_> {
    fn table(&mut self, name: &mut ObjectName, alias: Option<String>) -> Result<()> {
        let first = name.0.first().and_then(ObjectNamePart::as_ident);
        if let Some(first) = first {
            let alone = name.0.len() == 1;
            if alone && self.scopes.expression(first).is_some() {
                self.aliases.extend(alias);
                return Ok(());
            }
            if !alone && normal(first) == "information_schema" {
                self.aliases.extend(alias);
                return Ok(());
            }
        }
        let full = self.find(name)?;
        match alias {
            Some(alias) => _ = self.aliases.insert(alias),
            None => _ = self.bare.insert(full.clone()),
        }
        *name = ObjectName::from(vec![quoted(full)]);
        Ok(())
    }

    fn function(&mut self, name: &ObjectName, args: &mut [FunctionArg]) -> Result<()> {
        if !name.to_string().eq_ignore_ascii_case("latest") {
            return Ok(());
        }
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))] = args else {
            return Err(Error::invalid(
                "latest takes one event type: latest(vcs.v1.CommitPushed)",
            ));
        };
        let written = match &*arg {
            Expr::Identifier(ident) => ident.value.clone(),
            Expr::CompoundIdentifier(parts) => {
                let parts: Vec<&str> = parts.iter().map(|p| p.value.as_str()).collect();
                parts.join(".")
            }
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
                other => return Err(Error::invalid(format!("latest of {other}: name a type"))),
            },
            other => return Err(Error::invalid(format!("latest of {other}: name a type"))),
        };
        let full = self.names.find(&written)?.as_str().to_owned();
        self.latest.insert(full.clone());
        *arg = Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(full)));
        Ok(())
    }

    /// The full name of a table, or an error that says where it was written.
    fn find(&self, name: &ObjectName) -> Result<String> {
        let written = dotted(name)?;
        match self.names.find(&written) {
            Ok(found) => Ok(found.as_str().to_owned()),
            Err(error) => {
                let start = name.0.first().and_then(ObjectNamePart::as_ident);
                Err(match start.map(|ident| ident.span.start) {
                    Some(at) if at.line > 0 => {
                        error.context(format!("line {}, column {}", at.line, at.column))
                    }
                    _ => error,
                })
            }
        }
    }
}

/// The second pass: `vcs.v1.CommitPushed.subject` and `CommitPushed.subject`.
struct Columns {
    bare: BTreeSet<String>,
    aliases: BTreeSet<String>,
}

impl VisitorMut for Columns {
    type Break = ();

    /// What distinct rows are sorted by has to be one of their columns, and is called as that is.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let SetExpr::Select(select) = &*query.body else {
            return ControlFlow::Continue(());
        };
        let order = query.order_by.as_mut().map(|order| &mut order.kind);
        let (Some(_), Some(OrderByKind::Expressions(order))) = (&select.distinct, order) else {
            return ControlFlow::Continue(());
        };
        for by in order {
            let column = select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if *expr == by.expr => Some(alias),
                _ => None,
            });
            if let Some(column) = column {
                by.expr = Expr::Identifier(column.clone());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(parts) => {
                if let Some((taken, full)) = self.qualifier(parts, parts.len() - 1) {
                    parts.splice(..taken, [quoted(full)]);
                }
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.field_access(root, access_chain);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            let SelectItem::QualifiedWildcard(kind, _) = item else {
                continue;
            };
            let SelectItemQualifiedWildcardKind::ObjectName(name) = kind else {
                continue;
            };
            let parts: Vec<Ident> = name
                .0
                .iter()
                .filter_map(|p| p.as_ident().cloned())
                .collect();
            if let Some((taken, full)) = self.qualifier(&parts, parts.len())
                && taken == parts.len()
            {
                *name = ObjectName::from(vec![quoted(full)]);
            }
        }
        self.name_fields(&mut select.projection);
        ControlFlow::Continue(())
    }
}

impl Columns {
    /// `payload.sha` is called `sha`, as long as nothing beside it is: the planner would call it
    /// `t.payload[sha]`.
    fn name_fields(&self, items: &mut [SelectItem]) {
        let names: Option<Vec<String>> = items.iter().map(|item| self.name_of(item)).collect();
        // Beside a wildcard nobody knows here what else there is.
        let Some(names) = names else { return };
        for (at, item) in items.iter_mut().enumerate() {
            let SelectItem::UnnamedExpr(expr) = item else {
                continue;
            };
            let alone = names.iter().filter(|name| **name == names[at]).count() == 1;
            if alone && self.is_field(expr) {
                *item = SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias: quoted(names[at].clone()),
                };
            }
        }
    }

    /// What an item is called; nothing in particular is empty, a wildcard is `None`.
    fn name_of(&self, item: &SelectItem) -> Option<String> {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(normal(ident)),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(normal),
            SelectItem::UnnamedExpr(Expr::CompoundFieldAccess { access_chain, .. }) => {
                Some(match access_chain.last() {
                    Some(AccessExpr::Dot(Expr::Identifier(ident))) => normal(ident),
                    Some(AccessExpr::Subscript(Subscript::Index {
                        index: Expr::Value(value),
                    })) => value.value.clone().into_string().unwrap_or_default(),
                    _ => String::new(),
                })
            }
            SelectItem::UnnamedExpr(_) => Some(String::new()),
            _ => None,
        }
    }

    /// Whether it is a field within a column, by a name.
    fn is_field(&self, expr: &Expr) -> bool {
        match expr {
            Expr::CompoundIdentifier(parts) => {
                let first = parts.first().map(normal);
                let qualified = match self.qualifier(parts, parts.len() - 1) {
                    Some((taken, _)) => taken,
                    None => usize::from(first.is_some_and(|first| self.aliases.contains(&first))),
                };
                parts.len() > qualified + 1
            }
            Expr::CompoundFieldAccess { access_chain, .. } => matches!(
                access_chain.last(),
                Some(
                    AccessExpr::Dot(Expr::Identifier(_))
                        | AccessExpr::Subscript(Subscript::Index {
                            index: Expr::Value(ValueWithSpan {
                                value: Value::SingleQuotedString(_),
                                ..
                            })
                        })
                )
            ),
            _ => false,
        }
    }

    /// `vcs.v1.CommitPushed.payload['repo']`: a first name, then dots and brackets.
    fn field_access(&self, root: &mut Expr, chain: &mut Vec<AccessExpr>) {
        let mut parts = match &*root {
            Expr::Identifier(ident) => vec![ident.clone()],
            Expr::CompoundIdentifier(idents) => idents.clone(),
            _ => return,
        };
        let in_root = parts.len();
        parts.extend(chain.iter().map_while(|access| match access {
            AccessExpr::Dot(Expr::Identifier(ident)) => Some(ident.clone()),
            _ => None,
        }));
        let Some((taken, full)) = self.qualifier(&parts, parts.len() - 1) else {
            return;
        };
        // The column goes with its table; what follows it stays in the chain.
        let with_column = (taken + 1).max(in_root);
        let mut idents = vec![quoted(full)];
        idents.extend(parts.drain(taken..with_column));
        *root = Expr::CompoundIdentifier(idents);
        chain.drain(..with_column - in_root);
    }

    /// How many of the first parts (at most `most`) name a table, and which.
    fn qualifier(&self, parts: &[Ident], most: usize) -> Option<(usize, String)> {
        for taken in (2..=most).rev() {
            let words: Vec<&str> = parts[..taken].iter().map(|p| p.value.as_str()).collect();
            let written = words.join(".");
            let found = self.bare.iter().find(|t| t.eq_ignore_ascii_case(&written));
            if let Some(full) = found {
                return Some((taken, full.clone()));
            }
        }
        let first = parts.first()?;
        if most == 0 || self.aliases.contains(&normal(first)) {
            return None;
        }
        let mut found = self.bare.iter().filter(|t| {
            let last = t.rsplit('.').next().unwrap_or(t);
            last.eq_ignore_ascii_case(&first.value)
        });
        match (found.next(), found.next()) {
            (Some(full), None) => Some((1, full.clone())),
            _ => None,
        }
    }
}

fn quoted(name: String) -> Ident {
    Ident::with_quote('"', name)
}
