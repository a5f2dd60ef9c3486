//! One series over the steps of a query: a column of floats, and a sparse column of histograms.
//!
//! A step without a float holds [`ABSENT`], the bits of the stale marker: no arithmetic produces a signalling
//! NaN and no selector lets the marker through, so it can never be a value. This keeps presence in the values
//! themselves, which costs no second array and lets loops over floats vectorise.

use std::sync::Arc;

use crate::model::STALE_NAN_BITS;
use crate::model::histogram::FloatHistogram;
use crate::model::labels::Labels;

/// Bits of "no float at this step".
pub const ABSENT_BITS: u64 = STALE_NAN_BITS;

/// "No float at this step."
pub const ABSENT: f64 = f64::from_bits(ABSENT_BITS);

/// Whether `v` says that there is no float.
#[inline]
#[must_use]
pub fn is_absent(v: f64) -> bool {
    v.to_bits() == ABSENT_BITS
}

/// The steps of an evaluation: `start`, `start + step`, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// First step, milliseconds.
    pub start: i64,
    /// Distance, milliseconds; positive when there is more than one step.
    pub step: i64,
    /// Number of steps.
    pub n: usize,
}

impl Axis {
    /// One step.
    #[must_use]
    pub fn instant(t_ms: i64) -> Self {
        Self { start: t_ms, step: 1, n: 1 }
    }

    /// Time of step `i`, milliseconds.
    #[inline]
    #[must_use]
    pub fn time(&self, i: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(i as i64))
    }

    /// Time of the last step, milliseconds.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.time(self.n.saturating_sub(1))
    }
}

/// Labels of one series of a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// Labels. While `drop_name` is set they may still hold the metric name.
    pub labels: Labels,
    /// The metric name (with type and unit) has to go: at once when somebody looks at the labels, or, with
    /// delayed name removal, at the end of the query.
    pub drop_name: bool,
}

impl Meta {
    /// A series that keeps its name.
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        Self { labels, drop_name: false }
    }
}

/// A float, a histogram, or nothing.
#[derive(Debug, Clone)]
pub enum Point {
    /// Nothing.
    None,
    /// Float.
    Float(f64),
    /// Histogram.
    Histogram(Arc<FloatHistogram>),
}

/// The values of one series.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// One float for each step, [`ABSENT`] where there is none.
    pub values: Vec<f64>,
    /// Histograms by step, ascending; at these steps `values` is [`ABSENT`].
    pub histograms: Vec<(u32, Arc<FloatHistogram>)>,
}

impl Column {
    /// Makes it `n` steps of nothing.
    pub fn reset(&mut self, n: usize) {
        self.values.clear();
        self.values.resize(n, ABSENT);
        self.histograms.clear();
    }

    /// Whether no step has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.values.iter().all(|v| is_absent(*v))
    }

    /// The histogram at a step.
    #[must_use]
    pub fn histogram(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let found = self.histograms.binary_search_by_key(&step, |(s, _)| *s as usize).ok()?;
        Some(&self.histograms[found].1)
    }

    /// Whether a step has a value of either kind.
    #[must_use]
    pub fn has(&self, step: usize) -> bool {
        !is_absent(self.values[step]) || self.histogram(step).is_some()
    }

    /// The value at a step.
    #[must_use]
    pub fn point(&self, step: usize) -> Point {
        let v = self.values[step];
        if !is_absent(v) {
            return Point::Float(v);
        }
        self.histogram(step).map_or(Point::None, |h| Point::Histogram(Arc::clone(h)))
    }

    /// Sets a step; steps with histograms must come in order.
    pub fn push(&mut self, step: usize, point: Point) {
        match point {
            Point::None => {}
            Point::Float(v) => self.values[step] = v,
            Point::Histogram(h) => self.histograms.push((step as u32, h)),
        }
    }

    /// Number of values of both kinds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.iter().filter(|v| !is_absent(**v)).count() + self.histograms.len()
    }

    /// Empties the steps that `keep` does not have.
    pub fn retain(&mut self, keep: &StepSet) {
        for (step, v) in self.values.iter_mut().enumerate() {
            if !keep.contains(step) {
                *v = ABSENT;
            }
        }
        self.histograms.retain(|(step, _)| keep.contains(*step as usize));
    }

    /// Takes over the values of `other`; answers the first step where both have one.
    pub fn merge(&mut self, other: &Column) -> Result<(), usize> {
        for (step, v) in other.values.iter().enumerate() {
            if is_absent(*v) {
                continue;
            }
            if self.has(step) {
                return Err(step);
            }
            self.values[step] = *v;
        }
        if !other.histograms.is_empty() {
            for (step, h) in &other.histograms {
                if self.has(*step as usize) {
                    return Err(*step as usize);
                }
                let at = self.histograms.partition_point(|(s, _)| s < step);
                self.histograms.insert(at, (*step, Arc::clone(h)));
            }
        }
        Ok(())
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let histograms: usize = self
            .histograms
            .iter()
            .map(|(_, h)| 160 + 8 * (h.positive_buckets.len() + h.negative_buckets.len()))
            .sum();
        self.values.len() * 8 + histograms
    }
}

/// A set of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepSet(Vec<u64>);

impl StepSet {
    /// No step out of `n`.
    #[must_use]
    pub fn empty(n: usize) -> Self {
        Self(vec![0; n.div_ceil(64)])
    }

    /// Whether a step is in it.
    #[inline]
    #[must_use]
    pub fn contains(&self, step: usize) -> bool {
        self.0[step / 64] >> (step % 64) & 1 == 1
    }

    /// Adds a step; answers whether it was there.
    #[inline]
    pub fn insert(&mut self, step: usize) -> bool {
        let had = self.contains(step);
        self.0[step / 64] |= 1 << (step % 64);
        had
    }

    /// Adds the steps at which `column` has a value.
    pub fn add_column(&mut self, column: &Column) {
        for (step, v) in column.values.iter().enumerate() {
            self.0[step / 64] |= u64::from(!is_absent(*v)) << (step % 64);
        }
        for (step, _) in &column.histograms {
            self.insert(*step as usize);
        }
    }

    /// All steps out of `n` that are not in it.
    #[must_use]
    pub fn complement(&self, n: usize) -> Self {
        let mut out = Self(self.0.iter().map(|w| !w).collect());
        if !n.is_multiple_of(64)
            && let Some(last) = out.0.last_mut()
        {
            *last &= (1 << (n % 64)) - 1;
        }
        out
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }
}
