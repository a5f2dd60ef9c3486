//! `stddev_over_time`, `stdvar_over_time`, `deriv` and `predict_linear` at O(samples + steps).
//!
//! Long windows fold their moments about a value and a time of their own, at twice the precision ([`super::twofold`]),
//! and join them at borders ([`super::borders`]): the result is that of exact arithmetic, rounded once. Prometheus sums
//! doubles with compensation, which is as good for the spread; for a line through values that are large against their
//! change its products round before they are summed, and the two agree as far as its digits carry. Short windows, and
//! those with infinities, overflow or too little spread even for this, are computed one by one as Prometheus does
//! ([`super::lanes`]).

use super::borders::{self, Fold};
use super::build::Scalar;
use super::lanes::{Lanes, Place};
use super::range::Windows;
use super::twofold::Twofold;
use crate::query::QueryError;

/// Windows with fewer samples are computed one by one: eight lanes of them go side by side.
const WORTH_BORDERS: usize = 48;

/// Finds windows in which nothing changes.
#[derive(Default)]
struct Flat {
    since: usize,
    seen: usize,
}

impl Flat {
    /// Whether all of `v[lo..hi]` are equal and finite; windows come in order.
    fn holds(&mut self, v: &[f64], lo: usize, hi: usize) -> bool {
        for i in self.seen..hi {
            if v[i] != v[self.since] {
                self.since = i;
            }
        }
        self.seen = self.seen.max(hi);
        self.since <= lo && v[lo].is_finite()
    }
}

/// Count, sum and sum of squares of values less `anchor`.
#[derive(Clone, Copy)]
struct Spread {
    anchor: f64,
    count: f64,
    sum: Twofold,
    squares: Twofold,
}

impl Fold for Spread {
    #[inline(always)]
    fn add(&mut self, _: i64, v: f64) {
        let d = Twofold::difference(v, self.anchor);
        self.count += 1.0;
        self.sum = self.sum.plus(d);
        self.squares = self.squares.plus(d.times(d));
    }

    #[inline(always)]
    fn join(self, later: Self) -> Self {
        Self {
            anchor: self.anchor,
            count: self.count + later.count,
            sum: self.sum.plus(later.sum),
            squares: self.squares.plus(later.squares),
        }
    }
}

impl Spread {
    fn about(anchor: f64) -> Self {
        Self { anchor, count: 0.0, sum: Twofold::default(), squares: Twofold::default() }
    }

    /// The variance, if the digits suffice.
    fn variance(&self) -> Option<f64> {
        /// Of the 106 bits these may cancel.
        const CANCELLED: f64 = 1e-22;
        /// Below this, squares lose digits by underflow.
        const SMALL: f64 = 1e-270;
        let whole = self.squares.scaled(self.count);
        let rest = whole.minus(self.sum.times(self.sum)).hi;
        let sound = rest.is_finite() && rest > whole.hi * CANCELLED && self.squares.hi > SMALL;
        sound.then(|| rest / self.count / self.count)
    }
}

/// `stddev_over_time` (`root`) and `stdvar_over_time`.
pub fn variance(
    windows: &Windows,
    t: &[i64],
    v: &[f64],
    root: bool,
    out: &mut [f64],
) -> Result<u64, QueryError> {
    let mut flat = Flat::default();
    let alone = std::cell::RefCell::new(Lanes::default());
    let out = std::cell::RefCell::new(out);
    let put_off = |step, lo, hi| {
        alone
            .borrow_mut()
            .push(Place { step, lo, hi }, |group| group.variances(v, root, &mut out.borrow_mut()));
        hi - lo
    };
    let empty = |_, v| Spread::about(v);
    let seen = borders::slide(windows, (t, v), WORTH_BORDERS, empty, &put_off, |step, lo, hi, spread| {
        if flat.holds(v, lo, hi) {
            out.borrow_mut()[step] = 0.0;
            0
        } else if let Some(variance) = spread.variance() {
            out.borrow_mut()[step] = if root { variance.sqrt() } else { variance };
            0
        } else {
            put_off(step, lo, hi)
        }
    })?;
    alone.into_inner().variances(v, root, &mut out.borrow_mut());
    Ok(seen)
}

/// Sums for a straight line through samples less `anchor`, at milliseconds after `origin`.
#[derive(Clone, Copy)]
struct Line {
    origin: i64,
    anchor: f64,
    count: i64,
    time: i128,
    times: i128,
    sum: Twofold,
    products: Twofold,
}

impl Fold for Line {
    #[inline(always)]
    fn add(&mut self, t: i64, v: f64) {
        let u = t - self.origin;
        let d = Twofold::difference(v, self.anchor);
        self.count += 1;
        self.time += i128::from(u);
        self.times += i128::from(u) * i128::from(u);
        self.sum = self.sum.plus(d);
        self.products = self.products.plus(d.scaled(u as f64));
    }

