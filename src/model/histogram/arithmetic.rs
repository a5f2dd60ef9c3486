//! Sums, differences and multiples of histograms.
//!
//! Two exponential histograms meet on the coarser grid, with a zero bucket wide enough for both; two with
//! custom bounds meet on the bounds they share; one of each cannot meet.

use std::sync::Arc;

use super::buckets::Sparse;
use super::reshape::{coarser, on_shared_bounds, shared_bounds};
use super::{CounterResetHint, FloatHistogram};

/// Exponential and custom buckets cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("histograms with exponential and custom buckets cannot be combined")]
pub struct Incompatible;

/// What happened on the way of an addition or subtraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remarks {
    /// One operand is known to follow a reset, the other not to.
    pub reset_collision: bool,
    /// Custom bounds differed and were reduced to the shared ones.
    pub reconciled: bool,
}

/// The union of two bucket lists, `combine`d where both have one; a missing bucket counts 0.
fn merge(a: &[(i32, f64)], b: &[(i32, f64)], combine: fn(f64, f64) -> f64) -> Sparse {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.get(i), b.get(j)) {
            (None, None) => return out,
            (Some(x), y) if y.is_none_or(|y| x.0 < y.0) => {
                out.push(*x);
                i += 1;
            }
            (x, Some(y)) if x.is_none_or(|x| y.0 < x.0) => {
                out.push((y.0, combine(0.0, y.1)));
                j += 1;
            }
            (Some(x), Some(y)) => {
                out.push((x.0, combine(x.1, y.1)));
                i += 1;
                j += 1;
            }
            // The first two arms take every case with one side missing.
            _ => return out,
        }
    }
}

