//! Everything that one lock guards: the slab of series, the table that finds them by labels, the index, and the
//! bounds of time.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::super::Map;
use super::super::door::{SeriesRef, StorageError};
use super::super::index::Index;
use super::chunks::{ChunkMeta, ChunkRef, ChunkStore};
use super::flush::FlushRange;
use super::series::{LateSample, Open, Series};
use crate::model::sample::Value;
use crate::model::{Labels, Matcher};

/// Taking in what comes in whole pieces.
mod adopter;

pub use adopter::Adopter;

/// Slots of one piece of the slab: growing never moves the others.
pub const PIECE: usize = 4096;

/// How many of the newest series are known by number.
const RECENT: usize = 1024;

/// A place of the slab.
pub struct Slot {
    /// Raised each time the slot gets another series, so that old references are known to be dead.
    generation: u32,
    series: Option<Series>,
}

impl Slot {
    /// A place that had no other series before.
    #[must_use]
    pub fn new(series: Option<Series>) -> Self {
        Self { generation: 0, series }
    }

    /// Its series.
    #[must_use]
    pub fn series(&self) -> Option<&Series> {
        self.series.as_ref()
    }

    /// Its series.
    pub fn series_mut(&mut self) -> Option<&mut Series> {
        self.series.as_mut()
    }
}

/// Counts of events since the last look.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Series created.
    pub created: u64,
    /// Series removed.
    pub removed: u64,
    /// Chunks created.
    pub chunks_created: u64,
}

/// The state of the head.
pub struct State {
    pieces: Vec<Vec<Slot>>,
    slots: u32,
    free: Vec<u32>,
    by_labels: HashTable<u32>,
    /// The inverted index.
    pub index: Index,
    /// Number of series.
    pub num_series: u64,
    /// Id of the next series.
    pub next_id: u64,
    /// Sequence number of the last visible commit.
    pub sequence: u64,
    /// In-order samples before this time are in blocks.
    pub valid_from_ms: i64,
    /// In-order samples before this time are refused: a flush view has read them.
    pub closed_below_ms: i64,
    /// Oldest sample, `i64::MAX` if there is none.
    pub min_t_ms: i64,
    /// Newest sample, `i64::MIN` if there is none.
    pub max_t_ms: i64,
    /// Raised when series are removed.
    pub removals: u64,
    /// The slots that were taken last, newest at the back.
    recent: VecDeque<u32>,
    /// Labels of removed series that open batches may still mean.
    pub graveyard: Map<SeriesRef, Labels>,
    /// Deletions by slot, ranges include both ends.
    pub deleted: Map<u32, Vec<(i64, i64)>>,
    /// What happened.
    pub counts: Counts,
    /// Number of out-of-order samples in memory.
    pub late_samples: u64,
    /// Ranges that flush views have read, with the last commit they saw.
    pub flushed: Vec<(FlushRange, u64)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            slots: 0,
            free: Vec::new(),
            by_labels: HashTable::new(),
            index: Index::default(),
            num_series: 0,
            next_id: 1,
            sequence: 0,
            valid_from_ms: i64::MIN,
            closed_below_ms: i64::MIN,
            min_t_ms: i64::MAX,
            max_t_ms: i64::MIN,
            removals: 0,
            recent: VecDeque::new(),
            graveyard: Map::default(),
            deleted: Map::default(),
            counts: Counts::default(),
            late_samples: 0,
            flushed: Vec::new(),
        }
    }
}

fn short(hash: u64) -> u32 {
    hash as u32
}

/// Where the table keeps a slot.
fn spread_of(pieces: &[Vec<Slot>]) -> impl Fn(&u32) -> u64 + '_ {
    |slot| {
        let found = pieces.get(*slot as usize / PIECE).and_then(|p| p.get(*slot as usize % PIECE));
        let hash = found.and_then(|s| s.series.as_ref()).map_or(0, |s| s.hash);
        u64::from(hash).wrapping_mul(SPREAD)
    }
}

