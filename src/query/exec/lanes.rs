//! Functions that look at every sample of every window, several windows at a time.
//!
//! Compensated sums are chains: each addition waits for the one before. Neighbouring windows do not depend on one
//! another, so [`LANES`] of them advance side by side and the processor is kept busy. Within a lane everything happens
//! in the order of a plain scan, so the results are the same to the last bit.

use super::build::Scalar;
use super::range::Windows;
use super::slide::walk;
use crate::query::QueryError;
use crate::query::functions::{kahan, over_time};

/// Windows side by side.
const LANES: usize = 4;

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

/// Welford's sums of one window, compensated.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    mean: f64,
    mean_c: f64,
    aux: f64,
    aux_c: f64,
}

impl Moments {
    #[inline(always)]
    fn add(&mut self, v: f64, count: f64) {
        let delta = v - (self.mean + self.mean_c);
        (self.mean, self.mean_c) = kahan::add(delta / count, self.mean, self.mean_c);
        (self.aux, self.aux_c) = kahan::add(delta * (v - (self.mean + self.mean_c)), self.aux, self.aux_c);
    }

    fn finish(&self, count: usize, root: bool) -> f64 {
        let variance = (self.aux + self.aux_c) / count as f64;
        if root { variance.sqrt() } else { variance }
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
    let rest = |moments: &mut Moments, place: &Place, done: usize| {
        for (k, v) in v[place.lo + done..place.hi].iter().enumerate() {
            moments.add(*v, (done + k + 1) as f64);
        }
        moments.finish(place.hi - place.lo, root)
    };
    let out = std::cell::RefCell::new(out);
    in_groups(
        windows,
        t,
        &mut |group| {
            let shared = group.iter().map(|p| p.hi - p.lo).min().unwrap_or(0);
            let lanes: [&[f64]; LANES] = std::array::from_fn(|l| &v[group[l].lo..group[l].lo + shared]);
            let mut moments = [Moments::default(); LANES];
            for i in 0..shared {
                let count = (i + 1) as f64;
                for (moments, lane) in moments.iter_mut().zip(&lanes) {
                    moments.add(lane[i], count);
                }
            }
            for (moments, place) in moments.iter_mut().zip(group) {
                out.borrow_mut()[place.step] = rest(moments, place, shared);
            }
        },
        &mut |place| out.borrow_mut()[place.step] = rest(&mut Moments::default(), place, 0),
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
    let answer = |place: &Place, line: Option<over_time::Line>| {
        let (slope, intercept) = line?.solve();
        Some(ahead.map_or(slope, |ahead| slope * ahead.at(place.step) + intercept))
    };
    let rest = |line: &mut over_time::Line, place: &Place, done: usize| {
        let from = place.lo + done;
        for (t, v) in t[from..place.hi].iter().zip(&v[from..place.hi]) {
            line.add(*t, *v);
        }
        answer(place, (place.hi - place.lo >= 2).then_some(*line))
    };
    let out = std::cell::RefCell::new(out);
    let put = |place: &Place, value: Option<f64>| {
        if let Some(value) = value {
            out.borrow_mut()[place.step] = value;
        }
    };
    in_groups(
        windows,
        t,
        &mut |group| {
            let shared = group.iter().map(|p| p.hi - p.lo).min().unwrap_or(0);
            let mut lines: [over_time::Line; LANES] =
                std::array::from_fn(|l| over_time::Line::new(v[group[l].lo], origin(&group[l])));
            let times: [&[i64]; LANES] = std::array::from_fn(|l| &t[group[l].lo..group[l].lo + shared]);
            let values: [&[f64]; LANES] = std::array::from_fn(|l| &v[group[l].lo..group[l].lo + shared]);
            for i in 0..shared {
                for (l, line) in lines.iter_mut().enumerate() {
                    line.add(times[l][i], values[l][i]);
                }
            }
            for (line, place) in lines.iter_mut().zip(group) {
                put(place, rest(line, place, shared));
            }
        },
        &mut |place| put(place, rest(&mut over_time::Line::new(v[place.lo], origin(place)), place, 0)),
    )
}
