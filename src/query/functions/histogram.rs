//! Quantiles, fractions and moments of distributions, native or classic.
//!
//! Inside a bucket, observations are taken to be spread evenly: on a logarithmic scale in exponential buckets, on
//! a linear one in the zero bucket, between custom bounds and between classic bounds.

use super::kahan;
use crate::model::histogram::{Bucket as NativeBucket, FloatHistogram};

/// What NaN observations, which are in no bucket, did to a quantile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NanEffect {
    /// There are none.
    None,
    /// The rank lies among them.
    ResultIsNan,
    /// They count, so the rank lies higher than without them.
    SkewedHigher,
}

/// One classic bucket: observations up to and with its bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Value of `le`.
    pub upper_bound: f64,
    /// Cumulative count.
    pub count: f64,
}

/// How cumulative counts had to be raised because they went down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forced {
    /// Lowest bound that was raised.
    pub min_bucket: f64,
    /// Highest bound that was raised.
    pub max_bucket: f64,
    /// Largest correction.
    pub max_diff: f64,
}

/// Differences between cumulative counts below this, relatively, are rounding errors.
const SMALL_DELTA: f64 = 1e-12;

/// Moves the edge of a zero bucket to zero where observations lie on one side only.
fn one_sided(mut b: NativeBucket, h: &FloatHistogram) -> NativeBucket {
    if !h.is_custom() && b.lower < 0.0 && b.upper > 0.0 {
        match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
            (true, false) => b.lower = 0.0,
            (false, true) => b.upper = 0.0,
            _ => {}
        }
    }
    b
}

/// The φ-quantile of a native histogram. −Inf below φ = 0, +Inf above 1, NaN without observations.
#[must_use]
pub fn histogram_quantile(phi: f64, h: &FloatHistogram) -> (f64, NanEffect) {
    let plain = |v| (v, NanEffect::None);
    if phi < 0.0 {
        return plain(f64::NEG_INFINITY);
    }
    if phi > 1.0 {
        return plain(f64::INFINITY);
    }
    if h.count == 0.0 || phi.is_nan() {
        return plain(f64::NAN);
    }
    // Walking from the nearer end keeps small ranks exact; NaN observations count as the highest of all, so with
    // them only the way from below is right.
    let nans = h.sum.is_nan();
    let from_below = nans || phi < 0.5;
    let rank = if from_below { phi * h.count } else { (1.0 - phi) * h.count };
    let mut buckets = h.all_buckets();
    if !from_below {
        buckets.reverse();
    }
    let mut count = 0.0;
    let mut found = None;
    for b in buckets {
        count += b.count;
        found = Some(b);
        if count >= rank {
            break;
        }
    }
    let Some(mut b) = found else {
        return if nans { (f64::NAN, NanEffect::ResultIsNan) } else { plain(f64::NAN) };
    };
    b = one_sided(b, h);
    // Rounding may have gathered more than there is.
    let count = count.min(h.count);
    if count < rank {
        return (f64::NAN, if nans { NanEffect::ResultIsNan } else { NanEffect::None });
    }
    let effect = if nans { NanEffect::SkewedHigher } else { NanEffect::None };
    if h.is_custom() {
        if b.lower == f64::NEG_INFINITY {
            if b.upper <= 0.0 {
                return (b.upper, effect);
            }
            b.lower = 0.0;
        } else if b.upper == f64::INFINITY {
            return (b.lower, effect);
        }
    }
    let rank = if from_below { rank - (count - b.count) } else { count - rank };
    let fraction = rank / b.count;
    let v = if h.is_custom() || (b.lower <= 0.0 && b.upper >= 0.0) {
        b.lower + (b.upper - b.lower) * fraction
    } else {
        let (low, high) = (b.lower.abs().log2(), b.upper.abs().log2());
        if b.lower > 0.0 {
            (low + (high - low) * fraction).exp2()
        } else {
            -(high + (low - high) * (1.0 - fraction)).exp2()
        }
    };
    (v, effect)
}

