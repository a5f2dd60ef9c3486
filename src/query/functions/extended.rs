//! `anchored` and `smoothed` windows: the edges are the newest sample before the window, or interpolated values,
//! instead of an extrapolation.
//!
//! The view that these functions get reaches one lookback further to the left, smoothed ones to the right too.

use std::sync::Arc;

use super::histops;
use super::rate::RateKind;
use super::window::{Env, View};
use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::query::annotations::{HistogramOperation, Note};
use crate::query::exec::column::Point;

/// The value at `t` on the line between two samples. A counter that fell in between began anew at zero.
fn interpolate(a: (i64, f64), b: (i64, f64), t: i64, counter: bool) -> f64 {
    let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * (t - a.0) as f64 / (b.0 - a.0) as f64
}

/// Indices of the sample that stands for the left edge and of the last that counts; `None` when the window is
/// empty. `n` is at least one.
fn edges(t: impl Fn(usize) -> i64, n: usize, view: &View<'_>, smoothed: bool) -> Option<(usize, usize)> {
    let mut last = n - 1;
    let search = |upto: usize, found: &dyn Fn(i64) -> bool| (0..upto).find(|i| found(t(*i))).unwrap_or(upto);
    let first = search(last, &|t| t > view.start).saturating_sub(1);
    if smoothed {
        last = search(last, &|t| t >= view.end);
    }
    (t(last) > view.start && t(first) <= view.end).then_some((first, last))
}

/// `rate`, `increase` or `delta` over an extended window.
pub fn rate(view: &View<'_>, kind: RateKind, smoothed: bool, env: &Env<'_>) -> Point {
    if view.is_mixed() {
        (env.note)(&Note::MixedFloatsHistograms(env.metric));
        return Point::None;
    }
    if !view.h.is_empty() {
        return histogram_rate(view, kind, smoothed, env);
    }
    if view.t.is_empty() {
        return Point::None;
    }
    let Some((mut first, mut last)) = edges(|i| view.t[i], view.t.len(), view, smoothed) else {
        return Point::None;
    };
    let at = |i: usize| (view.t[i], view.v[i]);
    let left = if smoothed && view.t[first] < view.start && first + 1 < view.t.len() {
        interpolate(at(first), at(first + 1), view.start, kind.counter)
    } else {
        view.v[first]
    };
    let right = if smoothed && last > 0 && view.t[last] > view.end {
        interpolate(at(last - 1), at(last), view.end, kind.counter)
    } else {
        view.v[last]
    };
    let mut result = right - left;
    if kind.counter {
        if view.t[first] <= view.start {
            first += 1;
        }
        // The sample at or behind the right edge is `right` itself.
        if view.t[last] >= view.end {
            match last.checked_sub(1) {
                Some(before) => last = before,
                None => first = 1,
            }
        }
        let (mut previous, mut correction) = (left, 0.0);
        for v in view.v.get(first..=last).unwrap_or_default() {
            if *v < previous {
                correction += previous;
            }
            previous = *v;
        }
        if right < previous {
            correction += previous;
        }
        result += correction;
    }
    Point::Float(if kind.per_second { result / env.range_s } else { result })
}

/// The histogram at `t` on the line between two histograms; `None` when they cannot be combined. A counter that
/// was reset in between counts from zero.
fn interpolate_histogram(
    a: &(i64, Arc<FloatHistogram>),
    b: &(i64, Arc<FloatHistogram>),
    t: i64,
    counter: bool,
) -> Option<FloatHistogram> {
    let fraction = (t - a.0) as f64 / (b.0 - a.0) as f64;
    if histops::is_custom(&a.1) != histops::is_custom(&b.1) {
        return None;
    }
    if counter && histops::detect_reset(&b.1, &a.1) {
        let mut grown = (*b.1).clone();
        histops::mul(&mut grown, fraction);
        return Some(grown);
    }
    let mut grown = (*b.1).clone();
    histops::sub(&mut grown, &a.1).ok()?;
    histops::mul(&mut grown, fraction);
    let hint = a.1.counter_reset_hint;
    histops::add(&mut grown, &a.1).ok()?;
    grown.counter_reset_hint = hint;
    Some(grown)
}

