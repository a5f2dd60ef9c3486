//! Giving data to blocks and forgetting it: the head's side of `flush`. Also statistics and deletions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::Map;
use super::super::door::{SeriesRef, StorageError};
use super::super::index::top;
use super::super::wal::{LogBatch, LogDelete};
use super::Head;
use super::flush::{FlushRange, FlushView, RawSamples};
use super::query::HeadView;
use super::series::LateSample;
use crate::model::{Labels, METRIC_NAME, Matcher};

/// Slots that are looked at under one hold of the lock.
pub(super) const STEP: u32 = 4096;
const POLL: Duration = Duration::from_millis(5);

/// Numbers about the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeadStats {
    /// Series in memory.
    pub num_series: u64,
    /// Different label pairs.
    pub num_label_pairs: u64,
    /// Open chunks and full chunks that are not in blocks.
    pub chunk_count: u64,
    /// Oldest sample, milliseconds; `i64::MAX` if there is none.
    pub min_time: i64,
    /// Newest sample, milliseconds; `i64::MIN` if there is none.
    pub max_time: i64,
}

/// Statistics of labels, each largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series by metric name.
    pub series_count_by_metric_name: Vec<(String, u64)>,
    /// Different values by label name.
    pub label_value_count_by_label_name: Vec<(String, u64)>,
    /// Bytes of names and values over all series by label name.
    pub memory_in_bytes_by_label_name: Vec<(String, u64)>,
    /// Series by `name=value`.
    pub series_count_by_label_value_pair: Vec<(String, u64)>,
}

/// A range of the head for a block.
struct HeadFlushView {
    view: Arc<HeadView>,
    range: FlushRange,
    series: Vec<(Labels, SeriesRef)>,
}

impl FlushView for HeadFlushView {
    fn range(&self) -> FlushRange {
        self.range
    }

    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.series.get(i).map(|s| s.0.clone()).unwrap_or_default()
    }

    fn samples(&self, i: usize, out: &mut RawSamples) -> Result<(), StorageError> {
        out.clear();
        let Some((_, reference)) = self.series.get(i) else { return Ok(()) };
        let FlushRange { min_t_ms, max_t_ms } = self.range;
        self.view.data(*reference, min_t_ms, max_t_ms)?.read_raw(min_t_ms, max_t_ms, out)
    }
}

