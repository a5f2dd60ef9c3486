//! One batch: samples are judged as they come, kept aside, and at commit written to the log and then made visible
//! together.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::Map;
use super::super::door::{AppendError, Appender, BatchOptions, Commit, SeriesRef};
use super::super::wal::{LogBatch, LogExemplar, LogFloat, LogHistogram};
use super::Head;
use super::exemplars::{Kept, check_length};
use super::series::{LateSample, Open, same_value, validate};
use super::state::State;
use crate::model::histogram::{FloatHistogram, Histogram};
use crate::model::metadata::{Exemplar, Metadata};
use crate::model::sample::{HistogramValue, Value};
use crate::model::{Labels, is_stale_nan};

pub(super) struct Pending {
    series: SeriesRef,
    t_ms: i64,
    start_ms: i64,
    late: bool,
    /// Position + 1 of the sample of the same series before it in the batch, 0 = none.
    before: u32,
    value: Value,
}

/// Samples that room is made for ahead of time at most.
const MAX_RESERVE: usize = 4096;
/// Buffers for samples that are kept for the next batches at most.
const MAX_SPARE: usize = 4;

/// A batch of the head.
pub struct HeadAppender<'a> {
    head: &'a Arc<Head>,
    options: BatchOptions,
    samples: Vec<Pending>,
    exemplars: Vec<(SeriesRef, i64, Exemplar)>,
    metadata: Vec<(String, Metadata)>,
    /// Highest slot so far: a higher one cannot be in the batch yet.
    highest: u32,
    /// Position + 1 of the newest sample in `samples` by slot, once slots come out of order.
    by_slot: Option<Map<u32, u32>>,
    /// What the state was when the batch was opened; unless it changed, judgements still hold at commit.
    seen: (u64, u64),
    created: u64,
}

/// What becomes of a sample.
enum Verdict {
    Store {
        late: bool,
    },
    /// It is there already.
    Ignore,
}

fn slot_of(reference: SeriesRef) -> u32 {
    (reference.0 as u32).wrapping_sub(1)
}

