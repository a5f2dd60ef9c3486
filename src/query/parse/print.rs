//! The canonical text of a tree: what Prometheus's `Expr.String()` prints. Rules, the parse endpoint and logs
//! show it, and parsing it gives the same tree again.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{
    AggregateExpr, AtModifier, BinaryExpr, DurationExpr, DurationValue, Expr, MatchCardinality,
    MatrixSelector, NumberLiteral, RangeExtension, StringLiteral, SubqueryExpr, UnaryExpr, VectorSelector,
};
use crate::model::duration::format_duration_ms;
use crate::model::labels::{is_legacy_label_name, write_quoted, write_quoted_bytes};
use crate::model::number::format_plain;
use crate::model::{METRIC_NAME, MatchOp};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(e) => e.fmt(f),
            Expr::String(StringLiteral { bytes: Some(bytes), .. }) => write_quoted_bytes(f, bytes),
            Expr::String(e) => write_quoted(f, &e.value),
            Expr::Paren(e) => write!(f, "({})", e.expr),
            Expr::Unary(e) => write!(f, "{}{}", sign(e), e.expr),
            Expr::Binary(e) => {
                let (first, links) = e.chain();
                first.fmt(f)?;
                for link in links.into_iter().rev() {
                    f.write_char(' ')?;
                    write_operator(f, link)?;
                    write!(f, " {}", link.rhs)?;
                }
                Ok(())
            }
            Expr::Aggregate(e) => {
                write_aggregate_head(f, e)?;
                f.write_char('(')?;
                if let Some(param) = &e.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", e.expr)
            }
            Expr::Call(e) => {
                write!(f, "{}(", e.func)?;
                for (i, arg) in e.args.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    arg.fmt(f)?;
                }
                f.write_char(')')
            }
            Expr::Vector(e) => e.fmt(f),
            Expr::Matrix(e) => e.fmt(f),
            Expr::Subquery(e) => {
                e.expr.fmt(f)?;
                write_subquery_suffix(f, e)
            }
        }
    }
}

pub(super) fn sign(e: &UnaryExpr) -> char {
    if e.negative { '-' } else { '+' }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_duration {
            let ms = (self.value * 1000.0).round() as i64;
            f.write_str(&format_duration_ms(ms))
        } else {
            f.write_str(&format_plain(self.value))
        }
    }
}

/// Operator, `bool` and matching clause, without blanks around them.
pub(super) fn write_operator(f: &mut dyn Write, e: &BinaryExpr) -> fmt::Result {
    f.write_str(e.op.as_str())?;
    if e.return_bool {
        f.write_str(" bool")?;
    }
    let Some(matching) = &e.matching else { return Ok(()) };
    let side = match matching.cardinality {
        MatchCardinality::ManyToOne => Some("left"),
        MatchCardinality::OneToMany => Some("right"),
        _ => None,
    };
    if !matching.labels.is_empty() || matching.on || side.is_some() {
        f.write_str(if matching.on { " on (" } else { " ignoring (" })?;
        write_names(f, &matching.labels)?;
        f.write_char(')')?;
    }
    if let Some(side) = side {
        write!(f, " group_{side} (")?;
        write_names(f, &matching.include)?;
        f.write_char(')')?;
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(a), Some(b)) if a.to_bits() == b.to_bits() => write!(f, " fill ({})", format_plain(a)),
        (a, b) => {
            if let Some(a) = a {
                write!(f, " fill_left ({})", format_plain(a))?;
            }
            if let Some(b) = b {
                write!(f, " fill_right ({})", format_plain(b))?;
            }
            Ok(())
        }
    }
}

/// Label names with commas, quoted where they are no identifiers.
fn write_names(mut f: &mut dyn Write, names: &[std::sync::Arc<str>]) -> fmt::Result {
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        if is_legacy_label_name(name) { f.write_str(name)? } else { write_quoted(&mut f, name)? }
    }
    Ok(())
}

