//! What leaves memory before its range is over? Series that have ended, and out-of-order samples when there are many:
//! they are handed out for a block of their own first and forgotten afterwards, so that replaced series and backfills
//! do not make the head grow.
//!
//! No view is held open meanwhile. What is handed out is found again by its last time and by its commit; a series
//! that came back to life in between stays, and queries merge what is in both places.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::door::{SeriesRef, StorageError};
use super::Head;
use super::flush::{FlushRange, FlushView, RawSamples};
use super::query::{HeadView, SeriesData};
use super::series::Series;
use super::state::State;
use super::truncate::{STEP, wait_for_readers};
use crate::model::Labels;

/// Most block ranges that leave in one go.
const MAX_RANGES: usize = 16;
/// Most series that leave in one go: bounds the memory that their labels take meanwhile.
pub const MAX_SERIES: usize = 100_000;

/// When a series counts as ended, times against the newest sample of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeavePolicy {
    /// Its last sample is a staleness marker so old, milliseconds.
    pub stale_after_ms: i64,
    /// Its last sample is so old, milliseconds.
    pub idle_after_ms: i64,
    /// Ended series leave when they are more than this share of all.
    pub share: f64,
    /// Out-of-order samples leave when there are more.
    pub most_late: u64,
}

struct Member {
    labels: Labels,
    reference: SeriesRef,
    last_t_ms: i64,
    late: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Series,
    LateSamples,
}

/// What is about to leave.
pub struct Leaving {
    what: What,
    view: Arc<HeadView>,
    /// Sorted by labels.
    members: Vec<Member>,
    /// Begins of the block ranges that have samples of it.
    begins: Vec<i64>,
    range_ms: i64,
    /// The last commit whose out-of-order samples leave.
    sequence: u64,
}

impl Leaving {
    /// The block ranges that have samples of it.
    pub fn ranges(&self) -> impl Iterator<Item = FlushRange> {
        let end = |begin: i64| begin.saturating_add(self.range_ms - 1);
        self.begins.iter().map(move |begin| FlushRange { min_t_ms: *begin, max_t_ms: end(*begin) })
    }

    /// What is in one of the ranges.
    #[must_use]
    pub fn part(&self, range: FlushRange) -> impl FlushView + '_ {
        Part { leaving: self, range }
    }

    /// Number of series.
    #[must_use]
    pub fn series(&self) -> usize {
        self.members.len()
    }

    /// The hint that `meta.json` of its blocks carries.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.what {
            What::Series => FROM_STALE_SERIES,
            What::LateSamples => FROM_OUT_OF_ORDER,
        }
    }

    fn data(&self, member: &Member, min_t_ms: i64, max_t_ms: i64) -> Result<SeriesData, StorageError> {
        let mut data = self.view.data(member.reference, min_t_ms, max_t_ms)?;
        if self.what == What::LateSamples {
            data.keep_late(self.sequence);
        }
        Ok(data)
    }
}

/// Hint of blocks with series that have ended.
pub const FROM_STALE_SERIES: &str = "from-stale-series";
/// Hint of blocks with out-of-order samples.
pub const FROM_OUT_OF_ORDER: &str = "from-out-of-order";

struct Part<'a> {
    leaving: &'a Leaving,
    range: FlushRange,
}

impl FlushView for Part<'_> {
    fn range(&self) -> FlushRange {
        self.range
    }

    fn len(&self) -> usize {
        self.leaving.members.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.leaving.members.get(i).map(|m| m.labels.clone()).unwrap_or_default()
    }

    fn samples(&self, i: usize, out: &mut RawSamples) -> Result<(), StorageError> {
        out.clear();
        let Some(member) = self.leaving.members.get(i) else { return Ok(()) };
        let FlushRange { min_t_ms, max_t_ms } = self.range;
        self.leaving.data(member, min_t_ms, max_t_ms)?.read_raw(min_t_ms, max_t_ms, out)
    }
}

impl Head {
    /// Series that have ended, if they are many enough for a block.
    pub fn ended_series(self: &Arc<Self>, policy: &LeavePolicy) -> Result<Option<Leaving>, StorageError> {
        // An exemplar is found by its series.
        let with_exemplars: HashSet<SeriesRef> = self.exemplars.lock().iter().map(|k| k.series).collect();
        let ended = {
            let state = self.state.read();
            let stale = state.max_t_ms.saturating_sub(policy.stale_after_ms);
            let idle = state.max_t_ms.saturating_sub(policy.idle_after_ms);
            let ended = |series: &Series| {
                let last = series.max_t_ms();
                last != i64::MIN && (last < idle || (last < stale && series.open.is_stale()))
            };
            let slots = state.used_slots().filter(|(_, series)| ended(series));
            let found = slots.map(|(slot, series)| (state.reference(slot), Some(series.max_t_ms())));
            let ended: Vec<(SeriesRef, Option<i64>)> =
                found.filter(|(reference, _)| !with_exemplars.contains(reference)).collect();
            if ended.is_empty() || (ended.len() as f64) < policy.share * state.num_series as f64 {
                return Ok(None);
            }
            ended
        };
        self.leaving(What::Series, &ended).map(Some)
    }