impl State {
    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.pieces.get(slot as usize / PIECE)?.get(slot as usize % PIECE)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.pieces.get_mut(slot as usize / PIECE)?.get_mut(slot as usize % PIECE)
    }

    /// The series in a slot.
    #[inline]
    #[must_use]
    pub fn series(&self, slot: u32) -> Option<&Series> {
        self.slot(slot)?.series.as_ref()
    }

    /// The series in a slot.
    #[inline]
    pub fn series_mut(&mut self, slot: u32) -> Option<&mut Series> {
        self.slot_mut(slot)?.series.as_mut()
    }

    /// Number of slots, used or not.
    #[must_use]
    pub fn num_slots(&self) -> u32 {
        self.slots
    }

    /// The slot that a reference names, if its series is still there.
    #[inline]
    #[must_use]
    pub fn resolve(&self, reference: SeriesRef) -> Option<u32> {
        let slot = (reference.0 as u32).checked_sub(1)?;
        let found = self.slot(slot)?;
        (found.generation == (reference.0 >> 32) as u32 && found.series.is_some()).then_some(slot)
    }

    /// The reference of the series in a slot.
    #[must_use]
    pub fn reference(&self, slot: u32) -> SeriesRef {
        let generation = self.slot(slot).map_or(0, |s| s.generation);
        SeriesRef(u64::from(generation) << 32 | (u64::from(slot) + 1))
    }

    /// The slot of a label set.
    #[must_use]
    pub fn find(&self, labels: &Labels) -> Option<u32> {
        self.find_near(labels, u32::MAX)
    }

    /// The slot of a label set, with a look at a likely one first: that spares the table, of which nothing is cached
    /// when there are many series.
    #[must_use]
    pub fn find_near(&self, labels: &Labels, likely: u32) -> Option<u32> {
        let hash = short(labels.hash64());
        let same = |slot: &u32| {
            self.series(*slot).is_some_and(|s| s.hash == hash && self.index.is(&s.pairs, labels))
        };
        if same(&likely) {
            return Some(likely);
        }
        self.by_labels.find(u64::from(hash).wrapping_mul(SPREAD), same).copied()
    }

    /// Labels of the series in a slot; empty if there is none.
    #[must_use]
    pub fn labels(&self, slot: u32) -> Labels {
        self.series(slot).map(|s| self.index.labels(&s.pairs)).unwrap_or_default()
    }

    /// Makes room for so many more series and label pairs.
    pub fn reserve(&mut self, series: usize, pairs: usize) {
        self.by_labels.reserve(series, spread_of(&self.pieces));
        self.index.reserve(pairs);
    }

    /// Adds a series that is not there yet.
    pub fn create(&mut self, labels: &Labels, id: Option<u64>) -> u32 {
        let slot = self.free_slot();
        let pairs = self.index.insert(slot, labels);
        let id = id.unwrap_or(self.next_id);
        self.place(slot, Series::new(id, pairs, short(labels.hash64())));
        slot
    }

    fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    fn place(&mut self, slot: u32, series: Series) {
        self.next_id = self.next_id.max(series.id.saturating_add(1));
        let hash = series.hash;
        let piece = slot as usize / PIECE;
        if piece == self.pieces.len() {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let place = &mut self.pieces[piece];
        let at = slot as usize % PIECE;
        if let Some(place) = place.get_mut(at) {
            place.series = Some(series);
        } else {
            debug_assert_eq!(at, place.len(), "new places are taken in order");
            place.push(Slot { generation: 0, series: Some(series) });
        }
        let spread = spread_of(&self.pieces);
        self.by_labels.insert_unique(u64::from(hash).wrapping_mul(SPREAD), slot, spread);
        self.num_series += 1;
        self.counts.created += 1;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(slot);
    }

    /// Slots of the series that were created since there had been `created`; `None` if those are too many to tell.
    pub fn newcomers(&self, created: u64) -> Option<impl Iterator<Item = u32>> {
        let count = usize::try_from(self.counts.created.checked_sub(created)?).ok()?;
        (count <= self.recent.len()).then(|| self.recent.iter().rev().take(count).copied())
    }

    /// Whether the series in a slot satisfies all matchers.
    #[must_use]
    pub fn satisfies(&self, slot: u32, matchers: &[Matcher]) -> bool {
        let Some(series) = self.series(slot) else { return false };
        matchers.iter().all(|matcher| {
            let mut labels = series.pairs.iter().map(|id| self.index.text(*id));
            matcher.matches(labels.find(|(name, _)| *name == &*matcher.name).map_or("", |(_, value)| value))
        })
    }

    /// Removes the series in a slot. References to it die.
    pub fn remove(&mut self, slot: u32, keep_labels: bool) {
        let reference = self.reference(slot);
        let labels = if keep_labels { self.labels(slot) } else { Labels::empty() };
        let Some(series) = self.slot_mut(slot).and_then(|place| {
            place.generation = place.generation.wrapping_add(1);
            place.series.take()
        }) else {
            return;
        };
        let hash = u64::from(series.hash).wrapping_mul(SPREAD);
        if let Ok(entry) = self.by_labels.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.index.remove(slot, &series.pairs);
        if keep_labels {
            self.graveyard.insert(reference, labels);
        }
        self.late_samples -= series.late().len() as u64;
        self.deleted.remove(&slot);
        self.free.push(slot);
        self.num_series -= 1;
        self.counts.removed += 1;
        self.removals += 1;
    }

    /// Stores an in-order sample; closes the open chunk first if it is full.
    pub fn push(
        &mut self,
        slot: u32,
        t_ms: i64,
        start_ms: i64,
        value: &Value,
        chunks: &ChunkStore,
    ) -> Result<(), StorageError> {
        let Some(series) = self.slot_mut(slot).and_then(|s| s.series.as_mut()) else { return Ok(()) };
        let mut fresh = matches!(series.open, Open::Empty { .. });
        if series.open.is_full_for(matches!(value, Value::Histogram(_))) {
            seal(series, chunks)?;
            fresh = true;
        }
        series.push(t_ms, start_ms, value);
        self.min_t_ms = self.min_t_ms.min(t_ms);
        self.max_t_ms = self.max_t_ms.max(t_ms);
        self.counts.chunks_created += u64::from(fresh);
        Ok(())
    }

    /// Stores an out-of-order sample.
    pub fn push_late(&mut self, slot: u32, sample: LateSample) {
        self.min_t_ms = self.min_t_ms.min(sample.t_ms);
        self.max_t_ms = self.max_t_ms.max(sample.t_ms);
        let Some(series) = self.slot_mut(slot).and_then(|s| s.series.as_mut()) else { return };
        let before = series.late().len();
        series.push_late(sample);
        let added = series.late().len() - before;
        self.late_samples += added as u64;
    }

    /// All used slots.
    pub fn used_slots(&self) -> impl Iterator<Item = (u32, &Series)> {
        // A piece may be shorter than the others before its last slots are used.
        let firsts = (0u32..).step_by(PIECE);
        let slots = firsts.zip(&self.pieces).flat_map(|(first, piece)| (first..).zip(piece));
        slots.filter_map(|(slot, place)| place.series.as_ref().map(|s| (slot, s)))
    }

    /// Heap bytes, by estimate.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let series: usize = self.used_slots().map(|(_, s)| s.heap_bytes()).sum();
        let slab = self.pieces.len() * PIECE * size_of::<Slot>();
        series + slab + self.by_labels.allocation_size() + self.index.heap_bytes()
    }
}

