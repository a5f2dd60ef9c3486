//! The samples a window function sees, and how it reports remarks.

use std::sync::Arc;

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::{SampleBuffer, is_stale_nan};
use crate::query::annotations::Note;

/// The samples of one series in one window, as columns; no stale markers.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Timestamps of the floats, milliseconds.
    pub t: &'a [i64],
    /// Floats.
    pub v: &'a [f64],
    /// Start timestamps of the floats; empty when none is known.
    pub st: &'a [i64],
    /// Histograms with their timestamps.
    pub h: &'a [(i64, Arc<FloatHistogram>)],
    /// Start timestamps of the histograms; empty when none is known.
    pub hst: &'a [i64],
    /// Left edge, not included.
    pub start: i64,
    /// Right edge, included.
    pub end: i64,
    /// Time of the step.
    pub now: i64,
}

/// A sample of either kind.
#[derive(Debug, Clone, Copy)]
pub enum Either<'a> {
    /// Float.
    Float(f64),
    /// Histogram.
    Histogram(&'a Arc<FloatHistogram>),
}

/// A sample with its times.
#[derive(Debug, Clone, Copy)]
pub struct Timed<'a> {
    /// Timestamp, milliseconds.
    pub t: i64,
    /// Start timestamp, 0 = unknown.
    pub st: i64,
    /// Value.
    pub value: Either<'a>,
}

impl<'a> View<'a> {
    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.t.is_empty() && self.h.is_empty()
    }

    /// Whether there are floats and histograms.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        !self.t.is_empty() && !self.h.is_empty()
    }

    fn float(&self, i: usize) -> Timed<'a> {
        Timed { t: self.t[i], st: self.st.get(i).copied().unwrap_or(0), value: Either::Float(self.v[i]) }
    }

    fn histogram(&self, i: usize) -> Timed<'a> {
        let (t, h) = &self.h[i];
        Timed { t: *t, st: self.hst.get(i).copied().unwrap_or(0), value: Either::Histogram(h) }
    }

    /// All samples in order of time.
    pub fn iter(&self) -> impl Iterator<Item = Timed<'a>> + use<'a> {
        let view = *self;
        let (mut f, mut h) = (0, 0);
        std::iter::from_fn(move || {
            let float_next = match (view.t.get(f), view.h.get(h)) {
                (Some(t), Some((ht, _))) => t < ht,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return None,
            };
            if float_next {
                f += 1;
                Some(view.float(f - 1))
            } else {
                h += 1;
                Some(view.histogram(h - 1))
            }
        })
    }

    /// The earliest sample.
    #[must_use]
    pub fn first(&self) -> Option<Timed<'a>> {
        self.iter().next()
    }

    /// The last two samples, the latest second.
    #[must_use]
    pub fn last_two(&self) -> (Option<Timed<'a>>, Option<Timed<'a>>) {
        let (mut f, mut h) = (self.t.len(), self.h.len());
        let mut take = || {
            let float = match (f.checked_sub(1), h.checked_sub(1)) {
                (Some(fi), Some(hi)) => self.t[fi] > self.h[hi].0,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return None,
            };
            if float {
                f -= 1;
                Some(self.float(f))
            } else {
                h -= 1;
                Some(self.histogram(h))
            }
        };
        let last = take();
        (take(), last)
    }
}

/// Removes stale markers.
pub fn drop_stale(buffer: &mut SampleBuffer) {
    if buffer.values.iter().any(|v| is_stale_nan(*v)) {
        let mut kept = 0;
        let with_start = !buffer.float_start_ts.is_empty();
        for i in 0..buffer.values.len() {
            if !is_stale_nan(buffer.values[i]) {
                buffer.values[kept] = buffer.values[i];
                buffer.timestamps[kept] = buffer.timestamps[i];
                if with_start {
                    buffer.float_start_ts[kept] = buffer.float_start_ts[i];
                }
                kept += 1;
            }
        }
        buffer.values.truncate(kept);
        buffer.timestamps.truncate(kept);
        buffer.float_start_ts.truncate(kept);
    }
    if buffer.histograms.iter().any(|(_, h)| is_stale_nan(h.sum)) {
        if !buffer.histogram_start_ts.is_empty() {
            let mut keep = buffer.histograms.iter().map(|(_, h)| !is_stale_nan(h.sum));
            buffer.histogram_start_ts.retain(|_| keep.next().unwrap_or(false));
        }
        buffer.histograms.retain(|(_, h)| !is_stale_nan(h.sum));
    }
}

/// Leaves count and sum of the histograms, for functions that need no more; what the buckets say about counter
/// resets is kept as a hint.
pub fn only_count_and_sum(buffer: &mut SampleBuffer) {
    let mut previous: Option<(i64, Arc<FloatHistogram>)> = None;
    for (t, h) in &mut buffer.histograms {
        if is_stale_nan(h.sum) {
            continue;
        }
        let full = Arc::clone(h);
        let after_float = |before: i64| {
            let next = buffer.timestamps.partition_point(|ft| *ft <= before);
            buffer.timestamps.get(next).is_some_and(|ft| *ft < *t)
        };
        let hint = match (&previous, full.counter_reset_hint) {
            (Some((before, last)), CounterResetHint::Unknown) if !after_float(*before) => {
                if full.detects_reset_after(last) {
                    CounterResetHint::Reset
                } else {
                    CounterResetHint::NotReset
                }
            }
            (_, hint) => hint,
        };
        *h = Arc::new(FloatHistogram {
            counter_reset_hint: hint,
            schema: full.schema,
            count: full.count,
            sum: full.sum,
            ..FloatHistogram::default()
        });
        previous = Some((*t, full));
    }
}

/// What a window function is told about its surroundings.
pub struct Env<'a> {
    /// Name of the metric, for remarks.
    pub metric: &'a str,
    /// Length of the window, seconds.
    pub range_s: f64,
    /// Start timestamps count.
    pub use_start_timestamps: bool,
    /// Takes a remark about the window argument.
    pub note: &'a dyn Fn(&Note<'_>),
}

impl<'a> View<'a> {
    /// The samples of `buffer` in `(start, end]`, found by bisection.
    #[must_use]
    pub fn between(buffer: &'a SampleBuffer, start: i64, end: i64, right: i64, now: i64) -> Self {
        let f = buffer.timestamps.partition_point(|t| *t <= start)
            ..buffer.timestamps.partition_point(|t| *t <= end);
        let h = buffer.histograms.partition_point(|(t, _)| *t <= start)
            ..buffer.histograms.partition_point(|(t, _)| *t <= end);
        Self::of(buffer, f, h, start, right, now)
    }

    /// The given ranges of `buffer`.
    #[must_use]
    pub fn of(
        buffer: &'a SampleBuffer,
        f: std::ops::Range<usize>,
        h: std::ops::Range<usize>,
        start: i64,
        end: i64,
        now: i64,
    ) -> Self {
        Self {
            t: &buffer.timestamps[f.clone()],
            v: &buffer.values[f.clone()],
            st: buffer.float_start_ts.get(f).unwrap_or_default(),
            h: &buffer.histograms[h.clone()],
            hst: buffer.histogram_start_ts.get(h).unwrap_or_default(),
            start,
            end,
            now,
        }
    }
}