/// Operator and grouping: `sum by (a) `.
pub(super) fn write_aggregate_head(f: &mut dyn Write, e: &AggregateExpr) -> fmt::Result {
    f.write_str(e.op.as_str())?;
    if e.without || !e.grouping.is_empty() {
        f.write_str(if e.without { " without (" } else { " by (" })?;
        write_names(f, &e.grouping)?;
        f.write_str(") ")?;
    }
    Ok(())
}

fn write_series(f: &mut Formatter<'_>, e: &VectorSelector) -> fmt::Result {
    if let Some(name) = &e.name {
        f.write_str(name)?;
    }
    let mut conditions: Vec<String> = e
        .matchers
        .iter()
        .filter(|m| {
            // The name in front says this already.
            let named = e.name.as_ref().is_some_and(|name| !name.is_empty() && **name == *m.value);
            !(named && &*m.name == METRIC_NAME && m.op == MatchOp::Equal)
        })
        .map(ToString::to_string)
        .collect();
    if conditions.is_empty() {
        return if e.name.is_none() { f.write_str("{}") } else { Ok(()) };
    }
    conditions.sort_unstable();
    write!(f, "{{{}}}", conditions.join(","))
}

fn write_extension(f: &mut Formatter<'_>, extension: RangeExtension) -> fmt::Result {
    match extension {
        RangeExtension::None => Ok(()),
        RangeExtension::Anchored => f.write_str(" anchored"),
        RangeExtension::Smoothed => f.write_str(" smoothed"),
    }
}

fn write_shift(f: &mut dyn Write, at: Option<AtModifier>, offset: Option<&DurationValue>) -> fmt::Result {
    match at {
        None => {}
        Some(AtModifier::Start) => f.write_str(" @ start()")?,
        Some(AtModifier::End) => f.write_str(" @ end()")?,
        Some(AtModifier::Timestamp(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let ms = ms.unsigned_abs();
            write!(f, " @ {sign}{}.{:03}", ms / 1000, ms % 1000)?;
        }
    }
    match offset {
        None => Ok(()),
        Some(offset) => write!(f, " offset {offset}"),
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_series(f, self)?;
        write_extension(f, self.extension)?;
        write_shift(f, self.at, self.offset.as_ref())
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_series(f, &self.selector)?;
        write!(f, "[{}]", self.range)?;
        write_extension(f, self.selector.extension)?;
        write_shift(f, self.selector.at, self.selector.offset.as_ref())
    }
}

/// `[range:step]` with `@` and offset.
pub(super) fn write_subquery_suffix(f: &mut dyn Write, e: &SubqueryExpr) -> fmt::Result {
    write!(f, "[{}:", e.range)?;
    if let Some(step) = &e.step {
        write!(f, "{step}")?;
    }
    f.write_char(']')?;
    write_shift(f, e.at, e.offset.as_ref())
}

impl Display for DurationValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DurationValue::Constant(ms) => f.write_str(&format_duration_ms(*ms)),
            DurationValue::Expr(expr) => expr.fmt(f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Number(e) => e.fmt(f),
            DurationExpr::Step(_) => f.write_str("step()"),
            DurationExpr::Range(_) => f.write_str("range()"),
            DurationExpr::Unary(negative, e, _) => {
                write!(f, "{}{e}", if *negative { "-" } else { "+" })
            }
            DurationExpr::Binary(op, a, b, _) => write!(f, "{a} {} {b}", op.as_str()),
            DurationExpr::MinOf(a, b, _) => write!(f, "min_of({a}, {b})"),
            DurationExpr::MaxOf(a, b, _) => write!(f, "max_of({a}, {b})"),
            DurationExpr::Paren(e, _) => write!(f, "({e})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::query::parse::{ParseOptions, parse_expr};

    #[test]
    fn sums_without_labels_print_like_plain_sums() {
        let options = ParseOptions::default();
        for (text, printed) in [
            ("sum by () (a)", "sum(a)"),
            ("sum without () (a)", "sum without () (a)"),
            ("a + ignoring() b", "a + b"),
            ("{a='b', __name__=\"x\"}", "{__name__=\"x\",a=\"b\"}"),
        ] {
            assert_eq!(parse_expr(text, &options).unwrap().to_string(), printed);
        }
    }
}