    /// Series with out-of-order samples, if those are too many.
    pub fn late_samples(self: &Arc<Self>, policy: &LeavePolicy) -> Result<Option<Leaving>, StorageError> {
        let with_late: Vec<(SeriesRef, Option<i64>)> = {
            let state = self.state.read();
            if state.late_samples <= policy.most_late {
                return Ok(None);
            }
            let slots = state.used_slots().filter(|(_, series)| !series.late().is_empty());
            slots.map(|(slot, _)| (state.reference(slot), None)).collect()
        };
        // What is deleted is not handed out, and goes with its range.
        self.leaving(What::LateSamples, &with_late).map(|l| Some(l).filter(|l| !l.begins.is_empty()))
    }

    /// Gathers series; with a time, only as long as that is their last one.
    fn leaving(
        self: &Arc<Self>,
        what: What,
        references: &[(SeriesRef, Option<i64>)],
    ) -> Result<Leaving, StorageError> {
        let references = &references[..references.len().min(MAX_SERIES)];
        // Not all under one hold of the lock: commits want it too.
        let groups = references.chunks(STEP as usize);
        let mut members: Vec<Member> = groups.flat_map(|group| members(&self.state.read(), group)).collect();
        members.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        let sequence = self.state.read().sequence;
        let view = HeadView::unwatched(self);
        let range_ms = self.limits.block_range_ms;
        let mut leaving = Leaving { what, view, members, begins: Vec::new(), range_ms, sequence };
        let mut begins = BTreeSet::new();
        let mut end = i64::MIN;
        for member in &leaving.members {
            leaving.data(member, i64::MIN, i64::MAX)?.each_time(|t_ms| {
                if t_ms >= end || t_ms < end.saturating_sub(range_ms) {
                    let begin = t_ms.div_euclid(range_ms).saturating_mul(range_ms);
                    begins.insert(begin);
                    end = begin.saturating_add(range_ms);
                }
            })?;
        }
        leaving.begins = begins.into_iter().collect();
        if what == What::LateSamples {
            leaving.begins.truncate(MAX_RANGES);
        }
        Ok(leaving)
    }

    /// Forgets what is in blocks now. The log must be checkpointed afterwards. Waits for queriers that were opened before
    /// the blocks were shown, until `cancelled` says so. Returns how many series left.
    pub fn let_go(&self, leaving: &Leaving, cancelled: &dyn Fn() -> bool) -> Result<usize, StorageError> {
        let end = leaving.begins.last().map_or(i64::MIN, |begin| begin.saturating_add(leaving.range_ms));
        wait_for_readers(self, end, cancelled)?;
        let _order = self.commit.lock();
        // Slots are reused: nothing in the log's memory may mean an old series.
        self.wal.sync()?;
        let mut removed = Vec::new();
        for group in leaving.members.chunks(STEP as usize) {
            let mut state = self.state.write();
            let keep_labels = self.appenders.load(Ordering::Relaxed) > 0;
            for member in group {
                let Some(slot) = state.resolve(member.reference) else { continue };
                let Some(series) = state.series_mut(slot) else { continue };
                match leaving.what {
                    What::Series => {
                        if series.max_t_ms() == member.last_t_ms && series.late().len() == member.late {
                            state.remove(slot, keep_labels);
                            removed.push(slot);
                        }
                    }
                    What::LateSamples => {
                        let in_block = |t_ms: i64| {
                            let begin = t_ms.div_euclid(leaving.range_ms).saturating_mul(leaving.range_ms);
                            leaving.begins.binary_search(&begin).is_ok()
                        };
                        let Some(late) = &mut series.late else { continue };
                        let before = late.len();
                        late.retain(|s| s.sequence > leaving.sequence || !in_block(s.t_ms));
                        let dropped = before - late.len();
                        if late.is_empty() {
                            series.late = None;
                        }
                        state.late_samples -= dropped as u64;
                    }
                }
            }
        }
        let number = removed.len();
        self.wal.forget(removed);
        Ok(number)
    }
}

fn members(state: &State, references: &[(SeriesRef, Option<i64>)]) -> Vec<Member> {
    let member = |(reference, last): &(SeriesRef, Option<i64>)| {
        let slot = state.resolve(*reference)?;
        let series = state.series(slot)?;
        let (last_t_ms, late) = (series.max_t_ms(), series.late().len());
        last.is_none_or(|last| last == last_t_ms).then(|| Member {
            labels: state.labels(slot),
            reference: *reference,
            last_t_ms,
            late,
        })
    };
    references.iter().filter_map(member).collect()
}
