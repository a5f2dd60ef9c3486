//! Windows over floats alone, at O(samples + steps) where a function allows it.
//!
//! - `rate`, `increase`, `delta`: the places of counter resets are found once; a window needs its ends and the
//!   resets inside, added in the order in which a scan would add them, so the result is the same to the last bit.
//! - `min_over_time`, `max_over_time`: a monotonic deque.
//! - `changes`, `resets`: prefix counts, exact in integers.
//! - `sum_over_time`, `avg_over_time`: two stacks of compensated partial sums when windows overlap much; nothing
//!   is ever subtracted, so nothing drifts. Windows with infinities or an overflow are summed one by one.

use std::collections::VecDeque;

use super::column::Column;
use super::range::Windows;
use crate::model::SampleBuffer;
use crate::query::functions::rate::{RateKind, Stretch};
use crate::query::functions::{Func, kahan};

/// Windows with fewer samples are summed from scratch.
const WORTH_STACKS: usize = 24;

/// Computes the column if there is a way that beats looking at each window; answers how many samples the windows
/// hold together.
pub fn fast(func: Func, windows: &Windows, buffer: &SampleBuffer, out: &mut Column) -> Option<u64> {
    let (t, v) = (&buffer.timestamps[..], &buffer.values[..]);
    let values = &mut out.values[..];
    let kind = |counter, per_second| RateKind { counter, per_second };
    Some(match func {
        Func::Rate => rate(windows, t, v, kind(true, true), values),
        Func::Increase => rate(windows, t, v, kind(true, false), values),
        Func::Delta => rate(windows, t, v, kind(false, false), values),
        Func::MinOverTime => extreme(windows, t, v, |a, b| a > b, values),
        Func::MaxOverTime => extreme(windows, t, v, |a, b| a < b, values),
        Func::CountOverTime => walk(windows, t, |step, lo, hi| values[step] = (hi - lo) as f64),
        Func::PresentOverTime | Func::AbsentOverTime => walk(windows, t, |step, _, _| values[step] = 1.0),
        Func::LastOverTime => walk(windows, t, |step, _, hi| values[step] = v[hi - 1]),
        Func::FirstOverTime => walk(windows, t, |step, lo, _| values[step] = v[lo]),
        Func::Changes => pairs(windows, t, v, |a, b| a != b && !(a.is_nan() && b.is_nan()), values),
        Func::Resets => pairs(windows, t, v, |a, b| b < a, values),
        Func::SumOverTime => sums(windows, t, v, false, values),
        Func::AvgOverTime => sums(windows, t, v, true, values),
        _ => return None,
    })
}

/// Calls `visit(step, lo, hi)` for every window that is not empty.
#[inline]
fn walk(windows: &Windows, t: &[i64], mut visit: impl FnMut(usize, usize, usize)) -> u64 {
    let (mut lo, mut hi, mut seen) = (0, 0, 0);
    for step in 0..windows.axis.n {
        let end = windows.shift.apply(windows.axis.time(step));
        let start = end.saturating_sub(windows.range_ms);
        while hi < t.len() && t[hi] <= end {
            hi += 1;
        }
        while lo < hi && t[lo] <= start {
            lo += 1;
        }
        if lo < hi {
            seen += (hi - lo) as u64;
            visit(step, lo, hi);
        }
    }
    seen
}

fn rate(windows: &Windows, t: &[i64], v: &[f64], kind: RateKind, out: &mut [f64]) -> u64 {
    let resets: Vec<usize> =
        if kind.counter { (1..v.len()).filter(|i| v[*i] < v[*i - 1]).collect() } else { Vec::new() };
    let range_s = windows.range_ms as f64 / 1000.0;
    let mut first_reset = 0;
    walk(windows, t, |step, lo, hi| {
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
        let stretch = Stretch {
            first_t: t[lo],
            last_t: t[hi - 1],
            samples: hi - lo,
            zero_t: None,
            zero_ratio: (result > 0.0 && first >= 0.0).then(|| first / result),
        };
        out[step] = result * stretch.factor(end.saturating_sub(windows.range_ms), end, kind, range_s);
    })
}

/// `beaten(a, b)`: `b` is strictly more extreme than `a`.
fn extreme(
    windows: &Windows,
    t: &[i64],
    v: &[f64],
    beaten: impl Fn(f64, f64) -> bool,
    out: &mut [f64],
) -> u64 {
    // Indices whose values are ever less extreme; equal ones stay, so that the earliest wins.
    let mut deque: VecDeque<usize> = VecDeque::new();
    let mut next = 0;
    walk(windows, t, |step, lo, hi| {
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

fn pairs(windows: &Windows, t: &[i64], v: &[f64], counts: impl Fn(f64, f64) -> bool, out: &mut [f64]) -> u64 {
    // before[i]: pairs that count among the samples 0..=i.
    let mut before = Vec::with_capacity(v.len());
    let mut total = 0u64;
    for i in 0..v.len() {
        total += u64::from(i > 0 && counts(v[i - 1], v[i]));
        before.push(total);
    }
    walk(windows, t, |step, lo, hi| out[step] = (before[hi - 1] - before[lo]) as f64)
}

/// A compensated partial sum.
type Partial = (f64, f64);

fn join(a: Partial, b: Partial) -> Partial {
    let (sum, c) = kahan::add(b.0, a.0, a.1);
    (sum, c + b.1)
}

fn one_by_one(v: &[f64], mean: bool) -> f64 {
    if !mean {
        return kahan::sum(v);
    }
    let mut acc = kahan::Mean::first(v[0]);
    v[1..].iter().for_each(|v| acc.add(*v));
    acc.get()
}

fn sums(windows: &Windows, t: &[i64], v: &[f64], mean: bool, out: &mut [f64]) -> u64 {
    // front[i − base]: sum of the samples i..middle; back: sum of middle..hi.
    let (mut front, mut base, mut middle): (Vec<Partial>, usize, usize) = (Vec::new(), 0, 0);
    let (mut back, mut back_end): (Partial, usize) = ((0.0, 0.0), 0);
    walk(windows, t, |step, lo, hi| {
        if hi - lo < WORTH_STACKS {
            out[step] = one_by_one(&v[lo..hi], mean);
            return;
        }
        if lo >= middle {
            (base, middle, back, back_end) = (lo, hi, (0.0, 0.0), hi);
            front.clear();
            let mut acc = (0.0, 0.0);
            for v in v[lo..hi].iter().rev() {
                acc = kahan::add(*v, acc.0, acc.1);
                front.push(acc);
            }
            front.reverse();
        }
        for v in &v[back_end..hi] {
            back = kahan::add(*v, back.0, back.1);
        }
        back_end = hi;
        let (sum, c) = join(front[lo - base], back);
        out[step] = if !sum.is_finite() || !c.is_finite() {
            one_by_one(&v[lo..hi], mean)
        } else if mean {
            let count = (hi - lo) as f64;
            sum / count + c / count
        } else {
            sum + c
        };
    })
}
