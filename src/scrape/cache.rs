//! What did the previous scrape of a target hold? The series in their order, so that a line that repeats costs a
//! hash comparison instead of parsing and a lookup of labels.
//!
//! An entry is 24 bytes: 96 bits of a keyed hash over the series text, the text's length, the reference that storage
//! gave. The text itself is not kept. As long as a scrape repeats the order of the one before, entries are
//! touched in place; on the first difference a new list is begun, and an index over the old one is built only when
//! a short look ahead does not find the series.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::tsdb::door::SeriesRef;

/// How far the cache looks ahead before it builds an index.
const LOOK_AHEAD: usize = 16;
/// Longest series text that is remembered, in bytes.
const MAX_TEXT: usize = (1 << 24) - 1;
const TRACKED: u32 = 1 << 24;
const DROPPED: u32 = 1 << 25;
const GENERATION_SHIFT: u32 = 26;
const LAST_GENERATION: u32 = 63;

/// The key of the hashes; random for each process, so that no target can aim at collisions.
#[derive(Clone)]
pub struct HashKey(Box<[u8; 192]>);

impl HashKey {
    /// A random key.
    #[must_use]
    pub fn random() -> Self {
        let mut secret = Box::new([0; 192]);
        fastrand::Rng::new().fill(&mut secret[..]);
        Self(secret)
    }

    /// The hash of a series' text under a parse context.
    #[inline]
    pub fn hash(&self, text: &[u8], context: u64) -> Hash96 {
        let hash = xxh3_128_with_secret(text, &self.0[..]);
        Hash96((hash as u64) ^ context, (hash >> 64) as u32)
    }
}

/// The keyed hash of a series text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash96(u64, u32);

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash_low: u64,
    reference: u64,
    hash_high: u32,
    /// Length in the low 24 bits, then two flags, then the generation it was seen in.
    bits: u32,
}

impl Entry {
    #[inline]
    fn is(&self, hash: Hash96, len: usize) -> bool {
        self.hash_low == hash.0 && self.hash_high == hash.1 && self.len() == len
    }

    #[inline]
    fn len(&self) -> usize {
        (self.bits & 0x00ff_ffff) as usize
    }

    fn generation(&self) -> u32 {
        self.bits >> GENERATION_SHIFT
    }

    fn set_generation(&mut self, generation: u32) {
        self.bits = self.bits & ((1 << GENERATION_SHIFT) - 1) | generation << GENERATION_SHIFT;
    }

    fn set(&mut self, flag: u32, on: bool) {
        self.bits = if on { self.bits | flag } else { self.bits & !flag };
    }

    fn has(&self, flag: u32) -> bool {
        self.bits & flag != 0
    }
}

/// The remembered series of one target.
#[derive(Debug, Default)]
pub struct SeriesCache {
    entries: Vec<Entry>,
    /// Series of an earlier configuration that have no end yet.
    retired: Vec<SeriesRef>,
    generation: u32,
}

/// Where a series was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Seen in the previous scrape, and for the first time in this one.
    Known(usize),
    /// Seen in this scrape already.
    Again(usize),
    /// Not known.
    New,
}

/// One pass over the cache, for one scrape.
pub struct Pass<'c> {
    cache: &'c mut SeriesCache,
    key: &'c HashKey,
    cursor: usize,
    /// The new order, once it differs from the old one.
    next: Option<Vec<Entry>>,
    /// Positions in `entries`, or in `added` with the top bit set.
    index: Option<HashTable<u32>>,
    added: Vec<Entry>,
}

const IN_ADDED: u32 = 1 << 31;

impl SeriesCache {
    /// Number of remembered series.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets which text means which series, because the rules for labels changed; series that do not come back
    /// still get their stale markers.
    pub fn retire(&mut self) {
        let tracked = self.entries.iter().filter(|e| e.has(TRACKED)).map(|e| SeriesRef(e.reference));
        self.retired.extend(tracked);
        self.entries = Vec::new();
    }

    /// Begins a scrape.
    pub fn begin<'c>(&'c mut self, key: &'c HashKey) -> Pass<'c> {
        if self.generation >= LAST_GENERATION {
            self.generation = 0;
            self.entries.iter_mut().for_each(|e| e.set_generation(0));
        }
        self.generation += 1;
        Pass { cache: self, key, cursor: 0, next: None, index: None, added: Vec::new() }
    }

