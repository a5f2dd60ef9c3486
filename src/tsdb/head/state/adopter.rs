//! How do series come back in whole pieces of the slab, while somebody else tells the index of their labels?

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::super::super::index::Index;
use super::{PIECE, SPREAD, Slot, State, spread_of};

/// A series that was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    /// The slot that it was to have, which is free again.
    pub slot: u32,
    /// The slot that it had, which has the later state now.
    pub earlier: u32,
}

/// The state without its index.
pub struct Adopter<'a> {
    pieces: &'a mut Vec<Vec<Slot>>,
    slots: &'a mut u32,
    free: &'a mut Vec<u32>,
    by_labels: &'a mut HashTable<u32>,
    next_id: &'a mut u64,
    num_series: &'a mut u64,
    created: &'a mut u64,
    late_samples: &'a mut u64,
}

impl State {
    /// The index, and what takes series in whose labels the index is told of apart.
    pub fn halves(&mut self) -> (&mut Index, Adopter<'_>) {
        let adopter = Adopter {
            pieces: &mut self.pieces,
            slots: &mut self.slots,
            free: &mut self.free,
            by_labels: &mut self.by_labels,
            next_id: &mut self.next_id,
            num_series: &mut self.num_series,
            created: &mut self.counts.created,
            late_samples: &mut self.late_samples,
        };
        (&mut self.index, adopter)
    }

    /// Takes out of the index what was entered there for a series that has another slot.
    pub fn forget_twin(&mut self, twin: Twin) {
        if let Some(pairs) = self.series(twin.earlier).map(|series| series.pairs.clone()) {
            self.index.remove(twin.slot, &pairs);
        }
    }
}

impl Adopter<'_> {
    /// The first slot of the next piece.
    #[must_use]
    pub fn next(&self) -> u32 {
        *self.slots
    }

    /// Takes in a whole piece, with so many out-of-order samples. Answers with the series that were there already: those
    /// have the later state now.
    pub fn take(&mut self, piece: Vec<Slot>, late_samples: u64) -> Vec<Twin> {
        debug_assert!(
            piece.len() <= PIECE && *self.slots as usize == self.pieces.len() * PIECE,
            "pieces are whole"
        );
        let first = *self.slots;
        let used = piece.len() as u32;
        // All places in the table are looked at first: these loads wait for nothing, so that they overlap.
        let mut near = 0;
        for hash in piece.iter().filter_map(Slot::series).map(|series| series.hash) {
            let _ = self.by_labels.find(u64::from(hash).wrapping_mul(SPREAD), |slot| {
                near ^= *slot;
                false
            });
        }
        std::hint::black_box(near);
        self.pieces.push(piece);
        *self.slots += PIECE as u32;
        *self.late_samples += late_samples;
        // Taken from the end: the lowest first, so that the piece grows by one each time.
        self.free.extend((first + used..*self.slots).rev());
        let mut twins = Vec::new();
        for slot in first..first + used {
            let pieces = &*self.pieces;
            let at = |slot: u32| pieces[slot as usize / PIECE][slot as usize % PIECE].series.as_ref();
            let Some(series) = at(slot) else { continue };
            let hash = series.hash;
            *self.next_id = (*self.next_id).max(series.id.saturating_add(1));
            let same = |other: &u32| at(*other).is_some_and(|o| o.hash == hash && series.pairs == o.pairs);
            match self.by_labels.entry(u64::from(hash).wrapping_mul(SPREAD), same, spread_of(pieces)) {
                Entry::Vacant(place) => {
                    place.insert(slot);
                    *self.num_series += 1;
                    *self.created += 1;
                }
                Entry::Occupied(place) => {
                    let earlier = *place.get();
                    twins.push(Twin { slot, earlier });
                    self.free.push(slot);
                    let later = self.pieces[slot as usize / PIECE][slot as usize % PIECE].series.take();
                    let place = &mut self.pieces[earlier as usize / PIECE][earlier as usize % PIECE];
                    if let Some(before) = std::mem::replace(&mut place.series, later) {
                        *self.late_samples -= before.late().len() as u64;
                    }
                }
            }
        }
        twins
    }
}
