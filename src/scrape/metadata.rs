//! What does a target say about its metric families? Type, help and unit, remembered per target for the API.
//!
//! Two thousand targets of one kind say the same, so the texts are shared through an [`Interner`]; a target holds
//! one pointer and a hash for each family. Lines that repeat word for word cost one hash.

use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::model::metadata::{Metadata, MetricType};

/// Metadata of one family.
#[derive(Debug, PartialEq, Eq)]
pub struct FamilyMetadata {
    /// Name of the family.
    pub name: String,
    /// Type, unit, help.
    pub metadata: Metadata,
}

impl FamilyMetadata {
    fn hash(name: &str, metadata: &Metadata) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in [name, &metadata.unit, &metadata.help] {
            hash.update(part.as_bytes());
            hash.update(&[0xff]);
        }
        hash.update(&[metadata.metric_type as u8]);
        hash.digest()
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.metadata.unit.len() + self.metadata.help.len()
    }
}

/// Shares equal metadata between targets.
#[derive(Debug, Default)]
pub struct Interner(Mutex<HashTable<Arc<FamilyMetadata>>>);

impl Interner {
    fn intern(&self, name: &str, metadata: Metadata) -> Arc<FamilyMetadata> {
        let hash = FamilyMetadata::hash(name, &metadata);
        let hasher = |f: &Arc<FamilyMetadata>| FamilyMetadata::hash(&f.name, &f.metadata);
        let mut table = self.0.lock();
        if let Some(found) = table.find(hash, |f| f.name == name && f.metadata == metadata) {
            return Arc::clone(found);
        }
        if table.len() == table.capacity() {
            // Full: what no target refers to any more makes room first.
            table.retain(|f| Arc::strong_count(f) > 1);
        }
        let family = Arc::new(FamilyMetadata { name: name.to_owned(), metadata });
        table.insert_unique(hash, Arc::clone(&family), hasher);
        family
    }
}

#[derive(Debug)]
struct Entry {
    family: Arc<FamilyMetadata>,
    /// Hash and length of the lines that said all this; no length = not known.
    lines_hash: u64,
    lines_len: u32,
    metric_type: MetricType,
    seen: bool,
}

/// The families of one target, in the order of its body.
#[derive(Debug, Default)]
pub struct MetadataCache {
    entries: Vec<Entry>,
    current: Option<usize>,
}

impl MetadataCache {
    /// Begins a scrape.
    pub fn begin(&mut self) {
        self.current = None;
        self.entries.iter_mut().for_each(|e| e.seen = false);
    }

    /// Ends a successful scrape: families that were not in it are forgotten.
    pub fn finish(&mut self) {
        self.current = None;
        if self.entries.iter().any(|e| !e.seen) {
            self.entries.retain(|e| e.seen);
        }
        if self.entries.capacity() > self.entries.len() * 2 {
            self.entries.shrink_to_fit();
        }
    }

    fn next(&self) -> usize {
        self.current.map_or(0, |at| at + 1)
    }

    /// If `rest` begins with the very lines that came next last time: their length, and the type of their family.
    /// It is another family than the one before, so that nothing said before matters.
    pub fn expected(&mut self, rest: &[u8]) -> Option<(usize, MetricType)> {
        let next = self.next();
        let entry = self.entries.get_mut(next)?;
        let len = entry.lines_len as usize;
        let lines = rest.get(..len).filter(|lines| !lines.is_empty())?;
        if xxh3_64(lines) != entry.lines_hash {
            return None;
        }
        entry.seen = true;
        self.current = Some(next);
        Some((len, entry.metric_type))
    }

    /// The lines that were just taken, which say everything there is about their family.
    pub fn remember(&mut self, lines: &[u8], metric_type: MetricType) {
        if let Some(entry) = self.current.and_then(|at| self.entries.get_mut(at)) {
            entry.lines_hash = xxh3_64(lines);
            entry.lines_len = u32::try_from(lines.len()).unwrap_or(0);
            entry.metric_type = metric_type;
        }
    }

    fn select(&mut self, name: &str) -> Option<usize> {
        let is = |at: usize| self.entries.get(at).is_some_and(|e| e.family.name == name);
        let near = self.current.into_iter().chain([self.next()]).find(|at| is(*at));
        let at = near.or_else(|| self.entries.iter().position(|e| e.family.name == name))?;
        self.entries[at].seen = true;
        self.current = Some(at);
        Some(at)
    }

