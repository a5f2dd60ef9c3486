//! Functions over windows of samples other than the rates.

use std::sync::Arc;

use super::histogram_sum::HistogramSum;
use super::window::{Either, Env, View};
use super::{histops, kahan, quantile, rate};
use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::query::annotations::{HistogramOperation, Note};
use crate::query::exec::column::Point;

/// Notes that histograms beside the floats were left out; answers whether there are floats at all.
fn floats_only(view: &View<'_>, env: &Env<'_>) -> bool {
    if view.t.is_empty() {
        return false;
    }
    if !view.h.is_empty() {
        (env.note)(&Note::HistogramIgnoredInMixedRange(env.metric));
    }
    true
}

/// `sum_over_time`.
pub fn sum(view: &View<'_>, env: &Env<'_>) -> Point {
    if view.is_mixed() {
        (env.note)(&Note::MixedFloatsHistograms(env.metric));
        return Point::None;
    }
    if view.h.is_empty() {
        return if view.v.is_empty() { Point::None } else { Point::Float(kahan::sum(view.v)) };
    }
    histogram_sum(view, false, env)
}

/// `avg_over_time`.
pub fn avg(view: &View<'_>, env: &Env<'_>) -> Point {
    if view.is_mixed() {
        (env.note)(&Note::MixedFloatsHistograms(env.metric));
        return Point::None;
    }
    if let Some((first, rest)) = view.v.split_first() {
        let mut mean = kahan::Mean::first(*first);
        rest.iter().for_each(|v| mean.add(*v));
        return Point::Float(mean.get());
    }
    histogram_sum(view, true, env)
}

fn histogram_sum(view: &View<'_>, mean: bool, env: &Env<'_>) -> Point {
    let Some((_, first)) = view.h.first() else { return Point::None };
    let mut sum = HistogramSum::first(first, mean);
    for (_, h) in &view.h[1..] {
        if sum.add(h).is_err() {
            (env.note)(&Note::MixedExponentialCustom(env.metric));
            return Point::None;
        }
    }
    if sum.collides() {
        (env.note)(&Note::CounterResetCollision(HistogramOperation::Aggregation));
    }
    if sum.reconciled() {
        (env.note)(&Note::MismatchedCustomBuckets(HistogramOperation::Aggregation));
    }
    Point::Histogram(Arc::new(sum.finish()))
}

/// Which reset hints the addends of a sum have.
#[derive(Debug, Clone, Copy, Default)]
pub struct HintsSeen {
    reset: bool,
    not_reset: bool,
}