    /// Takes the series that now end because the scrape failed or the target is gone. They stay remembered.
    pub fn take_all_tracked(&mut self) -> Vec<SeriesRef> {
        let mut ended = std::mem::take(&mut self.retired);
        for entry in &mut self.entries {
            if entry.has(TRACKED) {
                entry.set(TRACKED, false);
                ended.push(SeriesRef(entry.reference));
            }
        }
        ended
    }
}

impl Pass<'_> {
    /// Whether `rest` starts with the series that comes next in the order of the previous scrape.
    #[inline]
    pub fn expected(&self, rest: &[u8], context: u64) -> Option<usize> {
        let entry = self.cache.entries.get(self.cursor)?;
        let text = rest.get(..entry.len())?;
        let is_next =
            entry.generation() != self.cache.generation && entry.is(self.key.hash(text, context), text.len());
        is_next.then_some(text.len())
    }

    /// Accepts what [`Pass::expected`] just recognised.
    #[inline]
    pub fn accept(&mut self) -> usize {
        let at = self.cursor;
        self.see(at);
        at
    }

    fn see(&mut self, at: usize) {
        let generation = self.cache.generation;
        if at != self.cursor && self.next.is_none() {
            self.next = Some(self.cache.entries[..self.cursor].to_vec());
        }
        self.cache.entries[at].set_generation(generation);
        self.cursor = at + 1;
        if let Some(next) = &mut self.next {
            next.push(self.cache.entries[at]);
        }
    }

    fn is_seen(&self, at: usize) -> bool {
        self.cache.entries[at].generation() == self.cache.generation
    }

    /// Looks a series up by its text.
    pub fn find(&mut self, text: &[u8], context: u64) -> (Found, Hash96) {
        let hash = self.key.hash(text, context);
        let entries = &self.cache.entries;
        let end = entries.len().min(self.cursor.saturating_add(LOOK_AHEAD));
        let ahead = entries.get(self.cursor..end).unwrap_or_default();
        if let Some(offset) = ahead.iter().position(|e| e.is(hash, text.len())) {
            let at = self.cursor + offset;
            if self.is_seen(at) {
                return (Found::Again(at), hash);
            }
            self.see(at);
            return (Found::Known(at), hash);
        }
        let index = self.index.get_or_insert_with(|| {
            let mut index = HashTable::with_capacity(entries.len());
            for (at, entry) in entries.iter().enumerate() {
                index.insert_unique(entry.hash_low, at as u32, |at| entries[*at as usize].hash_low);
            }
            index
        });
        let added = &self.added;
        let entry_at = |at: u32| match at & IN_ADDED {
            0 => &entries[at as usize],
            _ => &added[(at & !IN_ADDED) as usize],
        };
        match index.find(hash.0, |at| entry_at(*at).is(hash, text.len())).copied() {
            Some(at) if at & IN_ADDED != 0 => (Found::Again(at as usize), hash),
            Some(at) if self.is_seen(at as usize) => (Found::Again(at as usize), hash),
            Some(at) => {
                self.see(at as usize);
                (Found::Known(at as usize), hash)
            }
            None => (Found::New, hash),
        }
    }

    fn entry(&self, at: usize) -> &Entry {
        match at as u32 & IN_ADDED {
            0 => &self.cache.entries[at],
            _ => &self.added[at & !(IN_ADDED as usize)],
        }
    }

    /// The reference of a found series.
    #[inline]
    pub fn reference(&self, at: usize) -> SeriesRef {
        SeriesRef(self.entry(at).reference)
    }

    /// Whether a found series is dropped by metric relabelling.
    #[inline]
    pub fn is_dropped(&self, at: usize) -> bool {
        self.entry(at).has(DROPPED)
    }

    /// Notes the outcome of a known series that was accepted last.
    #[inline]
    pub fn update(&mut self, at: usize, reference: SeriesRef, tracked: bool) {
        let Some(entry) = self.cache.entries.get_mut(at) else { return };
        entry.reference = reference.0;
        entry.set(TRACKED, tracked);
        if let Some(last) = self.next.as_mut().and_then(|next| next.last_mut()) {
            *last = *entry;
        }
    }

    /// Remembers a new series.
    pub fn add(&mut self, text: &[u8], hash: Hash96, reference: SeriesRef, tracked: bool, dropped: bool) {
        if text.len() > MAX_TEXT {
            return;
        }
        let mut entry =
            Entry { hash_low: hash.0, hash_high: hash.1, reference: reference.0, bits: text.len() as u32 };
        entry.set(TRACKED, tracked && !dropped);
        entry.set(DROPPED, dropped);
        entry.set_generation(self.cache.generation);
        let cursor = self.cursor;
        let entries = &self.cache.entries;
        self.next.get_or_insert_with(|| entries[..cursor].to_vec()).push(entry);
        let at = self.added.len() as u32 | IN_ADDED;
        self.added.push(entry);
        let added = &self.added;
        if let Some(index) = &mut self.index {
            index.insert_unique(hash.0, at, |at| match at & IN_ADDED {
                0 => entries[*at as usize].hash_low,
                _ => added[(at & !IN_ADDED) as usize].hash_low,
            });
        }
    }

    /// Ends a successful scrape: what was not seen is forgotten. Returns the tracked series among that which no
    /// other text of this scrape means.
    pub fn finish(self) -> Vec<SeriesRef> {
        let cache = self.cache;
        let generation = cache.generation;
        let mut ended = std::mem::take(&mut cache.retired);
        let unseen = cache.entries.iter().filter(|e| e.generation() != generation && e.has(TRACKED));
        ended.extend(unseen.map(|e| SeriesRef(e.reference)));
        match self.next {
            Some(mut next) => {
                next.shrink_to_fit();
                cache.entries = next;
            }
            None => cache.entries.truncate(self.cursor),
        }
        if !ended.is_empty() {
            let current: std::collections::HashSet<u64> =
                cache.entries.iter().filter(|e| e.has(TRACKED)).map(|e| e.reference).collect();
            ended.retain(|r| !current.contains(&r.0));
            ended.sort_unstable();
            ended.dedup();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn scrape(
        cache: &mut SeriesCache,
        key: &HashKey,
        lines: &[u8],
        refs: &mut BTreeMap<u8, u64>,
    ) -> Vec<u64> {
        let mut pass = cache.begin(key);
        for line in lines {
            let text = [b'x', *line];
            if pass.expected(&text, 0) == Some(2) {
                let at = pass.accept();
                assert_eq!(pass.reference(at).0, refs[line], "a wrong series was recognised");
                pass.update(at, SeriesRef(refs[line]), true);
                continue;
            }
            match pass.find(&text, 0) {
                (Found::Known(at), _) => {
                    assert_eq!(pass.reference(at).0, refs[line]);
                    pass.update(at, SeriesRef(refs[line]), true);
                }
                (Found::Again(at), _) => assert_eq!(pass.reference(at).0, refs[line]),
                (Found::New, hash) => {
                    let next = refs.len() as u64 + 1;
                    let reference = *refs.entry(*line).or_insert(next);
                    pass.add(&text, hash, SeriesRef(reference), true, false);
                }
            }
        }
        pass.finish().into_iter().map(|r| r.0).collect()
    }

    proptest! {
        #[test]
        fn remembers_and_ends_like_sets(scrapes in prop::collection::vec(prop::collection::vec(0u8..40, 0..40), 1..80)) {
            let key = HashKey::random();
            let (mut cache, mut refs) = (SeriesCache::default(), BTreeMap::new());
            let mut before: BTreeSet<u8> = BTreeSet::new();
            for lines in &scrapes {
                let ended = scrape(&mut cache, &key, lines, &mut refs);
                let now: BTreeSet<u8> = lines.iter().copied().collect();
                let mut want: Vec<u64> = before.difference(&now).map(|line| refs[line]).collect();
                want.sort_unstable();
                prop_assert_eq!(ended, want);
                prop_assert_eq!(cache.len(), now.len());
                before = now;
            }
        }
    }

    #[test]
    fn entries_are_small() {
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn failures_end_everything_once() {
        let key = HashKey::random();
        let (mut cache, mut refs) = (SeriesCache::default(), BTreeMap::new());
        scrape(&mut cache, &key, b"abc", &mut refs);
        assert_eq!(cache.take_all_tracked().len(), 3);
        assert_eq!(cache.take_all_tracked().len(), 0);
        assert_eq!(scrape(&mut cache, &key, b"ab", &mut refs), Vec::<u64>::new());
        cache.retire();
        assert_eq!(scrape(&mut cache, &key, b"a", &mut refs), vec![refs[&b'b']]);
    }
}
