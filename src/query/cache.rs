//! Which part of an answer is known already? Dashboards ask the same range query again and again, a little later
//! each time; the steps whose samples did not change meanwhile are taken from here.
//!
//! The cache is exact. A step is used again only if no sample changed in the time it looks at
//! ([`Changes`]), and only for the very same steps: a query on another grid is another query. Answers with
//! warnings or infos are not kept, because a part of them might not deserve them; neither are queries whose value at a
//! step depends on the range asked for (`@ start()`, `range()`, …) or that look at a fixed time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::exec::column::Axis;
use super::plan::{Kind, Plan, Source, reach};
use super::value::MatrixSeries;
use crate::query::functions::Func;
use crate::tsdb::Changes;

/// A query that gives the same values at the same steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// Which storage ([`Changes::id`]).
    pub storage: u64,
    /// Text.
    pub query: String,
    /// Distance of steps, milliseconds.
    pub step_ms: i64,
    /// Where the grid lies.
    pub phase_ms: i64,
    /// How long a sample stays valid, milliseconds.
    pub lookback_ms: i64,
    /// Step of subqueries without one, milliseconds.
    pub subquery_step_ms: i64,
}

/// Answers by query, bounded in bytes; those not asked for the longest go first.
#[derive(Debug)]
pub struct ResultCache {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<CacheKey, Answer>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Answer {
    axis: Axis,
    /// The number of changes that it includes at least.
    as_of: u64,
    series: Arc<Vec<MatrixSeries>>,
    bytes: usize,
    used: u64,
}

/// Steps that are known, and their values.
#[derive(Debug)]
pub struct Hit {
    /// Steps; inside those asked for.
    pub known: Axis,
    series: Arc<Vec<MatrixSeries>>,
}

/// How far around a step its value looks, milliseconds relative to the step; `None` if that cannot be told or the
/// value depends on more than the step.
#[must_use]
pub fn surroundings(plan: &Plan, lookback_ms: i64) -> Option<(i64, i64)> {
    if !depends_on_step_alone(plan) {
        return None;
    }
    // Some step in the middle of time, far from where arithmetic saturates.
    const STEP: i64 = 1 << 60;
    let (from, to) = reach(plan, STEP, STEP, lookback_ms);
    Some((from.checked_sub(STEP)?, to.checked_sub(STEP)?))
}

fn depends_on_step_alone(plan: &Plan) -> bool {
    match &plan.kind {
        Kind::Number(_) | Kind::String(_) => true,
        Kind::Negate(e) | Kind::Invariant(e) => depends_on_step_alone(e),
        Kind::Binary(b) => depends_on_step_alone(&b.lhs) && depends_on_step_alone(&b.rhs),
        Kind::Aggregate(a) => {
            depends_on_step_alone(&a.expr) && a.param.as_ref().is_none_or(depends_on_step_alone)
        }
        Kind::Call(c) => {
            !matches!(c.func, Func::Start | Func::End | Func::Range | Func::Step)
                && c.args.iter().all(depends_on_step_alone)
        }
        Kind::Selector(s) => s.shift.at.is_none(),
        Kind::Window(w) => match &w.source {
            Source::Selector(s) => s.shift.at.is_none(),
            Source::Subquery { expr, shift, .. } => shift.at.is_none() && depends_on_step_alone(expr),
        },
    }
}

/// The longest run of steps of `axis` inside `[first, last]` that no changed range touches.
fn longest_untouched(
    axis: Axis,
    (first, last): (i64, i64),
    (before, after): (i64, i64),
    changed: &[(i64, i64)],
) -> Option<Axis> {
    let at_or_before = |t: i64| t.saturating_sub(axis.start).div_euclid(axis.step);
    let at_or_after = |t: i64| at_or_before(t.saturating_sub(1)).saturating_add(1);
    // Counted in steps, not in time: a change between two steps parts nothing.
    let end = at_or_before(last).saturating_add(1).min(axis.n as i64);
    let mut from = at_or_after(first).max(0);
    let mut best = 0..0;
    for (a, b) in changed {
        // A step t is touched by [a, b] if [t + before, t + after] meets it.
        let touched =
            at_or_after(a.saturating_sub(after))..at_or_before(b.saturating_sub(before)).saturating_add(1);
        if touched.is_empty() {
            continue;
        }
        let run = from..touched.start.min(end);
        if run.end.saturating_sub(run.start) > best.end - best.start {
            best = run;
        }
        from = from.max(touched.end);
    }
    if end.saturating_sub(from) > best.end - best.start {
        best = from..end;
    }
    let start = axis.start + best.start * axis.step;
    (!best.is_empty()).then(|| Axis { start, step: axis.step, n: (best.end - best.start) as usize })
}

/// The parts of `axis` in front of and behind `known`, which lies inside.
#[must_use]
pub fn missing(axis: Axis, known: Axis) -> Vec<Axis> {
    let front = ((known.start - axis.start) / axis.step) as usize;
    let back = axis.n - front - known.n;
    let mut out = Vec::new();
    if front > 0 {
        out.push(Axis { n: front, ..axis });
    }
    if back > 0 {
        out.push(Axis { start: known.last() + axis.step, step: axis.step, n: back });
    }
    out
}

impl Hit {
    /// The known values, series without any left out.
    #[must_use]
    pub fn values(&self) -> Vec<MatrixSeries> {
        let (first, last) = (self.known.start, self.known.last());
        let mut out = Vec::with_capacity(self.series.len());
        for series in self.series.iter() {
            let floats = series.floats.partition_point(|(t, _)| *t < first)
                ..series.floats.partition_point(|(t, _)| *t <= last);
            let histograms = series.histograms.partition_point(|(t, _)| *t < first)
                ..series.histograms.partition_point(|(t, _)| *t <= last);
            if floats.is_empty() && histograms.is_empty() {
                continue;
            }
            out.push(MatrixSeries {
                labels: series.labels.clone(),
                floats: series.floats[floats].to_vec(),
                histograms: series.histograms[histograms].to_vec(),
            });
        }
        out
    }
}

/// Puts parts of one matrix, each sorted by labels, into one; parts come in order of time.
#[must_use]
pub fn join(parts: Vec<Vec<MatrixSeries>>) -> Vec<MatrixSeries> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        let mut joined = Vec::with_capacity(all.len().max(part.len()));
        let (mut left, mut right) = (all.into_iter().peekable(), part.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.labels.cmp(&b.labels),
            };
            let mut next = if order.is_gt() { right.next() } else { left.next() };
            if order.is_eq()
                && let (Some(into), Some(mut more)) = (&mut next, right.next())
            {
                into.floats.append(&mut more.floats);
                into.histograms.append(&mut more.histograms);
            }
            joined.extend(next);
        }
        all = joined;
    }
    all
}

