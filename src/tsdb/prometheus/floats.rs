//! Float chunks: XOR, written and read, and XOR2, read.

use crate::model::sample::STALE_NAN_BITS;
use crate::tsdb::block::SeriesColumns;
use crate::tsdb::block::bytes::{DecodeError, Result};

use super::bits::{BitReader, BitWriter, Window};

fn count(data: &[u8], header: usize) -> Result<(usize, &[u8])> {
    let short = DecodeError("chunk is shorter than its header");
    let (n, _) = data.split_first_chunk::<2>().ok_or(short)?;
    Ok((usize::from(u16::from_be_bytes(*n)), data.get(header..).ok_or(short)?))
}

/// Reads an XOR chunk.
pub fn decode_xor(data: &[u8], out: &mut SeriesColumns) -> Result<()> {
    let (n, stream) = count(data, 2)?;
    let mut bits = BitReader::new(stream);
    let mut window = Window::default();
    let (mut t, mut delta, mut value) = (0i64, 0i64, 0u64);
    for i in 0..n {
        match i {
            0 => {
                t = bits.varint()?;
                value = bits.bits(64)?;
            }
            1 => delta = bits.uvarint()?.cast_signed(),
            _ => {
                let dod = match bits.ones(4)? {
                    0 => 0,
                    1 => bits.signed(14)?,
                    2 => bits.signed(17)?,
                    3 => bits.signed(20)?,
                    _ => bits.bits(64)?.cast_signed(),
                };
                delta = delta.wrapping_add(dod);
            }
        }
        if i > 0 {
            t = t.wrapping_add(delta);
            value = window.read(&mut bits, value)?;
        }
        out.push_float(t, 0, f64::from_bits(value));
    }
    Ok(())
}

/// Reads an XOR2 chunk.
pub fn decode_xor2(data: &[u8], out: &mut SeriesColumns) -> Result<()> {
    let (n, stream) = count(data, 3)?;
    let header = data.get(2).copied().unwrap_or(0);
    let (start_known, change_at) = (header & 0x80 != 0, usize::from(header & 0x7f));
    let mut bits = BitReader::new(stream);
    let mut window = Window::default();
    let (mut t, mut delta, mut start, mut start_diff) = (0i64, 0i64, 0i64, 0i64);
    // Values are compared with the last one that was no stale marker.
    let mut base = 0u64;
    for i in 0..n {
        let before = t;
        let value = match i {
            0 => {
                t = bits.varint()?;
                let value = bits.bits(64)?;
                if start_known {
                    start = t.wrapping_sub(bits.varint()?);
                }
                value
            }
            1 => {
                delta = bits.uvarint()?.cast_signed();
                xor2_value(&mut bits, &mut window, base)?
            }
            _ => match bits.ones(5)? {
                0 => base,
                1 => {
                    base ^ if bits.bit()? {
                        window.read_new(&mut bits)?
                    } else {
                        window.read_again(&mut bits)?
                    }
                }
                5 => STALE_NAN_BITS,
                prefix => {
                    let width = [13, 20, 64][prefix as usize - 2];
                    let raw = bits.bits(width)?;
                    let dod = (raw << (64 - width)).cast_signed() >> (64 - width);
                    delta = delta.wrapping_add(dod);
                    xor2_value(&mut bits, &mut window, base)?
                }
            },
        };
        if i > 0 {
            t = t.wrapping_add(delta);
        }
        if change_at > 0 && i >= change_at {
            let step = bits.varbit()?;
            start_diff = if i == change_at { step } else { start_diff.wrapping_add(step) };
            start = before.wrapping_sub(start_diff);
        }
        if value != STALE_NAN_BITS {
            base = value;
        }
        out.push_float(t, start, f64::from_bits(value));
    }
    Ok(())
}

fn xor2_value(bits: &mut BitReader<'_>, window: &mut Window, base: u64) -> Result<u64> {
    Ok(match bits.ones(3)? {
        0 => base,
        1 => base ^ window.read_again(bits)?,
        2 => base ^ window.read_new(bits)?,
        _ => STALE_NAN_BITS,
    })
}

/// Writes an XOR chunk, its number of samples included.
pub fn encode_xor(timestamps: &[i64], values: &[f64]) -> Vec<u8> {
    let mut bits = BitWriter::after((timestamps.len() as u16).to_be_bytes().to_vec());
    let mut window = Window::default();
    let (mut last_t, mut last_delta, mut last) = (0i64, 0i64, 0u64);
    for (i, (t, v)) in timestamps.iter().zip(values).enumerate() {
        let delta = t.wrapping_sub(last_t);
        match i {
            0 => {
                bits.varint(*t);
                bits.put(v.to_bits(), 64);
            }
            1 => bits.uvarint(delta.cast_unsigned()),
            _ => {
                let dod = delta.wrapping_sub(last_delta);
                let fits = |n: u32| -(1i64 << (n - 1)) < dod && dod <= 1i64 << (n - 1);
                match [14, 17, 20].iter().position(|n| fits(*n)) {
                    _ if dod == 0 => bits.put(0, 1),
                    Some(class) => {
                        bits.prefix(class as u32 + 1, 4);
                        bits.put(dod.cast_unsigned(), [14, 17, 20][class]);
                    }
                    None => {
                        bits.put(0b1111, 4);
                        bits.put(dod.cast_unsigned(), 64);
                    }
                }
            }
        }
        if i > 0 {
            window.write(&mut bits, last, v.to_bits());
            last_delta = delta;
        }
        last_t = *t;
        last = v.to_bits();
    }
    bits.finish()
}
