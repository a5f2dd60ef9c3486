//! Bit streams with the most significant bit first and Prometheus's variable-width numbers on them.

use crate::tsdb::block::bytes::{DecodeError, Result};

/// Widths of the classes of a variable-width number; the prefix of class i is i ones and, but for the last, a zero.
const CLASSES: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Reads bits.
#[derive(Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next bit.
    pub fn bit(&mut self) -> Result<bool> {
        let byte = self.bytes.get(self.position / 8).ok_or(DecodeError("chunk ends too early"))?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Ok(bit == 1)
    }

    /// The next `n` ≤ 64 bits as a number.
    pub fn bits(&mut self, n: u32) -> Result<u64> {
        if self.position + n as usize > self.bytes.len() * 8 {
            return Err(DecodeError("chunk ends too early"));
        }
        let mut value = 0u64;
        let mut left = n;
        while left > 0 {
            let within = (self.position % 8) as u32;
            let take = left.min(8 - within);
            let byte = self.bytes.get(self.position / 8).copied().unwrap_or(0);
            let part = (byte >> (8 - within - take)) & (0xff >> (8 - take)) as u8;
            value = if take == 64 { 0 } else { value << take } | u64::from(part);
            self.position += take as usize;
            left -= take;
        }
        Ok(value)
    }

    /// How many ones come before a zero, at most `max`.
    pub fn ones(&mut self, max: u32) -> Result<u32> {
        let mut n = 0;
        while n < max && self.bit()? {
            n += 1;
        }
        Ok(n)
    }

    /// Go's unsigned varint, byte by byte.
    pub fn uvarint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bits(8)?;
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError("varint does not end"))
    }

    /// Go's signed varint.
    pub fn varint(&mut self) -> Result<i64> {
        self.uvarint().map(crate::tsdb::block::bytes::unzigzag)
    }

    /// A signed number of `n` bits whose range reaches from −2^(n−1)+1 to 2^(n−1).
    pub fn signed(&mut self, n: u32) -> Result<i64> {
        let v = self.bits(n)?;
        Ok(if n < 64 && v > 1 << (n - 1) { v.wrapping_sub(1 << n).cast_signed() } else { v.cast_signed() })
    }

    /// A signed variable-width number.
    pub fn varbit(&mut self) -> Result<i64> {
        match self.ones(8)? as usize {
            0 => Ok(0),
            class => self.signed(CLASSES[class]),
        }
    }

    /// An unsigned variable-width number.
    pub fn uvarbit(&mut self) -> Result<u64> {
        let class = self.ones(8)? as usize;
        self.bits(CLASSES[class])
    }
}

/// Appends bits.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Free bits in the last byte.
    free: u32,
}

impl BitWriter {
    /// A writer that goes on after `bytes`.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, free: 0 }
    }

    /// Appends the lowest `n` ≤ 64 bits of `v`.
    pub fn put(&mut self, v: u64, n: u32) {
        for i in (0..n).rev() {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((v >> i & 1) as u8) << self.free;
            }
        }
    }

    /// Appends Go's unsigned varint.
    pub fn uvarint(&mut self, v: u64) {
        let mut bytes = Vec::new();
        crate::tsdb::block::bytes::put_varint(&mut bytes, v);
        bytes.iter().for_each(|b| self.put(u64::from(*b), 8));
    }

    /// Appends Go's signed varint.
    pub fn varint(&mut self, v: i64) {
        self.uvarint(crate::tsdb::block::bytes::zigzag(v));
    }

    /// Appends `ones` ones and, below `max`, a zero.
    pub fn prefix(&mut self, ones: u32, max: u32) {
        self.put(u64::MAX, ones);
        if ones < max {
            self.put(0, 1);
        }
    }

    /// Appends a signed variable-width number.
    pub fn varbit(&mut self, v: i64) {
        let fits = |n: u32| n == 64 || (-(1i64 << (n - 1)) < v && v <= 1i64 << (n - 1));
        let class = if v == 0 { 0 } else { (1..9).find(|c| fits(CLASSES[*c])).unwrap_or(8) };
        self.prefix(class as u32, 8);
        self.put(v.cast_unsigned(), CLASSES[class]);
    }

    /// Appends an unsigned variable-width number.
    pub fn uvarbit(&mut self, v: u64) {
        let fits = |n: u32| n == 64 || v >> n == 0;
        let class = if v == 0 { 0 } else { (1..9).find(|c| fits(CLASSES[*c])).unwrap_or(8) };
        self.prefix(class as u32, 8);
        self.put(v, CLASSES[class]);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes, the last one padded with zero bits.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The window of significant bits in a stream of XORed floats.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Leading and trailing zeros; `None` before the first.
    zeros: Option<(u32, u32)>,
}

impl Window {
    /// Reads a new window and the XOR inside it.
    pub fn read_new(&mut self, bits: &mut BitReader<'_>) -> Result<u64> {
        let leading = bits.bits(5)? as u32;
        let significant = match bits.bits(6)? as u32 {
            0 => 64,
            n => n,
        };
        let trailing =
            64u32.checked_sub(leading + significant).ok_or(DecodeError("impossible window in a chunk"))?;
        self.zeros = Some((leading, trailing));
        Ok(bits.bits(significant)? << trailing)
    }

    /// Reads the XOR inside the last window.
    pub fn read_again(&self, bits: &mut BitReader<'_>) -> Result<u64> {
        let (leading, trailing) =
            self.zeros.ok_or(DecodeError("chunk refers to a window it does not have"))?;
        Ok(bits.bits(64 - leading - trailing)? << trailing)
    }

    /// Reads an XORed value in the form of XOR chunks.
    pub fn read(&mut self, bits: &mut BitReader<'_>, previous: u64) -> Result<u64> {
        Ok(previous
            ^ match bits.ones(2)? {
                0 => 0,
                1 => self.read_again(bits)?,
                _ => self.read_new(bits)?,
            })
    }

    /// Writes an XORed value in the form of XOR chunks.
    pub fn write(&mut self, bits: &mut BitWriter, previous: u64, value: u64) {
        let xor = previous ^ value;
        if xor == 0 {
            bits.put(0, 1);
            return;
        }
        let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        match self.zeros {
            Some((leading, trailing)) if lead >= leading && trail >= trailing => {
                bits.put(0b10, 2);
                bits.put(xor >> trailing, 64 - leading - trailing);
            }
            _ => {
                self.zeros = Some((lead, trail));
                bits.put(0b11, 2);
                bits.put(u64::from(lead), 5);
                bits.put(u64::from((64 - lead - trail) & 63), 6);
                bits.put(xor >> trail, 64 - lead - trail);
            }
        }
    }
}