/// The share of observations between two bounds, and whether there are NaN observations, which are in no share.
#[must_use]
pub fn histogram_fraction(low: f64, high: f64, h: &FloatHistogram) -> (f64, bool) {
    let nans = h.sum.is_nan() && h.count != 0.0;
    if h.count == 0.0 || low.is_nan() || high.is_nan() {
        return (f64::NAN, false);
    }
    if low >= high {
        return (0.0, nans);
    }
    let buckets = h.all_buckets();
    // Only what is in buckets can be in a share.
    let total = if nans { buckets.iter().map(|b| b.count).sum() } else { h.count };
    let below = |v: f64| -> f64 {
        let mut rank = 0.0;
        for b in &buckets {
            let zero = !h.is_custom() && b.lower <= 0.0 && b.upper >= 0.0;
            let mut b = one_sided(*b, h);
            if h.is_custom() && b.lower == f64::NEG_INFINITY && b.upper > 0.0 {
                b.lower = 0.0;
            }
            if b.lower >= v {
                return rank;
            }
            if b.upper > v {
                if b.lower == f64::NEG_INFINITY {
                    return b.count;
                }
                let fraction = if h.is_custom() || zero {
                    (v - b.lower) / (b.upper - b.lower)
                } else {
                    let (from, to, at) = (b.lower.abs().log2(), b.upper.abs().log2(), v.abs().log2());
                    if v > 0.0 { (at - from) / (to - from) } else { 1.0 - (at - to) / (from - to) }
                };
                return rank + b.count * fraction;
            }
            rank += b.count;
        }
        total
    };
    ((below(high).min(total) - below(low).min(total)) / h.count, nans)
}

/// Sorts classic buckets, adds up those with the same bound, and makes the counts rise. Answers how many buckets
/// are left and what had to be forced; `None` without a +Inf bucket.
fn prepare(buckets: &mut [Bucket]) -> Option<(usize, Option<Forced>)> {
    buckets.sort_by(|a, b| a.upper_bound.total_cmp(&b.upper_bound));
    if buckets.last().is_none_or(|b| b.upper_bound != f64::INFINITY) {
        return None;
    }
    let mut len = 1;
    for i in 1..buckets.len() {
        let next = buckets[i];
        if next.upper_bound == buckets[len - 1].upper_bound {
            buckets[len - 1].count += next.count;
        } else {
            buckets[len] = next;
            len += 1;
        }
    }
    let mut forced: Option<Forced> = None;
    let mut before = buckets[0].count;
    for b in &mut buckets[1..len] {
        let drop = before - b.count;
        if drop == 0.0 {
            continue;
        }
        let insignificant = drop.abs() / (before.abs() + b.count.abs()).min(f64::MAX) < SMALL_DELTA;
        if !insignificant && drop < 0.0 {
            before = b.count;
            continue;
        }
        if !insignificant && drop > 0.0 {
            let old = forced.unwrap_or(Forced {
                min_bucket: b.upper_bound,
                max_bucket: b.upper_bound,
                max_diff: 0.0,
            });
            forced = Some(Forced {
                min_bucket: old.min_bucket.min(b.upper_bound),
                max_bucket: old.max_bucket.max(b.upper_bound),
                max_diff: old.max_diff.max(drop),
            });
        }
        if insignificant || drop > 0.0 {
            b.count = before;
        } else {
            // A NaN count compares with nothing and is left as it is.
            before = b.count;
        }
    }
    Some((len, forced))
}

/// The φ-quantile of classic buckets in any order, and what had to be corrected. NaN without a +Inf bucket,
/// with fewer than two buckets, or without observations.
#[must_use]
pub fn bucket_quantile(phi: f64, buckets: &mut [Bucket]) -> (f64, Option<Forced>) {
    if phi.is_nan() {
        return (f64::NAN, None);
    }
    if phi < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if phi > 1.0 {
        return (f64::INFINITY, None);
    }
    let Some((len, forced)) = prepare(buckets) else { return (f64::NAN, None) };
    let buckets = &buckets[..len];
    if len < 2 {
        return (f64::NAN, forced);
    }
    let observations = buckets[len - 1].count;
    if observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = phi * observations;
    let at = buckets[..len - 1].partition_point(|b| b.count < rank);
    if at == len - 1 {
        return (buckets[len - 2].upper_bound, forced);
    }
    let end = buckets[at].upper_bound;
    if at == 0 && end <= 0.0 {
        return (end, forced);
    }
    let (mut start, mut count) = (0.0, buckets[at].count);
    if at > 0 {
        start = buckets[at - 1].upper_bound;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The share of observations between two bounds according to classic buckets in any order.
#[must_use]
pub fn bucket_fraction(low: f64, high: f64, buckets: &mut [Bucket]) -> f64 {
    let Some((len, _)) = prepare(buckets) else { return f64::NAN };
    let buckets = &buckets[..len];
    let total = buckets[len - 1].count;
    if total == 0.0 || low.is_nan() || high.is_nan() {
        return f64::NAN;
    }
    if low >= high {
        return 0.0;
    }
    let below = |v: f64| -> f64 {
        let mut rank = 0.0;
        let mut start = if buckets[0].upper_bound > 0.0 { 0.0 } else { f64::NEG_INFINITY };
        for b in buckets {
            if start >= v {
                return rank;
            }
            if b.upper_bound > v {
                if start == f64::NEG_INFINITY {
                    return b.count;
                }
                return rank + (b.count - rank) * (v - start) / (b.upper_bound - start);
            }
            rank = b.count;
            start = b.upper_bound;
        }
        total
    };
    (below(high).min(total) - below(low).min(total)) / total
}

/// The population variance of a native histogram: every observation counts as the middle of its bucket.
#[must_use]
pub fn histogram_stdvar(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut sum, mut c) = (0.0, 0.0);
    for b in h.all_buckets() {
        let middle = if h.is_custom() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            (b.upper * b.lower).sqrt().copysign(b.upper)
        };
        let delta = middle - mean;
        (sum, c) = kahan::add(b.count * delta * delta, sum, c);
    }
    (sum + c) / h.count
}

