//! Functions over windows: each series is decoded once, then two cursors slide over it.

use std::sync::Arc;
use std::time::Instant;

use super::build::{Scalar, Value, build};
use super::column::{Axis, Column, Meta, Point};
use super::context::{Context, Pace};
use super::node::{BoxNode, Node, Scratch};
use super::selector::select;
use super::slide;
use crate::model::SampleBuffer;
use crate::model::histogram::CounterResetHint;
use crate::query::QueryError;
use crate::query::annotations::Note;
use crate::query::explain::Cost;
use crate::query::functions::rate::RateKind;
use crate::query::functions::window::{Env, View, drop_stale, only_count_and_sum};
use crate::query::functions::{Func, extended, histops, over_time, rate};
use crate::query::parse::Span;
use crate::query::parse::ast::RangeExtension;
use crate::query::plan::{Plan, Shift, Source, Window};
use crate::tsdb::SeriesSet;

/// Where samples come from.
enum Feed {
    Storage(Arc<dyn SeriesSet>),
    Subquery { node: BoxNode, axis: Axis },
}

/// The samples of the series of a range vector.
pub struct Windows {
    ctx: Arc<Context>,
    feed: Feed,
    metas: Vec<Meta>,
    /// The steps of the query around.
    pub axis: Axis,
    /// Where in time.
    pub shift: Shift,
    /// Length, milliseconds.
    pub range_ms: i64,
    extension: RangeExtension,
    skip_buckets: bool,
    fixed_name: Option<Arc<str>>,
    cost: Option<Arc<Cost>>,
}

/// The steps of a subquery: absolute multiples of `step_ms`, the first one after the left edge of the first
/// window.
#[must_use]
pub fn subquery_axis(axis: Axis, shift: Shift, range_ms: i64, step_ms: i64) -> Axis {
    let from = shift.apply(axis.start).saturating_sub(range_ms);
    let to = shift.apply(axis.last());
    let start = from.div_euclid(step_ms).saturating_add(1).saturating_mul(step_ms);
    let n = if to < start { 0 } else { ((to - start) / step_ms + 1) as usize };
    Axis { start, step: step_ms, n }
}

/// Steps a subquery may have: more do not fit any sensible memory.
const MAX_SUBQUERY_STEPS: usize = 50_000_000;

impl Windows {
    /// The window of the node `plan`, which counts what it costs when the query is explained.
    pub fn of(
        ctx: &Arc<Context>,
        plan: &Plan,
        window: &Window,
        axis: Axis,
        root: &super::build::Root,
    ) -> Result<Self, QueryError> {
        let cost = ctx.profile.as_ref().map(|profile| profile.cost(plan));
        let began = Instant::now();
        let windows = Self::new(ctx, window, axis, root)?;
        if let Some(cost) = &cost {
            cost.add_time(began.elapsed());
            cost.add_series(windows.metas.len());
        }
        Ok(Self { cost, ..windows })
    }

    /// Selects the series; reads no sample yet (a subquery may, for its labels).
    pub fn new(
        ctx: &Arc<Context>,
        window: &Window,
        axis: Axis,
        root: &super::build::Root,
    ) -> Result<Self, QueryError> {
        let shift = window.source.shift();
        let (mut extension, mut fixed_name, mut skip_buckets) = (RangeExtension::None, None, false);
        let (feed, metas) = match &window.source {
            Source::Selector(selector) => {
                extension = selector.extension;
                fixed_name = selector.fixed_name().cloned();
                skip_buckets = selector.skip_buckets;
                let reach = reach(ctx, axis, shift, window.range_ms, extension);
                let set = select(ctx, selector, axis, window.range_ms, reach)?;
                let metas = (0..set.len()).map(|i| Meta::new(set.labels(i))).collect();
                (Feed::Storage(set), metas)
            }
            Source::Subquery { expr, step_ms, shift } => {
                let inner = subquery_axis(axis, *shift, window.range_ms, *step_ms);
                if inner.n > MAX_SUBQUERY_STEPS {
                    return Err(QueryError::Execution(format!(
                        "query processing would load too many samples into memory in query execution: a subquery of {} steps (limit {MAX_SUBQUERY_STEPS})",
                        inner.n
                    )));
                }
                ctx.touch(inner.n)?;
                let node = match build(ctx, expr, inner, root)? {
                    Value::Vector(node) => node,
                    Value::Scalar(scalar) => scalar.into_vector(ctx, inner),
                    Value::String(_) => {
                        return Err(QueryError::Execution("a string has no subquery".into()));
                    }
                };
                let metas = node.metas().to_vec();
                (Feed::Subquery { node, axis: inner }, metas)
            }
        };
        Ok(Self {
            ctx: Arc::clone(ctx),
            feed,
            metas,
            axis,
            shift,
            range_ms: window.range_ms,
            extension,
            skip_buckets,
            fixed_name,
            cost: None,
        })
    }

