//! What is a sample, and how do samples of one series travel between storage and queries?
//!
//! A sample is a timestamp (milliseconds since the Unix epoch) and a float or a native histogram. Samples of
//! one series move in columns, [`SampleBuffer`], so that decoding and window functions run over slices.

use std::sync::Arc;

use super::histogram::{FloatHistogram, Histogram};

/// Bits of the staleness marker, the NaN that says "this series ended here" (Prometheus `value.StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;
/// Bits of the canonical ordinary NaN (Prometheus `value.NormalNaN`).
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The staleness marker as a float.
#[must_use]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `v` is the staleness marker, bit for bit.
#[inline]
#[must_use]
pub fn is_stale_nan(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// The histogram of a sample as it was ingested: integer counts (exposition, remote write) or float counts.
#[derive(Debug, Clone, PartialEq)]
pub enum HistogramValue {
    /// Integer bucket counts, stored as deltas.
    Integer(Arc<Histogram>),
    /// Float bucket counts, absolute.
    Float(Arc<FloatHistogram>),
}

impl HistogramValue {
    /// The same histogram with float counts, the only form queries work with.
    #[must_use]
    pub fn to_float(&self) -> Arc<FloatHistogram> {
        match self {
            HistogramValue::Integer(h) => Arc::new(h.to_float()),
            HistogramValue::Float(h) => Arc::clone(h),
        }
    }

    /// Whether this is the histogram form of the staleness marker (a stale NaN in `sum`).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            HistogramValue::Integer(h) => is_stale_nan(h.sum),
            HistogramValue::Float(h) => is_stale_nan(h.sum),
        }
    }
}

/// The value of one sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A plain float.
    Float(f64),
    /// A native histogram.
    Histogram(HistogramValue),
}

/// The samples of one series in a time range, as columns.
///
/// Floats and histograms lie apart, each sorted by strictly increasing timestamp; no timestamp occurs in
/// both. Staleness markers are included (as stale NaN floats or histograms with a stale `sum`).
/// `float_start_ts` and `histogram_start_ts` hold start timestamps (0 = unknown) and are either empty or as long
/// as their column.
#[derive(Debug, Clone, Default)]
pub struct SampleBuffer {
    /// Timestamps of the float samples, milliseconds.
    pub timestamps: Vec<i64>,
    /// Values of the float samples.
    pub values: Vec<f64>,
    /// Start timestamps of the float samples; empty when none is known.
    pub float_start_ts: Vec<i64>,
    /// Histogram samples.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
    /// Start timestamps of the histogram samples; empty when none is known.
    pub histogram_start_ts: Vec<i64>,
}

impl SampleBuffer {
    /// Empties the buffer and keeps its allocations.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.float_start_ts.clear();
        self.histograms.clear();
        self.histogram_start_ts.clear();
    }

    /// Number of samples of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }

    /// Whether there is no sample at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty() && self.histograms.is_empty()
    }

    /// Appends a float sample without a start timestamp; `t` must be greater than every float timestamp so far.
    pub fn push_float(&mut self, t: i64, v: f64) {
        self.timestamps.push(t);
        self.values.push(v);
        if !self.float_start_ts.is_empty() {
            self.float_start_ts.push(0);
        }
    }

    /// Appends a float sample with its start timestamp (0 = unknown).
    pub fn push_float_with_start(&mut self, t: i64, start: i64, v: f64) {
        if start != 0 && self.float_start_ts.is_empty() {
            self.float_start_ts.resize(self.timestamps.len(), 0);
        }
        self.timestamps.push(t);
        self.values.push(v);
        if start != 0 || !self.float_start_ts.is_empty() {
            self.float_start_ts.push(start);
        }
    }

    /// Appends a histogram sample with its start timestamp (0 = unknown).
    pub fn push_histogram(&mut self, t: i64, start: i64, h: Arc<FloatHistogram>) {
        if start != 0 && self.histogram_start_ts.is_empty() {
            self.histogram_start_ts.resize(self.histograms.len(), 0);
        }
        self.histograms.push((t, h));
        if start != 0 || !self.histogram_start_ts.is_empty() {
            self.histogram_start_ts.push(start);
        }
    }
}
