//! In which order do many series stand? Labels of which there are few are compared by rank, so that most comparisons look
//! at no text.

use super::super::Map;
use super::super::index::PairId;
use super::state::State;
use crate::model::Labels;

/// Fewer series are sorted by their labels alone.
const WORTH_RANKING: usize = 32;
/// Labels of a series that are ranked at most.
const MOST_LABELS: usize = 16;
/// A label with more values ends the ranks, unless each of them is had by several series.
const MOST_VALUES: usize = 1 << 14;
/// So many.
const SHARED_BY: usize = 4;

/// Series by the ranks of their first labels.
pub struct Order {
    /// Ranks of the first labels, the first one in the highest bits, and the number of the series.
    keys: Vec<(u64, u32)>,
}

/// The label pairs that series have at one place, numbered from 1 in order of appearance.
#[derive(Default)]
struct Place {
    numbers: Map<PairId, u32>,
    last: Option<(PairId, u32)>,
    /// The number that each series so far has there, 0 if none; empty while all have number 1.
    column: Vec<u32>,
}

impl Place {
    /// A place that the first `before` series do not have.
    fn behind(before: usize) -> Self {
        Self { column: vec![0; before], ..Self::default() }
    }

    /// Takes the pair of the next series, the one after `before` others.
    fn push(&mut self, before: usize, pair: Option<PairId>) {
        let number = match (pair, self.last) {
            (None, _) => 0,
            (Some(pair), Some((last, number))) if last == pair => number,
            (Some(pair), _) => {
                let next = self.numbers.len() as u32 + 1;
                let number = *self.numbers.entry(pair).or_insert(next);
                self.last = Some((pair, number));
                number
            }
        };
        if self.column.is_empty() {
            if number == 1 {
                return;
            }
            self.column = vec![1; before];
        }
        self.column.push(number);
    }

    /// The rank of each number; that of 0 is 0.
    fn ranks(&self, state: &State) -> Vec<u64> {
        let mut sorted: Vec<(&PairId, &u32)> = self.numbers.iter().collect();
        sorted.sort_unstable_by_key(|(pair, _)| state.index.text(**pair));
        let mut ranks = vec![0; sorted.len() + 1];
        for (rank, (_, number)) in sorted.into_iter().enumerate() {
            ranks[*number as usize] = rank as u64 + 1;
        }
        ranks
    }
}

impl Order {
    /// Looks at the first labels of some series.
    pub fn of(state: &State, slots: &[u32]) -> Self {
        let mut keys: Vec<(u64, u32)> = (0..slots.len() as u32).map(|at| (0, at)).collect();
        if slots.len() < WORTH_RANKING {
            return Self { keys };
        }
        let most = MOST_VALUES.max(slots.len() / SHARED_BY);
        let mut places: Vec<Place> = Vec::new();
        let mut usable = MOST_LABELS;
        for (before, slot) in slots.iter().enumerate() {
            let pairs = state.series(*slot).map_or(&[][..], |series| &series.pairs);
            while places.len() < pairs.len().min(usable) {
                places.push(Place::behind(before));
            }
            for (at, place) in places.iter_mut().enumerate() {
                place.push(before, pairs.get(at).copied());
                if place.numbers.len() > most {
                    // Nothing is known from here on.
                    usable = at;
                    break;
                }
            }
            places.truncate(usable);
        }
        let mut free = u64::BITS;
        // Where all series have the same one there is nothing to compare.
        for place in places.iter().filter(|place| !place.column.is_empty()) {
            let ranks = place.ranks(state);
            let bits = u64::BITS - (ranks.len() as u64 - 1).leading_zeros();
            let Some(left) = free.checked_sub(bits) else { break };
            free = left;
            for ((key, _), number) in keys.iter_mut().zip(&place.column) {
                *key |= ranks[*number as usize] << free;
            }
        }
        Self { keys }
    }

    /// Brings what belongs to the series into the order of their labels.
    pub fn arrange<T>(mut self, all: &mut [T], labels: impl Fn(&T) -> &Labels) {
        let of = |at: u32| labels(&all[at as usize]);
        self.keys.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| of(a.1).cmp(of(b.1))));
        // Each cycle of places is followed once: nothing is copied that would have to be looked up again.
        for first in 0..self.keys.len() {
            let mut at = first;
            loop {
                let from = std::mem::replace(&mut self.keys[at].1, at as u32) as usize;
                if from == first {
                    break;
                }
                all.swap(at, from);
                at = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_order_of_the_labels(
            sets in prop::collection::hash_set(prop::collection::btree_map("[a-d]{1,2}", "[x-z]{1,3}", 0..5), 1..200),
            many in any::<bool>(),
        ) {
            let mut state = State::default();
            let mut slots = Vec::new();
            for (i, set) in sets.iter().enumerate() {
                let extra = many.then(|| ("b0".to_owned(), format!("{}", i * 7919 % 1000)));
                let labels = Labels::from_pairs(set.iter().map(|(n, v)| (n.clone(), v.clone())).chain(extra));
                slots.push(state.create(&labels, None));
            }
            let mut all: Vec<Labels> = slots.iter().map(|slot| state.labels(*slot)).collect();
            let mut sorted = all.clone();
            sorted.sort();
            Order::of(&state, &slots).arrange(&mut all, |labels| labels);
            prop_assert_eq!(all, sorted);
        }
    }

    #[test]
    fn a_label_of_very_many_values_ends_the_ranks() {
        let mut state = State::default();
        let labels = |i: usize| {
            let uid = (i * 7919) % (2 * MOST_VALUES);
            Labels::from_pairs([
                ("a", (i % 3).to_string()),
                ("uid", uid.to_string()),
                ("z", (i % 5).to_string()),
            ])
        };
        // With several series of each value the ranks go on: they tell all series apart.
        for (count, known) in [(2 * MOST_VALUES, 3), (8 * MOST_VALUES, 8 * MOST_VALUES)] {
            let slots: Vec<u32> = (0..count).map(|i| state.create(&labels(i), None)).collect();
            let mut all: Vec<Labels> = slots.iter().map(|slot| state.labels(*slot)).collect();
            let order = Order::of(&state, &slots);
            let different: std::collections::HashSet<u64> = order.keys.iter().map(|(key, _)| *key).collect();
            assert_eq!(different.len(), known);
            order.arrange(&mut all, |labels| labels);
            assert!(all.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