    /// The series.
    #[must_use]
    pub fn metas(&self) -> &[Meta] {
        &self.metas
    }

    /// The metric name of a series, for remarks.
    #[must_use]
    pub fn metric(&self, i: usize) -> &str {
        if let Some(name) = &self.fixed_name {
            return name;
        }
        let meta = &self.metas[i];
        if meta.drop_name && !self.ctx.rules.delayed_name_removal { "" } else { meta.labels.metric_name() }
    }

    /// The query.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Loads series `i` without stale markers.
    pub fn load(&self, i: usize, scratch: &mut Scratch, out: &mut SampleBuffer) -> Result<(), QueryError> {
        let Some(cost) = &self.cost else { return self.read(i, scratch, out) };
        let began = Instant::now();
        let result = self.read(i, scratch, out);
        cost.add_time(began.elapsed());
        cost.add_samples(out.len());
        result
    }

    fn read(&self, i: usize, scratch: &mut Scratch, out: &mut SampleBuffer) -> Result<(), QueryError> {
        match &self.feed {
            Feed::Storage(set) => {
                let (from, to) = reach(&self.ctx, self.axis, self.shift, self.range_ms, self.extension);
                set.samples(i, from, to, out)?;
                self.ctx.count_samples(out.len() as u64, 0);
                drop_stale(out);
                if self.skip_buckets {
                    only_count_and_sum(out);
                }
            }
            Feed::Subquery { node, axis } => {
                out.clear();
                let mut column = scratch.take_column();
                let result = node.fill(i, scratch, &mut column);
                for (step, v) in column.values.iter().enumerate() {
                    if !super::column::is_absent(*v) {
                        out.push_float(axis.time(step), *v);
                    }
                }
                for (step, mut h) in column.histograms.drain(..) {
                    // The points skip samples: what storage knows about resets is not true between them.
                    if !matches!(h.counter_reset_hint, CounterResetHint::Gauge | CounterResetHint::Unknown) {
                        Arc::make_mut(&mut h).counter_reset_hint = CounterResetHint::Unknown;
                    }
                    out.push_histogram(axis.time(step as usize), 0, h);
                }
                scratch.give_column(column);
                result?;
            }
        }
        self.ctx.touch(out.len())
    }

    /// Edges of the window of a step: left (not included), right, and how far the view reaches to both sides.
    #[must_use]
    pub fn edges(&self, step: usize) -> (i64, i64, i64, i64) {
        let end = self.shift.apply(self.axis.time(step));
        let start = end.saturating_sub(self.range_ms);
        let lookback = self.ctx.rules.lookback_ms;
        match self.extension {
            RangeExtension::None => (start, end, start, end),
            RangeExtension::Anchored => (start, end, start.saturating_sub(lookback), end),
            RangeExtension::Smoothed => {
                (start, end, start.saturating_sub(lookback), end.saturating_add(lookback))
            }
        }
    }

    fn cost(&self) -> usize {
        match &self.feed {
            Feed::Storage(_) => {
                let reach = self.axis.last().saturating_sub(self.axis.start).saturating_add(self.range_ms);
                // About one sample every 15 seconds.
                self.axis.n + (reach / 15_000).clamp(1, 1 << 30) as usize
            }
            Feed::Subquery { node, axis } => self.axis.n + axis.n + node.cost(),
        }
    }
}

fn reach(ctx: &Context, axis: Axis, shift: Shift, range_ms: i64, extension: RangeExtension) -> (i64, i64) {
    let lookback = ctx.rules.lookback_ms;
    let (before, after) = match extension {
        RangeExtension::None => (0, 0),
        RangeExtension::Anchored => (lookback, 0),
        RangeExtension::Smoothed => (lookback, lookback),
    };
    let from = shift.apply(axis.start).saturating_sub(range_ms).saturating_sub(before).saturating_add(1);
    (from, shift.apply(axis.last()).saturating_add(after))
}

/// A function applied to the windows of each series.
pub struct RangeNode {
    windows: Windows,
    metas: Vec<Meta>,
    func: Func,
    params: Vec<Scalar>,
    /// Place of the window argument.
    span: Span,
}

