//! Bit streams, most significant bit first. The writer extends a byte vector that is owned by the caller, so that
//! a million open chunks cost a million vectors and nothing more.

use super::Damaged;

/// Growth step of an open chunk: a doubling vector would waste a third of the heap of the head.
const GROW: usize = 32;

/// Appends the low `count` bits (0…64) of `value`. `free` is the number of unused low bits of the last byte (0…7).
#[inline]
pub fn put_bits(buf: &mut Vec<u8>, free: &mut u8, value: u64, count: u8) {
    let mut left = count;
    while left > 0 {
        if *free == 0 {
            if buf.len() == buf.capacity() {
                buf.reserve_exact(GROW);
            }
            buf.push(0);
            *free = 8;
        }
        let take = left.min(*free);
        let bits = (value >> (left - take)) & ((1u64 << take) - 1);
        if let Some(last) = buf.last_mut() {
            *last |= (bits as u8) << (*free - take);
        }
        *free -= take;
        left -= take;
    }
}

/// Reads what [`put_bits`] wrote.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// Next byte to load.
    at: usize,
    /// Loaded bits, left-aligned.
    word: u64,
    /// Number of valid bits in `word`.
    have: u32,
}

impl<'a> BitReader<'a> {
    /// Reads from the first bit of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, word: 0, have: 0 }
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(chunk) = self.bytes.get(self.at..self.at + 8) {
            // The whole word is loaded; only the bytes that fit are counted, the rest is loaded again later.
            let mut eight = [0; 8];
            eight.copy_from_slice(chunk);
            let take = (63 - self.have) >> 3;
            self.word |= u64::from_be_bytes(eight) >> self.have;
            self.at += take as usize;
            self.have += take * 8;
            // Bits beyond `have` would be or-ed twice with the same value, which changes nothing.
            return;
        }
        while self.have <= 56 {
            let Some(byte) = self.bytes.get(self.at) else { return };
            self.word |= u64::from(*byte) << (56 - self.have);
            self.have += 8;
            self.at += 1;
        }
    }

    /// The next `count` bits (0…64).
    #[inline]
    pub fn bits(&mut self, count: u8) -> Result<u64, Damaged> {
        let count = u32::from(count);
        if count > 56 {
            let high = self.bits((count - 32) as u8)?;
            return Ok((high << 32) | self.bits(32)?);
        }
        if self.have < count {
            self.refill();
            if self.have < count {
                return Err(Damaged("the bit stream ends early"));
            }
        }
        if count == 0 {
            return Ok(0);
        }
        let out = self.word >> (64 - count);
        self.word <<= count;
        self.have -= count;
        Ok(out)
    }

    /// Skips zero bits, at most `most`, and tells how many; looks no further than what one load brings, so there may be
    /// more.
    #[inline]
    pub fn zeros(&mut self, most: u32) -> u32 {
        if self.have == 0 {
            self.refill();
        }
        let run = self.word.leading_zeros().min(self.have).min(most);
        // A shift by 64 would be undefined; `have` is at most 63, so `run` is below.
        self.word <<= run;
        self.have -= run;
        run
    }

    /// The next bit.
    #[inline]
    pub fn bit(&mut self) -> Result<bool, Damaged> {
        Ok(self.bits(1)? == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_was_written(items in prop::collection::vec((any::<u64>(), 0u8..=64), 0..200)) {
            let (mut buf, mut free) = (Vec::new(), 0);
            for (value, count) in &items {
                put_bits(&mut buf, &mut free, *value, *count);
            }
            let mut reader = BitReader::new(&buf);
            for (value, count) in &items {
                let want = if *count == 64 { *value } else { value & ((1u64 << count) - 1) };
                prop_assert_eq!(reader.bits(*count).unwrap(), want);
            }
            prop_assert!(reader.bits(8).is_err());
        }

        #[test]
        fn zeros_are_skipped_up_to_the_next_one(runs in prop::collection::vec(0u32..200, 1..20)) {
            let (mut buf, mut free) = (Vec::new(), 0);
            for run in &runs {
                for _ in 0..*run {
                    put_bits(&mut buf, &mut free, 0, 1);
                }
                put_bits(&mut buf, &mut free, 1, 1);
            }
            let mut reader = BitReader::new(&buf);
            for run in &runs {
                let mut skipped = 0;
                while skipped < *run {
                    let more = reader.zeros(*run - skipped);
                    prop_assert!(more > 0);
                    skipped += more;
                }
                prop_assert_eq!(reader.bits(1).unwrap(), 1);
            }
        }
    }
}