impl<'a> HeadAppender<'a> {
    /// Opens a batch.
    #[must_use]
    pub fn new(head: &'a Arc<Head>, options: BatchOptions) -> Self {
        head.appenders.fetch_add(1, Ordering::Relaxed);
        let seen = {
            let state = head.state.read();
            (state.sequence, state.removals)
        };
        Self {
            head,
            options,
            samples: head.spare_samples.lock().pop().unwrap_or_default(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            highest: 0,
            by_slot: None,
            seen,
            created: 0,
        }
    }

    /// Position + 1 of the newest sample of the same series that is in the batch already, 0 = none.
    fn newest(&mut self, slot: u32) -> u32 {
        if self.by_slot.is_none() {
            let last = self.samples.last().map(|p| slot_of(p.series));
            if last.is_none() || slot > self.highest {
                return 0;
            }
            if last == Some(slot) {
                return self.samples.len() as u32;
            }
        }
        let samples = &self.samples;
        let map = self.by_slot.get_or_insert_with(|| {
            let newest = samples.iter().enumerate().map(|(at, p)| (slot_of(p.series), at as u32 + 1));
            newest.collect()
        });
        map.get(&slot).copied().unwrap_or(0)
    }

    fn add(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        value: Value,
    ) -> Result<SeriesRef, AppendError> {
        let head = self.head;
        let mut state = head.state.read();
        let (slot, series) = match state.resolve(reference) {
            Some(slot) => (slot, reference),
            None => {
                drop(state);
                let (slot, created) = head.find_or_create(&labels())?;
                self.created += u64::from(created);
                state = head.state.read();
                (slot, state.reference(slot))
            }
        };
        let before = self.newest(slot);
        let value = as_stale_of(&state, slot, value);
        let at = |place: u32| self.samples.get((place as usize).checked_sub(1)?);
        let pending = std::iter::successors(at(before), |newer| at(newer.before));
        let verdict = head.judge(&state, slot, t_ms, &value, pending, self.options.reject_out_of_order);
        drop(state);
        match verdict {
            Ok(Verdict::Store { late }) => {
                if self.samples.is_empty() {
                    // Batches are mostly as long as others, and growing step by step copies all of it each time.
                    self.samples.reserve_exact(head.batch_len.load(Ordering::Relaxed).clamp(1, MAX_RESERVE));
                }
                self.samples.push(Pending { series, t_ms, start_ms, late, before, value });
                self.highest = self.highest.max(slot);
                if let Some(map) = &mut self.by_slot {
                    map.insert(slot, self.samples.len() as u32);
                }
                Ok(series)
            }
            Ok(Verdict::Ignore) => Ok(series),
            Err(error) => {
                head.count_refusal(&error, &value);
                Err(error)
            }
        }
    }

    /// Slots of the series of the batch; series that were removed meanwhile are created again.
    fn slots(&self) -> Result<Map<SeriesRef, u32>, AppendError> {
        let mut moved = Map::default();
        let dead: Vec<(SeriesRef, Labels)> = {
            let state = self.head.state.read();
            if state.removals == self.seen.1 {
                return Ok(moved);
            }
            let references = self.samples.iter().map(|p| p.series).chain(self.exemplars.iter().map(|e| e.0));
            let dead = references.filter(|r| state.resolve(*r).is_none());
            dead.map(|r| (r, state.graveyard.get(&r).cloned().unwrap_or_default())).collect()
        };
        for (reference, labels) in dead {
            if let Entry::Vacant(place) = moved.entry(reference) {
                place.insert(self.head.find_or_create(&labels)?.0);
            }
        }
        Ok(moved)
    }

    fn commit_all(mut self) -> Result<Commit, AppendError> {
        let head = self.head;
        let order = head.commit.lock();
        let moved = self.slots()?;
        let slot =
            |reference: SeriesRef| moved.get(&reference).copied().unwrap_or_else(|| slot_of(reference));
        {
            let state = head.state.read();
            if (state.sequence, state.removals) != self.seen {
                let strict = self.options.reject_out_of_order;
                // Others committed meanwhile: what would be refused now is dropped, as if it had come a moment later.
                self.samples.retain_mut(|pending| {
                    let at = slot(pending.series);
                    let Some(series) = state.series(at) else { return false };
                    let last = series.open.last_t_ms();
                    let closed = state.valid_from_ms.max(state.closed_below_ms);
                    if pending.t_ms > last && pending.t_ms >= closed && !pending.late {
                        return true;
                    }
                    match head.judge(&state, at, pending.t_ms, &pending.value, std::iter::empty(), strict) {
                        Ok(Verdict::Store { late }) => {
                            pending.late = late;
                            true
                        }
                        Ok(Verdict::Ignore) => false,
                        Err(error) => {
                            head.count_refusal(&error, &pending.value);
                            false
                        }
                    }
                });
            }
        }
        let batch = Arc::new(self.log_batch(slot));
        if batch.is_empty() {
            return Ok(Commit::new(0, self.created, None));
        }
        // Small batches in between, such as those of rules, do not make it forget at once.
        let usual = head.batch_len.load(Ordering::Relaxed);
        head.batch_len.store(self.samples.len().max(usual - usual / 8), Ordering::Relaxed);
        let logged = head.wal.append(Arc::clone(&batch)).map_err(AppendError::Storage)?;
        let stored = head.apply(&batch, self.samples.iter().map(|p| (slot(p.series), p)));
        head.note_metadata(&batch);
        drop(order);
        if let Err(error) = head.chunks.flush(false) {
            tracing::warn!(%error, "full chunks stay in memory");
        }
        let wal = Arc::clone(&head.wal);
        Ok(Commit::new(stored, self.created, Some(Box::new(move || wal.wait_durable(logged)))))
    }

    fn log_batch(&mut self, slot: impl Fn(SeriesRef) -> u32) -> LogBatch {
        let mut batch = LogBatch { source: self.options.source, ..LogBatch::default() };
        // Nearly always all of them are floats in order.
        batch.floats.reserve_exact(self.samples.len());
        for pending in &self.samples {
            let (series, t_ms, start_ms) = (slot(pending.series), pending.t_ms, pending.start_ms);
            match &pending.value {
                Value::Float(value) => {
                    let sample = LogFloat { series, t_ms, start_ms, value: *value };
                    if pending.late { &mut batch.out_of_order } else { &mut batch.floats }.push(sample);
                }
                Value::Histogram(value) => batch.histograms.push(LogHistogram {
                    series,
                    t_ms,
                    start_ms,
                    out_of_order: pending.late,
                    value: value.clone(),
                }),
            }
        }
        for (reference, t_ms, exemplar) in self.exemplars.drain(..) {
            batch.exemplars.push(LogExemplar {
                series: slot(reference),
                t_ms,
                value: exemplar.value,
                labels: exemplar.labels,
            });
        }
        let known = self.head.metadata.read();
        batch.metadata = self.metadata.drain(..).filter(|(name, new)| known.get(name) != Some(new)).collect();
        batch
    }
}

/// A float stale marker on a series of histograms is the stale marker of histograms.
fn as_stale_of(state: &State, slot: u32, value: Value) -> Value {
    let Value::Float(sum) = value else { return value };
    if !is_stale_nan(sum) {
        return value;
    }
    let Some(Open::Histogram(encoder)) = state.series(slot).map(|s| &s.open) else { return value };
    Value::Histogram(match encoder.last() {
        Some(HistogramValue::Float(_)) => {
            HistogramValue::Float(Arc::new(FloatHistogram { sum, ..FloatHistogram::default() }))
        }
        _ => HistogramValue::Integer(Arc::new(Histogram { sum, ..Histogram::default() })),
    })
}

impl Head {
    /// Whether a sample may be stored, given what is stored and what waits in the same batch.
    fn judge<'p>(
        &self,
        state: &State,
        slot: u32,
        t_ms: i64,
        value: &Value,
        pending: impl Iterator<Item = &'p Pending>,
        strict: bool,
    ) -> Result<Verdict, AppendError> {
        let Some(series) = state.series(slot) else { return Err(AppendError::UnknownSeries) };
        let decide = |same| if same { Ok(Verdict::Ignore) } else { Err(AppendError::DuplicateTimestamp) };
        let stored_last = series.open.last_t_ms();
        let mut last = stored_last;
        for other in pending {
            if other.t_ms == t_ms {
                return decide(same_value(&other.value, value));
            }
            if !other.late {
                last = last.max(other.t_ms);
            }
        }
        let window = if strict { 0 } else { self.window_ms() };
        if t_ms > last {
            if t_ms >= self.in_order_bound(state) {
                return Ok(Verdict::Store { late: false });
            }
            if window == 0 {
                return Err(AppendError::OutOfBounds);
            }
        } else if t_ms == stored_last
            && let Some(same) = series.open.is_last(value)
        {
            return decide(same);
        } else if window == 0 && t_ms < last {
            return Err(AppendError::OutOfOrder);
        }
        if t_ms != stored_last && t_ms < state.max_t_ms.saturating_sub(window) {
            return Err(AppendError::TooOld);
        }
        match self.sample_at(state, slot, t_ms) {
            Some(stored) => decide(same_value(&stored, value)),
            None if window == 0 => Err(AppendError::OutOfOrder),
            None => Ok(Verdict::Store { late: true }),
        }
    }