impl RangeNode {
    /// Checks what can be checked before the first sample.
    pub fn new(
        windows: Windows,
        func: Func,
        params: Vec<Scalar>,
        span: Span,
        param_span: Span,
    ) -> Result<Self, QueryError> {
        check_extension(func, windows.extension)?;
        let n = windows.axis.n;
        match func {
            Func::QuantileOverTime => {
                for phi in (0..n).map(|step| params[0].at(step)) {
                    if !(0.0..=1.0).contains(&phi) && !windows.metas().is_empty() {
                        windows.ctx.note(&Note::InvalidQuantile(phi), param_span);
                    }
                }
            }
            Func::DoubleExponentialSmoothing => {
                for step in 0..n {
                    check_factor("smoothing", "sf", params[0].at(step))?;
                    check_factor("trend", "tf", params[1].at(step))?;
                }
            }
            _ => {}
        }
        let keeps_name = matches!(func, Func::LastOverTime | Func::FirstOverTime);
        let metas = windows
            .metas()
            .iter()
            .map(|m| Meta { labels: m.labels.clone(), drop_name: m.drop_name || !keeps_name })
            .collect();
        Ok(Self { windows, metas, func, params, span })
    }

    fn note(&self, note: &Note<'_>) {
        self.windows.ctx.note(note, self.span);
    }

    /// The remark that a rate is taken of something that does not look like a counter.
    fn check_counter(&self, i: usize, buffer: &SampleBuffer) {
        if !matches!(self.func, Func::Rate | Func::Increase) || buffer.timestamps.is_empty() {
            return;
        }
        let metric = self.windows.metric(i);
        if metric.is_empty() {
            return;
        }
        if self.windows.ctx.rules.type_and_unit_labels {
            let kind = self.windows.metas[i].labels.value("__type__");
            if kind != "counter" && kind != "histogram" {
                self.note(&Note::PossibleNonCounterType(metric, kind));
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|s| metric.ends_with(s)) {
            self.note(&Note::PossibleNonCounter(metric));
        }
    }

    fn eval(&self, view: &View<'_>, step: usize, room: &mut Vec<f64>, env: &Env<'_>) -> Point {
        let kind = |counter, per_second| RateKind { counter, per_second };
        let extension = self.windows.extension;
        if extension != RangeExtension::None {
            let smoothed = extension == RangeExtension::Smoothed;
            return match self.func {
                Func::Rate => extended::rate(view, kind(true, true), smoothed, env),
                Func::Increase => extended::rate(view, kind(true, false), smoothed, env),
                Func::Delta => extended::rate(view, kind(false, false), smoothed, env),
                Func::Changes => extended::anchor(view).map_or(Point::None, |v| over_time::changes(&v)),
                Func::Resets => extended::anchor(view).map_or(Point::None, |v| over_time::resets(&v, env)),
                _ => Point::None,
            };
        }
        let param = |i: usize| self.params[i].at(step);
        match self.func {
            Func::Rate => rate::rate(view, kind(true, true), env),
            Func::Increase => rate::rate(view, kind(true, false), env),
            Func::Delta => rate::rate(view, kind(false, false), env),
            Func::Irate => rate::instant_rate(view, true, env),
            Func::Idelta => rate::instant_rate(view, false, env),
            Func::SumOverTime => over_time::sum(view, env),
            Func::AvgOverTime => over_time::avg(view, env),
            Func::MinOverTime => over_time::extreme(view, false, env),
            Func::MaxOverTime => over_time::extreme(view, true, env),
            Func::CountOverTime => over_time::count(view),
            Func::PresentOverTime | Func::AbsentOverTime => over_time::present(view),
            Func::LastOverTime => over_time::last(view),
            Func::FirstOverTime => over_time::first(view),
            Func::StddevOverTime => over_time::variance(view, true, env),
            Func::StdvarOverTime => over_time::variance(view, false, env),
            Func::QuantileOverTime => over_time::quantile_over_time(view, param(0), room, env),
            Func::MadOverTime => over_time::mad(view, room, env),
            Func::TsOfMinOverTime => over_time::time_of_extreme(view, false, env),
            Func::TsOfMaxOverTime => over_time::time_of_extreme(view, true, env),
            Func::TsOfFirstOverTime => over_time::time_of_end(view, false),
            Func::TsOfLastOverTime => over_time::time_of_end(view, true),
            Func::Changes => over_time::changes(view),
            Func::Resets => over_time::resets(view, env),
            Func::Deriv => over_time::deriv(view, env),
            Func::PredictLinear => over_time::predict_linear(view, param(0), env),
            Func::DoubleExponentialSmoothing => over_time::smoothing(view, param(0), param(1), env),
            _ => Point::None,
        }
    }

    fn slide(
        &self,
        buffer: &SampleBuffer,
        room: &mut Vec<f64>,
        env: &Env<'_>,
        out: &mut Column,
    ) -> Result<u64, QueryError> {
        let (mut f, mut h) = (0..0, 0..0);
        let (mut looked_at, mut pace) = (0u64, Pace::default());
        for step in 0..self.windows.axis.n {
            pace.step(&self.windows.ctx, 4 * f.len() + 64 * h.len() + 16)?;
            let (start, end, from, to) = self.windows.edges(step);
            let advance = |range: &mut std::ops::Range<usize>, len: usize, t: &dyn Fn(usize) -> i64| {
                while range.end < len && t(range.end) <= to {
                    range.end += 1;
                }
                while range.start < range.end && t(range.start) <= from {
                    range.start += 1;
                }
            };
            advance(&mut f, buffer.timestamps.len(), &|i| buffer.timestamps[i]);
            if !buffer.histograms.is_empty() {
                advance(&mut h, buffer.histograms.len(), &|i| buffer.histograms[i].0);
            }
            if f.is_empty() && h.is_empty() {
                continue;
            }
            let weight = f.len() as u64
                + buffer.histograms[h.clone()].iter().map(|(_, h)| histops::weight(h)).sum::<u64>();
            looked_at += weight;
            let now = self.windows.axis.time(step);
            if self.windows.ctx.counts_steps() {
                self.windows.ctx.count_step(now, weight);
            }
            let view = View::of(buffer, f.clone(), h.clone(), start, end, now);
            out.push(step, self.eval(&view, step, room, env));
        }
        Ok(looked_at)
    }
}

fn check_factor(what: &str, name: &str, v: f64) -> Result<(), QueryError> {
    if v > 0.0 && v < 1.0 {
        return Ok(());
    }
    Err(QueryError::Execution(format!("invalid {what} factor. Expected: 0 < {name} < 1, got: {v:.6}")))
}

fn check_extension(func: Func, extension: RangeExtension) -> Result<(), QueryError> {
    let (word, allowed): (_, &[Func]) = match extension {
        RangeExtension::None => return Ok(()),
        RangeExtension::Anchored => {
            ("anchored", &[Func::Changes, Func::Delta, Func::Increase, Func::Rate, Func::Resets])
        }
        RangeExtension::Smoothed => ("smoothed", &[Func::Delta, Func::Increase, Func::Rate]),
    };
    if allowed.contains(&func) {
        return Ok(());
    }
    let names: Vec<&str> = allowed.iter().map(|f| f.name()).collect();
    Err(QueryError::Execution(format!(
        "{word} modifier can only be used with: {} - not with {}",
        names.join(", "),
        func.name()
    )))
}

impl Node for RangeNode {
    fn metas(&self) -> &[Meta] {
        &self.metas
    }

