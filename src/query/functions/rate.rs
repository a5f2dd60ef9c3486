//! `rate`, `increase`, `delta`, `irate`, `idelta`.
//!
//! The first three look at the first and the last sample of the window, add what counter resets swallowed, and
//! stretch the result to the edges of the window: fully when an edge is about one sample distance away, else by
//! half a distance, and for counters never below a value of zero.

use std::sync::Arc;

use super::histops;
use super::window::{Either, Env, View};
use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::query::annotations::{HistogramOperation, Note};
use crate::query::exec::column::Point;

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateKind {
    /// Resets count (`rate`, `increase`).
    pub counter: bool,
    /// Divided by the length of the window (`rate`).
    pub per_second: bool,
}

/// Whether start timestamps say that the counter began anew between two samples. A sample that starts exactly at
/// the one before is a delta, unless the one before has no proper start itself (a cumulative counter whose start
/// nobody knows).
#[must_use]
pub fn starts_anew(previous_t: i64, previous_st: i64, t: i64, st: i64) -> bool {
    st != 0
        && st < t
        && (st > previous_t || (st == previous_t && previous_st != 0 && previous_st < previous_t))
}

fn overlaps(previous_t: i64, previous_st: i64, st: i64) -> bool {
    st != 0 && st < previous_t && st != previous_st
}

/// What stretching needs to know about the samples.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// First timestamp.
    pub first_t: i64,
    /// Last timestamp.
    pub last_t: i64,
    /// Number of samples.
    pub samples: usize,
    /// When the counter was zero, if a start timestamp inside the window says so.
    pub zero_t: Option<i64>,
    /// First value over the unstretched result, for counters that grew from a value that is not negative.
    pub zero_ratio: Option<f64>,
}

/// How much of their window the samples cover, in seconds; the values have no part in it.
#[derive(Debug, Clone, Copy)]
pub struct Coverage {
    sampled: f64,
    to_start: f64,
    to_end: f64,
}

impl Coverage {
    /// From milliseconds between the samples, to the edges of the window, and the number of samples.
    #[inline]
    #[must_use]
    pub fn new(between: i64, to_start: i64, to_end: i64, samples: usize) -> Self {
        let sampled = between as f64 / 1000.0;
        let distance = sampled / (samples as f64 - 1.0);
        let (threshold, half) = (distance * 1.1, distance / 2.0);
        let (mut to_start, mut to_end) = (to_start as f64 / 1000.0, to_end as f64 / 1000.0);
        if to_start >= threshold {
            to_start = half;
        }
        if to_end >= threshold {
            to_end = half;
        }
        Self { sampled, to_start, to_end }
    }

