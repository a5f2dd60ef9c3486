//! Instant vectors: at each step the newest sample of each series that is not older than the lookback.

use std::sync::Arc;

use super::column::{Axis, Column, Meta};
use super::context::Context;
use super::node::{Node, Scratch};
use crate::model::{SampleBuffer, is_stale_nan};
use crate::query::QueryError;
use crate::query::functions::extended;
use crate::query::functions::histops;
use crate::query::functions::window::{Env, View, drop_stale, only_count_and_sum};
use crate::query::parse::Span;
use crate::query::parse::ast::RangeExtension;
use crate::query::plan::{Selector, Shift};
use crate::tsdb::{SelectHints, SeriesSet};

/// What of a sample becomes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Its value.
    Value,
    /// Its timestamp, seconds (`timestamp`).
    Timestamp,
    /// Its start timestamp, seconds (`start_timestamp`).
    StartTimestamp,
}

/// A selector.
pub struct SelectorNode {
    ctx: Arc<Context>,
    set: Arc<dyn SeriesSet>,
    metas: Vec<Meta>,
    axis: Axis,
    shift: Shift,
    smoothed: bool,
    take: Take,
    skip_buckets: bool,
    span: Span,
}

/// Selects the series of `selector` with samples in `[min_t, max_t]`.
pub fn select(
    ctx: &Context,
    selector: &Selector,
    axis: Axis,
    range_ms: i64,
    (min_t, max_t): (i64, i64),
) -> Result<Arc<dyn SeriesSet>, QueryError> {
    let hints = SelectHints {
        start_ms: min_t,
        end_ms: max_t,
        step_ms: if axis.n > 1 { axis.step } else { 0 },
        range_ms,
        function: selector.function.clone(),
        projection: selector.projection.clone(),
        skip_histogram_buckets: selector.skip_buckets,
        presence_alone: selector.presence_alone,
        limit: 0,
        repeats: ctx.repeats,
    };
    ctx.select(&hints, &selector.matchers)
}

impl SelectorNode {
    /// Selects the series; reads no sample yet.
    pub fn new(
        ctx: &Arc<Context>,
        selector: &Selector,
        axis: Axis,
        take: Take,
        span: Span,
    ) -> Result<Self, QueryError> {
        let smoothed = selector.extension == RangeExtension::Smoothed;
        let reach = reach(ctx, axis, selector.shift, smoothed);
        let set = select(ctx, selector, axis, 0, reach)?;
        let drop_name = take != Take::Value;
        let metas = (0..set.len()).map(|i| Meta { labels: set.labels(i), drop_name }).collect();
        Ok(Self {
            ctx: Arc::clone(ctx),
            set,
            metas,
            axis,
            shift: selector.shift,
            smoothed,
            take,
            skip_buckets: selector.skip_buckets,
            span,
        })
    }

    fn fill_smoothed(&self, i: usize, buffer: &mut SampleBuffer, out: &mut Column) {
        drop_stale(buffer);
        let lookback = self.ctx.rules.lookback_ms;
        let note = |note: &crate::query::annotations::Note<'_>| self.ctx.note(note, self.span);
        let env = Env {
            metric: self.metas[i].labels.metric_name(),
            range_s: 0.0,
            use_start_timestamps: false,
            note: &note,
        };
        for step in 0..self.axis.n {
            let t = self.shift.apply(self.axis.time(step));
            let view = View::between(buffer, t - lookback, t + lookback, t, self.axis.time(step));
            let view = View { start: t - lookback, end: t, ..view };
            out.push(step, extended::smoothed_value(&view, &env));
        }
    }

    /// One step whose sample is at hand; answers whether it was.
    fn fill_latest(&self, i: usize, out: &mut Column) -> bool {
        if self.axis.n != 1 || self.smoothed || self.take == Take::StartTimestamp || self.ctx.counts_steps() {
            return false;
        }
        let at = self.shift.apply(self.axis.start);
        let Some((t, v)) = self.set.latest(i, at) else { return false };
        let found = at - t < self.ctx.rules.lookback_ms && !is_stale_nan(v);
        if found {
            out.values[0] = if self.take == Take::Timestamp { t as f64 / 1000.0 } else { v };
        }
        self.ctx.count_samples(1, u64::from(found));
        true
    }