impl HintsSeen {
    /// Notes the hint of one more addend.
    pub fn add(&mut self, h: &FloatHistogram) {
        match h.counter_reset_hint {
            CounterResetHint::Reset => self.reset = true,
            CounterResetHint::NotReset => self.not_reset = true,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
    }

    /// Whether some say reset and others not.
    #[must_use]
    pub fn collide(&self) -> bool {
        self.reset && self.not_reset
    }
}

/// `min_over_time` or `max_over_time`: the extreme of what is not NaN, NaN if all is.
pub fn extreme(view: &View<'_>, max: bool, env: &Env<'_>) -> Point {
    if !floats_only(view, env) {
        return Point::None;
    }
    let mut found = view.v[0];
    for v in view.v {
        if (if max { *v > found } else { *v < found }) || found.is_nan() {
            found = *v;
        }
    }
    Point::Float(found)
}

/// `ts_of_min_over_time` or `ts_of_max_over_time`: seconds of the last extreme.
pub fn time_of_extreme(view: &View<'_>, max: bool, env: &Env<'_>) -> Point {
    if !floats_only(view, env) {
        return Point::None;
    }
    let (mut found, mut at) = (view.v[0], view.t[0]);
    for (v, t) in view.v.iter().zip(view.t) {
        if (if max { *v >= found } else { *v <= found }) || found.is_nan() {
            (found, at) = (*v, *t);
        }
    }
    Point::Float(at as f64 / 1000.0)
}

fn to_point(value: Either<'_>) -> Point {
    match value {
        Either::Float(v) => Point::Float(v),
        Either::Histogram(h) => Point::Histogram(Arc::clone(h)),
    }
}

/// `last_over_time`.
pub fn last(view: &View<'_>) -> Point {
    view.last_two().1.map_or(Point::None, |s| to_point(s.value))
}

/// `first_over_time`.
pub fn first(view: &View<'_>) -> Point {
    view.first().map_or(Point::None, |s| to_point(s.value))
}

/// `ts_of_last_over_time` and `ts_of_first_over_time`.
pub fn time_of_end(view: &View<'_>, last: bool) -> Point {
    let sample = if last { view.last_two().1 } else { view.first() };
    sample.map_or(Point::None, |s| Point::Float(s.t as f64 / 1000.0))
}

/// `count_over_time`.
pub fn count(view: &View<'_>) -> Point {
    if view.is_empty() { Point::None } else { Point::Float((view.t.len() + view.h.len()) as f64) }
}

/// `present_over_time`.
pub fn present(view: &View<'_>) -> Point {
    if view.is_empty() { Point::None } else { Point::Float(1.0) }
}

/// `stdvar_over_time`, or with `root` `stddev_over_time`: Welford's method with compensated sums.
pub fn variance(view: &View<'_>, root: bool, env: &Env<'_>) -> Point {
    if !floats_only(view, env) {
        return Point::None;
    }
    let (mut count, mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for v in view.v {
        count += 1.0;
        let delta = v - (mean + mean_c);
        (mean, mean_c) = kahan::add(delta / count, mean, mean_c);
        (aux, aux_c) = kahan::add(delta * (v - (mean + mean_c)), aux, aux_c);
    }
    let variance = (aux + aux_c) / count;
    Point::Float(if root { variance.sqrt() } else { variance })
}

/// `quantile_over_time`; the caller warns about φ.
pub fn quantile_over_time(view: &View<'_>, phi: f64, room: &mut Vec<f64>, env: &Env<'_>) -> Point {
    if !floats_only(view, env) {
        return Point::None;
    }
    room.clear();
    room.extend_from_slice(view.v);
    Point::Float(quantile::quantile(phi, room))
}

/// `mad_over_time`: median distance from the median.
pub fn mad(view: &View<'_>, room: &mut Vec<f64>, env: &Env<'_>) -> Point {
    if !floats_only(view, env) {
        return Point::None;
    }
    if view.v.iter().any(|v| v.is_nan()) {
        return Point::Float(f64::NAN);
    }
    room.clear();
    room.extend_from_slice(view.v);
    let median = quantile::quantile(0.5, room);
    room.iter_mut().for_each(|v| *v = (*v - median).abs());
    Point::Float(quantile::quantile(0.5, room))
}

/// `changes`.
pub fn changes(view: &View<'_>) -> Point {
    count_pairs(view, |a, b| match (a, b) {
        (Either::Float(a), Either::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Either::Histogram(a), Either::Histogram(b)) => !histops::equal(a, b),
        _ => true,
    })
}

fn count_pairs(view: &View<'_>, differs: impl Fn(Either<'_>, Either<'_>) -> bool) -> Point {
    if view.is_empty() {
        return Point::None;
    }
    let (mut count, mut previous) = (0u64, None);
    for sample in view.iter() {
        count += u64::from(previous.is_some_and(|previous| differs(previous, sample.value)));
        previous = Some(sample.value);
    }
    Point::Float(count as f64)
}

/// `resets`.
pub fn resets(view: &View<'_>, env: &Env<'_>) -> Point {
    if view.is_empty() {
        return Point::None;
    }
    let (mut count, mut previous) = (0u64, None::<super::window::Timed<'_>>);
    for sample in view.iter() {
        if let Some(previous) = previous {
            let reset = match (previous.value, sample.value) {
                (Either::Float(a), Either::Float(b)) => b < a,
                (Either::Histogram(a), Either::Histogram(b)) => histops::detect_reset(b, a),
                _ => true,
            };
            let anew =
                env.use_start_timestamps && rate::starts_anew(previous.t, previous.st, sample.t, sample.st);
            count += u64::from(reset || anew);
        }
        previous = Some(sample);
    }
    Point::Float(count as f64)
}

/// The sums of least squares over the samples of `N` windows side by side, each in order of time.
#[derive(Debug, Clone, Copy)]
pub struct Lines<const N: usize> {
    first: [f64; N],
    intercept_t: [i64; N],
    /// Above 0 once a value differs from the first one.
    varied: [f64; N],
    n: f64,
    sums: [[f64; N]; 4],
    errors: [[f64; N]; 4],
}

impl<const N: usize> Lines<N> {
    /// No samples yet; `first` is the value of the first one, `intercept_t` where the line is to be known.
    #[inline]
    #[must_use]
    pub fn new(first: [f64; N], intercept_t: [i64; N]) -> Self {
        Self { first, intercept_t, varied: [0.0; N], n: 0.0, sums: [[0.0; N]; 4], errors: [[0.0; N]; 4] }
    }

    /// Adds a sample to each window.
    #[inline(always)]
    pub fn add(&mut self, t: [i64; N], y: [f64; N]) {
        self.n += 1.0;
        for (l, (t, y)) in t.into_iter().zip(y).enumerate() {
            self.varied[l] += if y == self.first[l] { 0.0 } else { 1.0 };
            let x = (t - self.intercept_t[l]) as f64 / 1e3;
            for (k, term) in [x, y, x * y, x * x].into_iter().enumerate() {
                (self.sums[k][l], self.errors[k][l]) = kahan::add(term, self.sums[k][l], self.errors[k][l]);
            }
        }
    }

    /// One of the windows alone.
    #[must_use]
    pub fn one(&self, l: usize) -> Lines<1> {
        Lines {
            first: [self.first[l]],
            intercept_t: [self.intercept_t[l]],
            varied: [self.varied[l]],
            n: self.n,
            sums: self.sums.map(|lanes| [lanes[l]]),
            errors: self.errors.map(|lanes| [lanes[l]]),
        }
    }
}

impl Lines<1> {
    /// Slope per second and value at the intercept; needs two samples.
    #[must_use]
    pub fn solve(&self) -> (f64, f64) {
        let [first] = self.first;
        if self.varied == [0.0] {
            return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
        }
        let n = self.n;
        let [x_sum, y_sum, xy_sum, xx_sum] = std::array::from_fn(|k| self.sums[k][0] + self.errors[k][0]);
        let covariance = xy_sum - x_sum * y_sum / n;
        let variance = xx_sum - x_sum * x_sum / n;
        let slope = covariance / variance;
        (slope, y_sum / n - slope * x_sum / n)
    }
}

/// Least squares: slope per second and value at `intercept_t`.
#[must_use]
pub fn regression(t: &[i64], v: &[f64], intercept_t: i64) -> (f64, f64) {
    let mut line = Lines::new([v[0]], [intercept_t]);
    t.iter().zip(v).for_each(|(t, v)| line.add([*t], [*v]));
    line.solve()
}

fn enough_for_a_line(view: &View<'_>, env: &Env<'_>) -> bool {
    if view.is_mixed() {
        (env.note)(&Note::HistogramIgnoredInMixedRange(env.metric));
    }
    view.t.len() >= 2
}

/// `deriv`.
pub fn deriv(view: &View<'_>, env: &Env<'_>) -> Point {
    if !enough_for_a_line(view, env) {
        return Point::None;
    }
    Point::Float(regression(view.t, view.v, view.t[0]).0)
}

/// `predict_linear`.
pub fn predict_linear(view: &View<'_>, ahead_s: f64, env: &Env<'_>) -> Point {
    if !enough_for_a_line(view, env) {
        return Point::None;
    }
    let (slope, intercept) = regression(view.t, view.v, view.now);
    Point::Float(slope * ahead_s + intercept)
}

/// `double_exponential_smoothing`; the factors were checked to lie in (0, 1).
pub fn smoothing(view: &View<'_>, smoothing: f64, trend: f64, env: &Env<'_>) -> Point {
    if !enough_for_a_line(view, env) {
        return Point::None;
    }
    let (mut before, mut current) = (0.0, view.v[0]);
    let mut slope = view.v[1] - view.v[0];
    for (i, v) in view.v.iter().enumerate().skip(1) {
        let x = smoothing * v;
        if i > 1 {
            slope = trend * (current - before) + (1.0 - trend) * slope;
        }
        let y = (1.0 - smoothing) * (current + slope);
        (before, current) = (current, x + y);
    }
    Point::Float(current)
}