/// Spreads 32 bits over the 64 that the table wants; odd, so nothing is lost.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Moves the open chunk of a series to the chunk files.
pub fn seal(series: &mut Series, chunks: &ChunkStore) -> Result<(), StorageError> {
    let Some((encoding, count, bytes)) = series.open.content() else { return Ok(()) };
    let meta = ChunkMeta {
        series: series.id,
        previous: series.sealed,
        min_t_ms: series.open_min_t_ms,
        max_t_ms: series.open.last_t_ms(),
        encoding,
        count,
    };
    let place: ChunkRef = chunks.push(&meta, bytes)?;
    series.sealed = place;
    series.open = Open::Empty { last_t_ms: meta.max_t_ms };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::super::index::NewPair;
    use super::adopter::Twin;
    use super::*;

    #[test]
    fn of_a_series_that_comes_twice_the_later_state_counts() {
        let mut state = State::default();
        let series = |state: &mut State, id: u64, value: &str| {
            let labels = Labels::from_pairs([("__name__", "m"), ("i", value)]);
            let names: [Box<str>; 2] = ["__name__".into(), "i".into()];
            let hasher = state.index.hasher();
            let values = format!("m{value}");
            let new = |(name, value): (u32, Range<usize>)| NewPair {
                name,
                hash: hasher.pair(hasher.name(&names[name as usize]), &values[value.clone()]),
                value,
            };
            let pairs = state.index.intern_all(&names, &values, &[(0, 0..1), (1, 1..values.len())].map(new));
            Series::new(id, pairs.into(), short(labels.hash64()))
        };
        let (a, b) = (series(&mut state, 7, "a"), series(&mut state, 8, "b"));
        assert_eq!(state.halves().1.take(vec![Slot::new(Some(a)), Slot::new(Some(b))], 0), []);
        state.push_late(0, LateSample { t_ms: 1, start_ms: 0, sequence: 0, value: Value::Float(1.0) });
        let (c, again) = (series(&mut state, 9, "c"), series(&mut state, 10, "a"));
        let first = PIECE as u32;
        assert_eq!(state.halves().1.next(), first);
        assert_eq!(
            state.halves().1.take(vec![Slot::new(Some(c)), Slot::new(Some(again))], 0),
            [Twin { slot: first + 1, earlier: 0 }],
            "one of them was there"
        );
        assert_eq!((state.num_series, state.late_samples, state.next_id), (3, 0, 11));
        let ids: Vec<(u32, u64)> = state.used_slots().map(|(slot, series)| (slot, series.id)).collect();
        assert_eq!(ids, [(0, 10), (1, 8), (first, 9)]);
        let find = |state: &State, value| state.find(&Labels::from_pairs([("__name__", "m"), ("i", value)]));
        assert_eq!((find(&state, "a"), find(&state, "c"), find(&state, "d")), (Some(0), Some(first), None));
        let near = |likely| state.find_near(&Labels::from_pairs([("__name__", "m"), ("i", "a")]), likely);
        assert_eq!(
            [0, 1, first, first + 1, u32::MAX].map(near),
            [Some(0); 5],
            "a wrong guess changes nothing"
        );
        // New series fill the gaps.
        let slot = state.create(&Labels::from_pairs([("i", "d")]), None);
        assert_eq!((slot, state.num_slots()), (first + 1, 2 * first));
        state.remove(0, false);
        assert_eq!(find(&state, "a"), None);
    }
}
