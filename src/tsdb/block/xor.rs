//! The fallback for floats without structure: XOR with the value before (Pelkonen et al., "Gorilla: a fast,
//! scalable, in-memory time series database", VLDB 2015).

use super::bits::{BitReader, BitWriter};
use super::bytes::{DecodeError, Result};

/// The bit stream of the values.
#[must_use]
pub fn encode(values: &[u64]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    let mut previous = 0u64;
    let (mut leading, mut width) = (0u32, 64u32);
    for &v in values {
        let xor = v ^ previous;
        previous = v;
        if xor == 0 {
            bits.put(0, 1);
            continue;
        }
        bits.put(1, 1);
        let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        let inside = lead >= leading && trail >= 64 - leading - width;
        // A window far wider than the change costs more than announcing a new one (11 bits).
        if inside && width <= (64 - lead - trail) + 11 {
            bits.put(0, 1);
        } else {
            (leading, width) = (lead, 64 - lead - trail);
            bits.put(1, 1);
            bits.put(u64::from(leading), 5);
            bits.put(u64::from(width - 1), 6);
        }
        bits.put(xor >> (64 - leading - width), width);
    }
    bits.finish()
}

/// Appends `n` values to `out`.
pub fn decode(bytes: &[u8], n: usize, out: &mut Vec<f64>) -> Result<()> {
    let mut bits = BitReader::new(bytes);
    let mut previous = 0u64;
    let (mut leading, mut width) = (0u32, 64u32);
    for _ in 0..n {
        if bits.take(1)? == 1 {
            if bits.take(1)? == 1 {
                leading = bits.take(5)? as u32;
                width = bits.take(6)? as u32 + 1;
                if leading + width > 64 {
                    return Err(DecodeError("impossible window in XOR stream"));
                }
            }
            previous ^= bits.take(width)? << (64 - leading - width);
        }
        out.push(f64::from_bits(previous));
    }
    Ok(())
}
