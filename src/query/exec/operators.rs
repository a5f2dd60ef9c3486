//! One value against another.

use std::sync::Arc;

use super::column::Point;
use super::context::Context;
use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::query::annotations::{HistogramOperation, Note};
use crate::query::functions::histops;
use crate::query::functions::window::Either;
use crate::query::parse::Span;
use crate::query::parse::ast::BinaryOp;

/// Whether it compares.
#[must_use]
pub fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Eql, Gte, Gtr, Lss, Lte, Neq};
    matches!(op, Eql | Neq | Lss | Gtr | Lte | Gte)
}

/// Whether it is `and`, `or` or `unless`.
#[must_use]
pub fn is_set(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
}

/// Whether the result is another quantity than the operands, so that the name goes.
#[must_use]
pub fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

/// The operator as written.
#[must_use]
pub fn text(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Mod => "%",
        BinaryOp::Pow => "^",
        BinaryOp::Atan2 => "atan2",
        BinaryOp::Eql => "==",
        BinaryOp::Neq => "!=",
        BinaryOp::Lss => "<",
        BinaryOp::Gtr => ">",
        BinaryOp::Lte => "<=",
        BinaryOp::Gte => ">=",
        BinaryOp::TrimUpper => "</",
        BinaryOp::TrimLower => ">/",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
        BinaryOp::Unless => "unless",
    }
}

/// Arithmetic on floats; 0 for operators that do none.
#[inline]
#[must_use]
pub fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => 0.0,
    }
}

/// Comparison of floats; false for operators that do not compare.
#[inline]
#[must_use]
pub fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eql => a == b,
        BinaryOp::Neq => a != b,
        BinaryOp::Lss => a < b,
        BinaryOp::Gtr => a > b,
        BinaryOp::Lte => a <= b,
        BinaryOp::Gte => a >= b,
        _ => false,
    }
}

/// An operation between two scalars; comparisons give 0 or 1.
#[must_use]
pub fn scalars(op: BinaryOp, a: f64, b: f64) -> f64 {
    if is_comparison(op) { f64::from(u8::from(compare(op, a, b))) } else { arithmetic(op, a, b) }
}

/// Where remarks of an operation go.
pub struct Site<'a> {
    /// The query.
    pub ctx: &'a Context,
    /// Place of the operation.
    pub span: Span,
}

/// What came out: the value, and whether a comparison keeps the element.
pub type Outcome = Option<(Point, bool)>;

fn histogram(mut h: FloatHistogram) -> Outcome {
    histops::compact(&mut h);
    Some((Point::Histogram(Arc::new(h)), true))
}

/// The operation on floats or histograms; `None` when the types or layouts do not go together.
pub fn combine(op: BinaryOp, a: Either<'_>, b: Either<'_>, site: &Site<'_>) -> Outcome {
    let incompatible = |left, right| {
        site.ctx.note(&Note::IncompatibleTypes(left, text(op), right), site.span);
        None
    };
    match (a, b) {
        (Either::Float(a), Either::Float(b)) => match op {
            _ if is_comparison(op) => Some((Point::Float(a), compare(op, a, b))),
            BinaryOp::TrimUpper | BinaryOp::TrimLower => incompatible("float", "float"),
            _ => Some((Point::Float(arithmetic(op, a, b)), true)),
        },
        (Either::Float(a), Either::Histogram(b)) => match op {
            BinaryOp::Mul => {
                let mut h = (**b).clone();
                histops::mul(&mut h, a);
                histogram(h)
            }
            _ => incompatible("float", "histogram"),
        },
        (Either::Histogram(a), Either::Float(b)) => {
            let mut h = (**a).clone();
            match op {
                BinaryOp::Mul => histops::mul(&mut h, b),
                BinaryOp::Div => histops::div(&mut h, b),
                BinaryOp::TrimUpper => histops::trim(&mut h, b, true),
                BinaryOp::TrimLower => histops::trim(&mut h, b, false),
                _ => return incompatible("histogram", "float"),
            }
            histogram(h)
        }
        (Either::Histogram(a), Either::Histogram(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => add_or_sub(op, a, b, site),
            BinaryOp::Eql => Some((Point::Histogram(Arc::clone(a)), histops::equal(a, b))),
            BinaryOp::Neq => Some((Point::Histogram(Arc::clone(a)), !histops::equal(a, b))),
            _ => incompatible("histogram", "histogram"),
        },
    }
}

fn add_or_sub(op: BinaryOp, a: &FloatHistogram, b: &FloatHistogram, site: &Site<'_>) -> Outcome {
    let mut h = a.clone();
    let (result, operation) = if op == BinaryOp::Add {
        (histops::add(&mut h, b), HistogramOperation::Addition)
    } else {
        (histops::sub(&mut h, b), HistogramOperation::Subtraction)
    };
    let Ok(remarks) = result else {
        site.ctx.note(&Note::IncompatibleBucketLayout(text(op)), site.span);
        return None;
    };
    if remarks.reset_collision {
        site.ctx.note(&Note::CounterResetCollision(operation), site.span);
    }
    if remarks.reconciled {
        site.ctx.note(&Note::MismatchedCustomBuckets(operation), site.span);
    }
    if op == BinaryOp::Sub {
        h.counter_reset_hint = CounterResetHint::Gauge;
    }
    histogram(h)
}

/// [`combine`] with the `bool` modifier and filtering applied: the point of the result.
pub fn filtered(op: BinaryOp, return_bool: bool, a: Either<'_>, b: Either<'_>, site: &Site<'_>) -> Point {
    match combine(op, a, b, site) {
        None => Point::None,
        Some((_, keep)) if return_bool => Point::Float(f64::from(u8::from(keep))),
        Some((_, false)) => Point::None,
        Some((point, true)) => point,
    }
}
