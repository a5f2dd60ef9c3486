//! A set of series: most label pairs of high cardinality have one or two series, the others are best as bitmaps.

use roaring::RoaringBitmap;

/// So many series fit beside the tag without an allocation.
const INLINE: usize = 3;

/// The set.
#[derive(Debug, Clone)]
pub enum Postings {
    /// Up to three, unsorted; the first field counts.
    Few(u8, [u32; INLINE]),
    /// More.
    Many(Box<RoaringBitmap>),
}

impl Default for Postings {
    fn default() -> Self {
        Postings::Few(0, [0; INLINE])
    }
}

impl Postings {
    /// Adds a series.
    pub fn insert(&mut self, slot: u32) {
        match self {
            Postings::Few(n, slots) => {
                let used = usize::from(*n);
                if slots[..used].contains(&slot) {
                    return;
                }
                if used < INLINE {
                    slots[used] = slot;
                    *n += 1;
                    return;
                }
                let mut many: RoaringBitmap = slots.iter().copied().collect();
                many.insert(slot);
                *self = Postings::Many(Box::new(many));
            }
            Postings::Many(many) => {
                many.insert(slot);
            }
        }
    }

    /// Adds series in ascending order.
    pub fn extend(&mut self, slots: &[u32]) {
        let room = match self {
            Postings::Few(n, _) => INLINE - usize::from(*n),
            Postings::Many(_) => 0,
        };
        if slots.len() <= room {
            return slots.iter().for_each(|slot| self.insert(*slot));
        }
        if let Postings::Few(..) = self {
            *self = Postings::Many(Box::new(self.to_bitmap()));
        }
        let Postings::Many(many) = self else { return };
        if let (Some(first), Some(last)) = (slots.first(), slots.last())
            && (last - first) as usize == slots.len() - 1
        {
            many.insert_range(*first..=*last);
        } else if many.append(slots.iter().copied()).is_err() {
            many.extend(slots);
        }
    }

    /// Removes a series.
    pub fn remove(&mut self, slot: u32) {
        match self {
            Postings::Few(n, slots) => {
                let used = usize::from(*n);
                if let Some(at) = slots[..used].iter().position(|s| *s == slot) {
                    slots[at] = slots[used - 1];
                    *n -= 1;
                }
            }
            Postings::Many(many) => {
                many.remove(slot);
            }
        }
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Postings::Few(n, _) => usize::from(*n),
            Postings::Many(many) => many.len() as usize,
        }
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a series of the set is such.
    pub fn any(&self, mut such: impl FnMut(u32) -> bool) -> bool {
        match self {
            Postings::Few(n, slots) => slots[..usize::from(*n)].iter().any(|slot| such(*slot)),
            Postings::Many(many) => many.iter().any(such),
        }
    }

    /// Adds all series to a bitmap.
    pub fn add_to(&self, out: &mut RoaringBitmap) {
        match self {
            Postings::Few(n, slots) => out.extend(slots[..usize::from(*n)].iter().copied()),
            Postings::Many(many) => *out |= &**many,
        }
    }

    /// The set as a bitmap.
    #[must_use]
    pub fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Postings::Few(n, slots) => slots[..usize::from(*n)].iter().copied().collect(),
            Postings::Many(many) => (**many).clone(),
        }
    }

    /// Heap bytes, by estimate.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Postings::Few(..) => 0,
            Postings::Many(many) => 64 + many.serialized_size(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn holds_what_was_added(parts in prop::collection::vec(prop_oneof![
            prop::collection::btree_set(0u32..200_000, 0..9),
            (0u32..200_000, 0u32..9).prop_map(|(first, n)| (first..first + n).collect()),
        ], 1..6)) {
            let mut postings = Postings::default();
            let mut all = std::collections::BTreeSet::new();
            for part in parts {
                postings.extend(&part.iter().copied().collect::<Vec<_>>());
                all.extend(part);
                prop_assert_eq!(postings.to_bitmap().iter().collect::<Vec<_>>(), all.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(postings.len(), all.len());
            }
        }
    }
}