/// The square root of [`histogram_stdvar`].
#[must_use]
pub fn histogram_stddev(h: &FloatHistogram) -> f64 {
    histogram_stdvar(h).sqrt()
}

/// The mean of a native histogram.
#[must_use]
pub fn histogram_avg(h: &FloatHistogram) -> f64 {
    h.sum / h.count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::histogram::Span;
    use proptest::prelude::*;

    fn native() -> FloatHistogram {
        FloatHistogram {
            count: 12.0,
            sum: 100.0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 2 }],
            positive_buckets: vec![2.0, 3.0, 1.0, 4.0],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn quantiles_interpolate() {
        let h = native();
        for (phi, want) in [
            (0.0, 0.0),
            (1.0, 16.0),
            (2.0 / 12.0, 0.001),
            (4.0 / 12.0, 1.0),
            (1.0 / 24.0, 0.00025),
            (-0.1, f64::NEG_INFINITY),
            (1.1, f64::INFINITY),
        ] {
            let (v, effect) = histogram_quantile(phi, &h);
            assert!((v - want).abs() < 1e-9 || v == want, "{phi}: {v}");
            assert_eq!(effect, NanEffect::None);
        }
        let mut nan = native();
        nan.sum = f64::NAN;
        nan.count = 24.0;
        assert!(histogram_quantile(0.9, &nan).0.is_nan());
        assert_eq!(histogram_quantile(0.9, &nan).1, NanEffect::ResultIsNan);
        assert_eq!(histogram_quantile(0.1, &nan).1, NanEffect::SkewedHigher);
        assert_eq!(histogram_fraction(f64::NEG_INFINITY, f64::INFINITY, &nan), (0.5, true));
    }

    #[test]
    fn classic_buckets_are_put_in_order() {
        let of = |list: &[(f64, f64)]| -> Vec<Bucket> {
            list.iter()
                .map(|(upper_bound, count)| Bucket { upper_bound: *upper_bound, count: *count })
                .collect()
        };
        let inf = f64::INFINITY;
        assert_eq!(bucket_quantile(0.5, &mut of(&[(inf, 4.0), (2.0, 4.0), (1.0, 2.0)])).0, 1.0);
        assert_eq!(bucket_quantile(0.75, &mut of(&[(1.0, 2.0), (2.0, 2.0), (2.0, 2.0), (inf, 4.0)])).0, 1.5);
        assert!(bucket_quantile(0.5, &mut of(&[(1.0, 2.0), (2.0, 4.0)])).0.is_nan());
        assert!(bucket_quantile(0.5, &mut of(&[(inf, 2.0)])).0.is_nan());
        assert!(bucket_quantile(0.5, &mut []).0.is_nan());
        let (v, forced) = bucket_quantile(0.5, &mut of(&[(1.0, 4.0), (2.0, 3.0), (3.0, 3.5), (inf, 8.0)]));
        assert_eq!(v, 1.0);
        assert_eq!(forced, Some(Forced { min_bucket: 2.0, max_bucket: 3.0, max_diff: 1.0 }));
        let (_, forced) = bucket_quantile(0.5, &mut of(&[(1.0, 4.0), (2.0, 4.0 - 1e-13), (inf, 8.0)]));
        assert_eq!(forced, None);
        assert_eq!(bucket_fraction(0.0, 1.0, &mut of(&[(2.0, 2.0), (inf, 4.0)])), 0.25);
    }

    proptest! {
        #[test]
        fn fraction_is_the_inverse_of_quantile(phi in 0.01f64..0.99, counts in prop::collection::vec(1u8..9, 2..8)) {
            let h = FloatHistogram {
                count: counts.iter().map(|c| f64::from(*c)).sum(),
                sum: 1.0,
                positive_spans: vec![Span { offset: -3, length: counts.len() as u32 }],
                positive_buckets: counts.iter().map(|c| f64::from(*c)).collect(),
                ..FloatHistogram::default()
            };
            let (v, _) = histogram_quantile(phi, &h);
            let (share, _) = histogram_fraction(f64::NEG_INFINITY, v, &h);
            prop_assert!((share - phi).abs() < 1e-9, "{phi} {v} {share}");
        }
    }
}
