//! How does an open querier not see what was committed after it was opened? Not by versions in each series, but by a
//! list of what later commits added, which is kept only while somebody needs it.
//!
//! Per series the list names the first in-order timestamp that each later commit added (in-order samples are added
//! in order of time, so everything from there on is new) and the timestamps it added out of order.

use std::collections::{BTreeMap, VecDeque};

use super::super::Map;

/// Entries after which a new part of the list begins, so that old parts can go while queriers overlap.
const PART: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
struct Added {
    sequence: u64,
    t_ms: i64,
    out_of_order: bool,
}

#[derive(Debug, Default)]
struct Part {
    last_sequence: u64,
    added: Map<u32, Vec<Added>>,
    entries: usize,
}

impl Part {
    /// Whether an in-order entry of the series is later than this commit.
    fn hides_after(&self, slot: u32, sequence: u64) -> bool {
        let entries = self.added.get(&slot).into_iter().flatten().rev();
        entries.take_while(|a| a.sequence > sequence).any(|a| !a.out_of_order)
    }
}

/// What a querier must not see of one series.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// In-order samples from this timestamp on.
    pub from_t_ms: Option<i64>,
    /// Out-of-order samples with these timestamps.
    pub out_of_order: Vec<i64>,
}

/// Open queriers and what was added since.
#[derive(Debug, Default)]
pub struct Isolation {
    /// Open queriers by number: the last commit they see, the oldest time they may ask for.
    open: BTreeMap<u64, (u64, i64)>,
    next: u64,
    parts: VecDeque<Part>,
}

impl Isolation {
    /// A querier opens that sees commits up to `sequence` and no samples before `min_t_ms`. Returns its number.
    pub fn open(&mut self, sequence: u64, min_t_ms: i64) -> u64 {
        self.next += 1;
        self.open.insert(self.next, (sequence, min_t_ms));
        self.next
    }

    /// The querier with this number closes.
    pub fn close(&mut self, number: u64) {
        self.open.remove(&number);
        match self.oldest() {
            None => self.parts.clear(),
            Some(oldest) => {
                while self.parts.front().is_some_and(|part| part.last_sequence <= oldest) {
                    self.parts.pop_front();
                }
            }
        }
    }

    /// The oldest view that is open.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        // Later numbers see later commits.
        self.open.values().next().map(|(sequence, _)| *sequence)
    }

    /// Number of the querier that was opened last.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.next
    }

    /// Whether a querier with at most this number is open that may ask for samples before `t_ms`.
    #[must_use]
    pub fn needs_before(&self, t_ms: i64, number: u64) -> bool {
        self.open.range(..=number).any(|(_, (_, min_t_ms))| *min_t_ms < t_ms)
    }

    /// Whether views differ from the state.
    #[must_use]
    pub fn hides_anything(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Whether anybody has to be told what commits add.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.open.is_empty()
    }

    /// Commit `sequence` added a sample to a series. Only needed while [`Isolation::is_watched`].
    pub fn add(&mut self, sequence: u64, slot: u32, t_ms: i64, out_of_order: bool) {
        // Views that were opened before the last entry are served by it: a query that stays open for minutes costs
        // one entry a series, not one a sample.
        let newest = self.open.values().next_back().map_or(0, |(sequence, _)| *sequence);
        if !out_of_order && self.parts.iter().rev().any(|part| part.hides_after(slot, newest)) {
            return;
        }
        if self.parts.back().is_none_or(|part| part.entries >= PART && part.last_sequence < sequence) {
            self.parts.push_back(Part::default());
        }
        let Some(part) = self.parts.back_mut() else { return };
        part.last_sequence = sequence;
        part.added.entry(slot).or_default().push(Added { sequence, t_ms, out_of_order });
        part.entries += 1;
    }

    /// What a view up to `sequence` must not see of a series.
    #[must_use]
    pub fn hidden(&self, sequence: u64, slot: u32) -> Hidden {
        let mut hidden = Hidden::default();
        for part in self.parts.iter().filter(|part| part.last_sequence > sequence) {
            for added in part.added.get(&slot).into_iter().flatten().filter(|a| a.sequence > sequence) {
                if added.out_of_order {
                    hidden.out_of_order.push(added.t_ms);
                } else if hidden.from_t_ms.is_none_or(|t| added.t_ms < t) {
                    hidden.from_t_ms = Some(added.t_ms);
                }
            }
        }
        hidden.out_of_order.sort_unstable();
        hidden
    }
}
