//! Other grids for the same observations: coarser schemas, shared custom bounds, wider zero buckets, and spans
//! without empty buckets.

use super::buckets::Sparse;
use super::{FloatHistogram, Histogram, Span};

/// Where bucket `index` of schema `from` goes in the coarser schema `to`.
fn coarser_index(index: i32, from: i32, to: i32) -> i32 {
    let shift = u32::try_from(from - to).unwrap_or(0).min(31);
    ((index.wrapping_sub(1)) >> shift).wrapping_add(1)
}

/// The buckets on a coarser grid.
pub(super) fn coarser(buckets: &[(i32, f64)], from: i32, to: i32) -> Sparse {
    let mut out: Sparse = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let index = coarser_index(*index, from, to);
        match out.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ => out.push((index, *count)),
        }
    }
    out
}

/// The buckets with the bounds `from` on the subset of bounds `to`.
pub(super) fn on_shared_bounds(buckets: &[(i32, f64)], from: &[f64], to: &[f64]) -> Sparse {
    let mut out: Sparse = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let upper = usize::try_from(*index).ok().and_then(|i| from.get(i)).copied();
        let target = match upper {
            Some(upper) => to.partition_point(|bound| *bound < upper),
            None => to.len(),
        } as i32;
        match out.last_mut() {
            Some((last, sum)) if *last == target => *sum += count,
            _ => out.push((target, *count)),
        }
    }
    out
}

/// The bounds that both lists have.
pub(super) fn shared_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().copied().filter(|v| b.binary_search_by(|w| w.total_cmp(v)).is_ok()).collect()
}

impl FloatHistogram {
    /// Drops empty buckets and empty spans.
    pub fn compact(&mut self) {
        let without_empty =
            |buckets: Sparse| -> Sparse { buckets.into_iter().filter(|(_, c)| *c != 0.0).collect() };
        let tidy = |spans: &[Span], counts: &[f64]| {
            counts.iter().all(|c| *c != 0.0)
                && spans.iter().skip(1).all(|s| s.offset > 0)
                && spans.iter().all(|s| s.length > 0)
        };
        if !tidy(&self.positive_spans, &self.positive_buckets) {
            let buckets = without_empty(self.positive());
            self.set_positive(&buckets);
        }
        if !tidy(&self.negative_spans, &self.negative_buckets) {
            let buckets = without_empty(self.negative());
            self.set_negative(&buckets);
        }
    }

    /// Moves the buckets to a coarser exponential schema; a finer one or custom bounds change nothing.
    pub fn reduce_resolution(&mut self, schema: i32) {
        if self.is_custom() || schema >= self.schema {
            return;
        }
        let positive = coarser(&self.positive(), self.schema, schema);
        let negative = coarser(&self.negative(), self.schema, schema);
        self.set_positive(&positive);
        self.set_negative(&negative);
        self.schema = schema;
    }

    /// A copy in a coarser schema.
    #[must_use]
    pub fn copy_to_schema(&self, schema: i32) -> Self {
        let mut copy = self.clone();
        copy.reduce_resolution(schema);
        copy
    }

    /// What the zero bucket would count if it were at least as wide as `threshold`, and how wide it has to be so
    /// that no populated bucket is cut.
    pub(super) fn zero_count_for(&self, threshold: f64) -> (f64, f64) {
        let mut threshold = threshold;
        if threshold <= self.zero_threshold {
            return (self.zero_count, threshold);
        }
        'wider: loop {
            let mut count = self.zero_count;
            for b in self.positive_iter() {
                if b.lower >= threshold {
                    break;
                }
                count += b.count;
                if b.upper > threshold {
                    if b.count != 0.0 {
                        threshold = b.upper;
                    }
                    break;
                }
            }
            for b in self.negative_iter() {
                if b.upper <= -threshold {
                    break;
                }
                count += b.count;
                if b.lower < -threshold {
                    if b.count != 0.0 {
                        threshold = -b.lower;
                        continue 'wider;
                    }
                    break;
                }
            }
            return (count, threshold);
        }
    }

    /// Widens the zero bucket to what [`Self::zero_count_for`] found.
    pub(super) fn widen_zero_bucket(&mut self, count: f64, threshold: f64) {
        self.zero_count = count;
        self.zero_threshold = threshold;
        let positive: Sparse = self
            .positive()
            .into_iter()
            .filter(|(i, _)| self.upper_bound(i.wrapping_sub(1)) >= threshold)
            .collect();
        let negative: Sparse = self
            .negative()
            .into_iter()
            .filter(|(i, _)| self.upper_bound(i.wrapping_sub(1)) >= threshold)
            .collect();
        self.set_positive(&positive);
        self.set_negative(&negative);
    }
}

impl Histogram {
    /// Moves the buckets to a coarser exponential schema; a finer one or custom bounds change nothing.
    pub fn reduce_resolution(&mut self, schema: i32) {
        if self.schema == super::CUSTOM_BUCKETS_SCHEMA || schema >= self.schema {
            return;
        }
        let reduce = |spans: &[Span], deltas: &[i64]| -> (Vec<Span>, Vec<i64>) {
            let mut merged: Vec<(i32, i64)> = Vec::with_capacity(deltas.len());
            let (mut index, mut count) = (0i32, 0i64);
            let mut deltas = deltas.iter();
            for span in spans {
                index = index.wrapping_add(span.offset);
                for _ in 0..span.length {
                    let Some(delta) = deltas.next() else { break };
                    count = count.wrapping_add(*delta);
                    let target = coarser_index(index, self.schema, schema);
                    match merged.last_mut() {
                        Some((last, sum)) if *last == target => *sum = sum.wrapping_add(count),
                        _ => merged.push((target, count)),
                    }
                    index = index.wrapping_add(1);
                }
            }
            let floats: Sparse = merged.iter().map(|(i, _)| (*i, 0.0)).collect();
            let (spans, _) = super::buckets::dense(&floats);
            let mut before = 0i64;
            let deltas =
                merged.iter().map(|(_, count)| count.wrapping_sub(std::mem::replace(&mut before, *count)));
            (spans, deltas.collect())
        };
        let (positive_spans, positive_buckets) = reduce(&self.positive_spans, &self.positive_buckets);
        let (negative_spans, negative_buckets) = reduce(&self.negative_spans, &self.negative_buckets);
        (self.positive_spans, self.positive_buckets) = (positive_spans, positive_buckets);
        (self.negative_spans, self.negative_buckets) = (negative_spans, negative_buckets);
        self.schema = schema;
    }
}
