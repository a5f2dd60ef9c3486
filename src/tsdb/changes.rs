//! Which times of the stored samples changed since when? Whoever keeps results asks this before using them again.
//!
//! Time is cut into buckets; each remembers the number of the last change that touched it. A change is noted at the
//! moment from which views show it, and before its writer is told that it is done: whoever reads the number of changes
//! and then opens a view, sees everything up to that number.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Length of a bucket, milliseconds.
const BUCKET_MS: i64 = 60_000;
/// Most buckets; when there are more, the changes that are longest ago are forgotten.
const MAX_BUCKETS: usize = 1 << 13;
/// Most buckets that one change marks; a longer one counts as a change of everything.
const MAX_AT_ONCE: i64 = 1 << 11;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The changes of one storage since it was opened.
#[derive(Debug)]
pub struct Changes {
    id: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of changes so far.
    count: u64,
    /// Changes up to this one are forgotten: they may have touched anything.
    floor: u64,
    /// Bucket → number of the last change in it.
    buckets: BTreeMap<i64, u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), state: Mutex::default() }
    }
}

impl Changes {
    /// Tells storages apart within the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of changes so far. Read it before opening a view.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.state.lock().count
    }

    /// Samples in `[min_t_ms, max_t_ms]` came or went.
    pub fn note(&self, min_t_ms: i64, max_t_ms: i64) {
        if min_t_ms > max_t_ms {
            return;
        }
        let (first, last) = (min_t_ms.div_euclid(BUCKET_MS), max_t_ms.div_euclid(BUCKET_MS));
        if last.saturating_sub(first) >= MAX_AT_ONCE {
            return self.note_all();
        }
        let mut state = self.state.lock();
        state.count += 1;
        let count = state.count;
        for bucket in first..=last {
            state.buckets.insert(bucket, count);
        }
        if state.buckets.len() > MAX_BUCKETS {
            state.forget();
        }
    }

    /// Anything may have changed.
    pub fn note_all(&self) {
        let mut state = self.state.lock();
        state.count += 1;
        state.floor = state.count;
        state.buckets.clear();
    }

    /// The ranges inside `[from_ms, to_ms]` that changed after change number `count`, ascending and apart; `None` when
    /// that is too long ago to tell.
    #[must_use]
    pub fn since(&self, count: u64, from_ms: i64, to_ms: i64) -> Option<Vec<(i64, i64)>> {
        let state = self.state.lock();
        if count < state.floor {
            return None;
        }
        let mut found: Vec<(i64, i64)> = Vec::new();
        if from_ms > to_ms {
            return Some(found);
        }
        let buckets = from_ms.div_euclid(BUCKET_MS)..=to_ms.div_euclid(BUCKET_MS);
        for (bucket, _) in state.buckets.range(buckets).filter(|(_, last)| **last > count) {
            let start = bucket.saturating_mul(BUCKET_MS);
            let end = start.saturating_add(BUCKET_MS - 1);
            match found.last_mut() {
                Some(before) if before.1 == start - 1 => before.1 = end,
                _ => found.push((start, end)),
            }
        }
        Some(found)
    }
}

impl State {
    /// Forgets the older half of the changes.
    fn forget(&mut self) {
        let mut numbers: Vec<u64> = self.buckets.values().copied().collect();
        let middle = numbers.len() / 2;
        let (_, floor, _) = numbers.select_nth_unstable(middle);
        self.floor = self.floor.max(*floor);
        let floor = self.floor;
        self.buckets.retain(|_, last| *last > floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_changed_since() {
        let changes = Changes::default();
        let start = changes.count();
        changes.note(0, 1);
        let later = changes.count();
        changes.note(90_000, 130_000);
        changes.note(-1, -1);
        assert_eq!(changes.since(start, -60_000, 59_999), Some(vec![(-60_000, 59_999)]));
        assert_eq!(changes.since(later, 0, 1 << 40), Some(vec![(60_000, 179_999)]));
        assert_eq!(changes.since(later, 200_000, 1 << 40), Some(vec![]));
        assert_eq!(changes.since(changes.count(), i64::MIN, i64::MAX), Some(vec![]));
        changes.note_all();
        assert_eq!(changes.since(later, 0, 1), None);
    }

    #[test]
    fn forgets_the_oldest_changes_first() {
        let changes = Changes::default();
        let mut counts = Vec::new();
        for i in 0..MAX_BUCKETS as i64 * 3 {
            counts.push(changes.count());
            changes.note(i * BUCKET_MS, i * BUCKET_MS);
        }
        assert!(changes.state.lock().buckets.len() <= MAX_BUCKETS);
        assert_eq!(changes.since(counts[0], 0, 0), None);
        let recent = counts.len() - 10;
        let want = (recent as i64 * BUCKET_MS, counts.len() as i64 * BUCKET_MS - 1);
        assert_eq!(changes.since(counts[recent], 0, i64::MAX), Some(vec![want]));
        changes.note(i64::MIN, i64::MAX);
        assert_eq!(changes.since(counts[recent], 0, 0), None, "a change of everything");
    }
}
