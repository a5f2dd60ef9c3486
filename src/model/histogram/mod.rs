//! Native histograms: sparse buckets on an exponential grid, or with custom bounds (schema −53).
//!
//! [`Histogram`] has integer counts, kept as deltas between neighbouring populated buckets, as ingested;
//! [`FloatHistogram`] has absolute float counts and is what queries compute with. Bucket *i* of a positive
//! exponential schema reaches from base^(i−1), exclusive, to base^i, inclusive, base = 2^(2^−schema).

//!
//! `buckets` walks the buckets with their bounds, `reshape` changes the grid or drops parts, `arithmetic` adds and
//! scales, `reset` compares with the sample before, `validate` judges what comes from outside, `text` prints.

mod arithmetic;
mod buckets;
mod reset;
mod reshape;
mod text;
mod trim;
mod validate;

use std::sync::Arc;

pub use arithmetic::{Incompatible, Remarks};
pub use buckets::{Bucket, exponential_bound};
pub use text::ApiBucket;
pub use validate::HistogramError;

/// Schema number of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known about a counter reset before a histogram sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum CounterResetHint {
    /// Not known; compare with the previous sample.
    #[default]
    Unknown,
    /// There was a reset.
    Reset,
    /// There was none.
    NotReset,
    /// A gauge: resets mean nothing.
    Gauge,
}

/// A run of consecutive buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// Gap to the end of the previous span; for the first span the index of its first bucket.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// A native histogram with integer counts. Bucket values are deltas to the bucket before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// What is known about a reset before this sample.
    pub counter_reset_hint: CounterResetHint,
    /// −4…8 exponential, −53 custom bounds.
    pub schema: i32,
    /// Width of the zero bucket: it counts |v| ≤ threshold.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations, NaN included.
    pub count: u64,
    /// Sum of observations; the stale NaN marks a stale sample.
    pub sum: f64,
    /// Where the positive buckets lie.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets lie.
    pub negative_spans: Vec<Span>,
    /// Deltas of the positive buckets; the first is absolute.
    pub positive_buckets: Vec<i64>,
    /// Deltas of the negative buckets; the first is absolute.
    pub negative_buckets: Vec<i64>,
    /// Upper bounds for schema −53, ascending, without +Inf.
    pub custom_values: Arc<[f64]>,
}

/// A native histogram with float counts. Bucket values are absolute.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FloatHistogram {
    /// What is known about a reset before this sample.
    pub counter_reset_hint: CounterResetHint,
    /// −4…8 exponential, −53 custom bounds.
    pub schema: i32,
    /// Width of the zero bucket: it counts |v| ≤ threshold.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations, NaN included.
    pub count: f64,
    /// Sum of observations; the stale NaN marks a stale sample.
    pub sum: f64,
    /// Where the positive buckets lie.
    pub positive_spans: Vec<Span>,
    /// Where the negative buckets lie.
    pub negative_spans: Vec<Span>,
    /// Absolute counts of the positive buckets.
    pub positive_buckets: Vec<f64>,
    /// Absolute counts of the negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds for schema −53, ascending, without +Inf.
    pub custom_values: Arc<[f64]>,
}

impl Histogram {
    /// The same histogram with absolute float counts.
    #[must_use]
    pub fn to_float(&self) -> FloatHistogram {
        fn absolute(deltas: &[i64]) -> Vec<f64> {
            let mut current = 0i64;
            deltas
                .iter()
                .map(|delta| {
                    current = current.wrapping_add(*delta);
                    current as f64
                })
                .collect()
        }
        FloatHistogram {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: absolute(&self.positive_buckets),
            negative_buckets: absolute(&self.negative_buckets),
            custom_values: Arc::clone(&self.custom_values),
        }
    }
}

impl FloatHistogram {
    /// Whether the bucket bounds are custom.
    #[must_use]
    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }
}