    /// Changes the metadata of a family; returns it if that changed anything.
    fn change(
        &mut self,
        interner: &Interner,
        name: &str,
        change: impl FnOnce(&mut Metadata) -> bool,
    ) -> Option<Arc<FamilyMetadata>> {
        let at = self.select(name);
        let mut metadata = at.map(|at| self.entries[at].family.metadata.clone()).unwrap_or_default();
        let changed = change(&mut metadata);
        if !changed && at.is_some() {
            return None;
        }
        let family = interner.intern(name, metadata);
        match at {
            Some(at) => {
                let entry = &mut self.entries[at];
                entry.family = Arc::clone(&family);
                // Whatever lines are known have to be read again to say this again.
                entry.lines_len = 0;
            }
            None => {
                // Next to its neighbour, so that the following scrapes find it in order.
                let at = self.next().min(self.entries.len());
                let entry = Entry {
                    family: Arc::clone(&family),
                    lines_hash: 0,
                    lines_len: 0,
                    metric_type: MetricType::Unknown,
                    seen: true,
                };
                self.entries.insert(at, entry);
                self.current = Some(at);
            }
        }
        changed.then_some(family)
    }

    /// A HELP text. Returns the family if it changed.
    pub fn help(&mut self, interner: &Interner, name: &str, help: &str) -> Option<Arc<FamilyMetadata>> {
        if let Some(at) = self.select(name)
            && self.entries[at].family.metadata.help == help
        {
            return None;
        }
        self.change(interner, name, |m| {
            let changed = m.help != help;
            if changed {
                help.clone_into(&mut m.help);
            }
            changed
        })
    }

    /// A TYPE. Returns the family if it changed.
    pub fn metric_type(
        &mut self,
        interner: &Interner,
        name: &str,
        metric_type: MetricType,
    ) -> Option<Arc<FamilyMetadata>> {
        if let Some(at) = self.select(name)
            && self.entries[at].family.metadata.metric_type == metric_type
        {
            return None;
        }
        self.change(interner, name, |m| std::mem::replace(&mut m.metric_type, metric_type) != metric_type)
    }

    /// A UNIT. Returns the family if it changed.
    pub fn unit(&mut self, interner: &Interner, name: &str, unit: &str) -> Option<Arc<FamilyMetadata>> {
        self.change(interner, name, |m| {
            let changed = m.unit != unit;
            if changed {
                unit.clone_into(&mut m.unit);
            }
            changed
        })
    }

    /// All families.
    pub fn families(&self) -> impl Iterator<Item = &Arc<FamilyMetadata>> {
        self.entries.iter().map(|e| &e.family)
    }

    /// Number of families and the bytes of their texts.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.entries.iter().map(|e| e.family.bytes()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_kept_shared_and_forgotten() {
        let interner = Interner::default();
        let (mut a, mut b) = (MetadataCache::default(), MetadataCache::default());
        for cache in [&mut a, &mut b] {
            cache.begin();
            assert!(cache.help(&interner, "x", "Help.").is_some());
            assert!(cache.metric_type(&interner, "x", MetricType::Counter).is_some());
            cache.remember(b"# x\n", MetricType::Counter);
            assert!(cache.metric_type(&interner, "y", MetricType::Gauge).is_some());
            cache.finish();
        }
        assert!(Arc::ptr_eq(a.families().next().unwrap(), b.families().next().unwrap()));
        a.begin();
        assert_eq!(a.expected(b"# y\n"), None);
        assert_eq!(a.expected(b"# x\nx 1"), Some((4, MetricType::Counter)));
        assert!(a.metric_type(&interner, "x", MetricType::Counter).is_none());
        assert!(a.unit(&interner, "x", "bytes").is_some());
        a.finish();
        a.begin();
        assert_eq!(a.expected(b"# x\nx 1"), None, "other lines have changed what is known");
        assert!(a.metric_type(&interner, "x", MetricType::Counter).is_none());
        a.finish();
        let left: Vec<_> = a.families().map(|f| (f.name.as_str(), f.metadata.unit.as_str())).collect();
        assert_eq!(left, [("x", "bytes")]);
    }
}
