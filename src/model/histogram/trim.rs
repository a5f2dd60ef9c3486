//! `</` and `>/`: the part of a histogram below or above a value.
//!
//! A bucket that contains the value is cut in proportion: logarithmically on the exponential grid, linearly in
//! the zero bucket and between custom bounds. Buckets that reach to infinity cannot be cut: they stay whole or
//! go, and stand for their finite end. As soon as anything was cut, count and sum are estimated anew from the
//! middles of what is left.

use super::FloatHistogram;
use super::buckets::{Bucket, Sparse};

/// What stays of a bucket: its count, and the value that its observations are assumed to have.
type Kept = (f64, f64);

const GONE: Kept = (0.0, 0.0);

/// The middle of an interval.
fn middle(lower: f64, upper: f64, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        // As in quantiles, a first bucket with a positive bound begins at zero.
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        _ if linear => (lower + upper) / 2.0,
        _ => (lower * upper).abs().sqrt().copysign(lower + upper),
    }
}

/// The share of a finite bucket that lies below `value`, which is inside of it.
fn share_below(lower: f64, upper: f64, value: f64, linear: bool) -> f64 {
    if linear || lower * upper <= 0.0 {
        return (value - lower) / (upper - lower);
    }
    let (low, high, at) = (lower.abs().log2(), upper.abs().log2(), value.abs().log2());
    (at - low) / (high - low)
}

fn cut(b: &Bucket, value: f64, keep_below: bool, linear: bool) -> Kept {
    let whole = if keep_below { b.upper <= value } else { b.lower >= value };
    if whole {
        return (b.count, middle(b.lower, b.upper, linear));
    }
    let gone = if keep_below { b.lower >= value } else { b.upper <= value };
    if gone || value.is_nan() {
        return GONE;
    }
    let mut lower = b.lower;
    if lower == f64::NEG_INFINITY {
        match (keep_below, b.upper) {
            (_, f64::INFINITY) => return GONE,
            (true, upper) if upper <= 0.0 => return (b.count, value),
            (false, upper) if upper <= 0.0 => return GONE,
            (true, _) if value <= 0.0 => return GONE,
            (false, _) if value < 0.0 => return GONE,
            _ => lower = 0.0,
        }
    } else if b.upper == f64::INFINITY {
        return if keep_below { GONE } else { (b.count, value) };
    }
    let below = share_below(lower, b.upper, value, linear);
    if keep_below {
        (b.count * below, middle(lower, value, linear))
    } else {
        (b.count * (1.0 - below), middle(value, b.upper, linear))
    }
}

impl FloatHistogram {
    /// Keeps the observations below `value` (`keep_below`, the operator `</`) or above it (`>/`).
    pub fn trim(&mut self, value: f64, keep_below: bool) {
        let linear = self.is_custom();
        let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
        let mut note = |before: f64, (kept, at): Kept| -> f64 {
            changed |= kept != before;
            count += kept;
            // An empty rest adds nothing, even where its middle is infinite.
            if kept != 0.0 {
                sum += kept * at;
            }
            kept
        };
        let mut side = |buckets: Vec<Bucket>| -> Sparse {
            buckets.iter().map(|b| (b.index, note(b.count, cut(b, value, keep_below, linear)))).collect()
        };
        let positive = side(self.positive_iter().collect());
        let negative = side(self.negative_iter().collect());
        let mut zero = self.zero_count;
        if zero > 0.0 {
            let mut b = self.zero_bucket();
            // With buckets on one side only, the observations around zero are taken to lie on that side.
            match (self.positive_buckets.is_empty(), self.negative_buckets.is_empty()) {
                (false, true) => b.lower = 0.0,
                (true, false) => b.upper = 0.0,
                _ => {}
            }
            zero = note(b.count, cut(&b, value, keep_below, true));
        }
        if !changed {
            return;
        }
        self.set_positive(&positive);
        self.set_negative(&negative);
        (self.zero_count, self.count, self.sum) = (zero, count, sum);
        self.compact();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_sided() -> FloatHistogram {
        let mut h = FloatHistogram {
            zero_threshold: 0.5,
            zero_count: 4.0,
            count: 24.0,
            sum: 7.0,
            ..FloatHistogram::default()
        };
        h.set_positive(&[(1, 10.0)]);
        h.set_negative(&[(1, 10.0)]);
        h
    }

    #[test]
    fn the_two_parts_add_up() {
        for value in [-1.5, -0.25, 0.0, 0.1, 1.0, 1.3, 7.0] {
            let (mut below, mut above) = (two_sided(), two_sided());
            below.trim(value, true);
            above.trim(value, false);
            assert!((below.count + above.count - 24.0).abs() < 1e-9, "{value}: {below} {above}");
        }
    }

    #[test]
    fn nothing_cut_changes_nothing() {
        let mut h = two_sided();
        h.trim(f64::INFINITY, true);
        h.trim(f64::NEG_INFINITY, false);
        assert_eq!(h, two_sided());
        h.trim(f64::NEG_INFINITY, true);
        assert_eq!((h.count, h.sum, h.positive_buckets.len()), (0.0, 0.0, 0));
    }
}
