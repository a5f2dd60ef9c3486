//! Which values did a pattern match, the last time somebody asked? Dashboards ask again and again for the same few among
//! many.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::Map;
use super::PairId;
use crate::model::{MatchOp, Matcher};

/// Fewer values are looked at again.
pub const MANY: usize = 4096;
/// A pattern that fits more values is not remembered.
const MOST_OF_ONE: usize = 1 << 16;
/// Values that are remembered of all patterns together, each pattern counted as some more.
const MOST: usize = 1 << 19;
const PATTERN: usize = 1024;

/// How many values a label had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How often a value went.
    pub removals: u64,
    /// Values in order of arrival, as long as none goes.
    pub pairs: usize,
}

struct Found {
    seen: Seen,
    ids: Box<[PairId]>,
    /// Number of the look-up that used it last.
    used: u64,
}

/// A matcher without its compiled pattern, which may be large.
type Key = (Arc<str>, MatchOp, Arc<str>);

fn key(matcher: &Matcher) -> Key {
    (Arc::clone(&matcher.name), matcher.op, Arc::clone(&matcher.value))
}

#[derive(Default)]
struct Inner {
    found: Map<Key, Found>,
    held: usize,
    lookups: u64,
}

/// Values by pattern.
#[derive(Default)]
pub struct FoundPairs(Mutex<Inner>);

impl FoundPairs {
    /// Appends the values that are known to fit; answers with how many have been looked at.
    pub fn find(&self, matcher: &Matcher, now: Seen, out: &mut Vec<PairId>) -> usize {
        let mut inner = self.0.lock();
        inner.lookups += 1;
        let lookups = inner.lookups;
        match inner.found.get_mut(&key(matcher)) {
            Some(found) if found.seen.removals == now.removals => {
                found.used = lookups;
                out.extend_from_slice(&found.ids);
                found.seen.pairs
            }
            _ => 0,
        }
    }

    /// Remembers which values fit. Where there is no room, what was not used for long goes first.
    pub fn keep(&self, matcher: &Matcher, seen: Seen, ids: Vec<PairId>) {
        let mut inner = self.0.lock();
        if let Some(old) = inner.found.remove(&key(matcher)) {
            inner.held -= old.ids.len() + PATTERN;
        }
        if ids.len() > MOST_OF_ONE {
            return;
        }
        if inner.held + ids.len() + PATTERN > MOST {
            let recently = inner.lookups.saturating_sub(inner.found.len() as u64);
            inner.found.retain(|_, found| found.used > recently);
            inner.held = inner.found.values().map(|found| found.ids.len() + PATTERN).sum();
        }
        if inner.held + ids.len() + PATTERN > MOST {
            return;
        }
        inner.held += ids.len() + PATTERN;
        let found = Found { seen, ids: ids.into(), used: inner.lookups };
        inner.found.insert(key(matcher), found);
    }
}