impl FloatHistogram {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) -> Result<Remarks, Incompatible> {
        self.combine(other, |a, b| a + b)
    }

    /// Subtracts `other`.
    pub fn sub(&mut self, other: &Self) -> Result<Remarks, Incompatible> {
        self.combine(other, |a, b| a - b)
    }

    fn combine(&mut self, other: &Self, with: fn(f64, f64) -> f64) -> Result<Remarks, Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let reset_collision = self.combine_hint(other.counter_reset_hint);
        let same_grid = self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && (!self.is_custom() || self.custom_values == other.custom_values);
        let mut reconciled = false;
        if same_grid {
            self.zero_count = with(self.zero_count, other.zero_count);
            if self.positive_spans == other.positive_spans && self.negative_spans == other.negative_spans {
                // The common case: same target, next sample.
                for (a, b) in self.positive_buckets.iter_mut().zip(&other.positive_buckets) {
                    *a = with(*a, *b);
                }
                for (a, b) in self.negative_buckets.iter_mut().zip(&other.negative_buckets) {
                    *a = with(*a, *b);
                }
            } else {
                self.merge_buckets(&other.positive(), &other.negative(), with);
            }
        } else if self.is_custom() {
            reconciled = true;
            let bounds = shared_bounds(&self.custom_values, &other.custom_values);
            let mine = on_shared_bounds(&self.positive(), &self.custom_values, &bounds);
            let theirs = on_shared_bounds(&other.positive(), &other.custom_values, &bounds);
            self.set_positive(&merge(&mine, &theirs, with));
            self.custom_values = Arc::from(bounds);
        } else {
            let theirs = self.reconcile_zero_buckets(other);
            self.zero_count = with(self.zero_count, theirs);
            let schema = self.schema.min(other.schema);
            self.reduce_resolution(schema);
            let outside = |buckets: Sparse| -> Sparse {
                // What the zero bucket has swallowed is no bucket any more.
                coarser(&buckets, other.schema, schema)
                    .into_iter()
                    .skip_while(|(i, _)| super::exponential_bound(*i, schema) <= self.zero_threshold)
                    .collect()
            };
            let (positive, negative) = (outside(other.positive()), outside(other.negative()));
            self.merge_buckets(&positive, &negative, with);
        }
        self.count = with(self.count, other.count);
        self.sum = with(self.sum, other.sum);
        Ok(Remarks { reset_collision, reconciled })
    }

    fn merge_buckets(&mut self, positive: &[(i32, f64)], negative: &[(i32, f64)], with: fn(f64, f64) -> f64) {
        let positive = merge(&self.positive(), positive, with);
        let negative = merge(&self.negative(), negative, with);
        self.set_positive(&positive);
        self.set_negative(&negative);
    }

    /// Widens this zero bucket until both have the same width; answers what the other's would count.
    fn reconcile_zero_buckets(&mut self, other: &Self) -> f64 {
        let (mut count, mut threshold) = (other.zero_count, other.zero_threshold);
        // Each round widens one of the two to a bucket bound, so this ends.
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (count, threshold) = other.zero_count_for(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                let (mine, wider) = self.zero_count_for(threshold);
                self.widen_zero_bucket(mine, wider);
            }
            if threshold.is_nan() || self.zero_threshold.is_nan() {
                break;
            }
        }
        count
    }

    /// Settles the hint of the result; `true` if the hints contradict each other.
    fn combine_hint(&mut self, other: CounterResetHint) -> bool {
        use CounterResetHint::{Gauge, Unknown};
        let mine = self.counter_reset_hint;
        if mine == other || mine == Gauge || (mine == Unknown && other != Gauge) {
            return false;
        }
        if other == Gauge {
            self.counter_reset_hint = Gauge;
            return false;
        }
        self.counter_reset_hint = Unknown;
        other != Unknown
    }

    fn each_count(&mut self, change: impl Fn(f64) -> f64) {
        self.zero_count = change(self.zero_count);
        self.count = change(self.count);
        self.sum = change(self.sum);
        for v in self.positive_buckets.iter_mut().chain(&mut self.negative_buckets) {
            *v = change(*v);
        }
    }

    /// Multiplies all counts; a negative factor makes a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.each_count(|v| v * factor);
        if factor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Divides all counts; a negative divisor makes a gauge, and zero leaves no buckets.
    pub fn div(&mut self, divisor: f64) {
        self.each_count(|v| v / divisor);
        if divisor == 0.0 {
            self.set_positive(&[]);
            self.set_negative(&[]);
        }
        if divisor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Whether both are the same to the last bit, hints apart and however their spans are cut.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        let bits = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let same = |a: Sparse, b: Sparse| {
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && bits(a.1, b.1))
        };
        self.schema == other.schema
            && bits(self.count, other.count)
            && bits(self.sum, other.sum)
            && (self.is_custom()
                || (bits(self.zero_threshold, other.zero_threshold)
                    && bits(self.zero_count, other.zero_count)))
            && (!self.is_custom() || self.custom_values == other.custom_values)
            && same(self.positive(), other.positive())
            && same(self.negative(), other.negative())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::histogram::Span;
    use proptest::prelude::*;

    fn histogram() -> impl Strategy<Value = FloatHistogram> {
        let side = || prop::collection::btree_map(-6i32..8, 1u8..9, 0..6);
        (0i32..3, 0usize..3, 0u8..5, side(), side()).prop_map(
            |(schema, zero, zero_count, positive, negative)| {
                let mut h = FloatHistogram {
                    schema,
                    zero_threshold: [0.0, 0.001, 0.5][zero],
                    zero_count: f64::from(zero_count),
                    ..FloatHistogram::default()
                };
                let list = |side: std::collections::BTreeMap<i32, u8>| -> Sparse {
                    side.into_iter()
                        .filter(|(i, _)| {
                            crate::model::histogram::exponential_bound(*i - 1, schema)
                                >= [0.0, 0.001, 0.5][zero]
                        })
                        .map(|(i, c)| (i, f64::from(c)))
                        .collect()
                };
                h.set_positive(&list(positive));
                h.set_negative(&list(negative));
                h.count = h.zero_count + h.positive_buckets.iter().chain(&h.negative_buckets).sum::<f64>();
                h.sum = h.count * 1.5;
                h
            },
        )
    }

    fn total(h: &FloatHistogram) -> f64 {
        h.zero_count + h.positive_buckets.iter().chain(&h.negative_buckets).sum::<f64>()
    }

    proptest! {
        #[test]
        fn addition_keeps_every_observation(a in histogram(), b in histogram()) {
            let mut sum = a.clone();
            sum.add(&b).unwrap();
            prop_assert_eq!(total(&sum), total(&a) + total(&b));
            prop_assert_eq!(sum.count, a.count + b.count);
            prop_assert_eq!(sum.schema, a.schema.min(b.schema));
            let mut other_way = b.clone();
            other_way.add(&a).unwrap();
            sum.compact();
            other_way.compact();
            prop_assert!(sum.equals(&other_way), "{} {}", sum, other_way);
            sum.sub(&b).unwrap();
            prop_assert_eq!(total(&sum), total(&a));
        }
    }

    #[test]
    fn different_custom_bounds_meet_on_the_shared_ones() {
        let custom = |bounds: &[f64], counts: &[f64]| FloatHistogram {
            schema: super::super::CUSTOM_BUCKETS_SCHEMA,
            custom_values: bounds.into(),
            positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
            positive_buckets: counts.to_vec(),
            ..FloatHistogram::default()
        };
        let mut a = custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]);
        let b = custom(&[1.0, 5.0], &[10.0, 20.0, 40.0]);
        assert!(a.add(&b).unwrap().reconciled);
        assert_eq!(a, custom(&[1.0, 5.0], &[11.0, 25.0, 44.0]));
        assert_eq!(a.add(&FloatHistogram::default()), Err(Incompatible));
    }

    #[test]
    fn hints_combine() {
        use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        for (a, b, result, collision) in [
            (Reset, NotReset, Unknown, true),
            (NotReset, NotReset, NotReset, false),
            (Unknown, Reset, Unknown, false),
            (Reset, Unknown, Unknown, false),
            (Unknown, Gauge, Gauge, false),
            (Gauge, Reset, Gauge, false),
        ] {
            let with = |hint| FloatHistogram { counter_reset_hint: hint, ..FloatHistogram::default() };
            let mut h = with(a);
            assert_eq!(h.add(&with(b)).unwrap().reset_collision, collision);
            assert_eq!(h.counter_reset_hint, result);
        }
    }
}
