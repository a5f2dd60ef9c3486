//! Sums that carry their rounding error along (Neumaier's variant of Kahan summation).

/// Adds `inc` to the pair of sum and compensation. The error is found without asking which of the two is larger (Knuth's
/// TwoSum): it is exact either way, and without the branch several sums go side by side in one register.
#[inline(always)]
#[must_use]
pub fn add(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    let taken = t - sum;
    let lost = (sum - (t - taken)) + (inc - taken);
    (t, if t.is_infinite() { 0.0 } else { c + lost })
}

/// The sum of floats; infinite when it overflows.
#[must_use]
pub fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (0.0, 0.0);
    for v in values {
        (sum, c) = add(*v, sum, c);
    }
    if sum.is_infinite() { sum } else { sum + c }
}

/// A mean that turns to incremental form when the plain sum would overflow.
#[derive(Debug, Clone, Copy)]
pub struct Mean {
    count: f64,
    /// Sum, or mean once `incremental`.
    value: f64,
    c: f64,
    incremental: bool,
}

impl Mean {
    /// The mean of one value.
    #[inline]
    #[must_use]
    pub fn first(v: f64) -> Self {
        Self { count: 1.0, value: v, c: 0.0, incremental: false }
    }

    /// Adds a value.
    #[inline]
    pub fn add(&mut self, v: f64) {
        self.count += 1.0;
        if !self.incremental {
            let (sum, c) = add(v, self.value, self.c);
            if !sum.is_infinite() {
                (self.value, self.c) = (sum, c);
                return;
            }
            self.incremental = true;
            self.value /= self.count - 1.0;
            self.c /= self.count - 1.0;
        }
        let q = (self.count - 1.0) / self.count;
        (self.value, self.c) = add(v / self.count, q * self.value, q * self.c);
    }

    /// The mean so far.
    #[inline]
    #[must_use]
    pub fn get(&self) -> f64 {
        if self.incremental { self.value + self.c } else { self.value / self.count + self.c / self.count }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
    }

    /// The definition: the error is taken from the smaller of the two.
    fn neumaier(inc: f64, sum: f64, c: f64) -> (f64, f64) {
        let t = sum + inc;
        let c = if t.is_infinite() {
            0.0
        } else if sum.abs() >= inc.abs() {
            c + ((sum - t) + inc)
        } else {
            c + ((inc - t) + sum)
        };
        (t, c)
    }

    fn odd() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-1e3..1e3f64),
            (-1e18..1e18f64).prop_map(f64::round),
            Just(0.0),
            Just(-0.0),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(5e-324),
        ]
    }

    proptest! {
        #[test]
        fn adds_as_defined(values in prop::collection::vec(odd(), 1..40)) {
            let (mut ours, mut theirs) = ((0.0, 0.0), (0.0, 0.0));
            for v in values {
                // Near the largest double the difference of the terms itself overflows.
                prop_assume!(!(v.is_finite() && v.abs() > 1e300));
                ours = add(v, ours.0, ours.1);
                theirs = neumaier(v, theirs.0, theirs.1);
                let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                prop_assert!(same(ours.0, theirs.0) && same(ours.1, theirs.1), "{ours:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn the_mean_of_huge_values_is_finite() {
        let mut mean = Mean::first(f64::MAX);
        mean.add(f64::MAX);
        mean.add(f64::MAX);
        assert!((mean.get() / f64::MAX - 1.0).abs() < 1e-15, "{}", mean.get());
    }
}