    /// Floats alone: one pass over samples and steps.
    fn fill_floats(&self, buffer: &SampleBuffer, out: &mut Column) -> u64 {
        let lookback = self.ctx.rules.lookback_ms;
        let (t, v) = (&buffer.timestamps[..], &buffer.values[..buffer.timestamps.len()]);
        let mut next = 0;
        let mut looked_at = 0;
        let mut time = self.axis.start;
        for value in &mut out.values {
            let at = self.shift.apply(time);
            time = time.saturating_add(self.axis.step);
            // With a fixed `@` the time stands still; otherwise it only grows.
            while next < t.len() && t[next] <= at {
                next += 1;
            }
            let Some(i) = next.checked_sub(1) else { continue };
            if at - t[i] >= lookback || is_stale_nan(v[i]) {
                continue;
            }
            looked_at += 1;
            *value = match self.take {
                Take::Value => v[i],
                Take::Timestamp => t[i] as f64 / 1000.0,
                Take::StartTimestamp => seconds(buffer.float_start_ts.get(i)),
            };
        }
        looked_at
    }

    fn fill_mixed(&self, buffer: &SampleBuffer, out: &mut Column) -> u64 {
        let lookback = self.ctx.rules.lookback_ms;
        let (mut f, mut h) = (0, 0);
        let mut looked_at = 0;
        for step in 0..self.axis.n {
            let at = self.shift.apply(self.axis.time(step));
            while f < buffer.timestamps.len() && buffer.timestamps[f] <= at {
                f += 1;
            }
            while h < buffer.histograms.len() && buffer.histograms[h].0 <= at {
                h += 1;
            }
            let float_t = f.checked_sub(1).map(|i| buffer.timestamps[i]);
            let histogram = h.checked_sub(1).map(|i| (i, &buffer.histograms[i]));
            if let Some((i, (t, value))) = histogram
                && float_t.is_none_or(|float_t| float_t < *t)
            {
                if at - t >= lookback || is_stale_nan(value.sum) {
                    continue;
                }
                looked_at += histops::weight(value);
                match self.take {
                    Take::Value => out.histograms.push((step as u32, Arc::clone(value))),
                    Take::Timestamp => out.values[step] = *t as f64 / 1000.0,
                    Take::StartTimestamp => out.values[step] = seconds(buffer.histogram_start_ts.get(i)),
                }
            } else if let Some(t) = float_t {
                let i = f - 1;
                if at - t >= lookback || is_stale_nan(buffer.values[i]) {
                    continue;
                }
                looked_at += 1;
                match self.take {
                    Take::Value => out.values[step] = buffer.values[i],
                    Take::Timestamp => out.values[step] = t as f64 / 1000.0,
                    Take::StartTimestamp => out.values[step] = seconds(buffer.float_start_ts.get(i)),
                }
            }
        }
        looked_at
    }
}

/// Seconds of a start timestamp, 0 if there is none.
fn seconds(st: Option<&i64>) -> f64 {
    st.map_or(0.0, |st| *st as f64 / 1000.0)
}

fn reach(ctx: &Context, axis: Axis, shift: Shift, smoothed: bool) -> (i64, i64) {
    let lookback = ctx.rules.lookback_ms;
    let from = shift.apply(axis.start).saturating_sub(lookback).saturating_add(1);
    let to = shift.apply(axis.last()).saturating_add(if smoothed { lookback } else { 0 });
    (from, to)
}

impl Node for SelectorNode {
    fn metas(&self) -> &[Meta] {
        &self.metas
    }

    fn fill(&self, i: usize, scratch: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        out.reset(self.axis.n);
        if self.fill_latest(i, out) {
            return self.ctx.touch(1);
        }
        let (from, to) = reach(&self.ctx, self.axis, self.shift, self.smoothed);
        let mut buffer = scratch.take_buffer();
        let result = self.set.samples(i, from, to, &mut buffer);
        if result.is_ok() {
            if self.skip_buckets {
                only_count_and_sum(&mut buffer);
            }
            let looked_at = if self.smoothed {
                self.fill_smoothed(i, &mut buffer, out);
                out.count() as u64
            } else if buffer.histograms.is_empty() {
                self.fill_floats(&buffer, out)
            } else {
                self.fill_mixed(&buffer, out)
            };
            self.ctx.count_samples(buffer.len() as u64, looked_at);
            if self.ctx.counts_steps() {
                for step in (0..self.axis.n).filter(|step| out.has(*step)) {
                    self.ctx.count_step(self.axis.time(step), 1);
                }
            }
        }
        let samples = buffer.len();
        scratch.give_buffer(buffer);
        result?;
        self.ctx.touch(samples)
    }

    fn cost(&self) -> usize {
        self.axis.n + 16
    }
}