    /// What to multiply a result with. `zero_ratio` is the first value over the unstretched result, for counters that
    /// grew from a value that is not negative.
    #[inline]
    #[must_use]
    pub fn factor(&self, zero_ratio: Option<f64>, kind: RateKind, range_s: f64) -> f64 {
        let mut to_start = self.to_start;
        if kind.counter
            && let Some(ratio) = zero_ratio
        {
            let to_zero = self.sampled * ratio;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        let factor = (self.sampled + to_start + self.to_end) / self.sampled;
        if kind.per_second { factor / range_s } else { factor }
    }
}

impl Stretch {
    /// What to multiply the result with; `start` and `end` are the edges of the window.
    #[inline]
    #[must_use]
    pub fn factor(&self, start: i64, end: i64, kind: RateKind, range_s: f64) -> f64 {
        let (between, to_start) = (self.last_t - self.first_t, self.first_t - start);
        let mut covered = Coverage::new(between, to_start, end - self.last_t, self.samples);
        if let Some(zero_t) = self.zero_t {
            covered.sampled = (self.last_t - zero_t) as f64 / 1000.0;
            covered.to_start = 0.0;
            if self.samples < 2 {
                covered.to_end = 0.0;
            }
            return covered.factor(None, kind, range_s);
        }
        covered.factor(self.zero_ratio, kind, range_s)
    }
}

/// `rate`, `increase` or `delta` of one window.
pub fn rate(view: &View<'_>, kind: RateKind, env: &Env<'_>) -> Point {
    if view.is_mixed() {
        (env.note)(&Note::MixedFloatsHistograms(env.metric));
        return Point::None;
    }
    if view.h.is_empty() { float_rate(view, kind, env) } else { histogram_rate(view, kind, env) }
}

/// The start timestamp of the first sample when it lies in the window and makes sense.
fn zero_time(kind: RateKind, env: &Env<'_>, view: &View<'_>, st: &[i64], first_t: i64) -> Option<i64> {
    let st = *st.first()?;
    (env.use_start_timestamps && kind.counter && st != 0 && st > view.start && st < first_t).then_some(st)
}

fn float_rate(view: &View<'_>, kind: RateKind, env: &Env<'_>) -> Point {
    let (Some(first_t), Some(last_t)) = (view.t.first(), view.t.last()) else { return Point::None };
    let zero_t = zero_time(kind, env, view, view.st, *first_t);
    let n = view.v.len();
    if n < 2 && zero_t.is_none() {
        return Point::None;
    }
    let first = view.v[0];
    let mut result = view.v[n - 1] - first;
    if kind.counter {
        let with_start = env.use_start_timestamps && !view.st.is_empty();
        for i in 1..n {
            let mut reset = view.v[i] < view.v[i - 1];
            if with_start {
                if overlaps(view.t[i - 1], view.st[i - 1], view.st[i]) {
                    (env.note)(&Note::StartTimeOverlap(env.metric));
                }
                reset |= starts_anew(view.t[i - 1], view.st[i - 1], view.t[i], view.st[i]);
            }
            if reset {
                result += view.v[i - 1];
            }
        }
        if zero_t.is_some() {
            result += first;
        }
    }
    let stretch = Stretch {
        first_t: *first_t,
        last_t: *last_t,
        samples: n,
        zero_t,
        zero_ratio: (result > 0.0 && first >= 0.0).then(|| first / result),
    };
    Point::Float(result * stretch.factor(view.start, view.end, kind, env.range_s))
}

fn histogram_rate(view: &View<'_>, kind: RateKind, env: &Env<'_>) -> Point {
    let n = view.h.len();
    let (first_t, first) = &view.h[0];
    let (last_t, last) = &view.h[n - 1];
    let zero_t = zero_time(kind, env, view, view.hst, *first_t);
    if n < 2 && zero_t.is_none() {
        return Point::None;
    }
    let Some(mut result) = histogram_difference(view, kind, env, first, last) else { return Point::None };
    if zero_t.is_some() && combine(&mut result, first, HistogramOperation::Addition, env).is_err() {
        return Point::None;
    }
    let stretch = Stretch {
        first_t: *first_t,
        last_t: *last_t,
        samples: n,
        zero_t,
        zero_ratio: (result.count > 0.0 && first.count >= 0.0).then(|| first.count / result.count),
    };
    histops::mul(&mut result, stretch.factor(view.start, view.end, kind, env.range_s));
    result.counter_reset_hint = CounterResetHint::Gauge;
    histops::compact(&mut result);
    Point::Histogram(Arc::new(result))
}

/// Adds or subtracts, and reports reconciled bounds; conflicting hints do not matter here.
fn combine(
    h: &mut FloatHistogram,
    other: &FloatHistogram,
    operation: HistogramOperation,
    env: &Env<'_>,
) -> Result<(), histops::Incompatible> {
    let remarks = match operation {
        HistogramOperation::Subtraction => histops::sub(h, other)?,
        _ => histops::add(h, other)?,
    };
    if remarks.reconciled {
        (env.note)(&Note::MismatchedCustomBuckets(operation));
    }
    Ok(())
}

/// Last minus first plus what resets swallowed.
fn histogram_difference(
    view: &View<'_>,
    kind: RateKind,
    env: &Env<'_>,
    first: &FloatHistogram,
    last: &FloatHistogram,
) -> Option<FloatHistogram> {
    let gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    let mut resets: Vec<usize> = Vec::new();
    if kind.counter {
        if view.h.iter().any(|(_, h)| gauge(h)) {
            (env.note)(&Note::NativeHistogramNotCounter(env.metric));
        }
        let with_start = env.use_start_timestamps && !view.hst.is_empty();
        for i in 1..view.h.len() {
            let (previous_t, previous) = &view.h[i - 1];
            let (t, h) = &view.h[i];
            let mut reset = histops::detect_reset(h, previous);
            if with_start {
                if overlaps(*previous_t, view.hst[i - 1], view.hst[i]) {
                    (env.note)(&Note::StartTimeOverlap(env.metric));
                }
                reset |= starts_anew(*previous_t, view.hst[i - 1], *t, view.hst[i]);
            }
            if reset {
                resets.push(i);
            }
        }
    } else if !gauge(first) || !gauge(last) {
        (env.note)(&Note::NativeHistogramNotGauge(env.metric));
    }
    // What a reset directly behind the first sample swallowed is the first sample: it cancels out, so that its
    // layout does not matter.
    let cancels = resets.first() == Some(&1);
    let considered = if kind.counter { &view.h[usize::from(cancels)..] } else { &view.h[..1] };
    let custom = histops::is_custom(last);
    let mut schema = last.schema;
    for (_, h) in considered {
        schema = schema.min(h.schema);
        if histops::is_custom(h) != custom {
            (env.note)(&Note::MixedExponentialCustom(env.metric));
            return None;
        }
    }
    let mut result = histops::to_schema(last, schema);
    if !cancels {
        combine(&mut result, first, HistogramOperation::Subtraction, env).ok()?;
    }
    for i in &resets[usize::from(cancels)..] {
        combine(&mut result, &view.h[i - 1].1, HistogramOperation::Addition, env).ok()?;
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    histops::compact(&mut result);
    Some(result)
}

/// `irate` (`counter`) or `idelta` of one window.
pub fn instant_rate(view: &View<'_>, counter: bool, env: &Env<'_>) -> Point {
    let (Some(a), Some(b)) = view.last_two() else { return Point::None };
    let interval = b.t - a.t;
    if interval == 0 {
        return Point::None;
    }
    let seconds = interval as f64 / 1000.0;
    let anew = counter && env.use_start_timestamps && starts_anew(a.t, a.st, b.t, b.st);
    match (a.value, b.value) {
        (Either::Float(a), Either::Float(b)) => {
            let difference = if counter && (b < a || anew) { b } else { b - a };
            Point::Float(if counter { difference / seconds } else { difference })
        }
        (Either::Histogram(a), Either::Histogram(b)) => {
            let gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
            if counter && (gauge(a) || gauge(b)) {
                (env.note)(&Note::NativeHistogramNotCounter(env.metric));
            }
            if !counter && (!gauge(a) || !gauge(b)) {
                (env.note)(&Note::NativeHistogramNotGauge(env.metric));
            }
            let mut result = (**b).clone();
            if !(counter && (anew || histops::detect_reset(b, a)))
                && combine(&mut result, a, HistogramOperation::Subtraction, env).is_err()
            {
                (env.note)(&Note::MixedExponentialCustom(env.metric));
                return Point::None;
            }
            result.counter_reset_hint = CounterResetHint::Gauge;
            histops::compact(&mut result);
            if counter {
                histops::div(&mut result, seconds);
            }
            Point::Histogram(Arc::new(result))
        }
        _ => {
            (env.note)(&Note::MixedFloatsHistograms(env.metric));
            Point::None
        }
    }
}
