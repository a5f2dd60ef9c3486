//! A storage in plain sorted maps, with the doors of the real one: the store of rule unit tests and PromQL
//! scripts, and the naive twin that judges the engine. Clarity before speed; nothing is written to disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::changes::Changes;
use super::door::{
    AppendError, Appendable, Appender, BatchOptions, Commit, LabelQueryHints, Querier, Queryable,
    SelectHints, SeriesRef, SeriesSet, StorageError,
};
use crate::model::histogram::CounterResetHint;
use crate::model::metadata::{Exemplar, Metadata};
use crate::model::sample::{HistogramValue, Value};
use crate::model::{Labels, Matcher, SampleBuffer, is_stale_nan};

#[derive(Debug, Clone)]
struct Point {
    start_ms: i64,
    value: Value,
}

type Series = BTreeMap<i64, Point>;
type Table = BTreeMap<Labels, Series>;

/// The storage. Clones of the `Arc` share it.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    /// Replaced on commit, so that open views keep what they saw.
    table: RwLock<Arc<Table>>,
    changes: Arc<Changes>,
}

impl MemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.table.write() = Arc::default();
        self.changes.note_all();
    }
}

struct MemoryAppender<'a> {
    storage: &'a MemoryStorage,
    pending: Vec<(Labels, i64, Point)>,
}

impl Appendable for MemoryStorage {
    fn appender(&self, _options: BatchOptions) -> Box<dyn Appender + '_> {
        Box::new(MemoryAppender { storage: self, pending: Vec::new() })
    }
}

impl MemoryAppender<'_> {
    fn add(&mut self, labels: Labels, t_ms: i64, point: Point) -> Result<SeriesRef, AppendError> {
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("empty label set".into()));
        }
        let table = self.storage.table.read();
        let pending_here =
            self.pending.iter().rev().find(|(l, t, _)| *l == labels && *t == t_ms).map(|(_, _, point)| point);
        let stored = || table.get(&labels).and_then(|series| series.get(&t_ms));
        if let Some(old) = pending_here.or_else(stored) {
            let same = match (&old.value, &point.value) {
                (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
                (a, b) => a == b,
            };
            return if same { Ok(SeriesRef::NONE) } else { Err(AppendError::DuplicateTimestamp) };
        }
        drop(table);
        self.pending.push((labels, t_ms, point));
        Ok(SeriesRef::NONE)
    }
}

impl Appender for MemoryAppender<'_> {
    fn append(
        &mut self,
        _reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        value: f64,
    ) -> Result<SeriesRef, AppendError> {
        self.add(labels(), t_ms, Point { start_ms, value: Value::Float(value) })
    }

    fn append_histogram(
        &mut self,
        _reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        histogram: HistogramValue,
    ) -> Result<SeriesRef, AppendError> {
        self.add(labels(), t_ms, Point { start_ms, value: Value::Histogram(histogram) })
    }

    fn append_exemplar(&mut self, _: SeriesRef, _: i64, _: &Exemplar) -> Result<(), AppendError> {
        Ok(())
    }

    fn update_metadata(&mut self, _: &str, _: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<Commit, AppendError> {
        let times = self.pending.iter().map(|(_, t_ms, _)| *t_ms);
        let range = times.fold((i64::MAX, i64::MIN), |(min, max), t| (min.min(t), max.max(t)));
        let mut table = self.storage.table.write();
        let table = Arc::make_mut(&mut table);
        let (mut created, samples) = (0, self.pending.len() as u64);
        for (labels, t_ms, point) in self.pending {
            let series = table.entry(labels).or_insert_with(|| {
                created += 1;
                Series::new()
            });
            series.insert(t_ms, point);
        }
        self.storage.changes.note(range.0, range.1);
        Ok(Commit::new(samples, created, None))
    }

    fn rollback(self: Box<Self>) {}
}

struct MemoryQuerier {
    table: Arc<Table>,
    min_t_ms: i64,
    max_t_ms: i64,
}

impl Queryable for MemoryStorage {
    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(MemoryQuerier { table: Arc::clone(&self.table.read()), min_t_ms, max_t_ms }))
    }

    fn changes(&self) -> Option<Arc<Changes>> {
        Some(Arc::clone(&self.changes))
    }
}

impl MemoryQuerier {
    fn matching<'a>(&'a self, matchers: &'a [Matcher]) -> impl Iterator<Item = &'a Labels> {
        self.table
            .iter()
            .filter(|(labels, series)| {
                self.min_t_ms <= self.max_t_ms
                    && series.range(self.min_t_ms..=self.max_t_ms).next().is_some()
                    && matchers.iter().all(|m| m.matches(labels.value(&m.name)))
            })
            .map(|(labels, _)| labels)
    }
}

impl Querier for MemoryQuerier {
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let series = self.matching(matchers).cloned().collect();
        let presence_alone = hints.presence_alone;
        Ok(Box::new(MemorySeriesSet { table: Arc::clone(&self.table), series, presence_alone }))
    }

    fn label_names(&self, matchers: &[Matcher], _: &LabelQueryHints) -> Result<Vec<String>, StorageError> {
        let mut names: Vec<String> =
            self.matching(matchers).flat_map(|l| l.iter().map(|l| l.name.to_owned())).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        _: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        let mut values: Vec<String> =
            self.matching(matchers).filter_map(|l| l.get(name)).map(str::to_owned).collect();
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

struct MemorySeriesSet {
    table: Arc<Table>,
    series: Vec<Labels>,
    presence_alone: bool,
}

impl SeriesSet for MemorySeriesSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.series[i].clone()
    }

    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError> {
        out.clear();
        let Some(series) = self.table.get(&self.series[i]) else { return Ok(()) };
        // Hints depend on the sample before, also on one outside the range.
        let mut previous: Option<&Value> = None;
        for (t_ms, point) in series.range(..=max_t_ms) {
            if *t_ms >= min_t_ms {
                match &point.value {
                    // This storage judges others and their callers: who says that values do not matter gets nonsense.
                    Value::Float(v) if self.presence_alone && !is_stale_nan(*v) => {
                        out.push_float_with_start(*t_ms, point.start_ms, -6.5e4);
                    }
                    Value::Float(v) => out.push_float_with_start(*t_ms, point.start_ms, *v),
                    Value::Histogram(h) => {
                        let mut float = (*h.to_float()).clone();
                        float.counter_reset_hint = read_hint(previous, &float);
                        out.push_histogram(*t_ms, point.start_ms, Arc::new(float));
                    }
                }
            }
            previous = Some(&point.value);
        }
        Ok(())
    }
}

/// The counter reset hint that a reader sees: `gauge` stays, otherwise it follows from the sample before.
pub(super) fn read_hint(
    previous: Option<&Value>,
    current: &crate::model::histogram::FloatHistogram,
) -> CounterResetHint {
    if current.counter_reset_hint == CounterResetHint::Gauge {
        return CounterResetHint::Gauge;
    }
    match previous {
        Some(Value::Histogram(before)) if !before.is_stale() => {
            let before = before.to_float();
            if before.counter_reset_hint != CounterResetHint::Gauge && !current.detects_reset_after(&before) {
                CounterResetHint::NotReset
            } else {
                CounterResetHint::Unknown
            }
        }
        _ => CounterResetHint::Unknown,
    }
}