    fn fill(&self, i: usize, scratch: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        out.reset(self.windows.axis.n);
        let mut buffer = scratch.take_buffer();
        let mut result = self.windows.load(i, scratch, &mut buffer);
        if result.is_ok() && !buffer.is_empty() {
            let ctx = &self.windows.ctx;
            self.check_counter(i, &buffer);
            let note = |note: &Note<'_>| ctx.note(note, self.span);
            let env = Env {
                metric: self.windows.metric(i),
                range_s: self.windows.range_ms as f64 / 1000.0,
                use_start_timestamps: ctx.rules.use_start_timestamps,
                note: &note,
            };
            let floats_alone = buffer.histograms.is_empty()
                && self.windows.extension == RangeExtension::None
                && (buffer.float_start_ts.is_empty() || !env.use_start_timestamps)
                && !ctx.counts_steps();
            let fast = if floats_alone {
                slide::fast(self.func, &self.params, &self.windows, &buffer, out)
            } else {
                Ok(None)
            };
            let looked_at = match fast {
                Ok(None) => self.slide(&buffer, &mut scratch.floats, &env, out),
                Ok(Some(looked_at)) => Ok(looked_at),
                Err(error) => Err(error),
            };
            result = looked_at.map(|looked_at| ctx.count_samples(0, looked_at));
        }
        scratch.give_buffer(buffer);
        result
    }

    fn cost(&self) -> usize {
        self.windows.cost()
    }
}
