//! What the evaluation needs of histogram arithmetic, in the shape it needs it.

use crate::model::histogram::FloatHistogram;

pub use crate::model::histogram::{Incompatible, Remarks};

/// Whether the histogram has custom bounds.
#[must_use]
pub fn is_custom(h: &FloatHistogram) -> bool {
    h.is_custom()
}

/// Adds `other` to `h`.
pub fn add(h: &mut FloatHistogram, other: &FloatHistogram) -> Result<Remarks, Incompatible> {
    h.add(other)
}

/// Subtracts `other` from `h`.
pub fn sub(h: &mut FloatHistogram, other: &FloatHistogram) -> Result<Remarks, Incompatible> {
    h.sub(other)
}

/// Multiplies all counts.
pub fn mul(h: &mut FloatHistogram, factor: f64) {
    h.mul(factor);
}

/// Divides all counts.
pub fn div(h: &mut FloatHistogram, divisor: f64) {
    h.div(divisor);
}

/// Drops empty buckets at the ends of spans and joins spans.
pub fn compact(h: &mut FloatHistogram) {
    h.compact();
}

/// Whether a reset lies between `previous` and `h`, hints included.
#[must_use]
pub fn detect_reset(h: &FloatHistogram, previous: &FloatHistogram) -> bool {
    h.detect_reset(previous)
}

/// A copy on a coarser grid.
#[must_use]
pub fn to_schema(h: &FloatHistogram, schema: i32) -> FloatHistogram {
    h.copy_to_schema(schema)
}

/// Whether both stand for the same distribution (hints apart).
#[must_use]
pub fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    a.equals(b)
}

/// Drops the observations above (`upper`) or below `bound`.
pub fn trim(h: &mut FloatHistogram, bound: f64, upper: bool) {
    h.trim(bound, upper);
}

/// The text form, as `count_values` labels it.
#[must_use]
pub fn text(h: &FloatHistogram) -> String {
    h.to_string()
}

/// How many float samples a histogram counts as.
#[must_use]
pub fn weight(h: &FloatHistogram) -> u64 {
    let buckets = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    let spans = h.positive_spans.len() + h.negative_spans.len();
    ((168 + 8 * buckets + 8 * spans) as u64) / 16
}
