//! Was the counter reset between two histograms? Yes, if anything that can only grow has shrunk.

use super::buckets::Sparse;
use super::reshape::{coarser, on_shared_bounds, shared_bounds};
use super::{CounterResetHint, FloatHistogram};

/// Whether a populated bucket of `previous` is gone or has shrunk.
fn shrunk(current: &[(i32, f64)], previous: &[(i32, f64)]) -> bool {
    let mut i = 0;
    previous.iter().any(|(index, before)| {
        while current.get(i).is_some_and(|(c, _)| c < index) {
            i += 1;
        }
        let now = current.get(i).filter(|(c, _)| c == index).map_or(0.0, |(_, now)| *now);
        now < *before
    })
}

impl FloatHistogram {
    /// Whether a counter reset lies between `previous` and this sample, judged by their content alone.
    #[must_use]
    pub fn detects_reset_after(&self, previous: &FloatHistogram) -> bool {
        if self.is_custom() != previous.is_custom() {
            return true;
        }
        if self.count < previous.count {
            return true;
        }
        if self.is_custom() {
            if self.custom_values == previous.custom_values {
                return shrunk(&self.positive(), &previous.positive());
            }
            let bounds = shared_bounds(&self.custom_values, &previous.custom_values);
            let now = on_shared_bounds(&self.positive(), &self.custom_values, &bounds);
            let before = on_shared_bounds(&previous.positive(), &previous.custom_values, &bounds);
            return shrunk(&now, &before);
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_before, threshold) = previous.zero_count_for(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero_before {
            return true;
        }
        let outside = |buckets: Sparse, schema: i32| -> Sparse {
            coarser(&buckets, schema, self.schema)
                .into_iter()
                .skip_while(|(i, _)| super::exponential_bound(*i, self.schema) <= self.zero_threshold)
                .collect()
        };
        shrunk(&outside(self.positive(), self.schema), &outside(previous.positive(), previous.schema))
            || shrunk(&outside(self.negative(), self.schema), &outside(previous.negative(), previous.schema))
    }

    /// Like [`Self::detects_reset_after`], but a hint that answers the question is believed.
    #[must_use]
    pub fn detect_reset(&self, previous: &FloatHistogram) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::Reset => true,
            CounterResetHint::NotReset => false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => self.detects_reset_after(previous),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: i32, zero: (f64, f64), positive: &[(i32, f64)]) -> FloatHistogram {
        let mut h = FloatHistogram {
            schema,
            zero_threshold: zero.0,
            zero_count: zero.1,
            ..FloatHistogram::default()
        };
        h.set_positive(positive);
        h.count = zero.1 + positive.iter().map(|b| b.1).sum::<f64>();
        h
    }

    #[test]
    fn shrinking_anything_is_a_reset() {
        let before = of(1, (0.001, 2.0), &[(0, 1.0), (3, 4.0)]);
        for (after, reset) in [
            (before.clone(), false),
            (of(1, (0.001, 3.0), &[(0, 1.0), (1, 5.0), (3, 4.0)]), false),
            (of(1, (0.001, 1.0), &[(0, 9.0), (3, 4.0)]), true),
            (of(1, (0.001, 2.0), &[(0, 9.0), (3, 3.0)]), true),
            (of(1, (0.001, 9.0), &[(3, 4.0)]), true),
            (of(1, (0.001, 1.0), &[(0, 1.0), (3, 4.0)]), true),
            (of(2, (0.001, 2.0), &[(0, 1.0), (6, 4.0)]), true),
            (of(0, (0.001, 2.0), &[(0, 1.0), (2, 4.0)]), false),
            (of(1, (0.0001, 9.0), &[(0, 1.0), (3, 4.0)]), true),
            (of(1, (1.0, 3.0), &[(3, 4.0)]), false),
            (of(1, (0.9, 9.0), &[(3, 4.0)]), true),
        ] {
            assert_eq!(after.detects_reset_after(&before), reset, "{after}");
        }
    }

    #[test]
    fn hints_are_believed() {
        let mut after = of(0, (0.0, 0.0), &[]);
        let before = of(0, (0.0, 0.0), &[(0, 1.0)]);
        assert!(after.detect_reset(&before));
        after.counter_reset_hint = CounterResetHint::NotReset;
        assert!(!after.detect_reset(&before));
        after.counter_reset_hint = CounterResetHint::Reset;
        assert!(after.detect_reset(&after.clone()));
    }
}
