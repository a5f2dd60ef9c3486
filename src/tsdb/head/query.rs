//! Reading the head: a view remembers the last commit it may see; series are copied out one by one under a short
//! lock and decoded outside of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::chunk::Damaged;
use super::super::chunk::float::FloatDecoder;
use super::super::door::{
    ExemplarSeries, LabelQueryHints, Querier, SelectHints, SeriesRef, SeriesSet, StorageError,
};
use super::super::memory::read_hint;
use super::Head;
use super::chunks::{ChunkRef, Encoding, StoredChunk};
use super::flush::RawSamples;
use super::isolation::{Hidden, Isolation};
use super::series::{LateSample, decode};
use super::state::State;
use crate::model::metadata::Exemplar;
use crate::model::sample::{HistogramValue, Value};
use crate::model::{Labels, Matcher, SampleBuffer};

/// The samples of one series as a view sees them, not decoded yet.
#[derive(Default)]
pub struct SeriesData {
    /// Oldest first.
    sealed: Vec<StoredChunk>,
    open: Option<(Encoding, u16, Vec<u8>)>,
    late: Vec<LateSample>,
    hidden: Hidden,
    deleted: Vec<(i64, i64)>,
    valid_from_ms: i64,
    /// Chunks that are damaged and left out.
    pub warnings: Vec<String>,
}

impl SeriesData {
    fn shows(&self, t_ms: i64) -> bool {
        !self.deleted.iter().any(|(min, max)| (*min..=*max).contains(&t_ms))
    }

    /// Calls `each` with the visible samples up to `max_t_ms` in order of time, those before the range included as far
    /// as they were copied.
    fn each(&self, max_t_ms: i64, mut each: impl FnMut(i64, i64, Value)) -> Result<(), StorageError> {
        let hidden_from = self.hidden.from_t_ms.unwrap_or(i64::MAX);
        let mut late = self.late.iter().filter(|s| s.t_ms <= max_t_ms && self.shows(s.t_ms)).peekable();
        let mut in_order = |t: i64, start: i64, value: Value| {
            if t < self.valid_from_ms || t > max_t_ms || t >= hidden_from || !self.shows(t) {
                return;
            }
            while let Some(sample) = late.next_if(|s| s.t_ms < t) {
                each(sample.t_ms, sample.start_ms, sample.value.clone());
            }
            each(t, start, value);
        };
        for chunk in &self.sealed {
            decode(chunk.meta.encoding, chunk.meta.count, chunk.data(), &mut in_order).map_err(damaged)?;
        }
        if let Some((encoding, count, bytes)) = &self.open {
            decode(*encoding, *count, bytes, &mut in_order).map_err(damaged)?;
        }
        late.for_each(|s| each(s.t_ms, s.start_ms, s.value.clone()));
        Ok(())
    }

