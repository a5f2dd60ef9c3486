//! Functions that look at every sample of every window, several windows at a time.
//!
//! Compensated sums are chains: each addition waits for the one before. Neighbouring windows do not depend on one
//! another, so [`LANES`] of them advance side by side and the processor is kept busy. Within a lane everything happens
//! in the order of a plain scan, so the results are the same to the last bit.

use super::build::Scalar;
use super::range::Windows;
use super::slide::walk;
use crate::query::QueryError;
use crate::query::functions::kahan;
use crate::query::functions::over_time::Lines;

/// Windows side by side.
const LANES: usize = 8;

/// Samples `lo..hi` of a step.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    step: usize,
    lo: usize,
    hi: usize,
}

/// Hands the windows out in groups of [`LANES`], the rest one by one.
fn in_groups(
    windows: &Windows,
    t: &[i64],
    together: &mut dyn FnMut(&[Place; LANES]),
    alone: &mut dyn FnMut(&Place),
) -> Result<u64, QueryError> {
    let (mut group, mut filled) = ([Place::default(); LANES], 0);
    let seen = walk(windows, t, 0, |step, lo, hi| {
        group[filled] = Place { step, lo, hi };
        filled += 1;
        if filled == LANES {
            together(&group);
            filled = 0;
        }
    })?;
    group[..filled].iter().for_each(alone);
    Ok(seen)
}

/// Welford's sums of `N` windows side by side, compensated.
#[derive(Debug, Clone, Copy)]
struct Moments<const N: usize> {
    mean: [f64; N],
    mean_c: [f64; N],
    aux: [f64; N],
    aux_c: [f64; N],
}

impl<const N: usize> Moments<N> {
    fn new() -> Self {
        Self { mean: [0.0; N], mean_c: [0.0; N], aux: [0.0; N], aux_c: [0.0; N] }
    }

    /// Adds to each window its sample number `count`.
    #[inline(always)]
    fn add(&mut self, v: [f64; N], count: f64) {
        for (l, v) in v.into_iter().enumerate() {
            let delta = v - (self.mean[l] + self.mean_c[l]);
            (self.mean[l], self.mean_c[l]) = kahan::add(delta / count, self.mean[l], self.mean_c[l]);
            let after = v - (self.mean[l] + self.mean_c[l]);
            (self.aux[l], self.aux_c[l]) = kahan::add(delta * after, self.aux[l], self.aux_c[l]);
        }
    }

    fn one(&self, l: usize) -> Moments<1> {
        Moments { mean: [self.mean[l]], mean_c: [self.mean_c[l]], aux: [self.aux[l]], aux_c: [self.aux_c[l]] }
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
    let rest = |mut moments: Moments<1>, place: &Place, done: usize| {
        for (k, v) in v[place.lo + done..place.hi].iter().enumerate() {
            moments.add([*v], (done + k + 1) as f64);
        }
        let variance = (moments.aux[0] + moments.aux_c[0]) / (place.hi - place.lo) as f64;
        if root { variance.sqrt() } else { variance }
    };
    let out = std::cell::RefCell::new(out);
    in_groups(
        windows,
        t,
        &mut |group| {
            let shared = group.iter().map(|p| p.hi - p.lo).min().unwrap_or(0);
            let lanes: [&[f64]; LANES] = std::array::from_fn(|l| &v[group[l].lo..group[l].lo + shared]);
            let mut moments = Moments::<LANES>::new();
            for i in 0..shared {
                moments.add(lanes.map(|lane| lane[i]), (i + 1) as f64);
            }
            for (l, place) in group.iter().enumerate() {
                out.borrow_mut()[place.step] = rest(moments.one(l), place, shared);
            }
        },
        &mut |place| out.borrow_mut()[place.step] = rest(Moments::new(), place, 0),
    )
}

/// `deriv`, or with seconds to look ahead `predict_linear`: a straight line through the samples.
pub fn lines(
    windows: &Windows,
    t: &[i64],
    v: &[f64],
    ahead: Option<&Scalar>,
    out: &mut [f64],
) -> Result<u64, QueryError> {
    let origin = |place: &Place| match ahead {
        None => t[place.lo],
        Some(_) => windows.axis.time(place.step),
    };
    let out = std::cell::RefCell::new(out);
    let finish = |mut line: Lines<1>, place: &Place, done: usize| {
        let from = place.lo + done;
        for (t, v) in t[from..place.hi].iter().zip(&v[from..place.hi]) {
            line.add([*t], [*v]);
        }
        if place.hi - place.lo >= 2 {
            let (slope, intercept) = line.solve();
            let value = ahead.map_or(slope, |ahead| slope * ahead.at(place.step) + intercept);
            out.borrow_mut()[place.step] = value;
        }
    };
    in_groups(
        windows,
        t,
        &mut |group| {
            let shared = group.iter().map(|p| p.hi - p.lo).min().unwrap_or(0);
            let mut lines =
                Lines::<LANES>::new(group.map(|place| v[place.lo]), group.map(|place| origin(&place)));
            let times: [&[i64]; LANES] = std::array::from_fn(|l| &t[group[l].lo..group[l].lo + shared]);
            let values: [&[f64]; LANES] = std::array::from_fn(|l| &v[group[l].lo..group[l].lo + shared]);
            for i in 0..shared {
                lines.add(times.map(|lane| lane[i]), values.map(|lane| lane[i]));
            }
            for (l, place) in group.iter().enumerate() {
                finish(lines.one(l), place, shared);
            }
        },
        &mut |place| finish(Lines::new([v[place.lo]], [origin(place)]), place, 0),
    )
}
