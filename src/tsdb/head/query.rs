//! Reading the head: a view remembers the last commit it may see; series are copied out one by one under a short
//! lock and decoded outside of it.

use std::sync::Arc;

use parking_lot::{Mutex, RwLockReadGuard};
use roaring::RoaringBitmap;

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
use super::order::Order;
use super::selections::select;
use super::series::{LateSample, Open, Series, decode};
use super::state::State;
use crate::model::metadata::Exemplar;
use crate::model::sample::{HistogramValue, Value};
use crate::model::{Labels, Matcher, SampleBuffer};
use crate::telemetry::memory::Room;

/// Series whose labels are looked at to know what those of all take.
const LOOKED_AT: usize = 64;
/// Bytes that a selected series takes beside its labels while a selection is put in order.
const BESIDE_LABELS: u64 = 144;
/// If a label has more values and only some are asked for, any will do.
const MANY_VALUES: usize = 4096;

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

/// The first label of a series, which is its name as a rule.
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

    /// Whether a series may have samples in the view, and the newest one where it is at hand.
    fn glance(
        &self,
        state: &State,
        isolation: Option<&Isolation>,
        slot: u32,
        series: &Series,
    ) -> Option<Newest> {
        if series.min_t_ms > self.max_t_ms || series.max_t_ms() < self.min_t_ms {
            return None;
        }
        let hidden = isolation.map(|i| i.hidden(self.sequence, slot)).unwrap_or_default();
        if hidden != Hidden::default() {
            // Something is hidden: is anything left?
            let in_order = hidden.from_t_ms.is_none_or(|from| series.min_t_ms < from);
            let left =
                in_order || series.late().iter().any(|s| hidden.out_of_order.binary_search(&s.t_ms).is_err());
            return left.then_some(None);
        }
        let Open::Float(open) = &series.open else { return Some(None) };
        let plain = series.late().is_empty()
            && open.last_t() >= self.valid_from_ms
            && !state.deleted.contains_key(&slot);
        Some(plain.then(|| (open.last_t(), f64::from_bits(open.last_value_bits()))))
    }

    /// Calls `each` with the series among `slots` that may have samples in the view, and their newest samples where those
    /// are at hand.
    fn each_of<T>(
        &self,
        state: &State,
        candidates: impl Iterator<Item = (u32, T)>,
        mut each: impl FnMut(u32, T, Newest),
    ) {
        if self.min_t_ms > self.max_t_ms {
            return;
        }
        let isolation = self.head.isolation.read();
        let isolation = isolation.hides_anything().then_some(&*isolation);
        for (slot, candidate) in candidates {
            let Some(series) = state.series(slot) else { continue };
            if let Some(newest) = self.glance(state, isolation, slot, series) {
                each(slot, candidate, newest);
            }
        }
    }

    /// The series that satisfy the matchers and may have samples in the view.
    fn slots(&self, state: &State, matchers: &[Matcher]) -> Vec<u32> {
        let selected = state.index.select(matchers);
        let mut slots = Vec::new();
        self.each_of(state, selected.iter().map(|slot| (slot, ())), |slot, (), _| slots.push(slot));
        slots
    }

    /// Names of all labels of the series that may have samples in the view, in no order.
    fn names_alone<'s>(&self, state: &'s State) -> Vec<&'s str> {
        if self.min_t_ms > self.max_t_ms {
            return Vec::new();
        }
        let isolation = self.head.isolation.read();
        let isolation = isolation.hides_anything().then_some(&*isolation);
        state.index.names_of(|slot| {
            let series = state.series(slot);
            series.is_some_and(|s| self.glance(state, isolation, slot, s).is_some())
        })
    }

    /// At most `limit` values of a label that satisfy matchers about this same label, the least ones unless the label has
    /// many; 0 = all. The values tell which ones fit, so that not every series need be looked at.
    fn values_alone(&self, state: &State, name: &str, matchers: &[Matcher], limit: usize) -> Vec<String> {
        if self.min_t_ms > self.max_t_ms {
            return Vec::new();
        }
        let isolation = self.head.isolation.read();
        let isolation = isolation.hides_anything().then_some(&*isolation);
        let all = state.index.series_by_value(name);
        // Among many, looking for the least would take long.
        let enough = if limit > 0 && all.len() > MANY_VALUES { limit } else { usize::MAX };
        let mut values: Vec<&str> = all
            .filter(|(value, _)| matchers.iter().all(|m| m.matches(value)))
            .filter(|(_, series)| {
                let shown = |slot| {
                    let series = state.series(slot);
                    series.is_some_and(|s| self.glance(state, isolation, slot, s).is_some())
                };
                series.any(shown)
            })
            .map(|(value, _)| value)
            .take(enough)
            .collect();
        if limit > 0 && values.len() > limit {
            values.select_nth_unstable(limit);
            values.truncate(limit);
        }
        values.sort_unstable();
        values.into_iter().map(str::to_owned).collect()
    }

    /// References and labels of the selected series, sorted by labels.
    #[must_use]
    pub fn series(&self, matchers: &[Matcher]) -> Vec<(Labels, SeriesRef)> {
        let state = self.head.state.read();
        let selected = state.index.select(matchers);
        self.series_and_newest(state, &selected).0
    }

    /// The memory that the labels of selected series take, if it is there.
    fn room(&self, state: &State, selected: &RoaringBitmap) -> Result<Room<'_>, StorageError> {
        let some = selected.iter().step_by((selected.len() as usize / LOOKED_AT).max(1));
        let (mut n, mut bytes) = (0u64, 0u64);
        for slot in some {
            n += 1;
            bytes += state.labels(slot).heap_bytes() as u64;
        }
        let one = bytes / n.max(1) + BESIDE_LABELS;
        self.head.limits.memory().room(selected.len() * one).map_err(StorageError::Limit)
    }

    /// The same for a query, which must leave memory to others, with their newest samples where those are at hand.
    fn series_if_room(&self, matchers: &[Matcher]) -> Result<SeriesAndNewest, StorageError> {
        let state = self.head.state.read();
        let selected = state.index.select(matchers);
        let _room = self.room(&state, &selected)?;
        Ok(self.series_and_newest(state, &selected))
    }

    fn series_and_newest(
        &self,
        state: RwLockReadGuard<'_, State>,
        selected: &RoaringBitmap,
    ) -> SeriesAndNewest {
        let (mut slots, mut all) = (Vec::new(), Vec::new());
        self.each_of(&state, selected.iter().map(|slot| (slot, ())), |slot, (), newest| {
            slots.push(slot);
            all.push(((state.labels(slot), state.reference(slot)), newest));
        });
        let order = Order::of(&state, &slots);
        drop(state);
        order.arrange(&mut all, |((labels, _), _)| labels);
        all.into_iter().unzip()
    }

    /// The same for matchers that come again and again, with the newest samples of the series.
    fn series_again(&self, matchers: &[Matcher]) -> SeriesAndNewest {
        let state = self.head.state.read();
        let known = self.head.selections.lock().find(&state, matchers);
        let selected = known.unwrap_or_else(|| {
            let selected = select(&state, matchers);
            self.head.selections.lock().keep(&state, matchers, &selected);
            selected
        });
        let mut series = Vec::with_capacity(selected.len());
        let mut newest = Vec::with_capacity(selected.len());
        self.each_of(&state, selected.iter().map(|s| (s.slot, s)), |_, s, sample| {
            series.push((s.labels(&state), s.reference));
            newest.push(sample);
        });
        (series, newest)
    }

    /// The newest sample that the view shows of a series, where it is at hand.
    fn newest(&self, reference: SeriesRef) -> Newest {
        let state = self.head.state.read();
        let slot = state.resolve(reference)?;
        let isolation = self.head.isolation.read();
        let isolation = isolation.hides_anything().then_some(&*isolation);
        self.glance(&state, isolation, slot, state.series(slot)?)?
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

/// Time and value of a sample, if it is at hand.
type Newest = Option<(i64, f64)>;

/// Series in order of their labels, and the newest sample of each.
type SeriesAndNewest = (Vec<(Labels, SeriesRef)>, Vec<Newest>);

struct HeadSeriesSet {
    view: Arc<HeadView>,
    series: Vec<(Labels, SeriesRef)>,
    /// Of each series; none at all if nobody looked.
    newest: Vec<Newest>,
    warnings: Mutex<Vec<String>>,
}

impl Querier for HeadQuerier {
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let (mut series, newest) =
            if hints.repeats { self.0.series_again(matchers) } else { self.0.series_if_room(matchers)? };
        if hints.limit > 0 {
            series.truncate(hints.limit);
        }
        Ok(Box::new(HeadSeriesSet { view: Arc::clone(&self.0), series, newest, warnings: Mutex::default() }))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        let state = self.0.head.state.read();
        let mut names: Vec<String> = if matchers.is_empty() {
            self.0.names_alone(&state).into_iter().map(str::to_owned).collect()
        } else {
            let mut pairs: Vec<u32> = Vec::new();
            for slot in self.0.slots(&state, matchers) {
                pairs.extend(state.series(slot).into_iter().flat_map(|s| s.pairs.iter()));
                if pairs.len() > 1 << 20 {
                    pairs.sort_unstable();
                    pairs.dedup();
                }
            }
            pairs.sort_unstable();
            pairs.dedup();
            pairs.into_iter().map(|id| state.index.text(id).0.to_owned()).collect()
        };
        drop(state);
        names.sort_unstable();
        names.dedup();
        if hints.limit > 0 {
            names.truncate(hints.limit);
        }
        Ok(names)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        let state = self.0.head.state.read();
        if matchers.iter().all(|m| &*m.name == name) {
            return Ok(self.0.values_alone(&state, name, matchers, hints.limit));
        }
        let mut ids: Vec<u32> = Vec::new();
        for slot in self.0.slots(&state, matchers) {
            let pairs = state.series(slot).into_iter().flat_map(|s| s.pairs.iter());
            ids.extend(pairs.filter(|id| state.index.text(**id).0 == name));
            if ids.len() > 1 << 20 {
                ids.sort_unstable();
                ids.dedup();
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let mut values: Vec<String> = ids.into_iter().map(|id| state.index.text(id).1.to_owned()).collect();
        drop(state);
        values.sort_unstable();
        if hints.limit > 0 {
            values.truncate(hints.limit);
        }
        Ok(values)
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

    fn latest(&self, i: usize, t_ms: i64) -> Option<(i64, f64)> {
        let newest = self.newest.get(i).copied().unwrap_or_else(|| self.view.newest(self.series.get(i)?.1));
        newest.filter(|(newest_t_ms, _)| *newest_t_ms <= t_ms)
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
