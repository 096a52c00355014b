//! `->`, `->>` and `?` on JSON as text, as Postgres has them.

use super::json::{self, is_text};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::BinaryOperator;

#[derive(Debug)]
pub(super) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Arrow => json::get(),
            BinaryOperator::LongArrow => json::get_str(),
            BinaryOperator::Question => json::contains(),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let written = format!("{} {} {}", expr.left, expr.op, expr.right);
        let left = expr.left.clone().unalias();
        let args = match left {
            // One call with a longer path: nested, each call would look up types twice.
            Expr::ScalarFunction(call) if call.name() == "json_get" => {
                let mut path = call.args;
                path.push(expr.right);
                path
            }
            left if is_text(&left.get_type(schema)?) => vec![left, expr.right],
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let call: Expr = function.call(args);
        Ok(PlannerResult::Planned(call.alias(written)))
    }
}