fn histogram_rate(view: &View<'_>, kind: RateKind, smoothed: bool, env: &Env<'_>) -> Point {
    let h = view.h;
    let Some((first, last)) = edges(|i| h[i].0, h.len(), view, smoothed) else { return Point::None };
    let mixed = || {
        (env.note)(&Note::MixedExponentialCustom(env.metric));
        Point::None
    };
    let custom = histops::is_custom(&h[first].1);
    let considered = &h[first..=last];
    if considered.iter().any(|(_, x)| histops::is_custom(x) != custom) {
        return mixed();
    }
    let gauge = |x: &FloatHistogram| x.counter_reset_hint == CounterResetHint::Gauge;
    if kind.counter && considered.iter().any(|(_, x)| gauge(x)) {
        (env.note)(&Note::NativeHistogramNotCounter(env.metric));
    }
    if !kind.counter && (!gauge(&h[first].1) || !gauge(&h[last].1)) {
        (env.note)(&Note::NativeHistogramNotGauge(env.metric));
    }
    let cut_left = smoothed && h[first].0 < view.start && first + 1 < h.len();
    let cut_right = smoothed && last > 0 && h[last].0 > view.end;
    let left = if cut_left {
        match interpolate_histogram(&h[first], &h[first + 1], view.start, kind.counter) {
            Some(x) => x,
            None => return mixed(),
        }
    } else {
        (*h[first].1).clone()
    };
    let right = if cut_right {
        match interpolate_histogram(&h[last - 1], &h[last], view.end, kind.counter) {
            Some(x) => x,
            None => return mixed(),
        }
    } else {
        (*h[last].1).clone()
    };
    let schema = considered.iter().map(|(_, x)| x.schema).min().unwrap_or(right.schema);
    let mut result = histops::to_schema(&right, schema);
    let combine = |result: &mut FloatHistogram, other: &FloatHistogram, operation| {
        let remarks = match operation {
            HistogramOperation::Subtraction => histops::sub(result, other)?,
            _ => histops::add(result, other)?,
        };
        if remarks.reconciled {
            (env.note)(&Note::MismatchedCustomBuckets(operation));
        }
        Ok::<(), histops::Incompatible>(())
    };
    if combine(&mut result, &left, HistogramOperation::Subtraction).is_err() {
        return mixed();
    }
    if kind.counter {
        // An interpolated left edge has accounted for a reset before the next sample, an interpolated right edge
        // starts from zero if there was one.
        let from = if cut_left { first + 1 } else { first };
        let upto = if cut_right { last - 1 } else { last };
        let mut swallowed = Vec::new();
        for i in from + 1..=upto {
            if histops::detect_reset(&h[i].1, &h[i - 1].1) {
                swallowed.push(&h[i - 1].1);
            }
        }
        if cut_right && last > from && histops::detect_reset(&h[last].1, &h[last - 1].1) {
            swallowed.push(&h[last - 1].1);
        }
        for x in swallowed {
            if combine(&mut result, x, HistogramOperation::Addition).is_err() {
                return mixed();
            }
        }
    }
    if kind.per_second {
        histops::div(&mut result, env.range_s);
    }
    result.counter_reset_hint = CounterResetHint::Gauge;
    histops::compact(&mut result);
    Point::Histogram(Arc::new(result))
}

/// The part of an anchored view that `changes` and `resets` look at: the newest sample before the window, if
/// any, and what is inside. `None` when nothing is inside.
#[must_use]
pub fn anchor<'a>(view: &View<'a>) -> Option<View<'a>> {
    let f = view.t.partition_point(|t| *t <= view.start);
    let h = view.h.partition_point(|(t, _)| *t <= view.start);
    if f == view.t.len() && h == view.h.len() {
        return None;
    }
    let float_before = f.checked_sub(1).map(|i| view.t[i]);
    let histogram_before = h.checked_sub(1).map(|i| view.h[i].0);
    let (f, h) = match (float_before, histogram_before) {
        (Some(a), Some(b)) if a > b => (f - 1, h),
        (_, Some(_)) => (f, h - 1),
        (Some(_), None) => (f - 1, h),
        (None, None) => (f, h),
    };
    Some(View {
        t: &view.t[f..],
        v: &view.v[f..],
        st: view.st.get(f..).unwrap_or_default(),
        h: &view.h[h..],
        hst: view.hst.get(h..).unwrap_or_default(),
        ..*view
    })
}

/// A smoothed instant vector at `view.end`; the view reaches one lookback to both sides.
pub fn smoothed_value(view: &View<'_>, env: &Env<'_>) -> Point {
    if view.is_mixed() {
        (env.note)(&Note::MixedFloatsHistograms(env.metric));
        return Point::None;
    }
    let t = view.end;
    if view.h.is_empty() {
        let after = view.t.partition_point(|x| *x <= t);
        let Some(before) = after.checked_sub(1) else { return Point::None };
        if view.t[before] == t || after == view.t.len() {
            return Point::Float(view.v[before]);
        }
        let (a, b) = ((view.t[before], view.v[before]), (view.t[after], view.v[after]));
        return Point::Float(interpolate(a, b, t, false));
    }
    let after = view.h.partition_point(|(x, _)| *x <= t);
    let Some(before) = after.checked_sub(1) else { return Point::None };
    if view.h[before].0 == t || after == view.h.len() {
        return Point::Histogram(Arc::clone(&view.h[before].1));
    }
    let counter = view.h[before].1.counter_reset_hint != CounterResetHint::Gauge;
    match interpolate_histogram(&view.h[before], &view.h[after], t, counter) {
        Some(h) => Point::Histogram(Arc::new(h)),
        None => {
            (env.note)(&Note::MixedExponentialCustom(env.metric));
            Point::None
        }
    }
}
