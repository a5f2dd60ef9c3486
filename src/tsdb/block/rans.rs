//! How is a skewed sequence of small numbers stored in little more than its entropy? By rANS (Duda 2013,
//! "Asymmetric numeral systems") with a static table for each stream.
//!
//! A number becomes a token, which is entropy coded, and extra bits, which are stored as they are: numbers
//! below 16 are their own token, larger ones share a token with those of the same magnitude and second bit.

use super::bits::{BitReader, BitWriter, golomb_bits};
use super::bytes::{DecodeError, Input, Result, put_varint};

const DIRECT: u64 = 16;
/// Number of tokens: 16 direct ones and two for each magnitude from 2^4 to 2^63.
pub const TOKENS: usize = 16 + 2 * 60;
const STATE_LOW: u32 = 1 << 16;

/// The token of `u`, its extra bits and their number.
#[inline]
fn tokenize(u: u64) -> (usize, u64, u32) {
    if u < DIRECT {
        return (u as usize, 0, 0);
    }
    let magnitude = 63 - u.leading_zeros();
    let second = (u >> (magnitude - 1)) & 1;
    let extra = magnitude - 1;
    ((16 + (magnitude - 4) * 2) as usize + second as usize, u & ((1 << extra) - 1), extra)
}

/// How often each token occurs in a stream.
#[derive(Debug, Clone)]
pub struct TokenCounts {
    counts: [u32; TOKENS],
    total: u32,
    extra_bits: u64,
}

impl TokenCounts {
    /// Counts the tokens of `numbers`.
    pub fn of(numbers: impl Iterator<Item = u64>) -> Self {
        let mut this = Self { counts: [0; TOKENS], total: 0, extra_bits: 0 };
        for u in numbers {
            let (token, _, extra) = tokenize(u);
            this.counts[token] += 1;
            this.total += 1;
            this.extra_bits += u64::from(extra);
        }
        this
    }

    /// About how many bytes the stream will take.
    #[must_use]
    pub fn cost(&self) -> usize {
        if self.total == 0 {
            return 1;
        }
        let total = f64::from(self.total);
        let mut bits = self.extra_bits as f64;
        let mut used = 0.0;
        for &count in self.counts.iter().filter(|c| **c > 0) {
            bits += f64::from(count) * (total / f64::from(count)).log2();
            used += 1.0;
        }
        // About 11 bits for each table entry, 9 bytes of state, lengths and padding.
        ((bits + used * 11.0) / 8.0) as usize + 9
    }
}

/// Frequencies scaled to a sum of `1 << log`.
struct Table {
    log: u32,
    frequencies: [u32; TOKENS],
}

impl Table {
    fn from_counts(counts: &TokenCounts) -> Self {
        let used = counts.counts.iter().filter(|c| **c > 0).count() as u32;
        let log = (32 - counts.total.leading_zeros()).clamp(5, 11).max(32 - used.leading_zeros() + 1);
        let size = 1u32 << log;
        let mut frequencies = [0u32; TOKENS];
        let mut sum = 0;
        for (frequency, &count) in frequencies.iter_mut().zip(&counts.counts) {
            if count > 0 {
                let exact = u64::from(count) * u64::from(size);
                *frequency = ((exact + u64::from(counts.total) / 2) / u64::from(counts.total)).max(1) as u32;
                sum += *frequency;
            }
        }
        // Rounding rarely meets the sum: take from or give to the entries that mind least.
        while sum > size {
            let largest = (0..TOKENS).max_by_key(|i| frequencies[*i]).unwrap_or(0);
            let step = (sum - size).min((frequencies[largest] / 8).max(1));
            frequencies[largest] -= step;
            sum -= step;
        }
        if sum < size {
            let largest = (0..TOKENS).max_by_key(|i| frequencies[*i]).unwrap_or(0);
            frequencies[largest] += size - sum;
        }
        Self { log, frequencies }
    }

    fn write(&self, bits: &mut BitWriter) {
        let used: Vec<(usize, u32)> =
            self.frequencies.iter().copied().enumerate().filter(|(_, f)| *f > 0).collect();
        let listed = used.len().saturating_sub(1);
        let cost = |k: u32| -> usize {
            used.iter().take(listed).map(|(_, f)| golomb_bits(u64::from(*f - 1), k)).sum()
        };
        let k = (0..8).min_by_key(|k| cost(*k)).unwrap_or(0);
        bits.put(u64::from(self.log), 4);
        bits.put(u64::from(k), 3);
        bits.put_golomb(used.len() as u64, 2);
        let mut next = 0;
        for (i, (token, frequency)) in used.iter().enumerate() {
            bits.put_golomb((token - next) as u64, 0);
            next = token + 1;
            // The last frequency is what the sum leaves over.
            if i < listed {
                bits.put_golomb(u64::from(*frequency - 1), k);
            }
        }
    }