    /// Floats alone, in order, nothing deleted: the usual case, decoded straight into `out`. Answers whether it was.
    fn read_floats(
        &self,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<bool, StorageError> {
        let is_float = |encoding: &Encoding| *encoding == Encoding::Float;
        let floats = self.sealed.iter().all(|c| is_float(&c.meta.encoding))
            && self.open.as_ref().is_none_or(|(encoding, ..)| is_float(encoding));
        if !floats || !self.late.is_empty() || !self.deleted.is_empty() {
            return Ok(false);
        }
        let from = min_t_ms.max(self.valid_from_ms);
        let to = self.hidden.from_t_ms.map_or(max_t_ms, |hidden| max_t_ms.min(hidden.saturating_sub(1)));
        for chunk in &self.sealed {
            FloatDecoder::new(chunk.data(), chunk.meta.count).read(from, to, out).map_err(damaged)?;
        }
        if let Some((_, count, bytes)) = &self.open {
            FloatDecoder::new(bytes, *count).read(from, to, out).map_err(damaged)?;
        }
        Ok(true)
    }

    /// Leaves only the out-of-order samples of commits up to `sequence`.
    pub(super) fn keep_late(&mut self, sequence: u64) {
        self.sealed.clear();
        self.open = None;
        self.late.retain(|s| s.sequence <= sequence);
    }

    /// Calls `each` with the time of each visible sample, in order.
    pub(super) fn each_time(&self, mut each: impl FnMut(i64)) -> Result<(), StorageError> {
        self.each(i64::MAX, |t_ms, _, _| each(t_ms))
    }

    /// Reads `[min_t_ms, max_t_ms]` as queries want it.
    pub fn read(&self, min_t_ms: i64, max_t_ms: i64, out: &mut SampleBuffer) -> Result<(), StorageError> {
        out.clear();
        if self.read_floats(min_t_ms, max_t_ms, out)? {
            return Ok(());
        }
        let mut previous: Option<Value> = None;
        self.each(max_t_ms, |t, start, value| {
            if t >= min_t_ms {
                match &value {
                    Value::Float(v) => out.push_float_with_start(t, start, *v),
                    Value::Histogram(h) => {
                        let mut float = (*h.to_float()).clone();
                        float.counter_reset_hint = read_hint(previous.as_ref(), &float);
                        out.push_histogram(t, start, Arc::new(float));
                    }
                }
            }
            // Only histograms are compared with the sample before.
            previous = matches!(value, Value::Histogram(_)).then_some(value);
        })
    }

    /// Reads `[min_t_ms, max_t_ms]` without changing anything.
    pub fn read_raw(&self, min_t_ms: i64, max_t_ms: i64, out: &mut RawSamples) -> Result<(), StorageError> {
        out.clear();
        self.each(max_t_ms, |t, start, value: Value| {
            if t >= min_t_ms {
                match value {
                    Value::Float(v) => out.push_float(t, start, v),
                    Value::Histogram(h) => out.histograms.push((t, start, h as HistogramValue)),
                }
            }
        })
    }
}

fn damaged(error: Damaged) -> StorageError {
    StorageError::Corrupt { path: "head chunk".into(), offset: 0, message: error.to_string() }
}

/// A view of the head.
pub struct HeadView {
    head: Arc<Head>,
    number: u64,
    sequence: u64,
    valid_from_ms: i64,
    min_t_ms: i64,
    max_t_ms: i64,
}

impl Drop for HeadView {
    fn drop(&mut self) {
        self.head.isolation.write().close(self.number);
    }
}

impl HeadView {
    /// A view of what is committed now.
    #[must_use]
    pub fn open(head: &Arc<Head>, min_t_ms: i64, max_t_ms: i64) -> Arc<Self> {
        let state = head.state.read();
        let number = head.isolation.write().open(state.sequence, min_t_ms);
        Arc::new(Self {
            head: Arc::clone(head),
            number,
            sequence: state.sequence,
            valid_from_ms: state.valid_from_ms,
            min_t_ms,
            max_t_ms,
        })
    }

    /// A view of whatever is there when it is read: nothing is kept from it, and nobody waits for it.
    #[must_use]
    pub(super) fn unwatched(head: &Arc<Head>) -> Arc<Self> {
        let valid_from_ms = head.state.read().valid_from_ms;
        let (min_t_ms, max_t_ms) = (i64::MIN, i64::MAX);
        Arc::new(Self {
            head: Arc::clone(head),
            number: 0,
            sequence: u64::MAX,
            valid_from_ms,
            min_t_ms,
            max_t_ms,
        })
    }

    /// The last commit the view sees.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The series that satisfy the matchers and may have samples in the view.
    fn slots(&self, state: &State, matchers: &[Matcher]) -> Vec<u32> {
        if self.min_t_ms > self.max_t_ms {
            return Vec::new();
        }
        let isolation = self.head.isolation.read();
        let isolation = isolation.hides_anything().then_some(&*isolation);
        let selected = state.index.select(matchers);
        selected.iter().filter(|slot| self.may_show(state, isolation, *slot)).collect()
    }

