//! How do several sources (blocks, the head) look like one? Series are merged in order of labels, samples in order
//! of time; where two sources have a sample of the same timestamp, the later source in the list wins.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::door::{LabelQueryHints, Querier, SelectHints, SeriesSet, StorageError};
use crate::model::histogram::CounterResetHint;
use crate::model::{Labels, Matcher, SampleBuffer};

/// One view over several.
pub struct MergedQuerier {
    sources: Vec<Box<dyn Querier>>,
}

impl MergedQuerier {
    /// Merges `sources`; put the one to be preferred for equal timestamps last.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn Querier>>) -> Self {
        Self { sources }
    }

    /// Runs a label query on each source. A damaged source is left out: its data could not be shown either.
    fn union(
        &self,
        limit: usize,
        ask: impl Fn(&dyn Querier) -> Result<Vec<String>, StorageError>,
    ) -> Result<Vec<String>, StorageError> {
        if let [only] = &self.sources[..] {
            return ask(&**only);
        }
        let mut all = BTreeSet::new();
        for source in &self.sources {
            match ask(&**source) {
                Ok(texts) => all.extend(texts),
                Err(e @ StorageError::Corrupt { .. }) => {
                    tracing::warn!(err = %e, "labels of a damaged block were left out");
                }
                Err(e) => return Err(e),
            }
        }
        let limit = if limit == 0 { usize::MAX } else { limit };
        Ok(all.into_iter().take(limit).collect())
    }
}

impl Querier for MergedQuerier {
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let (mut sets, mut warnings) = (Vec::new(), Vec::new());
        for source in &self.sources {
            match source.select(hints, matchers) {
                Ok(set) => sets.push(set),
                Err(e @ StorageError::Corrupt { .. }) => warnings.push(format!("a block was left out: {e}")),
                Err(e) => return Err(e),
            }
        }
        if warnings.is_empty() && sets.iter().filter(|s| !s.is_empty()).count() <= 1 {
            let only = sets.iter().position(|s| !s.is_empty()).unwrap_or(0);
            // Sets without series may still have something to say.
            if sets.iter().enumerate().all(|(i, s)| i == only || s.warnings().is_empty()) && only < sets.len()
            {
                return Ok(sets.swap_remove(only));
            }
        }
        Ok(Box::new(MergedSet::new(sets, warnings)))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        self.union(hints.limit, |source| source.label_names(matchers, hints))
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        self.union(hints.limit, |source| source.label_values(name, matchers, hints))
    }
}

thread_local! {
    /// Room for the samples of one source and of several, used again for the next series.
    static ROOM: RefCell<(SampleBuffer, SampleBuffer)> = RefCell::default();
}

struct MergedSet {
    sets: Vec<Box<dyn SeriesSet>>,
    /// Labels and where the members begin.
    series: Vec<(Labels, u32)>,
    /// Set and number within it, in order of sets for each series.
    members: Vec<(u32, u32)>,
    warnings: Vec<String>,
}

/// The next series of one source.
#[derive(Debug, Clone, Default)]
struct Head {
    next: usize,
    /// Its labels, once they were needed.
    labels: Option<Labels>,
}

impl Head {
    fn labels(&mut self, set: &dyn SeriesSet) -> &Labels {
        self.labels.get_or_insert_with(|| set.labels(self.next))
    }
}

impl MergedSet {
    fn new(sets: Vec<Box<dyn SeriesSet>>, warnings: Vec<String>) -> Self {
        // The next series of each set. There are a handful of sets and most have most of the series, so that looking
        // at all heads costs fewer comparisons than a heap; and as most heads are alike, labels are only made for
        // those that turn out to differ.
        let mut heads: Vec<Head> = vec![Head::default(); sets.len()];
        let (mut series, mut members): (Vec<(Labels, u32)>, Vec<(u32, u32)>) = (Vec::new(), Vec::new());
        let mut least: Vec<usize> = Vec::with_capacity(sets.len());
        loop {
            least.clear();
            let mut lowest: Option<Labels> = None;
            for (s, head) in heads.iter_mut().enumerate().filter(|(s, head)| head.next < sets[*s].len()) {
                let order = match (&lowest, &head.labels) {
                    (None, _) => Ordering::Less,
                    (Some(lowest), None) if sets[s].is(head.next, lowest) => Ordering::Equal,
                    (Some(lowest), _) => head.labels(&*sets[s]).cmp(lowest),
                };
                match order {
                    Ordering::Greater => {}
                    Ordering::Equal => least.push(s),
                    Ordering::Less => {
                        lowest = Some(head.labels(&*sets[s]).clone());
                        least.clear();
                        least.push(s);
                    }
                }
            }
            let Some(labels) = lowest else { break };
            series.push((labels, members.len() as u32));
            for s in &least {
                members.push((*s as u32, heads[*s].next as u32));
                heads[*s] = Head { next: heads[*s].next + 1, labels: None };
            }
        }
        Self { sets, series, members, warnings }
    }
}

