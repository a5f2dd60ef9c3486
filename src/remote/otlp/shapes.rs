//! What does a histogram of OpenTelemetry look like as a native one? Buckets become spans and deltas; scales finer than
//! ours are merged.

use std::sync::Arc;

use super::model::{Buckets, ExponentialPoint, HistogramPoint};
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Histogram, Span};
use crate::model::sample::STALE_NAN_BITS;

/// Width of the zero bucket of exponential histograms, as Prometheus sets it.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Gaps of up to this many buckets are filled with empty ones.
const SMALL_GAP: i64 = 2;
/// Most buckets of a histogram.
pub const MAX_BUCKETS: usize = 1 << 16;

/// A stale histogram says so in its sum.
fn finish(mut out: Histogram, no_value: bool, delta: bool) -> Histogram {
    if delta {
        out.counter_reset_hint = CounterResetHint::Gauge;
    }
    if no_value {
        out.sum = f64::from_bits(STALE_NAN_BITS);
        out.count = STALE_NAN_BITS;
    }
    out
}

/// An exponential histogram; the error says why there is none.
pub fn native_of(histogram: &ExponentialPoint, delta: bool) -> Result<Histogram, String> {
    let scale = histogram.scale;
    if scale < -4 {
        return Err(format!(
            "cannot convert exponential to native histogram. Scale must be >= -4, was {scale}"
        ));
    }
    let buckets = histogram.positive.counts.len().max(histogram.negative.counts.len());
    if buckets > MAX_BUCKETS {
        return Err(format!("a histogram has {buckets} buckets, {MAX_BUCKETS} at most are taken"));
    }
    let down = u32::try_from(scale - 8).unwrap_or(0).min(31);
    let (positive_spans, positive_buckets) = layout(&histogram.positive, down, 1);
    let (negative_spans, negative_buckets) = layout(&histogram.negative, down, 1);
    let out = Histogram {
        schema: scale.min(8),
        zero_threshold: ZERO_THRESHOLD,
        zero_count: histogram.zero_count,
        count: histogram.count,
        sum: histogram.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..Histogram::default()
    };
    Ok(finish(out, histogram.point.no_value, delta))
}

/// A histogram with bounds of its own, as a native one with custom buckets.
pub fn custom_buckets(histogram: &HistogramPoint, delta: bool) -> Histogram {
    let buckets = Buckets { offset: 0, counts: histogram.counts.clone() };
    let (positive_spans, positive_buckets) = layout(&buckets, 0, 0);
    let out = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: histogram.count,
        sum: histogram.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        custom_values: Arc::from(histogram.bounds.as_slice()),
        ..Histogram::default()
    };
    finish(out, histogram.point.no_value, delta)
}

/// Spans and deltas of populated buckets. `down` halves the resolution so many times; `shift` is 1 where indexes name
/// lower bounds.
fn layout(buckets: &Buckets, down: u32, shift: i64) -> (Vec<Span>, Vec<i64>) {
    let mut merged: Vec<(i64, u64)> = Vec::new();
    for (i, count) in buckets.counts.iter().enumerate() {
        let index = ((i64::from(buckets.offset) + i as i64) >> down) + shift;
        match merged.last_mut() {
            Some((last, sum)) if *last == index => *sum = sum.saturating_add(*count),
            _ => merged.push((index, *count)),
        }
    }
    merged.retain(|(_, count)| *count > 0);
    let (mut spans, mut deltas): (Vec<Span>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut next, mut previous) = (0i64, 0i64);
    for (index, count) in merged {
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if gap <= SMALL_GAP => {
                for _ in 0..gap {
                    deltas.push(-previous);
                    previous = 0;
                    span.length += 1;
                }
                span.length += 1;
            }
            _ => spans.push(Span { offset: i32::try_from(gap).unwrap_or(i32::MAX), length: 1 }),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - previous);
        previous = count;
        next = index + 1;
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_become_spans() {
        let spans = |list: &[(i32, u32)]| -> Vec<Span> {
            list.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect()
        };
        for (offset, counts, down, want_spans, want_deltas) in [
            (0, vec![4, 3, 2, 1], 0, vec![(1, 4)], vec![4, -1, -1, -1]),
            (5, vec![0, 4, 0, 0, 1, 0], 0, vec![(7, 4)], vec![4, -4, 0, 1]),
            (0, vec![1, 0, 0, 0, 1], 0, vec![(1, 1), (3, 1)], vec![1, 0]),
            (0, vec![4, 3, 2, 1], 1, vec![(1, 2)], vec![7, -4]),
            (-1, vec![1, 2, 3], 1, vec![(0, 2)], vec![1, 4]),
            (0, vec![0, 0], 0, vec![], vec![]),
        ] {
            let (got_spans, got_deltas) = layout(&Buckets { offset, counts }, down, 1);
            assert_eq!((got_spans, got_deltas), (spans(&want_spans), want_deltas), "{offset} {down}");
        }
    }
}
