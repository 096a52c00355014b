//! What only a plan shows: patterns made of data, large constants, expressions that multiply.

use super::{refused, too_large};
use crate::failure;
use annals_core::Result;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::scalar::ScalarValue;

/// Longest text or bytes constant in a plan.
const CONSTANT_BYTES_MAX: usize = 64 << 10;
/// Longest regular expression.
const PATTERN_BYTES_MAX: usize = 4 << 10;
/// Heaviest expression once each column is replaced by what it stands for, as optimizers do.
const WEIGHT_MAX: u64 = 400_000;
/// The weight of an expression that is no constant; a constant weighs 1.
const WEIGHT: u64 = 8;

/// Checks a plan as it was asked.
pub(crate) fn check_planned(plan: &LogicalPlan) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|_| refused("a plan that does not only read"))?;
    weigh(plan).map(|_| ())
}

/// Checks a plan after constants were folded.
pub(crate) fn check_optimized(plan: &LogicalPlan) -> Result<()> {
    let mut found = Ok(());
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|top| {
            top.apply(|expr| {
                found = check_expr(expr);
                Ok(match found {
                    Ok(()) => TreeNodeRecursion::Continue,
                    Err(_) => TreeNodeRecursion::Stop,
                })
            })
        })
    })
    .map_err(failure::internal)?;
    found
}

fn check_expr(expr: &Expr) -> Result<()> {
    match expr {
        Expr::Literal(value, _) => {
            let bytes = bytes_of(value).unwrap_or(0);
            if bytes > CONSTANT_BYTES_MAX {
                return Err(too_large(format!(
                    "a constant has {bytes} bytes, at most {CONSTANT_BYTES_MAX} are read"
                )));
            }
            Ok(())
        }
        Expr::BinaryExpr(binary) if is_regex(binary.op) => check_pattern(&binary.right),
        Expr::SimilarTo(like) => check_pattern(&like.pattern),
        Expr::ScalarFunction(call) if call.name().starts_with("regexp_") => {
            call.args.get(1).map_or(Ok(()), check_pattern)
        }
        _ => Ok(()),
    }
}

/// Each distinct pattern is compiled, so one per row would cost minutes and gigabytes.
fn check_pattern(pattern: &Expr) -> Result<()> {
    let mut pattern = pattern;
    while let Expr::Cast(cast) = pattern {
        pattern = &cast.expr;
    }
    match pattern {
        Expr::Literal(value, _) => match bytes_of(value) {
            Some(bytes) if bytes > PATTERN_BYTES_MAX => Err(too_large(format!(
                "a regular expression has {bytes} bytes, at most {PATTERN_BYTES_MAX} are read"
            ))),
            _ => Ok(()),
        },
        _ => Err(refused("a regular expression that is no constant")),
    }
}

fn is_regex(op: Operator) -> bool {
    matches!(
        op,
        Operator::RegexMatch
            | Operator::RegexIMatch
            | Operator::RegexNotMatch
            | Operator::RegexNotIMatch
    )
}

fn bytes_of(value: &ScalarValue) -> Option<usize> {
    match value {
        ScalarValue::Utf8(Some(s))
        | ScalarValue::LargeUtf8(Some(s))
        | ScalarValue::Utf8View(Some(s)) => Some(s.len()),
        ScalarValue::Binary(Some(b))
        | ScalarValue::LargeBinary(Some(b))
        | ScalarValue::BinaryView(Some(b)) => Some(b.len()),
        _ => None,
    }
}

/// The weight of each column a plan gives, were all expressions put into one another.
fn weigh(plan: &LogicalPlan) -> Result<Vec<u64>> {
    let inputs: Vec<(&LogicalPlan, Vec<u64>)> = plan
        .inputs()
        .into_iter()
        .map(|input| Ok((input, weigh(input)?)))
        .collect::<Result<_>>()?;
    let own = expressions(plan)
        .iter()
        .map(|expr| weigh_expr(expr, &inputs))
        .collect::<Result<Vec<u64>>>()?;
    let columns = plan.schema().fields().len();
    let of_inputs: Vec<u64> = inputs.iter().flat_map(|(_, w)| w.iter().copied()).collect();
    Ok(match plan {
        LogicalPlan::Projection(_) => own,
        // Filters pass through a grouping, never through what it computes.
        LogicalPlan::Aggregate(aggregate) => {
            let groups = aggregate.group_expr.len().min(columns);
            let mut weights = own[..groups].to_vec();
            weights.resize(columns, WEIGHT);
            weights
        }
        LogicalPlan::Union(_) => (0..columns)
            .map(|c| inputs.iter().filter_map(|(_, w)| w.get(c)).max().copied())
            .map(|w| w.unwrap_or(WEIGHT))
            .collect(),
        _ if of_inputs.len() >= columns => of_inputs[..columns].to_vec(),
        _ => {
            let most = of_inputs.iter().max().copied().unwrap_or(WEIGHT);
            let mut weights = of_inputs;
            weights.resize(columns, most);
            weights
        }
    })
}

fn expressions(plan: &LogicalPlan) -> Vec<Expr> {
    match plan {
        LogicalPlan::Values(_) | LogicalPlan::TableScan(_) => Vec::new(),
        other => other.expressions(),
    }
}

fn weigh_expr(expr: &Expr, inputs: &[(&LogicalPlan, Vec<u64>)]) -> Result<u64> {
    let own = match expr {
        Expr::Column(column) => inputs
            .iter()
            .find_map(|(plan, w)| position(plan.schema(), column).and_then(|i| w.get(i)))
            .copied()
            .unwrap_or(WEIGHT),
        Expr::Literal(..) => 1,
        _ => WEIGHT,
    };
    match expr {
        Expr::ScalarSubquery(subquery) => _ = weigh(&subquery.subquery)?,
        Expr::InSubquery(within) => _ = weigh(&within.subquery.subquery)?,
        Expr::Exists(exists) => _ = weigh(&exists.subquery.subquery)?,
        _ => {}
    }
    let mut parts = 0_u64;
    let mut failed = Ok(());
    expr.apply_children(|child| {
        match weigh_expr(child, inputs) {
            Ok(weight) => parts = parts.saturating_add(weight),
            Err(error) => failed = Err(error),
        }
        Ok(match failed {
            Ok(()) => TreeNodeRecursion::Continue,
            Err(_) => TreeNodeRecursion::Stop,
        })
    })
    .map_err(failure::internal)?;
    failed?;
    // The types of a call's arguments are looked up twice, by each call around them again.
    let times = match expr {
        Expr::ScalarFunction(_) => 2,
        _ => 1,
    };
    let weight = own.saturating_add(parts.saturating_mul(times));
    if weight > WEIGHT_MAX {
        return Err(too_large(
            "an expression uses columns that use columns: written out it would be too large",
        ));
    }
    Ok(weight)
}

fn position(schema: &DFSchema, column: &datafusion::common::Column) -> Option<usize> {
    schema.maybe_index_of_column(column)
}
