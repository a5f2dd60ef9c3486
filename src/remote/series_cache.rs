//! Has this series been written before? A table from a keyed 128-bit hash of a series' labels on the wire to its
//! reference in storage, so that a known series costs a hash and a look-up instead of a label set.
//!
//! Two generations: what was not seen for a whole period is forgotten. A reference that died in the meantime is
//! harmless, storage then asks for the labels.

use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::tsdb::SeriesRef;

const SHARDS: usize = 16;
/// Entries of one generation of one shard; 16 shards of two generations hold 8 million series in 400 MB at worst.
const MAX_ENTRIES: usize = 256 << 10;
/// Length of a generation, milliseconds.
const PERIOD_MS: i64 = 3_600_000;

/// A keyed hash of labels.
pub type LabelHash = u128;

#[derive(Debug, Clone, Copy)]
struct Entry {
    high: u64,
    low: u64,
    reference: u64,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashTable<Entry>,
    old: HashTable<Entry>,
    since_ms: i64,
}

/// The table.
#[derive(Debug)]
pub struct SeriesCache {
    shards: [Mutex<Shard>; SHARDS],
    seed: u64,
}

impl Default for SeriesCache {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), seed: fastrand::u64(..) }
    }
}

impl SeriesCache {
    /// Hashes the bytes that identify a series.
    #[must_use]
    pub fn hash(&self, identity: &[u8]) -> LabelHash {
        xxhash_rust::xxh3::xxh3_128_with_seed(identity, self.seed)
    }

    fn shard(&self, hash: LabelHash) -> (&Mutex<Shard>, u64, u64) {
        let (high, low) = ((hash >> 64) as u64, hash as u64);
        (&self.shards[(high >> 60) as usize % SHARDS], high, low)
    }

    /// The reference of a known series.
    #[must_use]
    pub fn get(&self, hash: LabelHash) -> Option<SeriesRef> {
        let (shard, high, low) = self.shard(hash);
        let mut shard = shard.lock();
        let same = |e: &Entry| e.high == high && e.low == low;
        if let Some(entry) = shard.young.find(low, same) {
            return Some(SeriesRef(entry.reference));
        }
        let entry = *shard.old.find(low, same)?;
        shard.young.insert_unique(low, entry, |e| e.low);
        Some(SeriesRef(entry.reference))
    }

    /// Notes the reference of a series.
    pub fn put(&self, hash: LabelHash, reference: SeriesRef, now_ms: i64) {
        if !reference.is_some() {
            return;
        }
        let (shard, high, low) = self.shard(hash);
        let mut shard = shard.lock();
        if shard.young.len() >= MAX_ENTRIES || now_ms.saturating_sub(shard.since_ms) > PERIOD_MS {
            shard.old = std::mem::take(&mut shard.young);
            shard.since_ms = now_ms;
        }
        let entry = Entry { high, low, reference: reference.0 };
        match shard.young.find_mut(low, |e| e.high == high && e.low == low) {
            Some(known) => *known = entry,
            None => {
                shard.young.insert_unique(low, entry, |e| e.low);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_is_not_seen_for_two_periods() {
        let cache = SeriesCache::default();
        let hash = cache.hash(b"a");
        assert_eq!(cache.get(hash), None);
        cache.put(hash, SeriesRef(7), 0);
        assert_eq!(cache.get(hash), Some(SeriesRef(7)));
        // A second entry of the same shard moves the generations on.
        let other = hash ^ 1;
        cache.put(other, SeriesRef(8), PERIOD_MS + 1);
        assert_eq!(cache.get(hash), Some(SeriesRef(7)), "still in the old generation, and young again now");
        cache.put(other, SeriesRef(8), 2 * PERIOD_MS + 2);
        cache.put(other, SeriesRef(8), 3 * PERIOD_MS + 3);
        assert_eq!(cache.get(hash), None);
        assert_eq!(cache.get(other), Some(SeriesRef(8)));
    }
}
