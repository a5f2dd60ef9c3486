//! Which series do selections select that come again and again, such as those of rules? They are remembered in order
//! of labels until a series goes, or one comes that belongs to them.

use std::sync::Arc;

use super::super::Map;
use super::super::door::SeriesRef;
use super::state::State;
use crate::model::{Labels, Matcher};

/// Most bytes that are kept for all selections together.
const MAX_BYTES: usize = 32 << 20;
/// A selection that has more is not kept.
const MAX_BYTES_OF_ONE: usize = MAX_BYTES / 2;
/// A selection of more series is kept without their labels, which take most of the room.
const MAX_LABELLED: usize = 4096;

/// A selected series.
#[derive(Debug)]
pub struct Selected {
    pub slot: u32,
    pub reference: SeriesRef,
    /// Its labels, if they are kept.
    labels: Option<Labels>,
}

impl Selected {
    /// The labels of the series, which must not have been removed.
    pub fn labels(&self, state: &State) -> Labels {
        self.labels.clone().unwrap_or_else(|| state.labels(self.slot))
    }
}

/// The series that satisfy the matchers, sorted by labels.
pub fn select(state: &State, matchers: &[Matcher]) -> Arc<[Selected]> {
    let slots = state.index.select(matchers);
    let mut series: Vec<(Labels, u32)> = slots.iter().map(|slot| (state.labels(slot), slot)).collect();
    series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let labelled = series.len() <= MAX_LABELLED;
    let selected = series.into_iter().map(|(labels, slot)| Selected {
        slot,
        reference: state.reference(slot),
        labels: labelled.then_some(labels),
    });
    selected.collect()
}

struct Kept {
    series: Arc<[Selected]>,
    bytes: usize,
    /// Series created so far: later ones have not been looked at.
    created: u64,
    removals: u64,
    /// Number of the look-up that used it last.
    used: u64,
}

/// Selections by matchers.
#[derive(Default)]
pub struct Selections {
    kept: Map<Vec<Matcher>, Kept>,
    bytes: usize,
    lookups: u64,
}

impl Selections {
    /// The series that satisfy the matchers, if that is known.
    pub fn find(&mut self, state: &State, matchers: &[Matcher]) -> Option<Arc<[Selected]>> {
        self.lookups += 1;
        let kept = self.kept.get_mut(matchers)?;
        kept.used = self.lookups;
        let mut newcomers = state.newcomers(kept.created).filter(|_| kept.removals == state.removals)?;
        if newcomers.any(|slot| state.satisfies(slot, matchers)) {
            return None;
        }
        kept.created = state.counts.created;
        Some(Arc::clone(&kept.series))
    }

    /// Remembers what the matchers select. Where there is no room, what was not used for long goes first.
    pub fn keep(&mut self, state: &State, matchers: &[Matcher], series: &Arc<[Selected]>) {
        if let Some(old) = self.kept.remove(matchers) {
            self.bytes -= old.bytes;
        }
        let labels = |s: &Selected| s.labels.as_ref().map_or(0, |labels| 16 + labels.as_packed().len());
        let bytes = series.iter().map(|s| size_of::<Selected>() + labels(s)).sum();
        if bytes > MAX_BYTES_OF_ONE {
            return;
        }
        if self.bytes + bytes > MAX_BYTES {
            let recently = self.lookups.saturating_sub(2 * self.kept.len() as u64);
            self.kept.retain(|_, kept| kept.used > recently);
            self.bytes = self.kept.values().map(|kept| kept.bytes).sum();
        }
        if self.bytes + bytes > MAX_BYTES {
            return;
        }
        self.bytes += bytes;
        let kept = Kept {
            series: Arc::clone(series),
            bytes,
            created: state.counts.created,
            removals: state.removals,
            used: self.lookups,
        };
        self.kept.insert(matchers.to_vec(), kept);
    }
}
