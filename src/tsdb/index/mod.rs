//! Which series have this label? The inverted index of the head: interned label pairs, each with the set of its
//! series, and for each label name its pairs. Series are slots of the head (`u32`).

use std::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use roaring::RoaringBitmap;
use std::hash::BuildHasher as _;

use super::Map;
use crate::model::{Labels, MatchOp, Matcher};

/// What patterns found.
mod found;
/// Sets of series, small ones inline.
pub mod postings;

use found::{FoundPairs, Seen};
use postings::Postings;

/// Number of a label pair.
pub type PairId = u32;

struct Pair {
    /// Number of the name; `FREE` for an unused entry.
    name: u32,
    /// Where it stands among the pairs of its name.
    at: u32,
    value: Box<str>,
    series: Postings,
}

const FREE: u32 = u32::MAX;

struct Name {
    text: Box<str>,
    hash: u64,
    /// Pairs with this name, in no order, later ones behind earlier ones; empty for an unused entry.
    pairs: Vec<PairId>,
    /// How often a pair went.
    removals: u64,
}

/// How an index hashes label pairs, for those who prepare many of them elsewhere.
#[derive(Clone)]
pub struct PairHasher(FixedState);

impl PairHasher {
    /// Hash of a label name.
    #[must_use]
    pub fn name(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }

    /// Hash of a label pair; `name` is the hash of its name.
    #[must_use]
    pub fn pair(&self, name: u64, value: &str) -> u64 {
        self.0.hash_one((name, value))
    }
}

/// A label pair that will be entered.
pub struct NewPair {
    /// Number of its name in a list.
    pub name: u32,
    /// Where its value stands in the text of all values: most pairs are known, and need no text of their own.
    pub value: Range<usize>,
    /// By [`PairHasher::pair`].
    pub hash: u64,
}

/// The index. Not synchronised: it lives behind the lock of the head.
pub struct Index {
    names: Vec<Name>,
    name_table: HashTable<u32>,
    pairs: Vec<Pair>,
    pair_table: HashTable<PairId>,
    free_pairs: Vec<PairId>,
    all: RoaringBitmap,
    /// Pairs of the series entered last: the next one mostly has the same ones at the same places.
    last: Box<[PairId]>,
    hasher: PairHasher,
    found: FoundPairs,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            name_table: HashTable::new(),
            pairs: Vec::new(),
            pair_table: HashTable::new(),
            free_pairs: Vec::new(),
            all: RoaringBitmap::new(),
            last: Box::default(),
            // Hostile label values should not be able to aim at one bucket.
            hasher: PairHasher(FixedState::with_seed(fastrand::u64(..))),
            found: FoundPairs::default(),
        }
    }
}

impl Index {
    fn name_number(&self, name: &str) -> Option<u32> {
        let hash = self.hasher.name(name);
        self.name_table.find(hash, |n| &*self.names[*n as usize].text == name).copied()
    }

    fn intern_name(&mut self, name: &str) -> u32 {
        if let Some(number) = self.name_number(name) {
            return number;
        }
        let (number, hash) = (self.names.len() as u32, self.hasher.name(name));
        self.names.push(Name { text: name.into(), hash, pairs: Vec::new(), removals: 0 });
        let names = &self.names;
        self.name_table.insert_unique(hash, number, |n| names[*n as usize].hash);
        number
    }

    fn hash(&self, name: u32, value: &str) -> u64 {
        self.hasher.pair(self.names[name as usize].hash, value)
    }

    fn pair(&self, name: u32, value: &str, hash: u64) -> Option<PairId> {
        let same = |id: &PairId| {
            let pair = &self.pairs[*id as usize];
            pair.name == name && &*pair.value == value
        };
        self.pair_table.find(hash, same).copied()
    }

    fn find(&self, name: &str, value: &str) -> Option<PairId> {
        let name = self.name_number(name)?;
        self.pair(name, value, self.hash(name, value))
    }