    fn count_refusal(&self, error: &AppendError, value: &Value) {
        match (error, value) {
            (AppendError::OutOfOrder, Value::Float(_)) => self.metrics.out_of_order_floats.inc(),
            (AppendError::OutOfOrder, Value::Histogram(_)) => self.metrics.out_of_order_histograms.inc(),
            (AppendError::OutOfBounds, _) => self.metrics.out_of_bounds.inc(),
            (AppendError::TooOld, _) => self.metrics.too_old.inc(),
            _ => {}
        }
    }

    /// Makes a logged batch visible. Returns the number of samples.
    fn apply<'p>(&self, batch: &LogBatch, samples: impl Iterator<Item = (u32, &'p Pending)>) -> u64 {
        let mut state = self.state.write();
        let sequence = state.sequence + 1;
        let mut isolation = self.isolation.write();
        let watched = isolation.is_watched();
        let (mut floats, mut histograms, mut late) = (0u64, 0u64, 0u64);
        let (mut min_t_ms, mut max_t_ms) = (i64::MAX, i64::MIN);
        for (slot, pending) in samples {
            (min_t_ms, max_t_ms) = (min_t_ms.min(pending.t_ms), max_t_ms.max(pending.t_ms));
            if watched {
                isolation.add(sequence, slot, pending.t_ms, pending.late);
            }
            match &pending.value {
                Value::Float(_) => floats += 1,
                Value::Histogram(_) => histograms += 1,
            }
            let (t_ms, start_ms) = (pending.t_ms, pending.start_ms);
            if pending.late {
                late += 1;
                let value = pending.value.clone();
                state.push_late(slot, LateSample { t_ms, start_ms, sequence, value });
            } else if let Err(error) = state.push(slot, t_ms, start_ms, &pending.value, &self.chunks) {
                tracing::error!(%error, "a full chunk could not be closed");
            }
        }
        state.sequence = sequence;
        let references: Vec<SeriesRef> = batch.exemplars.iter().map(|e| state.reference(e.series)).collect();
        // Under the lock that opening a view takes: who sees the batch sees the note.
        self.changes.note(min_t_ms, max_t_ms);
        drop(isolation);
        drop(state);
        let mut ring = self.exemplars.lock();
        for (series, e) in references.into_iter().zip(&batch.exemplars) {
            ring.push(Kept { series, t_ms: e.t_ms, value: e.value, labels: e.labels.clone() });
        }
        drop(ring);
        self.metrics.floats.add(floats as f64);
        self.metrics.histograms.add(histograms as f64);
        self.metrics.late.add(late as f64);
        floats + histograms
    }

    pub(super) fn note_metadata(&self, batch: &LogBatch) {
        if !batch.metadata.is_empty() {
            self.metadata.write().extend(batch.metadata.iter().cloned());
        }
    }
}

