//! Do the types fit? Walks the finished tree, children first, and reports the first violation with
//! Prometheus's words. Recursion is bounded by the height limit of the parser.

use super::ast::{
    AggregateExpr, AggregateOp, BinaryExpr, Call, Expr, MatchCardinality, ValueType, VectorSelector,
};
use super::parser::error_at;
use super::selector::name_twice;
use super::{ParseError, Span, functions};
use crate::model::METRIC_NAME;
use crate::model::labels::quoted;

/// Checks the tree and settles what depends on types: the matching of binary operations.
pub(super) fn check(text: &str, expr: &mut Expr) -> Result<(), ParseError> {
    Checker { text }.expr(expr, false).map(|_| ())
}

struct Checker<'a> {
    text: &'a str,
}

type Checked = Result<ValueType, ParseError>;

impl Checker<'_> {
    fn fail<T>(&self, span: Span, message: impl Into<String>) -> Result<T, ParseError> {
        Err(error_at(self.text, span, message))
    }

    fn typed(&self, expr: &mut Expr, want: ValueType, context: &str) -> Result<(), ParseError> {
        let got = self.expr(expr, false)?;
        if got == want {
            return Ok(());
        }
        let (want, got) = (want.documented(), got.documented());
        self.fail(expr.span(), format!("expected type {want} in {context}, got {got}"))
    }

    /// `any_series`: the selector may match everything, as the second argument of `info` may.
    fn expr(&self, expr: &mut Expr, any_series: bool) -> Checked {
        match expr {
            Expr::Number(_) => Ok(ValueType::Scalar),
            Expr::String(_) => Ok(ValueType::String),
            Expr::Paren(e) => self.expr(&mut e.expr, any_series),
            Expr::Unary(e) => {
                let ty = self.expr(&mut e.expr, false)?;
                if !matches!(ty, ValueType::Scalar | ValueType::Vector) {
                    let got = ty.documented();
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got \"{got}\""
                    );
                    return self.fail(e.span, message);
                }
                Ok(ty)
            }
            Expr::Binary(e) => self.binary(e),
            Expr::Aggregate(e) => self.aggregate(e),
            Expr::Call(e) => self.call(e),
            Expr::Vector(e) => self.selector(e, any_series),
            Expr::Matrix(e) => self.selector(&e.selector, false).map(|_| ValueType::Matrix),
            Expr::Subquery(e) => {
                let ty = self.expr(&mut e.expr, false)?;
                if ty != ValueType::Vector {
                    let message =
                        format!("subquery is only allowed on instant vector, got {} instead", ty.as_str());
                    return self.fail(e.span, message);
                }
                Ok(ValueType::Matrix)
            }
        }
    }

    fn selector(&self, selector: &VectorSelector, any_series: bool) -> Checked {
        if let Some(name) = &selector.name {
            // The last matcher is the name itself.
            let inside = selector.matchers.split_last().map_or(&[][..], |(_, before)| before);
            if let Some(second) = inside.iter().find(|m| &*m.name == METRIC_NAME) {
                return self.fail(selector.span, name_twice(name, &second.value));
            }
        } else if !any_series && selector.matchers.iter().all(|m| m.matches_empty()) {
            return self.fail(selector.span, "vector selector must contain at least one non-empty matcher");
        }
        Ok(ValueType::Vector)
    }

    fn aggregate(&self, e: &mut AggregateExpr) -> Checked {
        self.typed(&mut e.expr, ValueType::Vector, "aggregation expression")?;
        if let Some(param) = &mut e.param {
            let want = if e.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
            self.typed(param, want, "aggregation parameter")?;
        }
        Ok(ValueType::Vector)
    }

    fn call(&self, e: &mut Call) -> Checked {
        let Some(f) = functions::function(e.func) else {
            return self.fail(e.span, format!("unknown function with name {}", quoted(e.func)));
        };
        let (wanted, got) = (f.args.len(), e.args.len());
        let least = wanted.saturating_sub(usize::from(f.variadic != 0));
        let most = usize::try_from(f.variadic).ok().map(|more| least + more);
        let amiss = if f.variadic == 0 && got != wanted {
            Some(format!("expected {wanted}"))
        } else if f.variadic != 0 && got < least {
            Some(format!("expected at least {least}"))
        } else if f.variadic > 0 && most.is_some_and(|most| got > most) {
            Some(format!("expected at most {}", most.unwrap_or_default()))
        } else {
            None
        };
        if let Some(amiss) = amiss {
            return self
                .fail(e.span, format!("{amiss} argument(s) in call to {}, got {got}", quoted(f.name)));
        }
        let context = format!("call to function {}", quoted(f.name));
        for (i, arg) in e.args.iter_mut().enumerate() {
            let Some(want) = f.args.get(i).or(f.args.last()) else { break };
            if f.name == "info" && i == 1 {
                self.info_selector(arg, e.span, &context)?;
            } else {
                self.typed(arg, *want, &context)?;
            }
        }
        Ok(f.returns)
    }

    /// The second argument of `info` is a brace selector without a name, and may match everything.
    fn info_selector(&self, arg: &mut Expr, call: Span, context: &str) -> Result<(), ParseError> {
        let ty = arg.value_type();
        if ty != ValueType::Vector {
            let got = ty.documented();
            return self.fail(call, format!("expected type instant vector in {context}, got {got}"));
        }
        match arg {
            Expr::Vector(selector) if selector.name.is_none() => self.expr(arg, true).map(|_| ()),
            _ => self.fail(arg.span(), "expected label selectors only, got vector selector instead"),
        }
    }

    fn binary(&self, e: &mut BinaryExpr) -> Checked {
        use ValueType::{Scalar, Vector};
        let left = self.expr(&mut e.lhs, false)?;
        let right = self.expr(&mut e.rhs, false)?;
        if e.return_bool && !e.op.is_comparison() {
            return self
                .fail(self.operator_span(e), "bool modifier can only be used on comparison operators");
        }
        if e.op.is_comparison() && !e.return_bool && left == Scalar && right == Scalar {
            return self.fail(self.operator_span(e), "comparisons between scalars must use BOOL modifier");
        }
        if let Some(matching) = &mut e.matching {
            if e.op.is_set() && matching.cardinality == MatchCardinality::OneToOne {
                matching.cardinality = MatchCardinality::ManyToMany;
            }
            let both = matching.labels.iter().find(|l| matching.on && matching.include.contains(l));
            if let Some(label) = both {
                let message =
                    format!("label {} must not occur in ON and GROUP clause at once", quoted(label));
                return self.fail(self.operator_span(e), message);
            }
        }
        for (ty, side) in [(left, &e.lhs), (right, &e.rhs)] {
            if ty != Scalar && ty != Vector {
                return self.fail(
                    side.span(),
                    "binary expression must contain only scalar and instant vector types",
                );
            }
        }
        let vectors = left == Vector && right == Vector;
        if let Some(matching) = &e.matching {
            let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
            if !vectors {
                if !matching.labels.is_empty() {
                    return self.fail(e.span, "vector matching only allowed between instant vectors");
                }
                if filled {
                    return self
                        .fail(e.span, "filling in missing series only allowed between instant vectors");
                }
            } else if e.op.is_set() {
                let quoted_op = quoted(e.op.as_str());
                if matching.cardinality != MatchCardinality::ManyToMany {
                    return self.fail(e.span, format!("no grouping allowed for {quoted_op} operation"));
                }
                if filled {
                    return self.fail(e.span, "filling in missing series not allowed for set operators");
                }
            }
        }
        if !vectors {
            e.matching = None;
            if e.op.is_set() {
                let quoted_op = quoted(e.op.as_str());
                let message = format!("set operator {quoted_op} not allowed in binary scalar expression");
                return self.fail(e.span, message);
            }
        }
        Ok(if left == Scalar && right == Scalar { Scalar } else { Vector })
    }

    /// From the operator to the right side.
    fn operator_span(&self, e: &BinaryExpr) -> Span {
        let (from, to) = (e.lhs.span().end, e.rhs.span().start);
        let between = self.text.get(from as usize..to as usize).unwrap_or("");
        let blanks = between.len() - between.trim_start().len();
        Span { start: from + blanks as u32, end: to }
    }
}
