//! Which buckets does a histogram have, and where do they lie?

use super::{FloatHistogram, Span};

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether the lower bound is inside.
    pub lower_inclusive: bool,
    /// Whether the upper bound is inside.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
    /// Index on the grid; 0 for the zero bucket.
    pub index: i32,
}

/// Populated and explicitly empty buckets by index.
pub(super) type Sparse = Vec<(i32, f64)>;

/// `fraction` · 2^`exponent` without overflow on the way.
fn scale(fraction: f64, exponent: i32) -> f64 {
    // 2^e for normal exponents, straight from the bits.
    let power = |e: i32| f64::from_bits(((e + 1023) as u64) << 52);
    let mut value = fraction;
    let mut rest = exponent.clamp(-2200, 2200);
    while rest > 1000 {
        value *= power(1000);
        rest -= 1000;
    }
    while rest < -1000 {
        value *= power(-1000);
        rest += 1000;
    }
    value * power(rest)
}

/// The upper bound of positive bucket `index` on an exponential grid. The last bucket before the one for
/// infinity ends at the largest float.
#[must_use]
pub fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema <= 0 {
        let exponent = i64::from(index) << (-schema).min(20);
        if exponent == 1024 {
            return f64::MAX;
        }
        return scale(1.0, exponent.clamp(-3000, 3000) as i32);
    }
    let schema = schema.min(20);
    let part = index & ((1 << schema) - 1);
    let fraction = (f64::from(part) / f64::from(1 << schema)).exp2() / 2.0;
    let exponent = (index >> schema) + 1;
    if part == 0 && exponent == 1025 {
        return f64::MAX;
    }
    scale(fraction, exponent)
}

/// The buckets of spans by index, in order; stops at the first span that has no counts left.
pub(super) fn sparse(spans: &[Span], counts: &[f64]) -> Sparse {
    let mut out = Vec::with_capacity(counts.len());
    let mut counts = counts.iter();
    let mut index = 0i32;
    for span in spans {
        index = index.wrapping_add(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return out };
            out.push((index, *count));
            index = index.wrapping_add(1);
        }
    }
    out
}

/// Spans and counts of buckets in order of index, each index once.
pub(super) fn dense(buckets: &[(i32, f64)]) -> (Vec<Span>, Vec<f64>) {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0i32;
    for (index, _) in buckets {
        match spans.last_mut() {
            Some(last) if *index == next => last.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.wrapping_add(1);
    }
    (spans, buckets.iter().map(|(_, count)| *count).collect())
}

impl FloatHistogram {
    pub(super) fn positive(&self) -> Sparse {
        sparse(&self.positive_spans, &self.positive_buckets)
    }

    pub(super) fn negative(&self) -> Sparse {
        sparse(&self.negative_spans, &self.negative_buckets)
    }

    pub(super) fn set_positive(&mut self, buckets: &[(i32, f64)]) {
        (self.positive_spans, self.positive_buckets) = dense(buckets);
    }

    pub(super) fn set_negative(&mut self, buckets: &[(i32, f64)]) {
        (self.negative_spans, self.negative_buckets) = dense(buckets);
    }

    /// The upper bound of positive bucket `index` in this histogram's schema.
    #[must_use]
    pub fn upper_bound(&self, index: i32) -> f64 {
        if !self.is_custom() {
            return exponential_bound(index, self.schema);
        }
        match usize::try_from(index) {
            Err(_) => f64::NEG_INFINITY,
            Ok(i) => self.custom_values.get(i).copied().unwrap_or(f64::INFINITY),
        }
    }

    fn bucket(&self, index: i32, count: f64, positive: bool) -> Bucket {
        let (mut lower, mut upper) = (self.upper_bound(index.wrapping_sub(1)), self.upper_bound(index));
        if !positive {
            (lower, upper) = (-upper, -lower);
        }
        let (lower_inclusive, upper_inclusive) =
            if self.is_custom() { (index == 0, true) } else { (lower < 0.0, upper > 0.0) };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count, index }
    }

    /// The positive buckets from low to high, explicitly empty ones included.
    pub fn positive_iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.positive().into_iter().map(|(index, count)| self.bucket(index, count, true))
    }

    /// The negative buckets from zero downwards, explicitly empty ones included.
    pub fn negative_iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.negative().into_iter().map(|(index, count)| self.bucket(index, count, false))
    }

    /// The zero bucket.
    #[must_use]
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
            index: 0,
        }
    }

    /// All buckets with observations, from the lowest to the highest. Buckets that overlap the zero bucket are cut
    /// off at its edge.
    #[must_use]
    pub fn all_buckets(&self) -> Vec<Bucket> {
        let mut out: Vec<Bucket> = self.negative_iter().filter(|b| b.count != 0.0).collect();
        out.reverse();
        if self.zero_count != 0.0 {
            out.push(self.zero_bucket());
        }
        let positives = out.len();
        out.extend(self.positive_iter().filter(|b| b.count != 0.0));
        if !self.is_custom() {
            let edge = self.zero_threshold;
            for (i, b) in out.iter_mut().enumerate() {
                if i < positives && b.upper < 0.0 && b.upper > -edge {
                    b.upper = -edge;
                } else if i >= positives && b.lower > 0.0 && b.lower < edge {
                    b.lower = edge;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_lie_on_powers_of_the_base() {
        for (index, schema, bound) in [
            (0, 0, 1.0),
            (1, 0, 2.0),
            (-1, 0, 0.5),
            (1, -1, 4.0),
            (1, -4, 65_536.0),
            (2, 1, 2.0),
            (1, 1, std::f64::consts::SQRT_2),
            (-8, 3, 0.5),
            (256, 8, 2.0),
            (1024, 0, f64::MAX),
            (1025, 0, f64::INFINITY),
            (-1074, 0, 5e-324),
            (64, -4, f64::MAX),
            (1024 << 8, 8, f64::MAX),
        ] {
            assert_eq!(exponential_bound(index, schema), bound, "{index} {schema}");
        }
    }

    proptest! {
        #[test]
        fn spans_and_indexes_are_two_forms_of_one_thing(
            indexes in prop::collection::btree_set(-1000i32..1000, 0..30)
        ) {
            let buckets: Sparse = indexes.into_iter().map(|i| (i, f64::from(i))).collect();
            let (spans, counts) = dense(&buckets);
            prop_assert_eq!(sparse(&spans, &counts), buckets);
        }
    }
}
