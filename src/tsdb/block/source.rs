//! What goes into a block? Series in order of their labels, each with its samples as they were ingested.

use std::sync::Arc;

use crate::model::histogram::{CounterResetHint, FloatHistogram};
use crate::model::sample::HistogramValue;
use crate::model::{Labels, SampleBuffer};
use crate::tsdb::StorageError;

/// The samples of one series as they are stored: like [`SampleBuffer`], but histograms keep the form in which
/// they came. Floats and histograms are each sorted by strictly increasing timestamp.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesColumns {
    /// Timestamps of the float samples, milliseconds.
    pub timestamps: Vec<i64>,
    /// Values of the float samples.
    pub values: Vec<f64>,
    /// Start timestamps of the float samples (0 = unknown); empty when none is known.
    pub float_start_ts: Vec<i64>,
    /// Histogram samples.
    pub histograms: Vec<(i64, HistogramValue)>,
    /// Start timestamps of the histogram samples (0 = unknown); empty when none is known.
    pub histogram_start_ts: Vec<i64>,
}

impl SeriesColumns {
    /// Empties the columns and keeps their allocations.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.float_start_ts.clear();
        self.histograms.clear();
        self.histogram_start_ts.clear();
    }

    /// Number of samples of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }

    /// Whether there is no sample at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a float sample; `start` is 0 when unknown.
    pub fn push_float(&mut self, t: i64, start: i64, v: f64) {
        push_start(&mut self.float_start_ts, self.timestamps.len(), start);
        self.timestamps.push(t);
        self.values.push(v);
    }

    /// Appends a histogram sample; `start` is 0 when unknown.
    pub fn push_histogram(&mut self, t: i64, start: i64, h: HistogramValue) {
        push_start(&mut self.histogram_start_ts, self.histograms.len(), start);
        self.histograms.push((t, h));
    }

    /// First and last timestamp.
    #[must_use]
    pub fn range(&self) -> Option<(i64, i64)> {
        let first =
            self.timestamps.first().into_iter().chain(self.histograms.first().map(|(t, _)| t)).min()?;
        let last = self.timestamps.last().into_iter().chain(self.histograms.last().map(|(t, _)| t)).max()?;
        Some((*first, *last))
    }

    /// Keeps only samples whose timestamp satisfies `keep`.
    pub fn retain(&mut self, keep: impl Fn(i64) -> bool) {
        if self.timestamps.iter().chain(self.histograms.iter().map(|(t, _)| t)).all(|t| keep(*t)) {
            return;
        }
        let old = std::mem::take(self);
        for (i, t) in old.timestamps.iter().enumerate().filter(|(_, t)| keep(**t)) {
            self.push_float(*t, old.float_start_ts.get(i).copied().unwrap_or(0), old.values[i]);
        }
        for (i, (t, h)) in old.histograms.into_iter().enumerate().filter(|(_, (t, _))| keep(*t)) {
            self.push_histogram(t, old.histogram_start_ts.get(i).copied().unwrap_or(0), h);
        }
    }

    /// Adds the samples of `later`; where both have a sample of one timestamp, that of `later` stays.
    pub fn merge(&mut self, later: &SeriesColumns) {
        if later.is_empty() {
            return;
        }
        if self.is_empty() {
            self.clone_from(later);
            return;
        }
        if let (Some((_, last)), Some((first, _))) = (self.range(), later.range())
            && last < first
        {
            self.append(later);
            return;
        }
        let old = std::mem::take(self);
        // A timestamp holds one sample of either kind.
        let overridden = |t: &i64| {
            later.timestamps.binary_search(t).is_ok()
                || later.histograms.binary_search_by_key(t, |(t, _)| *t).is_ok()
        };
        let (mut i, mut j) = (0, 0);
        while i < old.timestamps.len() || j < later.timestamps.len() {
            let (a, b) = (old.timestamps.get(i).copied(), later.timestamps.get(j).copied());
            if a.is_some_and(|a| b.is_none_or(|b| a < b)) {
                if !a.is_some_and(|a| overridden(&a)) {
                    self.push_float(old.timestamps[i], start_at(&old.float_start_ts, i), old.values[i]);
                }
                i += 1;
            } else {
                self.push_float(later.timestamps[j], start_at(&later.float_start_ts, j), later.values[j]);
                i += usize::from(a == b);
                j += 1;
            }
        }
        (i, j) = (0, 0);
        while i < old.histograms.len() || j < later.histograms.len() {
            let (a, b) = (old.histograms.get(i).map(|(t, _)| *t), later.histograms.get(j).map(|(t, _)| *t));
            if a.is_some_and(|a| b.is_none_or(|b| a < b)) {
                if !a.is_some_and(|a| overridden(&a)) {
                    let (t, h) = old.histograms[i].clone();
                    self.push_histogram(t, start_at(&old.histogram_start_ts, i), h);
                }
                i += 1;
            } else {
                let (t, h) = later.histograms[j].clone();
                self.push_histogram(t, start_at(&later.histogram_start_ts, j), h);
                i += usize::from(a == b);
                j += 1;
            }
        }
    }

    /// Appends columns that begin after these end.
    fn append(&mut self, later: &SeriesColumns) {
        append_starts(
            &mut self.float_start_ts,
            self.timestamps.len(),
            &later.float_start_ts,
            later.timestamps.len(),
        );
        self.timestamps.extend_from_slice(&later.timestamps);
        self.values.extend_from_slice(&later.values);
        let (len, added) = (self.histograms.len(), later.histograms.len());
        append_starts(&mut self.histogram_start_ts, len, &later.histogram_start_ts, added);
        self.histograms.extend_from_slice(&later.histograms);
    }

    /// Appends the samples in `[min_t_ms, max_t_ms]` to `out`, in the form that queries compute with.
    pub fn copy_into(&self, min_t_ms: i64, max_t_ms: i64, out: &mut SampleBuffer) {
        let from = self.timestamps.partition_point(|t| *t < min_t_ms);
        let to = self.timestamps.partition_point(|t| *t <= max_t_ms);
        if self.float_start_ts.is_empty() && out.float_start_ts.is_empty() {
            out.timestamps.extend_from_slice(&self.timestamps[from..to]);
            out.values.extend_from_slice(&self.values[from..to]);
        } else {
            for i in from..to {
                let start = start_at(&self.float_start_ts, i);
                out.push_float_with_start(self.timestamps[i], start, self.values[i]);
            }
        }
        let from = self.histograms.partition_point(|(t, _)| *t < min_t_ms);
        let to = self.histograms.partition_point(|(t, _)| *t <= max_t_ms);
        if from >= to {
            return;
        }
        let mut previous: Option<Arc<FloatHistogram>> =
            from.checked_sub(1).map(|i| self.histograms[i].1.to_float());
        for i in from..to {
            let (t, h) = &self.histograms[i];
            let mut float = (*h.to_float()).clone();
            float.counter_reset_hint = read_hint(previous.as_deref(), &float);
            let float = Arc::new(float);
            out.push_histogram(*t, start_at(&self.histogram_start_ts, i), Arc::clone(&float));
            previous = Some(float);
        }
    }
}