impl SeriesSet for MergedSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.series[i].0.clone()
    }

    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError> {
        let from = self.series[i].1 as usize;
        let to = self.series.get(i + 1).map_or(self.members.len(), |(_, at)| *at as usize);
        let Some(((set, number), rest)) = self.members[from..to].split_first() else { return Ok(()) };
        self.sets[*set as usize].samples(*number as usize, min_t_ms, max_t_ms, out)?;
        if rest.is_empty() {
            return Ok(());
        }
        let (mut next, mut merged) = ROOM.take();
        let mut add = |(set, number): &(u32, u32)| -> Result<(), StorageError> {
            self.sets[*set as usize].samples(*number as usize, min_t_ms, max_t_ms, &mut next)?;
            if last(out).zip(first(&next)).is_none_or(|(a, b)| a < b) {
                // The usual case: one source ends before the next begins.
                append(out, &mut next);
                return Ok(());
            }
            merge_buffers(out, &next, &mut merged);
            std::mem::swap(out, &mut merged);
            Ok(())
        };
        let added = rest.iter().try_for_each(&mut add);
        next.clear();
        merged.clear();
        ROOM.set((next, merged));
        added
    }

    fn latest(&self, i: usize, t_ms: i64) -> Option<(i64, f64)> {
        let from = self.series[i].1 as usize;
        let to = self.series.get(i + 1).map_or(self.members.len(), |(_, at)| *at as usize);
        let [(set, number)] = self.members.get(from..to)? else { return None };
        self.sets[*set as usize].latest(*number as usize, t_ms)
    }

    fn warnings(&self) -> Vec<String> {
        let mut all = self.warnings.clone();
        for warning in self.sets.iter().flat_map(|s| s.warnings()) {
            if !all.contains(&warning) {
                all.push(warning);
            }
        }
        all
    }
}

fn first(b: &SampleBuffer) -> Option<i64> {
    b.timestamps.first().copied().into_iter().chain(b.histograms.first().map(|(t, _)| *t)).min()
}

fn last(b: &SampleBuffer) -> Option<i64> {
    b.timestamps.last().copied().into_iter().chain(b.histograms.last().map(|(t, _)| *t)).max()
}

/// Puts `later` behind `out`; nothing of it is older.
fn append(out: &mut SampleBuffer, later: &mut SampleBuffer) {
    if out.is_empty() {
        return std::mem::swap(out, later);
    }
    let start_times = |mine: &mut Vec<i64>, len: usize, theirs: &[i64], more: usize| {
        if !mine.is_empty() || !theirs.is_empty() {
            mine.resize(len, 0);
            mine.extend_from_slice(theirs);
            mine.resize(len + more, 0);
        }
    };
    start_times(&mut out.float_start_ts, out.values.len(), &later.float_start_ts, later.values.len());
    let (len, more) = (out.histograms.len(), later.histograms.len());
    start_times(&mut out.histogram_start_ts, len, &later.histogram_start_ts, more);
    out.timestamps.extend_from_slice(&later.timestamps);
    out.values.extend_from_slice(&later.values);
    out.histograms.append(&mut later.histograms);
}

