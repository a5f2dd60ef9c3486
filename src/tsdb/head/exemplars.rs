//! A ring of exemplars: the newest ones of all series, in one bounded buffer.

use std::collections::VecDeque;

use super::super::Map;
use super::super::door::{AppendError, SeriesRef};
use crate::model::Labels;
use crate::model::metadata::Exemplar;

/// Longest labels of an exemplar, characters of names and values together (OpenMetrics).
const MAX_LABEL_CHARS: usize = 128;

/// An exemplar with its series.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its series.
    pub series: SeriesRef,
    /// Timestamp, milliseconds.
    pub t_ms: i64,
    /// Value.
    pub value: f64,
    /// Its own labels.
    pub labels: Labels,
}

/// The ring.
#[derive(Debug, Default)]
pub struct ExemplarRing {
    ring: VecDeque<Kept>,
    capacity: usize,
    newest: Map<SeriesRef, (i64, u64, Labels)>,
    /// Exemplars stored since the start.
    pub appended: u64,
}

/// Checks the length of exemplar labels.
pub fn check_length(labels: &Labels) -> Result<(), AppendError> {
    let chars: usize = labels.iter().map(|l| l.name.chars().count() + l.value.chars().count()).sum();
    if chars > MAX_LABEL_CHARS { Err(AppendError::ExemplarLabelLength) } else { Ok(()) }
}

impl ExemplarRing {
    /// A ring for this many exemplars.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Changes the capacity; the oldest exemplars go first.
    pub fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        while self.ring.len() > capacity {
            self.pop();
        }
    }

    /// Whether exemplars are kept at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.capacity > 0
    }

    fn pop(&mut self) {
        if let Some(old) = self.ring.pop_front() {
            // The newest one of a series that leaves was its last.
            let last = (old.t_ms, old.value.to_bits());
            if self.newest.get(&old.series).is_some_and(|n| (n.0, n.1) == last) {
                self.newest.remove(&old.series);
            }
        }
    }

    /// Whether an exemplar may follow those of its series.
    pub fn check(
        &self,
        series: SeriesRef,
        t_ms: i64,
        exemplar: &Exemplar,
        window_ms: i64,
    ) -> Result<(), AppendError> {
        let Some((newest_t, newest_value, newest_labels)) = self.newest.get(&series) else { return Ok(()) };
        if t_ms == *newest_t && exemplar.value.to_bits() == *newest_value && exemplar.labels == *newest_labels
        {
            return Err(AppendError::ExemplarDuplicate);
        }
        let too_old = t_ms < newest_t.saturating_sub(window_ms);
        if too_old || (t_ms == *newest_t && exemplar.value < f64::from_bits(*newest_value)) {
            return Err(AppendError::ExemplarOutOfOrder);
        }
        Ok(())
    }

    /// Stores an exemplar.
    pub fn push(&mut self, kept: Kept) {
        if self.capacity == 0 {
            return;
        }
        while self.ring.len() >= self.capacity {
            self.pop();
        }
        let newest = self.newest.entry(kept.series).or_insert((i64::MIN, 0, Labels::empty()));
        if kept.t_ms >= newest.0 {
            *newest = (kept.t_ms, kept.value.to_bits(), kept.labels.clone());
        }
        self.ring.push_back(kept);
        self.appended += 1;
    }

    /// All exemplars, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.ring.iter()
    }

    /// Number of exemplars and of series that have some.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.ring.len(), self.newest.len())
    }
}
