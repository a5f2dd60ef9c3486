//! How long is `5m + step() * 2`? Duration expressions are resolved once, when a query starts.

use super::lower::PlanOptions;
use crate::query::QueryError;
use crate::query::parse::ast::{BinaryOp, DurationExpr, DurationValue};

/// Longest duration, milliseconds: what fits 64-bit nanoseconds, as upstream counts.
const MAX_MS: f64 = (i64::MAX / 1_000_000) as f64;

fn invalid(text: &str) -> QueryError {
    QueryError::Execution(text.to_owned())
}

fn seconds(expr: &DurationExpr, options: &PlanOptions) -> Result<f64, QueryError> {
    Ok(match expr {
        DurationExpr::Number(n) => n.value,
        DurationExpr::Step(_) => options.step_ms as f64 / 1000.0,
        DurationExpr::Range(_) => options.end_ms.saturating_sub(options.start_ms) as f64 / 1000.0,
        DurationExpr::Unary(negative, e, _) => {
            let v = seconds(e, options)?;
            if *negative { -v } else { v }
        }
        DurationExpr::Paren(e, _) => seconds(e, options)?,
        DurationExpr::MinOf(a, b, _) => seconds(a, options)?.min(seconds(b, options)?),
        DurationExpr::MaxOf(a, b, _) => seconds(a, options)?.max(seconds(b, options)?),
        DurationExpr::Binary(op, a, b, _) => {
            let (a, b) = (seconds(a, options)?, seconds(b, options)?);
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div if b == 0.0 => return Err(invalid("division by zero")),
                BinaryOp::Div => a / b,
                BinaryOp::Mod if b == 0.0 => return Err(invalid("modulo by zero")),
                BinaryOp::Mod => a % b,
                BinaryOp::Pow => a.powf(b),
                _ => return Err(invalid("unexpected operator in a duration expression")),
            }
        }
    })
}

/// Milliseconds of a duration that does not depend on the query it stands in, if they can be told.
#[must_use]
pub fn constant(value: &DurationValue) -> Option<i64> {
    fn fixed(expr: &DurationExpr) -> bool {
        match expr {
            DurationExpr::Number(_) => true,
            DurationExpr::Step(_) | DurationExpr::Range(_) => false,
            DurationExpr::Unary(_, e, _) | DurationExpr::Paren(e, _) => fixed(e),
            DurationExpr::Binary(_, a, b, _)
            | DurationExpr::MinOf(a, b, _)
            | DurationExpr::MaxOf(a, b, _) => fixed(a) && fixed(b),
        }
    }
    if matches!(value, DurationValue::Expr(expr) if !fixed(expr)) {
        return None;
    }
    resolve(value, &PlanOptions::default()).ok()
}

/// Milliseconds of a duration.
pub fn resolve(value: &DurationValue, options: &PlanOptions) -> Result<i64, QueryError> {
    match value {
        DurationValue::Constant(ms) => Ok(*ms),
        DurationValue::Expr(expr) => {
            let ms = (seconds(expr, options)? * 1000.0).round();
            if ms.is_nan() || ms.abs() > MAX_MS {
                return Err(invalid("duration is out of range"));
            }
            Ok(ms as i64)
        }
    }
}

/// Milliseconds of a range or step, which must be above zero.
pub fn resolve_positive(value: &DurationValue, options: &PlanOptions) -> Result<i64, QueryError> {
    match resolve(value, options)? {
        ms if ms > 0 => Ok(ms),
        _ => Err(invalid("duration must be greater than 0")),
    }
}