    #[inline(always)]
    fn join(self, later: Self) -> Self {
        Self {
            count: self.count + later.count,
            time: self.time + later.time,
            times: self.times + later.times,
            sum: self.sum.plus(later.sum),
            products: self.products.plus(later.products),
            ..self
        }
    }
}

impl Line {
    fn about(origin: i64, anchor: f64) -> Self {
        let (sum, products) = (Twofold::default(), Twofold::default());
        Self { origin, anchor, count: 0, time: 0, times: 0, sum, products }
    }

    /// Slope per second, and value at `t`.
    fn solve(&self, t: i64) -> Option<(f64, f64)> {
        let n = self.count as f64;
        let variance = i128::from(self.count) * self.times - self.time * self.time;
        let covariance = self.products.scaled(n).minus(self.sum.scaled(self.time as f64)).hi;
        let slope = covariance / variance as f64 * 1e3;
        let middle = self.time as f64 / n + (self.origin - t) as f64;
        let at = self.anchor + self.sum.hi / n - slope * (middle / 1e3);
        (slope.is_finite() && at.is_finite()).then_some((slope, at))
    }
}

/// `deriv`, or with seconds to look ahead `predict_linear`.
pub fn lines(
    windows: &Windows,
    t: &[i64],
    v: &[f64],
    ahead: Option<&Scalar>,
    out: &mut [f64],
) -> Result<u64, QueryError> {
    /// Milliseconds: beyond these squares of times might overflow.
    const LONG: i64 = 1 << 41;
    let value = |step, slope: f64, at: f64| ahead.map_or(slope, |ahead| slope * ahead.at(step) + at);
    let origin = |place: &Place| match ahead {
        None => t[place.lo],
        Some(_) => windows.axis.time(place.step),
    };
    let mut flat = Flat::default();
    let alone = std::cell::RefCell::new(Lanes::default());
    let out = std::cell::RefCell::new(out);
    let one_by_one = |group: &Lanes| {
        group.lines((t, v), origin, |step, slope, at| out.borrow_mut()[step] = value(step, slope, at));
    };
    let put_off = |step, lo, hi| {
        alone.borrow_mut().push(Place { step, lo, hi }, one_by_one);
        hi - lo
    };
    let worth = if windows.range_ms < LONG { WORTH_BORDERS } else { usize::MAX };
    let seen = borders::slide(windows, (t, v), worth, Line::about, &put_off, |step, lo, hi, line| {
        if flat.holds(v, lo, hi) {
            out.borrow_mut()[step] = value(step, 0.0, v[lo]);
            0
        } else if let Some((slope, at)) = line.solve(windows.axis.time(step)) {
            out.borrow_mut()[step] = value(step, slope, at);
            0
        } else {
            put_off(step, lo, hi)
        }
    })?;
    one_by_one(&alone.into_inner());
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Large values with a tiny spread: what a double alone would cancel away.
    #[test]
    fn spread_and_line_of_large_values_are_exact() {
        let samples: Vec<(i64, f64)> =
            (0..500).map(|i| (1_700_000_000_000 + 15_000 * i, 4e15 + (i * i % 17) as f64)).collect();
        let (t, v) = samples[0];
        let (mut spread, mut line) = (Spread::about(v), Line::about(t, v));
        let (mut early, mut early_line) = (spread, line);
        for (i, (t, v)) in samples.iter().enumerate() {
            let (spread, line) =
                if i < 123 { (&mut early, &mut early_line) } else { (&mut spread, &mut line) };
            spread.add(*t, *v);
            line.add(*t, *v);
        }
        let n = samples.len() as i128;
        let whole = |of: &dyn Fn(i128, i128) -> i128| -> i128 {
            samples.iter().map(|(t, v)| of(i128::from(*t), *v as i128)).sum()
        };
        let (x, y) = (whole(&|x, _| x), whole(&|_, y| y));
        let variance = (n * whole(&|_, y| y * y) - y * y) as f64 / (n * n) as f64;
        assert_eq!(early.join(spread).variance(), Some(variance));
        let covariance = (n * whole(&|x, y| x * y) - x * y) as f64;
        let slope = covariance / (n * whole(&|x, _| x * x) - x * x) as f64 * 1e3;
        let (found, at) = early_line.join(line).solve(samples[0].0).unwrap();
        assert!((found / slope - 1.0).abs() < 1e-15, "{found} {slope}");
        assert!((at - 4e15).abs() < 20.0, "{at}");
    }

    #[test]
    fn flat_windows_are_found() {
        let v = [1.0, 2.0, 2.0, 2.0, f64::NAN, f64::NAN, 3.0, 3.0];
        let mut flat = Flat::default();
        let windows = [(0, 2), (1, 3), (1, 4), (2, 5), (4, 6), (5, 7), (6, 8)];
        assert_eq!(
            windows.map(|(lo, hi)| flat.holds(&v, lo, hi)),
            [false, true, true, false, false, false, true]
        );
    }
}