    fn read(bits: &mut BitReader<'_>) -> Result<Self> {
        let log = bits.take(4)? as u32;
        let k = bits.take(3)? as u32;
        let used = bits.take_golomb(2)? as usize;
        if log > 12 || used == 0 || used > TOKENS {
            return Err(DecodeError("entropy table has an impossible size"));
        }
        let mut frequencies = [0u32; TOKENS];
        let (mut next, mut left) = (0u64, 1u64 << log);
        for i in 0..used {
            let token = next + bits.take_golomb(0)?;
            let frequency = if i + 1 == used { left } else { bits.take_golomb(k)? + 1 };
            left = left.checked_sub(frequency).ok_or(DecodeError("entropy table is overfull"))?;
            if frequency == 0 {
                return Err(DecodeError("entropy table has an empty entry"));
            }
            *frequencies.get_mut(token as usize).ok_or(DecodeError("unknown token"))? = frequency as u32;
            next = token + 1;
        }
        Ok(Self { log, frequencies })
    }
}

/// Appends the stream of `numbers`; their count is not stored.
pub fn encode(numbers: &[u64], counts: &TokenCounts, out: &mut Vec<u8>) {
    let table = Table::from_counts(counts);
    let mut starts = [0u32; TOKENS];
    let mut sum = 0;
    for (start, frequency) in starts.iter_mut().zip(&table.frequencies) {
        *start = sum;
        sum += frequency;
    }
    let mut words: Vec<u16> = Vec::with_capacity(numbers.len() / 8 + 4);
    let mut state = STATE_LOW;
    for &u in numbers.iter().rev() {
        let (token, ..) = tokenize(u);
        let (frequency, start) = (table.frequencies[token], starts[token]);
        let limit = (u64::from(STATE_LOW >> table.log) << 16) * u64::from(frequency);
        if u64::from(state) >= limit {
            words.push(state as u16);
            state >>= 16;
        }
        state = ((state / frequency) << table.log) + (state % frequency) + start;
    }
    let mut bits = BitWriter::default();
    table.write(&mut bits);
    for &u in numbers {
        let (_, extra, width) = tokenize(u);
        bits.put(extra, width);
    }
    put_varint(out, words.len() as u64);
    out.extend_from_slice(&state.to_le_bytes());
    for word in words.iter().rev() {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let bits = bits.finish();
    put_varint(out, bits.len() as u64);
    out.extend_from_slice(&bits);
}

/// Hands `n` numbers to `each`, in order.
pub fn decode(input: &mut Input<'_>, n: usize, mut each: impl FnMut(u64)) -> Result<()> {
    let words = input.count(input.len() / 2)?;
    let mut state = input.u32()?;
    let mut words = input.bytes(words * 2)?.chunks_exact(2);
    let bits = input.count(input.len())?;
    let mut bits = BitReader::new(input.bytes(bits)?);
    let table = Table::read(&mut bits)?;
    // Slot → token (8 bits), offset within the token's slots (12), frequency less one (12). As long as a short stream
    // itself, so it is filled in words.
    let mut slots: Vec<u32> = Vec::with_capacity(1 << table.log);
    for (token, &frequency) in table.frequencies.iter().enumerate().filter(|(_, f)| **f > 0) {
        let entry = token as u32 | (frequency - 1) << 20;
        slots.extend((0..frequency).map(|i| entry | i << 8));
    }
    let mask = (1u32 << table.log) - 1;
    for _ in 0..n {
        let &slot = slots.get((state & mask) as usize).ok_or(DecodeError("entropy table is not full"))?;
        let (token, offset, frequency) = (slot & 0xff, slot >> 8 & 0xfff, (slot >> 20) + 1);
        // Below 2^32: no frequency is above 2^log, no offset above its frequency.
        state = frequency * (state >> table.log) + offset;
        if state < STATE_LOW {
            let word = words.next().ok_or(DecodeError("entropy stream ends too early"))?;
            state = state << 16 | u32::from(word[0]) | u32::from(word[1]) << 8;
        }
        let token = u64::from(token);
        if token < DIRECT {
            each(token);
        } else {
            let magnitude = ((token - 16) / 2 + 4) as u32;
            let top = 2 | (token & 1);
            each(top << (magnitude - 1) | bits.take(magnitude - 1)?);
        }
    }
    if state != STATE_LOW || words.next().is_some() {
        return Err(DecodeError("entropy stream does not end as it should"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(numbers: &[u64]) {
        let counts = TokenCounts::of(numbers.iter().copied());
        let mut out = Vec::new();
        encode(numbers, &counts, &mut out);
        let mut back = Vec::new();
        let mut input = Input::new(&out);
        decode(&mut input, numbers.len(), |u| back.push(u)).unwrap();
        assert_eq!(back, numbers);
        assert!(input.is_empty());
    }

    #[test]
    fn all_magnitudes_return() {
        round_trip(&(0..64).flat_map(|i| [1u64 << i, (1 << i) - 1, u64::MAX >> i]).collect::<Vec<_>>());
        round_trip(&[7]);
        round_trip(&vec![0; 5000]);
        let skewed: Vec<u64> = (0..4000).map(|i| u64::from(i % 1999 == 0) * 3).collect();
        round_trip(&skewed);
    }

    proptest! {
        #[test]
        fn numbers_return(items in prop::collection::vec((any::<u64>(), 0u32..64), 1..600)) {
            round_trip(&items.into_iter().map(|(v, s)| v >> s).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), n in 0usize..500) {
            let _ = decode(&mut Input::new(&bytes), n, |_| ());
        }
    }
}