    fn intern_pair(&mut self, name: &str, value: &str) -> PairId {
        let name = self.intern_name(name);
        let hash = self.hash(name, value);
        self.enter_pair(name, value, hash)
    }

    /// The number of a pair, which is entered if it is not there yet.
    fn enter_pair(&mut self, name: u32, value: &str, hash: u64) -> PairId {
        let (pairs, names, hasher) = (&self.pairs, &self.names, &self.hasher);
        let same = |id: &PairId| {
            let pair = &pairs[*id as usize];
            pair.name == name && &*pair.value == value
        };
        let hash_of = |id: &PairId| {
            let pair = &pairs[*id as usize];
            hasher.pair(names[pair.name as usize].hash, &pair.value)
        };
        let place = match self.pair_table.entry(hash, same, hash_of) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(place) => place,
        };
        let siblings = &mut self.names[name as usize].pairs;
        let pair = Pair { name, at: siblings.len() as u32, value: value.into(), series: Postings::default() };
        let id = match self.free_pairs.pop() {
            Some(id) => {
                self.pairs[id as usize] = pair;
                id
            }
            None => {
                self.pairs.push(pair);
                self.pairs.len() as PairId - 1
            }
        };
        place.insert(id);
        siblings.push(id);
        id
    }

    /// How this index hashes.
    #[must_use]
    pub fn hasher(&self) -> PairHasher {
        self.hasher.clone()
    }

    /// Makes room for so many more label pairs.
    pub fn reserve(&mut self, pairs: usize) {
        let (all, names, hasher) = (&self.pairs, &self.names, &self.hasher);
        self.pair_table.reserve(pairs, |id| {
            let pair = &all[*id as usize];
            hasher.pair(names[pair.name as usize].hash, &pair.value)
        });
        self.pairs.reserve(pairs);
    }

    /// Enters a series and returns its pairs in order of label name.
    pub fn insert(&mut self, slot: u32, labels: &Labels) -> Box<[PairId]> {
        self.all.insert(slot);
        let last = std::mem::take(&mut self.last);
        let known = |index: &Self, at: usize, name: &str, value: &str| {
            let pair = index.pairs.get(*last.get(at)? as usize)?;
            let same = *pair.value == *value && index.names.get(pair.name as usize)?.text.as_ref() == name;
            same.then(|| last[at])
        };
        let numbered = labels.iter().enumerate();
        let ids: Box<[PairId]> = numbered
            .map(|(at, l)| {
                known(self, at, l.name, l.value).unwrap_or_else(|| self.intern_pair(l.name, l.value))
            })
            .collect();
        self.last.clone_from(&ids);
        for id in &ids {
            self.pairs[*id as usize].series.insert(slot);
        }
        ids
    }

    /// The numbers of label pairs that series will have at once, in order; `names` and `values` are those that the pairs
    /// mean.
    pub fn intern_all(&mut self, names: &[Box<str>], values: &str, pairs: &[NewPair]) -> Vec<PairId> {
        let names: Vec<u32> = names.iter().map(|name| self.intern_name(name)).collect();
        // All places in the table are looked at first: these loads wait for nothing, so that they overlap.
        let mut near = 0;
        for pair in pairs {
            let _ = self.pair_table.find(pair.hash, |id| {
                near ^= self.pairs[*id as usize].at;
                false
            });
        }
        std::hint::black_box(near);
        let enter = |NewPair { name, value, hash }: &NewPair| {
            self.enter_pair(names[*name as usize], &values[value.clone()], *hash)
        };
        pairs.iter().map(enter).collect()
    }

    /// Enters series, in ascending order, that have a label pair, which was interned before.
    pub fn extend(&mut self, pair: PairId, slots: &[u32]) {
        self.pairs[pair as usize].series.extend(slots);
    }

    /// Enters series, in ascending order, whose pairs are entered apart.
    pub fn extend_all(&mut self, slots: &[u32]) {
        if self.all.append(slots.iter().copied()).is_err() {
            self.all.extend(slots);
        }
    }

    /// Removes a series; pairs that nobody has any more are forgotten.
    pub fn remove(&mut self, slot: u32, pairs: &[PairId]) {
        self.all.remove(slot);
        for id in pairs {
            let pair = &mut self.pairs[*id as usize];
            pair.series.remove(slot);
            if !pair.series.is_empty() {
                continue;
            }
            let hash = self.hasher.pair(self.names[pair.name as usize].hash, &pair.value);
            if let Ok(entry) = self.pair_table.find_entry(hash, |other| other == id) {
                entry.remove();
            }
            let (name, at) = (pair.name, pair.at);
            pair.name = FREE;
            pair.value = Box::default();
            self.names[name as usize].removals += 1;
            let siblings = &mut self.names[name as usize].pairs;
            siblings.swap_remove(at as usize);
            if let Some(moved) = siblings.get(at as usize) {
                self.pairs[*moved as usize].at = at;
            }
            self.free_pairs.push(*id);
        }
    }

    /// Builds the label set of a series from its pairs.
    #[must_use]
    pub fn labels(&self, pairs: &[PairId]) -> Labels {
        Labels::from_sorted(pairs.iter().map(|id| self.text(*id)))
    }

    /// Name and value of a pair.
    #[must_use]
    pub fn text(&self, id: PairId) -> (&str, &str) {
        let pair = &self.pairs[id as usize];
        (&self.names[pair.name as usize].text, &pair.value)
    }

    /// Whether the pairs are exactly these labels.
    #[must_use]
    pub fn is(&self, pairs: &[PairId], labels: &Labels) -> bool {
        let mut own = pairs.iter().map(|id| self.text(*id));
        let mut given = labels.iter();
        loop {
            match (own.next(), given.next()) {
                (None, None) => return true,
                (Some((name, value)), Some(label)) if name == label.name && value == label.value => {}
                _ => return false,
            }
        }
    }

    /// Number of series with this label.
    #[must_use]
    pub fn count(&self, name: &str, value: &str) -> usize {
        self.find(name, value).map_or(0, |id| self.pairs[id as usize].series.len())
    }

    /// The series that satisfy all matchers.
    #[must_use]
    pub fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let mut result: Option<RoaringBitmap> = None;
        // What must be there first, cheapest first; then what must not.
        let mut order: Vec<(usize, bool, &Matcher)> =
            matchers.iter().map(|m| (self.cost(m), m.matches_empty(), m)).collect();
        order.sort_by_key(|(cost, empty, _)| (*empty, *cost));
        for (_, empty, matcher) in order {
            if result.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
            if empty {
                // Series without the label fit as well: take away those whose value does not.
                let wrong = match matcher.op {
                    MatchOp::NotEqual => self.series_of(&matcher.name, &matcher.value),
                    _ => self.union(matcher, |value| !matcher.matches(value)),
                };
                match &mut result {
                    Some(result) => *result -= wrong,
                    None => result = Some(&self.all - wrong),
                }
            } else {
                let fitting = match matcher.op {
                    MatchOp::Equal => self.series_of(&matcher.name, &matcher.value),
                    _ => self.union(matcher, |value| matcher.matches(value)),
                };
                match &mut result {
                    Some(result) => *result &= fitting,
                    None => result = Some(fitting),
                }
            }
        }
        result.unwrap_or_else(|| self.all.clone())
    }

    fn cost(&self, matcher: &Matcher) -> usize {
        match matcher.op {
            MatchOp::Equal => self.count(&matcher.name, &matcher.value),
            _ => 1000 + self.pairs_of(&matcher.name).len(),
        }
    }

    fn series_of(&self, name: &str, value: &str) -> RoaringBitmap {
        self.find(name, value).map(|id| self.pairs[id as usize].series.to_bitmap()).unwrap_or_default()
    }

    /// The series of the values of a matcher's label that fit. Among many values, those that fitted are remembered.
    fn union(&self, matcher: &Matcher, fits: impl Fn(&str) -> bool) -> RoaringBitmap {
        let mut union = RoaringBitmap::new();
        let mut add = |id: PairId| self.pairs[id as usize].series.add_to(&mut union);
        let fits = |id: &PairId| fits(&self.pairs[*id as usize].value);
        if let Some(values) = listed(matcher) {
            values.iter().filter_map(|value| self.find(&matcher.name, value)).for_each(add);
            return union;
        }
        let Some(name) = self.name_number(&matcher.name).map(|name| &self.names[name as usize]) else {
            return union;
        };
        if name.pairs.len() < found::MANY {
            name.pairs.iter().copied().filter(fits).for_each(add);
            return union;
        }
        let seen = Seen { removals: name.removals, pairs: name.pairs.len() };
        let mut ids = Vec::new();
        let looked_at = self.found.find(matcher, seen, &mut ids);
        ids.extend(name.pairs[looked_at..].iter().copied().filter(fits));
        ids.iter().for_each(|id| add(*id));
        if looked_at < name.pairs.len() {
            self.found.keep(matcher, seen, ids);
        }
        union
    }

    fn pairs_of(&self, name: &str) -> &[PairId] {
        self.name_number(name).map_or(&[], |name| &self.names[name as usize].pairs)
    }

    /// Names in use, in no order, with the numbers of their values, of their bytes and of their series.
    pub fn names(&self) -> impl Iterator<Item = NameUse<'_>> {
        self.names.iter().filter(|name| !name.pairs.is_empty()).map(|name| {
            let pairs = name.pairs.iter().map(|id| &self.pairs[*id as usize]);
            NameUse {
                name: &name.text,
                values: name.pairs.len(),
                bytes: pairs.map(|p| (p.value.len() + name.text.len()) * p.series.len()).sum(),
            }
        })
    }

    /// Values of a name, in no order, with the number of their series.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, usize)> + use<'a> {
        self.pairs_of(name).iter().map(|id| {
            let pair = &self.pairs[*id as usize];
            (&*pair.value, pair.series.len())
        })
    }

    /// Names that such series have, in no order.
    pub fn names_of(&self, such: impl Fn(u32) -> bool) -> Vec<&str> {
        let has = |id: &PairId| self.pairs[*id as usize].series.any(&such);
        self.names.iter().filter(|name| name.pairs.iter().any(has)).map(|name| &*name.text).collect()
    }

    /// Values of a name, in no order, with their series.
    pub fn series_by_value<'a>(
        &'a self,
        name: &str,
    ) -> impl ExactSizeIterator<Item = (&'a str, &'a Postings)> + use<'a> {
        self.pairs_of(name).iter().map(|id| {
            let pair = &self.pairs[*id as usize];
            (&*pair.value, &pair.series)
        })
    }

    /// All pairs in no order: name, value, number of series.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        let used = self.pairs.iter().filter(|pair| pair.name != FREE);
        used.map(|pair| (&*self.names[pair.name as usize].text, &*pair.value, pair.series.len()))
    }

    /// Number of pairs in use.
    #[must_use]
    pub fn num_pairs(&self) -> usize {
        self.pairs.len() - self.free_pairs.len()
    }

    /// Heap bytes, by estimate.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let pairs: usize = self.pairs.iter().map(|p| p.value.len() + p.series.heap_bytes()).sum();
        let names: usize = self.names.iter().map(|n| n.text.len() + 4 * n.pairs.capacity()).sum();
        pairs
            + names
            + self.pairs.capacity() * size_of::<Pair>()
            + self.pair_table.allocation_size()
            + self.names.capacity() * size_of::<Name>()
            + self.all.serialized_size()
    }
}

