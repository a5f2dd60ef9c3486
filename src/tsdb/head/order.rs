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
/// A label with more values ends the ranks.
const MOST_VALUES: usize = 1 << 14;

/// Series by the ranks of their first labels.
pub struct Order {
    /// Ranks of the first labels, the first one in the highest bits, and the number of the series.
    keys: Vec<(u64, u32)>,
}

/// The label pairs that series have at one place, in order of appearance.
#[derive(Default)]
struct Place {
    numbers: Map<PairId, u16>,
    last: Option<(PairId, u16)>,
}

impl Place {
    /// The number of a pair, from 1; `None` if there are too many.
    fn number(&mut self, pair: PairId) -> Option<u16> {
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == pair) {
            return Some(number);
        }
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(pair).or_insert(next as u16);
        self.last = Some((pair, number));
        (usize::from(number) <= MOST_VALUES).then_some(number)
    }

    /// The rank of each number; that of 0 is 0.
    fn ranks(&self, state: &State) -> Vec<u64> {
        let mut sorted: Vec<(&PairId, &u16)> = self.numbers.iter().collect();
        sorted.sort_unstable_by_key(|(pair, _)| state.index.text(**pair));
        let mut ranks = vec![0; sorted.len() + 1];
        for (rank, (_, number)) in sorted.into_iter().enumerate() {
            ranks[usize::from(*number)] = rank as u64 + 1;
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
        let mut places: Vec<Place> = Vec::new();
        let mut usable = MOST_LABELS;
        let mut numbers = vec![[0u16; MOST_LABELS]; slots.len()];
        for (slot, numbers) in slots.iter().zip(&mut numbers) {
            let Some(series) = state.series(*slot) else { continue };
            for (at, pair) in series.pairs.iter().take(usable).enumerate() {
                if at == places.len() {
                    places.push(Place::default());
                }
                match places[at].number(*pair) {
                    Some(number) => numbers[at] = number,
                    // Nothing is known from here on.
                    None => {
                        usable = at;
                        break;
                    }
                }
            }
        }
        let mut free = u64::BITS;
        for (at, place) in places.iter().take(usable).enumerate() {
            let ranks = place.ranks(state);
            // Every series has the same one: nothing to compare.
            if ranks.len() == 2 && numbers.iter().all(|numbers| numbers[at] == 1) {
                continue;
            }
            let bits = u64::BITS - (ranks.len() as u64 - 1).leading_zeros();
            let Some(left) = free.checked_sub(bits) else { break };
            free = left;
            for ((key, _), numbers) in keys.iter_mut().zip(&numbers) {
                *key |= ranks[usize::from(numbers[at])] << free;
            }
        }
        Self { keys }
    }

    /// The numbers of the series in order of their labels.
    pub fn sorted<'a>(mut self, labels: impl Fn(u32) -> &'a Labels) -> Vec<u32> {
        self.keys.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| labels(a.1).cmp(labels(b.1))));
        self.keys.into_iter().map(|(_, at)| at).collect()
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
            let all: Vec<Labels> = slots.iter().map(|slot| state.labels(*slot)).collect();
            let order = Order::of(&state, &slots).sorted(|at| &all[at as usize]);
            let sorted: Vec<&Labels> = order.iter().map(|at| &all[*at as usize]).collect();
            prop_assert_eq!(sorted.len(), all.len());
            prop_assert!(sorted.windows(2).all(|w| w[0] <= w[1]));
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
        let slots: Vec<u32> = (0..2 * MOST_VALUES).map(|i| state.create(&labels(i), None)).collect();
        let all: Vec<Labels> = slots.iter().map(|slot| state.labels(*slot)).collect();
        let order = Order::of(&state, &slots).sorted(|at| &all[at as usize]);
        assert!(order.windows(2).all(|w| all[w[0] as usize] < all[w[1] as usize]));
    }
}
