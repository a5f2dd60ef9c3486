//! Functions that look at every sample of every window, several windows at a time.
//!
//! Compensated sums are chains: each addition waits for the one before. Neighbouring windows do not depend on one
//! another, so [`LANES`] of them advance side by side and the processor is kept busy. Within a lane everything happens
//! in the order of a plain scan, so the results are the same to the last bit.

use crate::query::functions::kahan;
use crate::query::functions::over_time::Lines;

/// Windows side by side.
const LANES: usize = 8;

/// Samples `lo..hi` of a step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Step of the query.
    pub step: usize,
    /// First sample.
    pub lo: usize,
    /// Behind the last one.
    pub hi: usize,
}

/// Windows that wait to be computed together.
#[derive(Debug, Default)]
pub struct Lanes {
    group: [Place; LANES],
    filled: usize,
}

impl Lanes {
    /// Takes a window in, and hands the group to `compute` when it is full.
    #[inline]
    pub fn push(&mut self, place: Place, compute: impl FnOnce(&Self)) {
        self.group[self.filled] = place;
        self.filled += 1;
        if self.filled == LANES {
            compute(self);
            self.filled = 0;
        }
    }

    /// Samples that all windows have, if there are as many windows as lanes; otherwise each goes alone.
    fn shared(&self) -> Option<usize> {
        if self.filled < LANES { None } else { self.group.iter().map(|p| p.hi - p.lo).min() }
    }

    /// The variance of each window, or its root.
    pub fn variances(&self, v: &[f64], root: bool, out: &mut [f64]) {
        let mut rest = |mut moments: Moments<1>, place: &Place, done: usize| {
            for (k, v) in v[place.lo + done..place.hi].iter().enumerate() {
                moments.add([*v], (done + k + 1) as f64);
            }
            let variance = (moments.aux[0] + moments.aux_c[0]) / (place.hi - place.lo) as f64;
            out[place.step] = if root { variance.sqrt() } else { variance };
        };
        let Some(shared) = self.shared() else {
            self.group[..self.filled].iter().for_each(|place| rest(Moments::new(), place, 0));
            return;
        };
        let lanes = self.group.map(|place| &v[place.lo..place.lo + shared]);
        let mut moments = Moments::<LANES>::new();
        for i in 0..shared {
            moments.add(lanes.map(|lane| lane[i]), (i + 1) as f64);
        }
        self.group.iter().enumerate().for_each(|(l, place)| rest(moments.one(l), place, shared));
    }

    /// Slope per second of each window that has two samples, and the value of the line at `origin`, in milliseconds.
    pub fn lines(
        &self,
        (t, v): (&[i64], &[f64]),
        origin: impl Fn(&Place) -> i64,
        mut emit: impl FnMut(usize, f64, f64),
    ) {
        let mut rest = |mut line: Lines<1>, place: &Place, done: usize| {
            let from = place.lo + done;
            for (t, v) in t[from..place.hi].iter().zip(&v[from..place.hi]) {
                line.add([*t], [*v]);
            }
            if place.hi - place.lo >= 2 {
                let (slope, at) = line.solve();
                emit(place.step, slope, at);
            }
        };
        let Some(shared) = self.shared() else {
            for place in &self.group[..self.filled] {
                rest(Lines::new([v[place.lo]], [origin(place)]), place, 0);
            }
            return;
        };
        let mut lines =
            Lines::<LANES>::new(self.group.map(|place| v[place.lo]), self.group.map(|place| origin(&place)));
        let times = self.group.map(|place| &t[place.lo..place.lo + shared]);
        let values = self.group.map(|place| &v[place.lo..place.lo + shared]);
        for i in 0..shared {
            lines.add(times.map(|lane| lane[i]), values.map(|lane| lane[i]));
        }
        self.group.iter().enumerate().for_each(|(l, place)| rest(lines.one(l), place, shared));
    }
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
