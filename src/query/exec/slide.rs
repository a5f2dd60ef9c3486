//! Windows over floats alone, at O(samples + steps) where a function allows it without another result.
//!
//! - `rate`, `increase`, `delta`: the places of counter resets are found once; a window needs its ends and the
//!   resets inside, added in the order in which a scan would add them, so the result is the same to the last bit.
//! - `min_over_time`, `max_over_time`: a monotonic deque.
//! - `changes`, `resets`: prefix counts, exact in integers.
//! - `sum_over_time`, `avg_over_time`: compensated partial sums to both sides of a border when a window holds many
//!   samples ([`super::borders`]). Windows with infinities or an overflow are summed one by one.
//! - `quantile_over_time`, `mad_over_time`: the samples of the window are kept sorted; each sample is put in and taken
//!   out once, which moves at most the window's length of memory.
//! - `stddev_over_time`, `stdvar_over_time`, `deriv`, `predict_linear`: moments at twice the precision, joined at such
//!   borders ([`super::moments`]).

use std::collections::VecDeque;

use super::borders::{self, Fold};
use super::build::Scalar;
use super::column::Column;
use super::context::Pace;
use super::moments;
use super::range::Windows;
use crate::model::SampleBuffer;
use crate::query::QueryError;
use crate::query::functions::quantile::{interpolate, nan_first};
use crate::query::functions::rate::{Coverage, RateKind};
use crate::query::functions::{Func, kahan};

/// Windows with fewer samples are summed from scratch.
const WORTH_BORDERS: usize = 24;

/// Computes the column if there is a way that beats looking at each window; answers how many samples the windows
/// hold together.
pub fn fast(
    func: Func,
    params: &[Scalar],
    windows: &Windows,
    buffer: &SampleBuffer,
    out: &mut Column,
) -> Result<Option<u64>, QueryError> {
    let (t, v) = (&buffer.timestamps[..], &buffer.values[..]);
    let values = &mut out.values[..];
    let kind = |counter, per_second| RateKind { counter, per_second };
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let seen = match func {
        Func::Rate => rate(windows, t, v, kind(true, true), values),
        Func::Increase => rate(windows, t, v, kind(true, false), values),
        Func::Delta => rate(windows, t, v, kind(false, false), values),
        Func::Irate => last_pair(windows, t, |step, a, b| {
            let difference = if v[b] < v[a] { v[b] } else { v[b] - v[a] };
            values[step] = difference / seconds(t[b] - t[a]);
        }),
        Func::Idelta => last_pair(windows, t, |step, a, b| values[step] = v[b] - v[a]),
        Func::MinOverTime => extreme(windows, t, v, |a, b| a > b, values),
        Func::MaxOverTime => extreme(windows, t, v, |a, b| a < b, values),
        Func::CountOverTime => walk(windows, t, 1, |step, lo, hi| values[step] = (hi - lo) as f64),
        Func::PresentOverTime | Func::AbsentOverTime => walk(windows, t, 1, |step, _, _| values[step] = 1.0),
        Func::LastOverTime => walk(windows, t, 1, |step, _, hi| values[step] = v[hi - 1]),
        Func::FirstOverTime => walk(windows, t, 1, |step, lo, _| values[step] = v[lo]),
        Func::TsOfFirstOverTime => walk(windows, t, 1, |step, lo, _| values[step] = seconds(t[lo])),
        Func::TsOfLastOverTime => walk(windows, t, 1, |step, _, hi| values[step] = seconds(t[hi - 1])),
        Func::Changes => pairs(windows, t, v, |a, b| a != b && !(a.is_nan() && b.is_nan()), values),
        Func::Resets => pairs(windows, t, v, |a, b| b < a, values),
        Func::SumOverTime => sums(windows, t, v, false, values),
        Func::AvgOverTime => sums(windows, t, v, true, values),
        Func::StddevOverTime => moments::variance(windows, t, v, true, values),
        Func::StdvarOverTime => moments::variance(windows, t, v, false, values),
        Func::Deriv => moments::lines(windows, t, v, None, values),
        Func::PredictLinear => moments::lines(windows, t, v, params.first(), values),
        Func::QuantileOverTime => {
            let Some(phi) = params.first() else { return Ok(None) };
            sorted(windows, t, v, values, |step, window| {
                interpolate(phi.at(step), window.len(), |i| window[i])
            })
        }
        Func::MadOverTime => sorted(windows, t, v, values, |_, window| mad(window)),
        _ => return Ok(None),
    };
    seen.map(Some)
}

