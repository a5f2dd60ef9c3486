//! Chunks of floats: delta-of-delta timestamps and XOR of values after Pelkonen et al., "Gorilla" (VLDB 2015), with
//! one joint prefix for the usual cases, so that a repeated value on the beat costs one bit, and a code of its own
//! for the staleness marker, so that it does not disturb the values around it.

use super::Damaged;
use super::bits::{BitReader, put_bits};
use super::bytes::{Cursor, put_ivarint, put_uvarint, unzigzag, zigzag};
use crate::model::{STALE_NAN_BITS, SampleBuffer};

/// Marks that no XOR window is known yet.
const NO_WINDOW: u8 = 0xff;

/// The writing end of a chunk. What decoding would know after the last sample is kept beside the bytes.
#[derive(Debug, Clone)]
pub struct FloatEncoder {
    bytes: Vec<u8>,
    last_t: i64,
    last_delta: i64,
    last_value: u64,
    last_start: i64,
    count: u16,
    free: u8,
    leading: u8,
    width: u8,
    last_stale: bool,
}

impl Default for FloatEncoder {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            last_t: 0,
            last_delta: 0,
            last_value: 0,
            last_start: 0,
            count: 0,
            free: 0,
            leading: NO_WINDOW,
            width: 0,
            last_stale: false,
        }
    }
}

impl FloatEncoder {
    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The bytes so far; a valid chunk together with [`FloatEncoder::count`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Timestamp of the newest sample.
    #[must_use]
    pub fn last_t(&self) -> i64 {
        self.last_t
    }

    /// Bits of the newest value.
    #[must_use]
    pub fn last_value_bits(&self) -> u64 {
        if self.last_stale { STALE_NAN_BITS } else { self.last_value }
    }

    /// Heap bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes the bytes out and starts anew.
    pub fn finish(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.bytes);
        *self = Self::default();
        bytes
    }

    /// Appends the state and the bytes, for [`FloatEncoder::restore`].
    pub fn save(&self, out: &mut Vec<u8>) {
        put_uvarint(out, u64::from(self.count));
        put_ivarint(out, self.last_t);
        put_ivarint(out, self.last_delta);
        put_ivarint(out, self.last_start);
        out.extend_from_slice(&self.last_value.to_le_bytes());
        out.extend_from_slice(&[self.free, self.leading, self.width, u8::from(self.last_stale)]);
        put_uvarint(out, self.bytes.len() as u64);
        out.extend_from_slice(&self.bytes);
    }

    /// Reads what [`FloatEncoder::save`] wrote, without decoding the samples: a start with a million open chunks has
    /// no time for that.
    pub fn restore(cursor: &mut Cursor<'_>) -> Result<Self, Damaged> {
        let count = u16::try_from(cursor.uvarint()?).map_err(|_| Damaged("too many samples in a chunk"))?;
        let (last_t, last_delta, last_start) = (cursor.ivarint()?, cursor.ivarint()?, cursor.ivarint()?);
        let last_value = cursor.u64_le()?;
        let (free, leading, width) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
        let last_stale = cursor.byte()? != 0;
        let window = leading == NO_WINDOW || (width > 0 && u16::from(leading) + u16::from(width) <= 64);
        let n = cursor.count(1)?;
        let bytes = cursor.take(n)?.to_vec();
        if free > 7 || !window || count == 0 || bytes.len() < 8 {
            return Err(Damaged("the state of an open chunk contradicts itself"));
        }
        Ok(Self {
            bytes,
            last_t,
            last_delta,
            last_value,
            last_start,
            count,
            free,
            leading,
            width,
            last_stale,
        })
    }

    /// Appends a sample; `t_ms` must be greater than the last timestamp.
    pub fn push(&mut self, t_ms: i64, start_ms: i64, value: f64) {
        let bits = value.to_bits();
        let stale = bits == STALE_NAN_BITS;
        if self.count == 0 {
            self.put(zigzag(t_ms), 64);
            self.put(u64::from(start_ms != 0), 1);
            if start_ms != 0 {
                self.put(zigzag(start_ms), 64);
            }
            self.put(u64::from(stale), 1);
            if !stale {
                self.put(bits, 64);
                self.last_value = bits;
            }
        } else {
            if start_ms != self.last_start {
                self.put(0b1111, 4);
                self.put(zigzag(start_ms.wrapping_sub(self.last_start)), 64);
            }
            let delta = t_ms.wrapping_sub(self.last_t);
            let dod = delta.wrapping_sub(self.last_delta);
            self.last_delta = delta;
            let xor = bits ^ self.last_value;
            match (dod == 0, stale, xor == 0) {
                (true, false, true) => self.put(0, 1),
                (true, false, false) => {
                    self.put(0b10, 2);
                    self.put_xor(xor);
                }
                (false, false, _) => {
                    self.put(0b110, 3);
                    self.put_dod(dod);
                    self.put(u64::from(xor != 0), 1);
                    if xor != 0 {
                        self.put_xor(xor);
                    }
                }
                (_, true, _) => {
                    self.put(0b1110, 4);
                    self.put(u64::from(dod != 0), 1);
                    if dod != 0 {
                        self.put_dod(dod);
                    }
                }
            }
            if !stale {
                self.last_value = bits;
            }
        }
        self.last_t = t_ms;
        self.last_start = start_ms;
        self.last_stale = stale;
        self.count += 1;
    }

