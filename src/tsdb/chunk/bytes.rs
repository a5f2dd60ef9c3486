//! Variable-length integers (LEB128, zigzag for signed) and a cursor that never reads past its end.

use super::Damaged;

/// Appends an unsigned integer, seven bits a byte, low bits first.
#[inline]
pub fn put_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Maps small negative numbers to small unsigned ones.
#[inline]
#[must_use]
pub fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
#[must_use]
pub fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

/// Appends a signed integer.
#[inline]
pub fn put_ivarint(out: &mut Vec<u8>, v: i64) {
    put_uvarint(out, zigzag(v));
}

/// Appends a length and the text.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads bytes from the front.
#[derive(Debug, Clone)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Reads from the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.0.split_first().ok_or(Damaged("the data end early"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Damaged("the data end early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned integer.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u64, Damaged> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            v |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(v);
            }
        }
        Err(Damaged("an integer is longer than ten bytes"))
    }

    /// A signed integer.
    #[inline]
    pub fn ivarint(&mut self) -> Result<i64, Damaged> {
        Ok(unzigzag(self.uvarint()?))
    }

    /// A count of items that take at least `min_bytes` each: more cannot be in the rest of the data.
    pub fn count(&mut self, min_bytes: usize) -> Result<usize, Damaged> {
        let n = self.uvarint()?;
        if n > (self.0.len() / min_bytes.max(1)) as u64 {
            return Err(Damaged("a count is larger than the data"));
        }
        Ok(n as usize)
    }

    /// A 32-bit unsigned integer.
    pub fn uvarint32(&mut self) -> Result<u32, Damaged> {
        u32::try_from(self.uvarint()?).map_err(|_| Damaged("an integer does not fit into 32 bits"))
    }

    /// Eight bytes, little-endian.
    pub fn u64_le(&mut self) -> Result<u64, Damaged> {
        let mut eight = [0; 8];
        eight.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(eight))
    }

    /// Four bytes, little-endian.
    pub fn u32_le(&mut self) -> Result<u32, Damaged> {
        let mut four = [0; 4];
        four.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(four))
    }

    /// A length and a UTF-8 text.
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        let n = self.count(1)?;
        std::str::from_utf8(self.take(n)?).map_err(|_| Damaged("a text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_survive(v in any::<i64>(), u in any::<u64>()) {
            let mut out = Vec::new();
            put_ivarint(&mut out, v);
            put_uvarint(&mut out, u);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.ivarint().unwrap(), v);
            prop_assert_eq!(cursor.uvarint().unwrap(), u);
            prop_assert!(cursor.is_empty() && cursor.byte().is_err());
        }
    }
}