/// Waits until no querier is open any more that was opened before now and may ask for samples before `t_ms`.
pub(super) fn wait_for_readers(
    head: &Head,
    t_ms: i64,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), StorageError> {
    let newest = head.isolation.read().newest();
    while head.isolation.read().needs_before(t_ms, newest) {
        if cancelled() {
            return Err(StorageError::Canceled);
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

impl Head {
    /// The oldest block range that takes no more in-order samples, if there is one: the head spans more than one
    /// and a half block ranges, or `now_ms` is that far past it. Out-of-order samples of already flushed ranges
    /// are offered too, as ranges that overlap existing blocks.
    #[must_use]
    pub fn range_to_flush(&self, now_ms: i64) -> Option<FlushRange> {
        let state = self.state.read();
        let range = self.limits.block_range_ms;
        if state.max_t_ms == i64::MIN {
            return None;
        }
        let aligned = |t: i64| t.div_euclid(range).saturating_mul(range);
        let oldest = state.min_t_ms.max(state.valid_from_ms);
        let begin = aligned(oldest);
        let end = begin.saturating_add(range);
        let passed = oldest.saturating_add(range / 2 * 3);
        if oldest <= state.max_t_ms
            && end <= state.max_t_ms
            && (state.max_t_ms >= passed || now_ms >= passed.max(end + range / 2))
        {
            return Some(FlushRange { min_t_ms: begin, max_t_ms: end - 1 });
        }
        // Out-of-order samples of ranges that are in blocks already.
        if state.late_samples > 0 && state.min_t_ms < state.valid_from_ms {
            let oldest = state.used_slots().filter_map(|(_, s)| s.late().first()).map(|s| s.t_ms).min()?;
            let newest = state
                .used_slots()
                .flat_map(|(_, s)| s.late())
                .map(|s| s.t_ms)
                .filter(|t| *t < state.valid_from_ms)
                .max()?;
            // They are gathered until the window has moved on, so that not every late sample costs a block.
            if oldest < state.valid_from_ms
                && state.max_t_ms.saturating_sub(newest) >= self.window_ms().min(range)
            {
                let begin = aligned(oldest);
                return Some(FlushRange { min_t_ms: begin, max_t_ms: begin + range - 1 });
            }
        }
        None
    }

    /// A view of a range as of now, for its block.
    pub fn flush_view(self: &Arc<Self>, range: FlushRange) -> Result<Box<dyn FlushView>, StorageError> {
        let view = {
            // From here on nothing is added in order to what the view reads, also by batches that are open now.
            let _order = self.commit.lock();
            let mut state = self.state.write();
            state.closed_below_ms = state.closed_below_ms.max(range.max_t_ms.saturating_add(1));
            state.removals += 1;
            drop(state);
            HeadView::open(self, range.min_t_ms, range.max_t_ms)
        };
        let series = view.series(&[]);
        let mut state = self.state.write();
        state.flushed.retain(|(other, _)| *other != range);
        state.flushed.push((range, view.sequence()));
        drop(state);
        Ok(Box::new(HeadFlushView { view, range, series }))
    }

    /// A view of a range for a copy elsewhere: nothing changes for the head, and nothing counts as safe.
    #[must_use]
    pub fn copy_view(self: &Arc<Self>, range: FlushRange) -> Box<dyn FlushView> {
        let view = HeadView::open(self, range.min_t_ms, range.max_t_ms);
        let series = view.series(&[]);
        Box::new(HeadFlushView { view, range, series })
    }

    /// Forgets in-order samples before `t_ms` and out-of-order ones that the last flush view has seen. The log must be
    /// checkpointed afterwards. Waits for older queriers that still read there, until `cancelled` says so.
    pub fn forget_before(&self, t_ms: i64, cancelled: &dyn Fn() -> bool) -> Result<(), StorageError> {
        self.metrics.truncations.inc();
        // Slots are reused: nothing in the log's memory may mean an old series.
        self.wal.sync().inspect_err(|_| self.metrics.truncations_failed.inc())?;
        {
            let mut state = self.state.write();
            state.valid_from_ms = state.valid_from_ms.max(t_ms);
        }
        wait_for_readers(self, t_ms, cancelled)?;
        let begun = Instant::now();
        let _order = self.commit.lock();
        self.wal.sync().inspect_err(|_| self.metrics.truncations_failed.inc())?;
        let mut removed = Vec::new();
        let slots = self.state.read().num_slots();
        let mut min_t_ms = i64::MAX;
        for first in (0..slots).step_by(STEP as usize) {
            let mut state = self.state.write();
            let keep_labels = self.appenders.load(Ordering::Relaxed) > 0;
            if first == 0 && !keep_labels {
                state.graveyard.clear();
            }
            let flushed = state.flushed.clone();
            let is_safe = |s: &LateSample| {
                let safe = |(range, sequence): &(FlushRange, u64)| {
                    (range.min_t_ms..=range.max_t_ms).contains(&s.t_ms) && s.sequence <= *sequence
                };
                s.t_ms < t_ms && flushed.iter().any(safe)
            };
            for slot in first..first.saturating_add(STEP).min(slots) {
                let Some(series) = state.series_mut(slot) else { continue };
                let mut dropped = 0;
                if let Some(late) = &mut series.late {
                    let before = late.len();
                    late.retain(|s| !is_safe(s));
                    dropped = before - late.len();
                    if late.is_empty() {
                        series.late = None;
                    }
                }
                // A series that has never had a sample may be waiting for its first commit.
                let unused = series.max_t_ms() == i64::MIN && keep_labels;
                let gone = series.late().is_empty() && series.open.last_t_ms() < t_ms && !unused;
                let oldest = series.late().first().map_or(i64::MAX, |s| s.t_ms);
                if series.open.last_t_ms() >= t_ms {
                    series.min_t_ms = series.min_t_ms.max(t_ms).min(oldest);
                } else {
                    series.min_t_ms = oldest;
                }
                min_t_ms = min_t_ms.min(series.min_t_ms);
                state.late_samples -= dropped as u64;
                if gone {
                    state.remove(slot, keep_labels);
                    removed.push(slot);
                }
            }
        }
        {
            let mut state = self.state.write();
            state.min_t_ms = min_t_ms;
            state.flushed.retain(|(range, _)| range.max_t_ms >= t_ms);
            if state.num_series == 0 {
                state.min_t_ms = i64::MAX;
            }
            state.deleted.retain(|_, ranges| {
                ranges.retain(|(_, max)| *max >= min_t_ms);
                !ranges.is_empty()
            });
        }
        self.wal.forget(removed);
        self.chunks.truncate_before(t_ms);
        self.metrics.gc_duration.observe(begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Looks up when the oldest samples really are. After forgetting, the head only knows bounds, and a gap of years
    /// would be walked through range by range.
    pub fn find_oldest(self: &Arc<Self>) -> Result<(), StorageError> {
        let view = HeadView::unwatched(self);
        let (bound, doubtful) = {
            let state = self.state.read();
            let bound = state.valid_from_ms;
            let doubtful = state.used_slots().filter(|(_, series)| series.min_t_ms <= bound);
            let doubtful = doubtful.map(|(slot, s)| (state.reference(slot), s.min_t_ms, s.late().len()));
            (bound, doubtful.collect::<Vec<_>>())
        };
        for (reference, min_t_ms, late) in doubtful {
            let mut oldest = i64::MAX;
            view.data(reference, bound, i64::MAX)?.each_time(|t_ms| oldest = oldest.min(t_ms))?;
            let mut state = self.state.write();
            let series = state.resolve(reference).and_then(|slot| state.series_mut(slot));
            // What came meanwhile in order is newer than what was found.
            if let Some(series) = series.filter(|s| s.min_t_ms == min_t_ms && s.late().len() == late) {
                series.min_t_ms = series.min_t_ms.max(oldest.min(series.open.last_t_ms()));
            }
        }
        let mut state = self.state.write();
        let oldest = state.used_slots().map(|(_, series)| series.min_t_ms).min();
        state.min_t_ms = oldest.unwrap_or(i64::MAX);
        Ok(())
    }

    /// Hides samples of the selected series in a range, durably.
    pub fn delete(
        self: &Arc<Self>,
        matchers: &[Matcher],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<(), StorageError> {
        let _order = self.commit.lock();
        let slots: Vec<u32> = {
            let state = self.state.read();
            let fits = |slot: &u32| {
                state.series(*slot).is_some_and(|s| s.min_t_ms <= max_t_ms && s.max_t_ms() >= min_t_ms)
            };
            state.index.select(matchers).iter().filter(fits).collect()
        };
        if slots.is_empty() {
            return Ok(());
        }
        // Samples that come later must not be hidden: the range ends with what is there.
        let newest = self.state.read().max_t_ms;
        let max_t_ms = max_t_ms.min(newest);
        let deletes = slots.iter().map(|slot| LogDelete { series: *slot, min_t_ms, max_t_ms }).collect();
        let sequence = self.wal.append(Arc::new(LogBatch { deletes, ..LogBatch::default() }))?;
        let mut state = self.state.write();
        for slot in slots {
            state.deleted.entry(slot).or_default().push((min_t_ms, max_t_ms));
        }
        drop(state);
        self.wal.wait_durable(sequence)
    }

    /// Numbers about the head.
    #[must_use]
    pub fn stats(&self) -> HeadStats {
        let state = self.state.read();
        HeadStats {
            num_series: state.num_series,
            num_label_pairs: state.index.num_pairs() as u64,
            chunk_count: state.num_series + self.chunks.count(),
            min_time: state.min_t_ms,
            max_time: state.max_t_ms,
        }
    }

    /// Statistics of labels, at most `limit` rows each.
    #[must_use]
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        let state = self.state.read();
        let index = &state.index;
        let names: Vec<_> = index.names().collect();
        let metric_names = index.values(METRIC_NAME).map(|(value, n)| (value.to_owned(), n as u64));
        let values: Map<String, u64> = names.iter().map(|n| (n.name.to_owned(), n.values as u64)).collect();
        let bytes: Map<String, u64> = names.iter().map(|n| (n.name.to_owned(), n.bytes as u64)).collect();
        let pairs = index.pairs().map(|(name, value, n)| (format!("{name}={value}"), n as u64));
        Cardinality {
            series_count_by_metric_name: top(metric_names.collect(), limit),
            label_value_count_by_label_name: top(values, limit),
            memory_in_bytes_by_label_name: top(bytes, limit),
            series_count_by_label_value_pair: top(pairs.collect(), limit),
        }
    }

    /// Heap bytes of series and index, by estimate.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.state.read().heap_bytes()
    }
}