    /// Whether the series in a slot may have samples in the view.
    fn may_show(&self, state: &State, isolation: Option<&Isolation>, slot: u32) -> bool {
        let Some(series) = state.series(slot) else { return false };
        if series.min_t_ms > self.max_t_ms || series.max_t_ms() < self.min_t_ms {
            return false;
        }
        let hidden = isolation.map(|i| i.hidden(self.sequence, slot)).unwrap_or_default();
        if hidden == Hidden::default() {
            return true;
        }
        // Something is hidden: is anything left?
        let in_order = hidden.from_t_ms.is_none_or(|from| series.min_t_ms < from);
        in_order || series.late().iter().any(|s| hidden.out_of_order.binary_search(&s.t_ms).is_err())
    }

    /// What `ask` finds out about the series that may have samples in the view, told which those are.
    fn of_shown<'s>(
        &self,
        state: &'s State,
        ask: impl FnOnce(&dyn Fn(u32) -> bool) -> Vec<&'s str>,
    ) -> Vec<&'s str> {
        let isolation = self.head.isolation.read();
        let isolation = isolation.hides_anything().then_some(&*isolation);
        let shown = |slot: u32| self.may_show(state, isolation, slot);
        if self.min_t_ms > self.max_t_ms { Vec::new() } else { ask(&shown) }
    }

    /// References and labels of the selected series, sorted by labels.
    #[must_use]
    pub fn series(&self, matchers: &[Matcher]) -> Vec<(Labels, SeriesRef)> {
        let state = self.head.state.read();
        let slots = self.slots(&state, matchers);
        let mut series: Vec<(Labels, SeriesRef)> =
            slots.into_iter().map(|slot| (state.labels(slot), state.reference(slot))).collect();
        drop(state);
        series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        series
    }

    /// Copies out what the view sees of a series from `min_t_ms` on.
    pub fn data(
        &self,
        reference: SeriesRef,
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<SeriesData, StorageError> {
        let mut data = SeriesData { valid_from_ms: self.valid_from_ms, ..SeriesData::default() };
        let mut place: ChunkRef;
        let id;
        {
            let state = self.head.state.read();
            let Some(slot) = state.resolve(reference) else { return Ok(data) };
            let Some(series) = state.series(slot) else { return Ok(data) };
            let isolation = self.head.isolation.read();
            if isolation.hides_anything() {
                data.hidden = isolation.hidden(self.sequence, slot);
            }
            drop(isolation);
            place = series.sealed;
            id = series.id;
            let visible = |s: &&LateSample| data.hidden.out_of_order.binary_search(&s.t_ms).is_err();
            data.late = series.late().iter().filter(visible).cloned().collect();
            if series.open_min_t_ms <= max_t_ms {
                data.open =
                    series.open.content().map(|(encoding, count, bytes)| (encoding, count, bytes.to_vec()));
            }
            if let Some(deleted) = state.deleted.get(&slot) {
                data.deleted.clone_from(deleted);
            }
        }
        loop {
            let chunk = match self.head.chunks.read(place) {
                Ok(Some(chunk)) if chunk.meta.series == id => chunk,
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(%error, "a damaged chunk is left out");
                    self.head.metrics.chunk_corruptions.inc();
                    data.warnings.push(format!("samples are missing: {error}"));
                    place = self.head.chunks.last_before(id, place);
                    continue;
                }
            };
            let before = chunk.meta.max_t_ms < min_t_ms || chunk.meta.max_t_ms < self.valid_from_ms;
            place = chunk.meta.previous;
            // The last histogram before the range decides about the hint of the first one in it.
            let wanted = !before || chunk.meta.encoding == Encoding::Histogram;
            if wanted && chunk.meta.min_t_ms <= max_t_ms {
                data.sealed.push(chunk);
            }
            if before {
                break;
            }
        }
        data.sealed.reverse();
        Ok(data)
    }
}

/// Opens views for queries.
pub struct HeadQuerier(pub Arc<HeadView>);

struct HeadSeriesSet {
    view: Arc<HeadView>,
    series: Vec<(Labels, SeriesRef)>,
    warnings: Mutex<Vec<String>>,
}