/// The values of its label that decide about a matcher, if its pattern lists them: those that fit, or those that do not
/// where series without the label do.
fn listed(matcher: &Matcher) -> Option<&[Box<str>]> {
    let values = matcher.regex()?.literal_set()?;
    ((matcher.op == MatchOp::NotRegex) == matcher.matches_empty()).then_some(values)
}

/// How much a label name is used.
#[derive(Debug, Clone, Copy)]
pub struct NameUse<'a> {
    /// The name.
    pub name: &'a str,
    /// Number of different values.
    pub values: usize,
    /// Bytes of name and value over all series.
    pub bytes: usize,
}

/// Rows of statistics, largest first, at most `limit`.
#[must_use]
pub fn top(rows: Map<String, u64>, limit: usize) -> Vec<(String, u64)> {
    let mut rows: Vec<(String, u64)> = rows.into_iter().collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    rows.truncate(limit);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn selects_as_a_scan_would(
            sets in prop::collection::vec(prop::collection::vec(("[a-c]", "[x-z]{1,2}"), 1..4), 1..60),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            matchers in prop::collection::vec(("[a-d]", 0u8..4, prop_oneof![Just(""), Just("x"), Just("xy"), Just("x.*|z"), Just(".+"), Just(".*")]), 0..4),
        ) {
            let mut index = Index::default();
            let mut all: Vec<Option<(Labels, Box<[PairId]>)>> = Vec::new();
            for (slot, pairs) in sets.iter().enumerate() {
                let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| (n, v)));
                let ids = index.insert(slot as u32, &labels);
                prop_assert_eq!(&index.labels(&ids), &labels);
                all.push(Some((labels, ids)));
            }
            for at in removed {
                let slot = at.index(all.len());
                if let Some((_, ids)) = all[slot].take() {
                    index.remove(slot as u32, &ids);
                }
            }
            let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
            let matchers: Vec<Matcher> = matchers.iter()
                .map(|(name, op, value)| Matcher::new(name, ops[*op as usize], value).unwrap()).collect();
            let want: Vec<u32> = all.iter().enumerate()
                .filter(|(_, s)| s.as_ref().is_some_and(|(l, _)| matchers.iter().all(|m| m.matches(l.value(&m.name)))))
                .map(|(slot, _)| slot as u32).collect();
            prop_assert_eq!(index.select(&matchers).iter().collect::<Vec<_>>(), want);
        }
    }

    #[test]
    fn what_is_remembered_of_many_values_follows_them() {
        const VALUES: u32 = 2 * found::MANY as u32;
        let mut index = Index::default();
        let mut pairs = Vec::new();
        let labels = |i: u32| Labels::from_pairs([("i", format!("{i}x")), ("parity", (i % 2).to_string())]);
        for slot in 0..VALUES {
            pairs.push(index.insert(slot, &labels(slot)));
        }
        let matcher = |op, value: &str| Matcher::new("i", op, value).unwrap();
        let matchers = [
            matcher(MatchOp::Regex, "12.*"),
            matcher(MatchOp::Regex, ".*7x"),
            matcher(MatchOp::NotRegex, ".*7x"),
            matcher(MatchOp::NotEqual, "5x"),
            matcher(MatchOp::NotEqual, ""),
            matcher(MatchOp::Regex, "5x|7x||nobody"),
            matcher(MatchOp::Regex, "5x|7x|nobody"),
            matcher(MatchOp::NotRegex, "5x|7x|nobody"),
        ];
        let check = |index: &Index, there: &dyn Fn(u32) -> bool, slots: u32| {
            for matcher in &matchers {
                let want: Vec<u32> =
                    (0..slots).filter(|i| there(*i) && matcher.matches(&format!("{i}x"))).collect();
                for _ in 0..2 {
                    let got = index.select(std::slice::from_ref(matcher));
                    assert_eq!(got.iter().collect::<Vec<_>>(), want, "{matcher}");
                }
            }
        };
        check(&index, &|_| true, VALUES);
        for slot in VALUES..VALUES + 100 {
            pairs.push(index.insert(slot, &labels(slot)));
        }
        check(&index, &|_| true, VALUES + 100);
        for gone in [7, 17, 1200, VALUES + 7] {
            index.remove(gone, &pairs[gone as usize]);
        }
        check(&index, &|i| ![7, 17, 1200, VALUES + 7].contains(&i), VALUES + 100);
    }
}
