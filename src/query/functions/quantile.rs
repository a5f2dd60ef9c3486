//! Quantiles of a set of floats, with linear interpolation between neighbours; NaN sorts first.

use std::cmp::Ordering;

/// The order that quantiles use: NaN before everything.
#[must_use]
pub fn nan_first(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

/// The φ-quantile of `n` sorted values. NaN of nothing; ±Inf for φ outside [0, 1].
#[must_use]
pub fn interpolate(phi: f64, n: usize, mut sorted: impl FnMut(usize) -> f64) -> f64 {
    match place(phi, n) {
        Err(outside) => outside,
        Ok((lower, upper, weight)) => sorted(lower) * (1.0 - weight) + sorted(upper) * weight,
    }
}

/// The two neighbours of the φ-quantile of `n` values and the weight of the upper one, or what stands for it.
fn place(phi: f64, n: usize) -> Result<(usize, usize, f64), f64> {
    if n == 0 || phi.is_nan() {
        return Err(f64::NAN);
    }
    if phi < 0.0 {
        return Err(f64::NEG_INFINITY);
    }
    if phi > 1.0 {
        return Err(f64::INFINITY);
    }
    let rank = phi * (n as f64 - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (n as f64 - 1.0).min(lower + 1.0);
    Ok((lower as usize, upper as usize, rank - rank.floor()))
}

/// The φ-quantile of `values`, which are sorted on the way. NaN of nothing; ±Inf for φ outside [0, 1].
#[must_use]
pub fn quantile(phi: f64, values: &mut [f64]) -> f64 {
    let (lower, upper, weight) = match place(phi, values.len()) {
        Ok(place) => place,
        Err(outside) => return outside,
    };
    // Selection instead of a full sort: the two neighbours are all that counts.
    let (_, low, above) = values.select_nth_unstable_by(lower, nan_first);
    let low = *low;
    let high = if upper == lower { low } else { above.iter().copied().min_by(nan_first).unwrap_or(low) };
    low * (1.0 - weight) + high * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0, 4.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [3.0, 1.0]), 3.0);
        assert_eq!(quantile(0.0, &mut [3.0, 1.0]), 1.0);
        assert!(quantile(0.0, &mut [3.0, f64::NAN]).is_nan());
        assert_eq!(quantile(-1.0, &mut [3.0]), f64::NEG_INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
    }
}
