//! Which buckets of a native histogram hold something, and where do they lie? In the order the API lists them:
//! negative from the far end, zero, positive.

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Span};

/// One populated bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether the lower bound belongs to it.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to it.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

/// Upper bound of exponential bucket `index`: base^index with base = 2^(2^−schema).
fn exponential_bound(schema: i32, index: i64) -> f64 {
    if schema <= 0 {
        let shift = u32::try_from(-schema).unwrap_or(0).min(30);
        let exponent = index.saturating_mul(1 << shift);
        return power_of_two(exponent);
    }
    let parts = 1i64 << schema.min(30);
    let (whole, part) = (index.div_euclid(parts), index.rem_euclid(parts));
    // The fraction lies in [1, 2): scaling it by a power of two is exact.
    let fraction = (part as f64 / parts as f64).exp2();
    if whole >= 1024 { f64::INFINITY } else { fraction * power_of_two(whole) }
}

fn power_of_two(exponent: i64) -> f64 {
    match exponent {
        e if e >= 1024 => f64::MAX,
        e if e < -1074 => 0.0,
        e => (e as f64).exp2(),
    }
}

fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl DoubleEndedIterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let mut used = 0usize;
    let mut pairs = Vec::new();
    for span in spans {
        next += i64::from(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.get(used) else { break };
            pairs.push((next, *count));
            used += 1;
            next += 1;
        }
    }
    pairs.into_iter()
}

fn custom_bounds(histogram: &FloatHistogram, index: i64) -> (f64, f64) {
    let at = |i: i64| usize::try_from(i).ok().and_then(|i| histogram.custom_values.get(i)).copied();
    let lower = if index <= 0 { f64::NEG_INFINITY } else { at(index - 1).unwrap_or(f64::INFINITY) };
    (lower, at(index).unwrap_or(f64::INFINITY))
}

/// The populated buckets, lowest first.
pub fn populated(histogram: &FloatHistogram) -> Vec<Bucket> {
    let mut out = Vec::new();
    let custom = histogram.schema == CUSTOM_BUCKETS_SCHEMA;
    let bounds = |index: i64| {
        if custom {
            custom_bounds(histogram, index)
        } else {
            (exponential_bound(histogram.schema, index - 1), exponential_bound(histogram.schema, index))
        }
    };
    for (index, count) in indexed(&histogram.negative_spans, &histogram.negative_buckets).rev() {
        let (near, far) = bounds(index);
        out.push(Bucket { lower: -far, upper: -near, lower_inclusive: true, upper_inclusive: false, count });
    }
    if !custom {
        out.push(Bucket {
            lower: -histogram.zero_threshold,
            upper: histogram.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: histogram.zero_count,
        });
    }
    for (index, count) in indexed(&histogram.positive_spans, &histogram.positive_buckets) {
        let (lower, upper) = bounds(index);
        out.push(Bucket { lower, upper, lower_inclusive: false, upper_inclusive: true, count });
    }
    out.retain(|bucket| bucket.count != 0.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_both_signs_and_zero() {
        let histogram = FloatHistogram {
            schema: 0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 0.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![3.0],
            ..FloatHistogram::default()
        };
        let got: Vec<(f64, f64, f64)> =
            populated(&histogram).iter().map(|b| (b.lower, b.upper, b.count)).collect();
        assert_eq!(got, [(-2.0, -1.0, 3.0), (-0.001, 0.001, 2.0), (0.5, 1.0, 1.0)]);
    }

    #[test]
    fn bounds_of_fine_schemas_are_powers_at_whole_steps() {
        for (schema, index, want) in [(3, 8, 2.0), (3, 0, 1.0), (3, -8, 0.5), (-1, 1, 4.0), (8, 256, 2.0)] {
            assert_eq!(exponential_bound(schema, index), want, "schema {schema} index {index}");
        }
    }
}