    #[inline]
    fn put(&mut self, value: u64, count: u8) {
        put_bits(&mut self.bytes, &mut self.free, value, count);
    }

    fn put_dod(&mut self, dod: i64) {
        let v = zigzag(dod);
        if v < 1 << 7 {
            self.put(v, 8);
        } else if v < 1 << 12 {
            self.put(0b10 << 12 | v, 14);
        } else if v < 1 << 20 {
            self.put(0b110 << 20 | v, 23);
        } else {
            self.put(0b111, 3);
            self.put(v, 64);
        }
    }

    fn put_xor(&mut self, xor: u64) {
        let leading = xor.leading_zeros().min(31) as u8;
        let trailing = xor.trailing_zeros() as u8;
        let window_trailing = 64u8.wrapping_sub(self.leading).wrapping_sub(self.width);
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= window_trailing {
            self.put(0, 1);
            self.put(xor >> window_trailing, self.width);
            return;
        }
        let width = 64 - leading - trailing;
        self.put(1, 1);
        self.put(u64::from(leading), 5);
        self.put(u64::from(width - 1), 6);
        self.put(xor >> trailing, width);
        (self.leading, self.width) = (leading, width);
    }
}

/// One decoded float sample.
#[derive(Debug, Clone, Copy)]
pub struct FloatSample {
    /// Timestamp, milliseconds.
    pub t_ms: i64,
    /// Start timestamp, 0 = unknown.
    pub start_ms: i64,
    /// Value.
    pub value: f64,
}

/// The reading end of a chunk: an iterator over its samples that ends after the first damage.
#[derive(Debug, Clone)]
pub struct FloatDecoder<'a> {
    bits: BitReader<'a>,
    left: u16,
    first: bool,
    t: i64,
    delta: i64,
    value: u64,
    start: i64,
    leading: u8,
    width: u8,
}

impl<'a> FloatDecoder<'a> {
    /// Reads `count` samples from `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8], count: u16) -> Self {
        Self {
            bits: BitReader::new(bytes),
            left: count,
            first: true,
            t: 0,
            delta: 0,
            value: 0,
            start: 0,
            leading: NO_WINDOW,
            width: 0,
        }
    }

    fn dod(&mut self) -> Result<i64, Damaged> {
        let v = if !self.bits.bit()? {
            self.bits.bits(7)?
        } else if !self.bits.bit()? {
            self.bits.bits(12)?
        } else if !self.bits.bit()? {
            self.bits.bits(20)?
        } else {
            self.bits.bits(64)?
        };
        Ok(unzigzag(v))
    }

    fn xor(&mut self) -> Result<(), Damaged> {
        if self.bits.bit()? {
            self.leading = self.bits.bits(5)? as u8;
            self.width = self.bits.bits(6)? as u8 + 1;
            if self.leading + self.width > 64 {
                return Err(Damaged("an XOR window is wider than 64 bits"));
            }
        } else if self.leading == NO_WINDOW {
            return Err(Damaged("an XOR window is used before it is set"));
        }
        let bits = self.bits.bits(self.width)?;
        self.value ^= bits << (64 - self.leading - self.width);
        Ok(())
    }

    fn step(&mut self) -> Result<FloatSample, Damaged> {
        let mut stale = false;
        if self.first {
            self.first = false;
            self.t = unzigzag(self.bits.bits(64)?);
            if self.bits.bit()? {
                self.start = unzigzag(self.bits.bits(64)?);
            }
            stale = self.bits.bit()?;
            if !stale {
                self.value = self.bits.bits(64)?;
            }
        } else {
            let mut dod = 0;
            let mut started = false;
            loop {
                if !self.bits.bit()? {
                    break;
                }
                if !self.bits.bit()? {
                    self.xor()?;
                    break;
                }
                if !self.bits.bit()? {
                    dod = self.dod()?;
                    if self.bits.bit()? {
                        self.xor()?;
                    }
                    break;
                }
                if !self.bits.bit()? {
                    stale = true;
                    if self.bits.bit()? {
                        dod = self.dod()?;
                    }
                    break;
                }
                if started {
                    return Err(Damaged("two start timestamps for one sample"));
                }
                started = true;
                self.start = self.start.wrapping_add(unzigzag(self.bits.bits(64)?));
            }
            self.delta = self.delta.wrapping_add(dod);
            self.t = self.t.wrapping_add(self.delta);
        }
        let bits = if stale { STALE_NAN_BITS } else { self.value };
        Ok(FloatSample { t_ms: self.t, start_ms: self.start, value: f64::from_bits(bits) })
    }
}