impl Drop for HeadAppender<'_> {
    fn drop(&mut self) {
        self.head.appenders.fetch_sub(1, Ordering::Relaxed);
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        if (1..=MAX_RESERVE).contains(&samples.capacity()) {
            let mut spare = self.head.spare_samples.lock();
            if spare.len() < MAX_SPARE {
                spare.push(samples);
            }
        }
    }
}

impl Appender for HeadAppender<'_> {
    fn append(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        value: f64,
    ) -> Result<SeriesRef, AppendError> {
        self.add(reference, labels, start_ms, t_ms, Value::Float(value))
    }

    fn append_histogram(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        histogram: HistogramValue,
    ) -> Result<SeriesRef, AppendError> {
        validate(&histogram).map_err(AppendError::InvalidHistogram)?;
        self.add(reference, labels, start_ms, t_ms, Value::Histogram(histogram))
    }

    fn append_exemplar(
        &mut self,
        reference: SeriesRef,
        t_ms: i64,
        exemplar: &Exemplar,
    ) -> Result<(), AppendError> {
        check_length(&exemplar.labels)?;
        let t_ms = exemplar.timestamp_ms.unwrap_or(t_ms);
        if self.head.state.read().resolve(reference).is_none() {
            return Err(AppendError::UnknownSeries);
        }
        let ring = self.head.exemplars.lock();
        if !ring.is_enabled() {
            return Ok(());
        }
        ring.check(reference, t_ms, exemplar, self.head.window_ms())?;
        drop(ring);
        self.exemplars.push((reference, t_ms, exemplar.clone()));
        Ok(())
    }

    fn update_metadata(&mut self, metric_name: &str, metadata: &Metadata) -> Result<(), AppendError> {
        if self.head.metadata.read().get(metric_name) != Some(metadata) {
            self.metadata.push((metric_name.to_owned(), metadata.clone()));
        }
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<Commit, AppendError> {
        (*self).commit_all()
    }

    fn rollback(self: Box<Self>) {}
}
