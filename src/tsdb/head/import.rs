//! How do samples of another program's log get into the head? In the order of that log; those that are not newer than
//! their series wait until a series is looked at once, and those that it has already are passed over.

use std::collections::HashSet;

use parking_lot::RwLockWriteGuard;

use super::super::door::StorageError;
use super::Head;
use super::chunks::{ChunkRef, Encoding};
use super::exemplars::Kept;
use super::series::{LateSample, Open, decode};
use super::state::State;
use crate::model::Labels;
use crate::model::metadata::Metadata;
use crate::model::sample::Value;

/// Samples that may wait to be looked at.
const WAITING: usize = 1 << 20;
/// Full chunks are written after so many samples.
const FLUSH_EVERY: u64 = 1 << 16;

/// Fills a head that nobody else uses yet. Nothing is logged: a checkpoint afterwards makes it durable.
pub struct HeadLoader<'h> {
    head: &'h Head,
    state: RwLockWriteGuard<'h, State>,
    /// Whether full chunks go to files; otherwise they stay in memory.
    write: bool,
    waiting: Vec<(u32, LateSample)>,
    stored: u64,
}

impl<'h> HeadLoader<'h> {
    /// A loader; `write` lets full chunks go to files.
    #[must_use]
    pub fn new(head: &'h Head, write: bool) -> Self {
        Self { head, state: head.state.write(), write, waiting: Vec::new(), stored: 0 }
    }

    /// In-order samples before this time are in blocks.
    pub fn valid_from(&mut self, t_ms: i64) {
        self.state.valid_from_ms = self.state.valid_from_ms.max(t_ms);
    }

    /// The slot of a series, which is created if missing.
    pub fn series(&mut self, labels: &Labels) -> u32 {
        self.state.find(labels).unwrap_or_else(|| self.state.create(labels, None))
    }

    /// Labels of the series in a slot.
    #[must_use]
    pub fn labels(&self, slot: u32) -> Labels {
        self.state.labels(slot)
    }

    /// Time of the oldest and newest sample of a series, if it has any.
    #[must_use]
    pub fn range(&self, slot: u32) -> Option<(i64, i64)> {
        let series = self.state.series(slot)?;
        let oldest = series.late().first().map_or(i64::MAX, |s| s.t_ms).min(series.min_t_ms);
        let newest = series.max_t_ms();
        (oldest <= newest).then_some((oldest, newest))
    }

    /// Adds a sample, in order if it is newer than its series.
    pub fn sample(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: Value) -> Result<(), StorageError> {
        let newest = self.state.series(slot).map_or(i64::MAX, |s| s.open.last_t_ms());
        if t_ms <= newest {
            return self.late(slot, t_ms, start_ms, value);
        }
        self.state.push(slot, t_ms, start_ms, &value, &self.head.chunks)?;
        self.stored += 1;
        if self.write && self.stored.is_multiple_of(FLUSH_EVERY) {
            self.head.chunks.flush(false)?;
        }
        Ok(())
    }

    /// Adds a sample that may be there already.
    pub fn late(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: Value) -> Result<(), StorageError> {
        self.waiting.push((slot, LateSample { t_ms, start_ms, sequence: 0, value }));
        if self.waiting.len() >= WAITING { self.settle() } else { Ok(()) }
    }

    /// Stores what waits and is not there yet.
    pub fn settle(&mut self) -> Result<(), StorageError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|(slot, sample)| (*slot, sample.t_ms));
        let mut known: HashSet<i64> = HashSet::new();
        let mut last = None;
        for (slot, sample) in waiting {
            if last != Some(slot) {
                last = Some(slot);
                known = self.times(slot, sample.t_ms)?;
            }
            if known.insert(sample.t_ms) {
                let newer = self.state.series(slot).is_some_and(|s| sample.t_ms > s.open.last_t_ms());
                if newer {
                    self.state.push(slot, sample.t_ms, sample.start_ms, &sample.value, &self.head.chunks)?;
                } else {
                    self.state.push_late(slot, sample);
                }
                self.stored += 1;
            }
        }
        if self.write { self.head.chunks.flush(false) } else { Ok(()) }
    }

    /// The timestamps that a series has from a time on.
    fn times(&self, slot: u32, from_t_ms: i64) -> Result<HashSet<i64>, StorageError> {
        let mut times = HashSet::new();
        let Some(series) = self.state.series(slot) else { return Ok(times) };
        times.extend(series.late().iter().map(|s| s.t_ms));
        let mut take = |encoding: Encoding, count: u16, bytes: &[u8]| {
            // A damaged chunk has no samples to compare with.
            let _ = decode(encoding, count, bytes, |t, _, _| {
                times.insert(t);
            });
        };
        if let Some((encoding, count, bytes)) = series.open.content() {
            take(encoding, count, bytes);
        }
        let mut place: ChunkRef = series.sealed;
        while let Some(chunk) = self.head.chunks.read(place)? {
            if chunk.meta.max_t_ms < from_t_ms {
                break;
            }
            take(chunk.meta.encoding, chunk.meta.count, chunk.data());
            place = chunk.meta.previous;
        }
        Ok(times)
    }

    /// Hides samples of a series.
    pub fn delete(&mut self, slot: u32, min_t_ms: i64, max_t_ms: i64) {
        self.state.deleted.entry(slot).or_default().push((min_t_ms, max_t_ms));
    }

    /// Adds an exemplar.
    pub fn exemplar(&mut self, slot: u32, t_ms: i64, value: f64, labels: Labels) {
        let series = self.state.reference(slot);
        self.head.exemplars.lock().push(Kept { series, t_ms, value, labels });
    }

    /// Notes the metadata of a family.
    pub fn metadata(&mut self, name: &str, metadata: &Metadata) {
        self.head.metadata.write().insert(name.to_owned(), metadata.clone());
    }

    /// Drops series that have no samples; returns how many samples were stored.
    pub fn finish(mut self) -> Result<u64, StorageError> {
        self.settle()?;
        let empty: Vec<u32> = self
            .state
            .used_slots()
            .filter(|(_, s)| {
                !s.sealed.is_some()
                    && s.late().is_empty()
                    && matches!(s.open, Open::Empty { last_t_ms: i64::MIN })
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in empty {
            self.state.remove(slot, false);
        }
        self.state.counts.created = 0;
        self.state.counts.removed = 0;
        Ok(self.stored)
    }
}
