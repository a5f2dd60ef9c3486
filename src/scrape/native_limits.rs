//! How does a native histogram fit into the limits of a job? By halving its resolution, which merges neighbouring
//! buckets two by two; custom buckets cannot be merged.

use std::sync::Arc;

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, Span};
use crate::model::sample::HistogramValue;

/// Coarsest exponential schema.
const MIN_SCHEMA: i32 = -4;
/// Finest exponential schema.
const MAX_SCHEMA: i32 = 8;

/// The finest schema whose buckets grow by at least `factor`.
fn schema_of_factor(factor: f64) -> i32 {
    if factor <= 1.0 {
        return MAX_SCHEMA;
    }
    let exponent = -factor.log2().log2();
    (exponent.floor() as i32).clamp(MIN_SCHEMA, MAX_SCHEMA)
}

/// Merges buckets when the schema goes down by `steps`.
fn coarser<N: Copy + std::ops::AddAssign>(spans: &[Span], counts: &[N], steps: u32) -> (Vec<Span>, Vec<N>) {
    let (mut out_spans, mut out_counts): (Vec<Span>, Vec<N>) = (Vec::new(), Vec::new());
    let mut counts = counts.iter();
    let (mut index, mut next_out) = (0i64, 0i64);
    for span in spans {
        index += i64::from(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return (out_spans, out_counts) };
            let target = ((index - 1) >> steps) + 1;
            match out_counts.last_mut() {
                Some(last) if target == next_out - 1 => *last += *count,
                _ => {
                    match out_spans.last_mut() {
                        Some(last) if target == next_out => last.length += 1,
                        _ => out_spans.push(Span { offset: (target - next_out) as i32, length: 1 }),
                    }
                    out_counts.push(*count);
                    next_out = target + 1;
                }
            }
            index += 1;
        }
    }
    (out_spans, out_counts)
}

fn absolute(deltas: &[i64]) -> Vec<i64> {
    let mut total = 0i64;
    deltas
        .iter()
        .map(|d| {
            total = total.wrapping_add(*d);
            total
        })
        .collect()
}

fn deltas(counts: &[i64]) -> Vec<i64> {
    let mut before = 0;
    counts.iter().map(|count| count - std::mem::replace(&mut before, *count)).collect()
}

fn reduce(histogram: &HistogramValue, steps: u32) -> HistogramValue {
    match histogram {
        HistogramValue::Integer(h) => {
            let (positive_spans, positive) =
                coarser(&h.positive_spans, &absolute(&h.positive_buckets), steps);
            let (negative_spans, negative) =
                coarser(&h.negative_spans, &absolute(&h.negative_buckets), steps);
            HistogramValue::Integer(Arc::new(Histogram {
                schema: h.schema - steps as i32,
                positive_spans,
                negative_spans,
                positive_buckets: deltas(&positive),
                negative_buckets: deltas(&negative),
                ..(**h).clone()
            }))
        }
        HistogramValue::Float(h) => {
            let (positive_spans, positive_buckets) = coarser(&h.positive_spans, &h.positive_buckets, steps);
            let (negative_spans, negative_buckets) = coarser(&h.negative_spans, &h.negative_buckets, steps);
            HistogramValue::Float(Arc::new(FloatHistogram {
                schema: h.schema - steps as i32,
                positive_spans,
                negative_spans,
                positive_buckets,
                negative_buckets,
                ..(**h).clone()
            }))
        }
    }
}

fn shape(histogram: &HistogramValue) -> (i32, u64) {
    match histogram {
        HistogramValue::Integer(h) => {
            (h.schema, (h.positive_buckets.len() + h.negative_buckets.len()) as u64)
        }
        HistogramValue::Float(h) => (h.schema, (h.positive_buckets.len() + h.negative_buckets.len()) as u64),
    }
}

/// The histogram with at most `bucket_limit` buckets (0 = any number) that grow by at least `min_factor`; `None` if no
/// resolution fits.
pub(super) fn fit(histogram: &HistogramValue, bucket_limit: u64, min_factor: f64) -> Option<HistogramValue> {
    let mut histogram = histogram.clone();
    let (schema, _) = shape(&histogram);
    let finest = schema_of_factor(min_factor);
    if schema != CUSTOM_BUCKETS_SCHEMA && min_factor > 0.0 && schema > finest {
        histogram = reduce(&histogram, schema.abs_diff(finest));
    }
    if bucket_limit == 0 {
        return Some(histogram);
    }
    loop {
        let (schema, buckets) = shape(&histogram);
        if buckets <= bucket_limit {
            return Some(histogram);
        }
        if schema == CUSTOM_BUCKETS_SCHEMA || schema <= MIN_SCHEMA {
            return None;
        }
        histogram = reduce(&histogram, 1);
    }
}

/// The empty histogram that stands at the start timestamp of `histogram`.
pub(super) fn zero_of(histogram: &HistogramValue) -> HistogramValue {
    match histogram {
        HistogramValue::Integer(h) => HistogramValue::Integer(Arc::new(Histogram {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: Arc::clone(&h.custom_values),
            counter_reset_hint: h.counter_reset_hint,
            ..Histogram::default()
        })),
        HistogramValue::Float(h) => HistogramValue::Float(Arc::new(FloatHistogram {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: Arc::clone(&h.custom_values),
            counter_reset_hint: h.counter_reset_hint,
            ..FloatHistogram::default()
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_merges_neighbours() {
        // Buckets 1..=4 of schema 1 cover (1, 4]; in schema 0 they are buckets 1 and 2.
        let spans = [Span { offset: 1, length: 4 }];
        let (spans, counts) = coarser(&spans, &[1i64, 2, 3, 4], 1);
        assert_eq!(spans, [Span { offset: 1, length: 2 }]);
        assert_eq!(counts, [3, 7]);
        let (spans, counts) =
            coarser(&[Span { offset: -3, length: 2 }, Span { offset: 5, length: 1 }], &[1i64, 1, 1], 1);
        assert_eq!(spans, [Span { offset: -1, length: 1 }, Span { offset: 2, length: 1 }]);
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn limits_reduce_or_refuse() {
        let h = HistogramValue::Integer(Arc::new(Histogram {
            schema: 3,
            count: 10,
            positive_spans: vec![Span { offset: 0, length: 10 }],
            positive_buckets: deltas(&[1; 10]),
            ..Histogram::default()
        }));
        let fitted = fit(&h, 4, 0.0).expect("fits");
        let (schema, buckets) = shape(&fitted);
        assert!(buckets <= 4 && schema < 3, "{schema} {buckets}");
        assert_eq!(fitted.to_float().positive_buckets.iter().sum::<f64>(), 10.0);
        assert_eq!(shape(&fit(&h, 0, 2.0).expect("fits")).0, 0);
        assert_eq!(shape(&fit(&h, 0, 1.1).expect("fits")).0, 2);
        let custom = HistogramValue::Integer(Arc::new(Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1, 0, 0],
            ..Histogram::default()
        }));
        assert!(fit(&custom, 2, 0.0).is_none());
    }
}