fn start_at(starts: &[i64], i: usize) -> i64 {
    starts.get(i).copied().unwrap_or(0)
}

/// Appends `more` to `starts`; each is empty when no start is known in a column of the given length.
fn append_starts(starts: &mut Vec<i64>, len: usize, more: &[i64], added: usize) {
    if starts.is_empty() && more.is_empty() {
        return;
    }
    starts.resize(len, 0);
    starts.extend_from_slice(more);
    starts.resize(len + added, 0);
}

fn push_start(starts: &mut Vec<i64>, len: usize, start: i64) {
    if start != 0 && starts.is_empty() {
        starts.resize(len, 0);
    }
    if start != 0 || !starts.is_empty() {
        starts.push(start);
    }
}

/// The counter reset hint that a reader sees: `gauge` stays; after a sample that shows no reset it is "no
/// reset"; otherwise readers have to compare for themselves.
fn read_hint(previous: Option<&FloatHistogram>, current: &FloatHistogram) -> CounterResetHint {
    if current.counter_reset_hint == CounterResetHint::Gauge {
        return CounterResetHint::Gauge;
    }
    match previous {
        Some(before)
            if !crate::model::is_stale_nan(before.sum)
                && before.counter_reset_hint != CounterResetHint::Gauge
                && !current.detects_reset_after(before) =>
        {
            CounterResetHint::NotReset
        }
        _ => CounterResetHint::Unknown,
    }
}

/// Hands out series in strictly increasing order of their labels.
pub trait SeriesSource {
    /// Replaces the content of `out` by the samples of the next series and returns its labels, or `None` at the
    /// end. A series without samples is allowed and left out by writers.
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError>;
}

/// Series from memory.
impl<I: Iterator<Item = (Labels, SeriesColumns)>> SeriesSource for I {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        Ok(self.next().map(|(labels, columns)| {
            *out = columns;
            labels
        }))
    }
}
