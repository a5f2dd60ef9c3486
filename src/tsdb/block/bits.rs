//! Bit streams, least significant bit first: the carrier of the extra bits of entropy-coded integers and of
//! the XOR fallback.

use super::bytes::{DecodeError, Result};

/// Appends bits.
#[derive(Debug, Default)]
pub struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    filled: u32,
}

impl BitWriter {
    /// Appends the lowest `n` bits of `v`, n ≤ 64.
    #[inline]
    pub fn put(&mut self, v: u64, n: u32) {
        if n > 32 {
            self.put_short(v & 0xffff_ffff, 32);
            self.put_short(v >> 32, n - 32);
        } else {
            self.put_short(v, n);
        }
    }

    #[inline]
    fn put_short(&mut self, v: u64, n: u32) {
        self.pending |= (v & ((1u64 << n) - 1)) << self.filled;
        self.filled += n;
        while self.filled >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.filled -= 8;
        }
    }

    /// Bits so far.
    #[must_use]
    pub fn len_bits(&self) -> usize {
        self.out.len() * 8 + self.filled as usize
    }

    /// Exponential-Golomb code of order `k` (k ≤ 16).
    pub fn put_golomb(&mut self, v: u64, k: u32) {
        let shifted = v + (1 << k);
        let width = 63 - shifted.leading_zeros();
        for _ in k..width {
            self.put(0, 1);
        }
        self.put(1, 1);
        self.put(shifted, width);
    }

    /// The bytes, the last one padded with zero bits.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.out.push(self.pending as u8);
        }
        self.out
    }
}

/// Bits that [`BitWriter::put_golomb`] takes.
#[must_use]
pub fn golomb_bits(v: u64, k: u32) -> usize {
    let width = 63 - (v + (1 << k)).leading_zeros();
    (width - k + 1 + width) as usize
}

/// Reads bits.
#[derive(Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next `n` bits, n ≤ 64.
    #[inline]
    pub fn take(&mut self, n: u32) -> Result<u64> {
        if n <= 56 {
            return self.take_short(n);
        }
        let low = self.take_short(32)?;
        Ok(low | self.take_short(n - 32)? << 32)
    }

    #[inline]
    fn take_short(&mut self, n: u32) -> Result<u64> {
        let start = self.position / 8;
        let end = self.position + n as usize;
        if end > self.bytes.len() * 8 {
            return Err(DecodeError("bit stream ends too early"));
        }
        let word = match self.bytes.get(start..).and_then(|b| b.first_chunk::<8>()) {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => {
                let mut padded = [0u8; 8];
                let tail = self.bytes.get(start..).unwrap_or_default();
                for (to, from) in padded.iter_mut().zip(tail) {
                    *to = *from;
                }
                u64::from_le_bytes(padded)
            }
        };
        let value = (word >> (self.position % 8)) & ((1u64 << n) - 1);
        self.position = end;
        Ok(value)
    }

    /// Inverse of [`BitWriter::put_golomb`].
    pub fn take_golomb(&mut self, k: u32) -> Result<u64> {
        let mut width = k;
        while self.take(1)? == 0 {
            width += 1;
            if width > 40 {
                return Err(DecodeError("number in bit stream is too large"));
            }
        }
        let low = self.take(width)?;
        Ok((low | 1 << width) - (1 << k))
    }

    /// Bytes consumed, the last one counted whole.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.position.div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_return(items in prop::collection::vec((any::<u64>(), 0u32..=64), 0..80)) {
            let mut writer = BitWriter::default();
            for (v, n) in &items {
                writer.put(*v, *n);
                writer.put_golomb(*v >> 40, *n % 9);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for (v, n) in &items {
                let mask = if *n == 64 { u64::MAX } else { (1 << *n) - 1 };
                prop_assert_eq!(reader.take(*n), Ok(*v & mask));
                prop_assert_eq!(reader.take_golomb(*n % 9), Ok(*v >> 40));
            }
            prop_assert_eq!(reader.consumed(), bytes.len());
            prop_assert!(reader.take(8).is_err());
        }
    }
}