fn bytes_of(key: &CacheKey, series: &[MatrixSeries]) -> usize {
    let points = |s: &MatrixSeries| {
        let histograms: usize = s
            .histograms
            .iter()
            .map(|(_, h)| 176 + 8 * (h.positive_buckets.len() + h.negative_buckets.len()))
            .sum();
        let labels: usize = s.labels.iter().map(|l| l.name.len() + l.value.len() + 2).sum();
        128 + labels + s.floats.len() * 16 + histograms
    };
    256 + key.query.len() + series.iter().map(points).sum::<usize>()
}

impl ResultCache {
    /// A cache of at most `limit` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Whether anything is ever kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Bytes of what is kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// The steps of `axis` that are known and still true.
    #[must_use]
    pub fn find(&self, key: &CacheKey, axis: Axis, around: (i64, i64), changes: &Changes) -> Option<Hit> {
        let mut state = self.state.lock();
        state.clock += 1;
        let clock = state.clock;
        let answer = state.answers.get_mut(key)?;
        answer.used = clock;
        let first = answer.axis.start.max(axis.start);
        let last = answer.axis.last().min(axis.last());
        if first > last {
            return None;
        }
        let (from, to) = (first.saturating_add(around.0), last.saturating_add(around.1));
        let Some(changed) = changes.since(answer.as_of, from, to) else {
            let gone = state.answers.remove(key).map_or(0, |answer| answer.bytes);
            state.bytes -= gone;
            return None;
        };
        let series = Arc::clone(&answer.series);
        drop(state);
        let known = longest_untouched(axis, (first, last), around, &changed)?;
        Some(Hit { known, series })
    }

    /// Keeps an answer that includes at least the first `as_of` changes.
    pub fn keep(&self, key: CacheKey, axis: Axis, as_of: u64, series: &[MatrixSeries]) {
        let bytes = bytes_of(&key, series);
        // One answer must not drive out all others.
        if bytes > self.limit / 4 {
            return;
        }
        let series = Arc::new(series.to_vec());
        let mut state = self.state.lock();
        state.clock += 1;
        let used = state.clock;
        let gone = state.answers.insert(key, Answer { axis, as_of, series, bytes, used });
        state.bytes = state.bytes + bytes - gone.map_or(0, |answer| answer.bytes);
        while state.bytes > self.limit {
            let oldest = state.answers.iter().min_by_key(|(_, a)| a.used).map(|(key, _)| key.clone());
            let Some(gone) = oldest.and_then(|key| state.answers.remove(&key)) else { break };
            state.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_longest_untouched_run_is_what_a_naive_search_finds(
            (start, step, n) in (-50i64..50, 1i64..7, 1usize..40),
            (before, after) in (-10i64..=0, 0i64..5),
            changed in prop::collection::vec((-80i64..300, 0i64..20), 0..5),
        ) {
            let axis = Axis { start, step, n };
            let mut changed: Vec<(i64, i64)> = changed.into_iter().map(|(a, len)| (a, a + len)).collect();
            changed.sort_unstable();
            let mut apart: Vec<(i64, i64)> = Vec::new();
            for (a, b) in changed {
                match apart.last_mut() {
                    Some(last) if a <= last.1 + 1 => last.1 = last.1.max(b),
                    _ => apart.push((a, b)),
                }
            }
            let free = |i: usize| {
                let t = axis.time(i);
                !apart.iter().any(|(a, b)| t + before <= *b && t + after >= *a)
            };
            let found = longest_untouched(axis, (axis.start, axis.last()), (before, after), &apart);
            let mut longest = 0;
            let mut run = 0;
            for i in 0..n {
                run = if free(i) { run + 1 } else { 0 };
                longest = longest.max(run);
            }
            prop_assert_eq!(found.map_or(0, |a| a.n), longest);
            if let Some(found) = found {
                let first = ((found.start - start) / step) as usize;
                prop_assert!((first..first + found.n).all(free));
                prop_assert!(found.last() <= axis.last());
                let parts: usize = missing(axis, found).iter().map(|a| a.n).sum();
                prop_assert_eq!(parts + found.n, n);
            }
        }
    }
}