/// Calls `visit(step, lo, hi)` for every window that is not empty. `weight` is 1 if a visit costs the same for windows
/// of any length, and 0 if it looks at all samples.
#[inline]
pub fn walk(
    windows: &Windows,
    t: &[i64],
    weight: usize,
    mut visit: impl FnMut(usize, usize, usize),
) -> Result<u64, QueryError> {
    let (mut lo, mut hi, mut seen, mut pace) = (0, 0, 0, Pace::default());
    let mut time = windows.axis.start;
    for step in 0..windows.axis.n {
        let end = windows.shift.apply(time);
        time = time.saturating_add(windows.axis.step);
        let start = end.saturating_sub(windows.range_ms);
        while hi < t.len() && t[hi] <= end {
            hi += 1;
        }
        while lo < hi && t[lo] <= start {
            lo += 1;
        }
        pace.step(windows.context(), if weight == 0 { hi - lo + 1 } else { weight })?;
        if lo < hi {
            seen += (hi - lo) as u64;
            visit(step, lo, hi);
        }
    }
    Ok(seen)
}

/// Calls `visit(step, a, b)` with the last two samples of every window that has two.
fn last_pair(
    windows: &Windows,
    t: &[i64],
    mut visit: impl FnMut(usize, usize, usize),
) -> Result<u64, QueryError> {
    walk(windows, t, 1, |step, lo, hi| {
        if hi - lo >= 2 && t[hi - 1] != t[hi - 2] {
            visit(step, hi - 2, hi - 1);
        }
    })
}

fn rate(windows: &Windows, t: &[i64], v: &[f64], kind: RateKind, out: &mut [f64]) -> Result<u64, QueryError> {
    let resets: Vec<usize> =
        if kind.counter { (1..v.len()).filter(|i| v[*i] < v[*i - 1]).collect() } else { Vec::new() };
    let range_s = windows.range_ms as f64 / 1000.0;
    let mut first_reset = 0;
    // On a regular grid window after window is covered alike.
    let (mut place, mut covered) = ((0, 0, 0, 0), Coverage::new(0, 0, 0, 0));
    walk(windows, t, 1, |step, lo, hi| {
        if hi - lo < 2 {
            return;
        }
        let first = v[lo];
        let mut result = v[hi - 1] - first;
        while first_reset < resets.len() && resets[first_reset] <= lo {
            first_reset += 1;
        }
        for reset in resets[first_reset..].iter().take_while(|reset| **reset < hi) {
            result += v[reset - 1];
        }
        let end = windows.shift.apply(windows.axis.time(step));
        let start = end.saturating_sub(windows.range_ms);
        let now = (t[hi - 1] - t[lo], t[lo] - start, end - t[hi - 1], hi - lo);
        if now != place {
            (place, covered) = (now, Coverage::new(now.0, now.1, now.2, now.3));
        }
        let zero_ratio = (result > 0.0 && first >= 0.0).then(|| first / result);
        out[step] = result * covered.factor(zero_ratio, kind, range_s);
    })
}

/// `beaten(a, b)`: `b` is strictly more extreme than `a`.
fn extreme(
    windows: &Windows,
    t: &[i64],
    v: &[f64],
    beaten: impl Fn(f64, f64) -> bool,
    out: &mut [f64],
) -> Result<u64, QueryError> {
    // Indices whose values are ever less extreme; equal ones stay, so that the earliest wins.
    let mut deque: VecDeque<usize> = VecDeque::new();
    let mut next = 0;
    walk(windows, t, 1, |step, lo, hi| {
        next = next.max(lo);
        while next < hi {
            if !v[next].is_nan() {
                while deque.back().is_some_and(|back| beaten(v[*back], v[next])) {
                    deque.pop_back();
                }
                deque.push_back(next);
            }
            next += 1;
        }
        while deque.front().is_some_and(|front| *front < lo) {
            deque.pop_front();
        }
        out[step] = deque.front().map_or(f64::NAN, |front| v[*front]);
    })
}