impl FloatDecoder<'_> {
    /// Appends the samples with timestamps from `from` to `to` to `out`; what comes later is not decoded. Repetitions
    /// on the beat, one zero bit each, are taken in runs.
    pub fn read(mut self, from: i64, to: i64, out: &mut SampleBuffer) -> Result<(), Damaged> {
        let plain = |d: &Self, out: &SampleBuffer| d.start == 0 && out.float_start_ts.is_empty();
        while self.left > 0 {
            let run = if self.first { 0 } else { self.bits.zeros(u32::from(self.left)) };
            if run > 0 {
                self.left -= run as u16;
                let value = f64::from_bits(self.value);
                for _ in 0..run {
                    self.t = self.t.wrapping_add(self.delta);
                    if self.t > to {
                        return Ok(());
                    }
                    if self.t >= from {
                        if plain(&self, out) {
                            out.timestamps.push(self.t);
                            out.values.push(value);
                        } else {
                            out.push_float_with_start(self.t, self.start, value);
                        }
                    }
                }
                continue;
            }
            self.left -= 1;
            let sample = self.step()?;
            if sample.t_ms > to {
                return Ok(());
            }
            if sample.t_ms >= from {
                if plain(&self, out) {
                    out.timestamps.push(sample.t_ms);
                    out.values.push(sample.value);
                } else {
                    out.push_float_with_start(sample.t_ms, sample.start_ms, sample.value);
                }
            }
        }
        Ok(())
    }
}

impl Iterator for FloatDecoder<'_> {
    type Item = Result<FloatSample, Damaged>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (0u32..5).prop_map(f64::from),
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(f64::from_bits(STALE_NAN_BITS)),
            1 => Just(-0.0),
            2 => (0i32..1000).prop_map(|v| f64::from(v) / 10.0),
        ]
    }

    proptest! {
        #[test]
        fn gives_back_every_bit(
            first in -1i64 << 50..1i64 << 50,
            samples in prop::collection::vec(
                (prop_oneof![3 => Just(15_000i64), 1 => 1i64..20_000, 1 => 1i64..1 << 40],
                 prop_oneof![4 => Just(0i64), 1 => any::<i64>()], value()), 1..300),
        ) {
            let mut encoder = FloatEncoder::default();
            let mut t = first;
            let mut want = Vec::new();
            for (delta, start, value) in samples {
                t += delta;
                encoder.push(t, start, value);
                want.push((t, start, value.to_bits()));
            }
            let got: Vec<_> = FloatDecoder::new(encoder.bytes(), encoder.count())
                .map(|s| s.map(|s| (s.t_ms, s.start_ms, s.value.to_bits())))
                .collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(&got, &want);
            let (from, to) = (want[want.len() / 4].0, want[want.len() - 1 - want.len() / 5].0);
            let mut part = SampleBuffer::default();
            FloatDecoder::new(encoder.bytes(), encoder.count()).read(from, to, &mut part).unwrap();
            let inside: Vec<_> = want.iter().filter(|s| (from..=to).contains(&s.0)).copied().collect();
            let start = |i: usize| part.float_start_ts.get(i).copied().unwrap_or(0);
            let got: Vec<_> =
                (0..part.values.len()).map(|i| (part.timestamps[i], start(i), part.values[i].to_bits())).collect();
            prop_assert_eq!(got, inside);
            let mut saved = Vec::new();
            encoder.save(&mut saved);
            let mut restored = FloatEncoder::restore(&mut Cursor::new(&saved)).unwrap();
            restored.push(t + 5, 7, 1.5);
            encoder.push(t + 5, 7, 1.5);
            prop_assert_eq!(restored.bytes(), encoder.bytes());
        }

        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), count in any::<u16>()) {
            for sample in FloatDecoder::new(&bytes, count) {
                if sample.is_err() { break; }
            }
        }
    }

    #[test]
    fn steady_series_cost_a_bit_and_stale_markers_little() {
        let mut encoder = FloatEncoder::default();
        for i in 0..120 {
            encoder.push(i * 15_000, 0, 1.0);
        }
        assert!(encoder.bytes().len() <= 35, "{}", encoder.bytes().len());
        let before = encoder.bytes().len();
        encoder.push(120 * 15_000, 0, f64::from_bits(STALE_NAN_BITS));
        encoder.push(121 * 15_000, 0, 1.0);
        assert!(encoder.bytes().len() <= before + 1);
    }
}