impl Querier for HeadQuerier {
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let mut series = self.0.series(matchers);
        if hints.limit > 0 {
            series.truncate(hints.limit);
        }
        Ok(Box::new(HeadSeriesSet { view: Arc::clone(&self.0), series, warnings: Mutex::default() }))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        let state = self.0.head.state.read();
        let names = if matchers.is_empty() {
            self.0.of_shown(&state, |shown| state.index.names_of(shown))
        } else {
            let pairs = self.pairs(&state, matchers, |_| true);
            let names: BTreeSet<&str> = pairs.into_iter().map(|id| state.index.text(id).0).collect();
            names.into_iter().collect()
        };
        let names = names.into_iter().map(str::to_owned).collect();
        drop(state);
        Ok(first_sorted(names, hints.limit))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        let state = self.0.head.state.read();
        let values = if matchers.is_empty() {
            self.0.of_shown(&state, |shown| state.index.values_of(name, shown))
        } else {
            let pairs = self.pairs(&state, matchers, |id| state.index.text(id).0 == name);
            pairs.into_iter().map(|id| state.index.text(id).1).collect()
        };
        let values = values.into_iter().map(str::to_owned).collect();
        drop(state);
        Ok(first_sorted(values, hints.limit))
    }
}

/// The first of different texts in order; 0 = all.
fn first_sorted(mut texts: Vec<String>, limit: usize) -> Vec<String> {
    if (1..texts.len()).contains(&limit) {
        texts.select_nth_unstable(limit);
        texts.truncate(limit);
    }
    texts.sort_unstable();
    texts
}

impl HeadQuerier {
    /// The fitting label pairs of the selected series, each once.
    fn pairs(&self, state: &State, matchers: &[Matcher], fits: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut pairs: Vec<u32> = Vec::new();
        for slot in self.0.slots(state, matchers) {
            let own = state.series(slot).into_iter().flat_map(|s| s.pairs.iter().copied());
            pairs.extend(own.filter(|id| fits(*id)));
            if pairs.len() > 1 << 20 {
                pairs.sort_unstable();
                pairs.dedup();
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
}

impl SeriesSet for HeadSeriesSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.series.get(i).map(|s| s.0.clone()).unwrap_or_default()
    }

    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError> {
        out.clear();
        let Some((_, reference)) = self.series.get(i) else { return Ok(()) };
        let mut data = self.view.data(*reference, min_t_ms, max_t_ms)?;
        if !data.warnings.is_empty() {
            let mut warnings = self.warnings.lock();
            warnings.append(&mut data.warnings);
            warnings.sort_unstable();
            warnings.dedup();
        }
        data.read(min_t_ms, max_t_ms, out)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}

impl Head {
    /// Exemplars of series that satisfy one of the matcher sets.
    #[must_use]
    pub fn select_exemplars(&self, start_ms: i64, end_ms: i64, sets: &[Vec<Matcher>]) -> Vec<ExemplarSeries> {
        let kept: Vec<super::exemplars::Kept> = {
            let ring = self.exemplars.lock();
            ring.iter().filter(|k| (start_ms..=end_ms).contains(&k.t_ms)).cloned().collect()
        };
        let state = self.state.read();
        let mut found: std::collections::BTreeMap<Labels, Vec<Exemplar>> = std::collections::BTreeMap::new();
        for kept in kept {
            let Some(slot) = state.resolve(kept.series) else { continue };
            let labels = state.labels(slot);
            if sets.iter().any(|set| set.iter().all(|m| m.matches(labels.value(&m.name)))) {
                let exemplar =
                    Exemplar { labels: kept.labels, value: kept.value, timestamp_ms: Some(kept.t_ms) };
                found.entry(labels).or_default().push(exemplar);
            }
        }
        drop(state);
        let sorted = found.into_iter().map(|(labels, mut exemplars)| {
            exemplars.sort_by_key(|e| e.timestamp_ms);
            ExemplarSeries { labels, exemplars }
        });
        sorted.collect()
    }
}