fn pairs(
    windows: &Windows,
    t: &[i64],
    v: &[f64],
    counts: impl Fn(f64, f64) -> bool,
    out: &mut [f64],
) -> Result<u64, QueryError> {
    // before[i]: pairs that count among the samples 0..=i.
    let mut before = Vec::with_capacity(v.len());
    let mut total = 0u64;
    for i in 0..v.len() {
        total += u64::from(i > 0 && counts(v[i - 1], v[i]));
        before.push(total);
    }
    walk(windows, t, 1, |step, lo, hi| out[step] = (before[hi - 1] - before[lo]) as f64)
}

/// A compensated partial sum.
#[derive(Clone, Copy)]
struct Partial(f64, f64);

impl Fold for Partial {
    #[inline(always)]
    fn add(&mut self, _: i64, v: f64) {
        (self.0, self.1) = kahan::add(v, self.0, self.1);
    }

    #[inline(always)]
    fn join(self, later: Self) -> Self {
        let (sum, c) = kahan::add(later.0, self.0, self.1);
        Self(sum, c + later.1)
    }
}

fn one_by_one(v: &[f64], mean: bool) -> f64 {
    if !mean {
        return kahan::sum(v);
    }
    let mut acc = kahan::Mean::first(v[0]);
    v[1..].iter().for_each(|v| acc.add(*v));
    acc.get()
}

fn sums(windows: &Windows, t: &[i64], v: &[f64], mean: bool, out: &mut [f64]) -> Result<u64, QueryError> {
    let out = std::cell::RefCell::new(out);
    let anew = |step: usize, lo: usize, hi: usize| {
        out.borrow_mut()[step] = one_by_one(&v[lo..hi], mean);
        hi - lo
    };
    borders::slide(
        windows,
        (t, v),
        WORTH_BORDERS,
        |_, _| Partial(0.0, 0.0),
        &anew,
        |step, lo, hi, fold| {
            let Partial(sum, c) = fold;
            if !sum.is_finite() || !c.is_finite() {
                return anew(step, lo, hi);
            }
            let count = (hi - lo) as f64;
            out.borrow_mut()[step] = if mean { sum / count + c / count } else { sum + c };
            0
        },
    )
}

/// Keeps the samples of the window sorted, NaN first, and hands them to `answer`.
fn sorted(
    windows: &Windows,
    t: &[i64],
    v: &[f64],
    out: &mut [f64],
    answer: impl Fn(usize, &[f64]) -> f64,
) -> Result<u64, QueryError> {
    let (mut window, mut from, mut to): (Vec<f64>, usize, usize) = (Vec::new(), 0, 0);
    walk(windows, t, 0, |step, lo, hi| {
        // When most of the window is new, sorting beats putting in one by one.
        if lo >= to || (lo - from) + (hi - to) > (hi - lo) / 4 {
            window.clear();
            window.extend_from_slice(&v[lo..hi]);
            window.sort_unstable_by(nan_first);
        } else {
            for gone in &v[from..lo] {
                // Values that are equal here may differ in sign or payload: take out the very one.
                let at = window.partition_point(|w| nan_first(w, gone).is_lt());
                let same = window[at..].iter().position(|w| w.to_bits() == gone.to_bits());
                window.remove(at + same.unwrap_or(0));
            }
            for new in &v[to..hi] {
                let at = window.partition_point(|w| nan_first(w, new).is_le());
                window.insert(at, *new);
            }
        }
        (from, to) = (lo, hi);
        out[step] = answer(step, &window);
    })
}

/// The median distance from the median of sorted values.
fn mad(window: &[f64]) -> f64 {
    // NaN sorts first.
    if window.first().is_none_or(|v| v.is_nan()) {
        return f64::NAN;
    }
    let median = interpolate(0.5, window.len(), |i| window[i]);
    let mut distances: Vec<f64> = window.iter().map(|v| (v - median).abs()).collect();
    crate::query::functions::quantile::quantile(0.5, &mut distances)
}