fn push_from(b: &SampleBuffer, float: bool, i: usize, apart: bool, out: &mut SampleBuffer) {
    if float {
        out.push_float_with_start(
            b.timestamps[i],
            b.float_start_ts.get(i).copied().unwrap_or(0),
            b.values[i],
        );
        return;
    }
    let (t, h) = &b.histograms[i];
    let start = b.histogram_start_ts.get(i).copied().unwrap_or(0);
    // "No reset since the sample before" no longer holds once others came in between.
    if apart
        || h.counter_reset_hint == CounterResetHint::Gauge
        || h.counter_reset_hint == CounterResetHint::Unknown
    {
        out.push_histogram(*t, start, h.clone());
    } else {
        let mut unknown = (**h).clone();
        unknown.counter_reset_hint = CounterResetHint::Unknown;
        out.push_histogram(*t, start, unknown.into());
    }
}

/// Replaces the content of `out` by the samples of both; on equal timestamps those of `later` stay.
fn merge_buffers(earlier: &SampleBuffer, later: &SampleBuffer, out: &mut SampleBuffer) {
    out.clear();
    let apart = match (last(earlier), first(later), last(later), first(earlier)) {
        (Some(a), Some(b), Some(c), Some(d)) => a < b || c < d,
        _ => true,
    };
    for float in [true, false] {
        let time = |b: &SampleBuffer, i: usize| {
            if float { b.timestamps.get(i).copied() } else { b.histograms.get(i).map(|(t, _)| *t) }
        };
        let overridden = |t: i64| {
            !apart
                && (later.timestamps.binary_search(&t).is_ok()
                    || later.histograms.binary_search_by_key(&t, |(t, _)| *t).is_ok())
        };
        let (mut i, mut j) = (0, 0);
        loop {
            match (time(earlier, i), time(later, j)) {
                (Some(a), b) if b.is_none_or(|b| a < b) => {
                    if !overridden(a) {
                        push_from(earlier, float, i, apart, out);
                    }
                    i += 1;
                }
                (a, Some(b)) => {
                    push_from(later, float, j, apart, out);
                    i += usize::from(a == Some(b));
                    j += 1;
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::SampleBuffer;
    use crate::tsdb::memory::MemoryStorage;
    use crate::tsdb::{Appendable, BatchOptions, Queryable, SeriesRef};

    fn store(samples: &[(u8, i64, f64)]) -> Box<dyn Querier> {
        let storage = MemoryStorage::new();
        let mut appender = storage.appender(BatchOptions::default());
        for (series, t, v) in samples {
            let labels = || Labels::from_pairs([("s", format!("{series}"))]);
            // Of repeated timestamps the first stays; the twin does the same.
            let _ = appender.append(SeriesRef::NONE, &labels, 0, *t, *v);
        }
        appender.commit().unwrap();
        storage.querier(i64::MIN, i64::MAX).unwrap()
    }

    proptest! {
        #[test]
        fn behaves_like_one_map(sources in prop::collection::vec(
            prop::collection::vec((0u8..4, 0i64..30, -5i32..5), 0..40), 1..5)) {
            let mut naive: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
            let mut queriers = Vec::new();
            for source in &sources {
                let source: Vec<_> = source.iter().map(|(s, t, v)| (*s, *t, f64::from(*v))).collect();
                let mut own: BTreeMap<(u8, i64), f64> = BTreeMap::new();
                for (s, t, v) in &source {
                    own.entry((*s, *t)).or_insert(*v);
                }
                for ((s, t), v) in own {
                    naive.entry(s.to_string()).or_default().insert(t, v);
                }
                queriers.push(store(&source));
            }
            let merged = MergedQuerier::new(queriers);
            let set = merged.select(&SelectHints::default(), &[]).unwrap();
            prop_assert_eq!(set.len(), naive.len());
            let mut buffer = SampleBuffer::default();
            for (i, (name, samples)) in naive.iter().enumerate() {
                let labels = set.labels(i);
                prop_assert_eq!(labels.value("s"), name);
                set.samples(i, 5, 25, &mut buffer).unwrap();
                let want: Vec<(i64, f64)> = samples.range(5..=25).map(|(t, v)| (*t, *v)).collect();
                let got: Vec<(i64, f64)> = buffer.timestamps.iter().copied().zip(buffer.values.iter().copied()).collect();
                prop_assert_eq!(got, want);
            }
            let names: Vec<String> = naive.keys().cloned().collect();
            prop_assert_eq!(merged.label_values("s", &[], &LabelQueryHints::default()).unwrap(), names);
        }
    }
}
