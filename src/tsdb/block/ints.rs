//! How is a column of integers stored? As values, deltas or deltas of deltas, divided by their common divisor,
//! and then by whichever of four coders takes the fewest bytes: constant, runs, blocks of 128 bit-packed
//! numbers with exceptions, or entropy-coded tokens. Bytes: `docs/format/block-values.md`.

use bitpacking::{BitPacker, BitPacker4x};

use super::bits::{BitReader, BitWriter};
use super::bytes::{DecodeError, Input, Result, put_varint, put_zigzag, unzigzag, varint_len, zigzag};
use super::rans::{self, TokenCounts};

const BLOCK: usize = BitPacker4x::BLOCK_LEN;
/// Longest column, in numbers: a bound for allocations, far above what the writer makes.
pub const MAX_INTS: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coder {
    Constant = 0,
    Runs = 1,
    Packed = 2,
    Entropy = 3,
}

/// Appends the column; its length is not stored.
pub fn encode(values: &[i64], out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let mut best: Option<Plan> = None;
    for order in 0..=2.min(values.len() - 1) {
        let plan = Plan::new(values, order, best.as_ref().map_or(usize::MAX, |b| b.cost));
        if best.as_ref().is_none_or(|b| plan.cost < b.cost) {
            best = Some(plan);
        }
    }
    if let Some(best) = best {
        best.write(out);
    }
}

/// One way to store a column, with its price.
struct Plan {
    order: usize,
    coder: Coder,
    heads: Vec<i64>,
    divisor: u64,
    /// Residuals after division.
    residuals: Vec<i64>,
    counts: Option<TokenCounts>,
    cost: usize,
}

impl Plan {
    fn new(values: &[i64], order: usize, to_beat: usize) -> Self {
        let (heads, mut residuals) = difference(values, order);
        let divisor = common_divisor(&residuals);
        if divisor > 1 {
            for r in &mut residuals {
                *r /= divisor.cast_signed();
            }
        }
        let head_cost = 1
            + heads.iter().map(|h| varint_len(zigzag(*h))).sum::<usize>()
            + if divisor > 1 { varint_len(divisor) } else { 0 };
        let mut this =
            Self { order, coder: Coder::Constant, heads, divisor, residuals, counts: None, cost: usize::MAX };
        if this.residuals.windows(2).all(|w| w[0] == w[1]) {
            this.cost = head_cost + this.residuals.first().map_or(1, |r| varint_len(zigzag(*r)));
            return this;
        }
        let counts = TokenCounts::of(this.residuals.iter().map(|r| zigzag(*r)));
        let entropy = counts.cost() + head_cost;
        // A column that entropy coding cannot make smaller than the best so far is hardly beaten by the others.
        if to_beat < entropy / 2 {
            return this;
        }
        let runs = runs_cost(&this.residuals) + head_cost;
        let packed =
            this.residuals.chunks(BLOCK).map(|c| PackedBlock::new(c).cost).sum::<usize>() + head_cost;
        // The others decode several times faster: entropy coding has to earn its place.
        let (coder, cost) = if entropy + entropy / 32 < packed.min(runs) {
            (Coder::Entropy, entropy)
        } else if runs <= packed {
            (Coder::Runs, runs)
        } else {
            (Coder::Packed, packed)
        };
        this.coder = coder;
        this.cost = cost;
        this.counts = Some(counts);
        this
    }

    fn write(&self, out: &mut Vec<u8>) {
        let divided = u8::from(self.divisor > 1);
        out.push(self.order as u8 | (self.coder as u8) << 2 | divided << 4);
        for head in &self.heads {
            put_zigzag(out, *head);
        }
        if divided == 1 {
            put_varint(out, self.divisor);
        }
        match self.coder {
            Coder::Constant => put_zigzag(out, self.residuals.first().copied().unwrap_or(0)),
            Coder::Runs => write_runs(&self.residuals, out),
            Coder::Packed => self.residuals.chunks(BLOCK).for_each(|c| PackedBlock::new(c).write(c, out)),
            Coder::Entropy => {
                let tokens: Vec<u64> = self.residuals.iter().map(|r| zigzag(*r)).collect();
                let counts = self.counts.clone().unwrap_or_else(|| TokenCounts::of(tokens.iter().copied()));
                rans::encode(&tokens, &counts, out);
            }
        }
    }
}

/// Splits a column into what starts it and the differences of the given order. Order 0 is relative to a
/// middle value, so that residuals lie around zero.
fn difference(values: &[i64], order: usize) -> (Vec<i64>, Vec<i64>) {
    if order == 0 {
        let mut sorted = values.to_vec();
        let middle = sorted.len() / 2;
        let base = *sorted.select_nth_unstable(middle).1;
        return (vec![base], values.iter().map(|v| v.wrapping_sub(base)).collect());
    }
    let mut heads = Vec::with_capacity(order);
    let mut current = values.to_vec();
    for _ in 0..order {
        heads.push(current[0]);
        for i in 1..current.len() {
            current[i - 1] = current[i].wrapping_sub(current[i - 1]);
        }
        current.pop();
    }
    (heads, current)
}

fn common_divisor(residuals: &[i64]) -> u64 {
    let mut divisor = 0u64;
    for r in residuals {
        let mut a = r.unsigned_abs();
        if a == i64::MIN.unsigned_abs() {
            return 1;
        }
        while a != 0 {
            (divisor, a) = (a, divisor % a);
        }
        if divisor == 1 {
            return 1;
        }
    }
    divisor.max(1)
}

fn each_run(residuals: &[i64], mut each: impl FnMut(i64, usize)) {
    for run in residuals.chunk_by(|a, b| a == b) {
        each(run[0], run.len());
    }
}

fn runs_cost(residuals: &[i64]) -> usize {
    let mut cost = 0;
    each_run(residuals, |v, len| cost += varint_len(zigzag(v)) + varint_len(len as u64 - 1));
    cost
}

fn write_runs(residuals: &[i64], out: &mut Vec<u8>) {
    each_run(residuals, |v, len| {
        put_zigzag(out, v);
        put_varint(out, len as u64 - 1);
    });
}

/// Up to 128 numbers as offsets from their smallest, cut to `width` bits; what does not fit is patched in.
struct PackedBlock {
    base: i64,
    width: u32,
    exceptions: usize,
    cost: usize,
}

impl PackedBlock {
    fn new(residuals: &[i64]) -> Self {
        let mut sorted: Vec<i64> = residuals.to_vec();
        sorted.sort_unstable();
        let base = sorted[0];
        let mut by_width = [0usize; 65];
        for r in residuals {
            by_width[64 - offset(*r, base).leading_zeros() as usize] += 1;
        }
        let head = varint_len(zigzag(base)) + 2;
        let mut best = Self { base, width: 64, exceptions: 0, cost: usize::MAX };
        let (mut above, mut patch_bytes) = (0, 0);
        for width in (0..=64u32).rev() {
            let cost = head + packed_bytes(residuals.len(), width) + patch_bytes;
            if cost < best.cost {
                best = Self { base, width, exceptions: above, cost };
            }
            let here = by_width[width as usize];
            above += here;
            // Position byte and the whole offset as a varint.
            patch_bytes += here * (1 + (width as usize).max(1).div_ceil(7));
        }
        best
    }

    fn write(&self, residuals: &[i64], out: &mut Vec<u8>) {
        out.push(self.width as u8);
        out.push(self.exceptions as u8);
        put_zigzag(out, self.base);
        let mask = width_mask(self.width);
        let offsets: Vec<u64> = residuals.iter().map(|r| offset(*r, self.base)).collect();
        if residuals.len() == BLOCK && self.width <= 32 {
            let mut block = [0u32; BLOCK];
            for (to, from) in block.iter_mut().zip(&offsets) {
                *to = (from & mask) as u32;
            }
            let mut packed = [0u8; BLOCK * 4];
            let len = BitPacker4x::new().compress(&block, &mut packed, self.width as u8);
            out.extend_from_slice(&packed[..len]);
        } else {
            let mut bits = BitWriter::default();
            for v in &offsets {
                bits.put(v & mask, self.width);
            }
            out.extend_from_slice(&bits.finish());
        }
        for (i, v) in offsets.iter().enumerate().filter(|(_, v)| **v & !mask != 0) {
            out.push(i as u8);
            put_varint(out, *v);
        }
    }

    fn read(input: &mut Input<'_>, n: usize, out: &mut Vec<i64>) -> Result<()> {
        let width = u32::from(input.u8()?);
        let exceptions = usize::from(input.u8()?);
        let base = input.zigzag()?;
        if width > 64 || exceptions > n {
            return Err(DecodeError("packed block has an impossible header"));
        }
        let start = out.len();
        let packed = input.bytes(packed_bytes(n, width))?;
        if n == BLOCK && width <= 32 {
            let mut block = [0u32; BLOCK];
            BitPacker4x::new().decompress(packed, &mut block, width as u8);
            out.extend(block.iter().map(|v| base.wrapping_add(i64::from(*v))));
        } else {
            let mut bits = BitReader::new(packed);
            for _ in 0..n {
                out.push(base.wrapping_add(bits.take(width)?.cast_signed()));
            }
        }
        for _ in 0..exceptions {
            let at = usize::from(input.u8()?);
            let v = input.varint()?;
            *out.get_mut(start + at).ok_or(DecodeError("exception lies outside its block"))? =
                base.wrapping_add(v.cast_signed());
        }
        Ok(())
    }
}

fn offset(r: i64, base: i64) -> u64 {
    r.wrapping_sub(base).cast_unsigned()
}

fn width_mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

fn packed_bytes(n: usize, width: u32) -> usize {
    (n * width as usize).div_ceil(8)
}

/// Replaces the content of `out` by the `n` numbers of a column.
pub fn decode(input: &mut Input<'_>, n: usize, out: &mut Vec<i64>) -> Result<()> {
    out.clear();
    if n == 0 {
        return Ok(());
    }
    if n > MAX_INTS {
        return Err(DecodeError("column is longer than 1048576 numbers"));
    }
    let head = input.u8()?;
    let order = usize::from(head & 3);
    if order > 2 || head >= 32 || order >= n.max(1) && order > 0 {
        return Err(DecodeError("column has an unknown header"));
    }
    let first = input.zigzag()?;
    let second = if order == 2 { input.zigzag()? } else { 0 };
    let divisor = if head & 16 != 0 { input.varint()?.cast_signed() } else { 1 };
    let residuals = n - order;
    out.reserve(n);
    match (head >> 2) & 3 {
        0 => {
            let r = input.zigzag()?;
            out.resize(residuals, r);
        }
        1 => {
            while out.len() < residuals {
                let r = input.zigzag()?;
                let len = input.count(residuals - out.len() - 1)? + 1;
                out.resize(out.len() + len, r);
            }
        }
        2 => {
            while out.len() < residuals {
                PackedBlock::read(input, (residuals - out.len()).min(BLOCK), out)?;
            }
        }
        _ => rans::decode(input, residuals, |u| out.push(unzigzag(u)))?,
    }
    if divisor != 1 {
        for r in out.iter_mut() {
            *r = r.wrapping_mul(divisor);
        }
    }
    match order {
        0 => out.iter_mut().for_each(|r| *r = r.wrapping_add(first)),
        1 => integrate(out, &mut [first]),
        _ => integrate(out, &mut [first, second]),
    }
    Ok(())
}

/// Turns differences into values: `heads` are the first value and, for order 2, the first difference.
fn integrate(out: &mut Vec<i64>, heads: &mut [i64]) {
    match heads {
        [value] => {
            for r in out.iter_mut() {
                let next = value.wrapping_add(*r);
                *r = std::mem::replace(value, next);
            }
            out.push(*value);
        }
        [value, slope] => {
            for r in out.iter_mut() {
                let next = value.wrapping_add(*slope);
                *slope = slope.wrapping_add(*r);
                *r = std::mem::replace(value, next);
            }
            out.push(*value);
            out.push(value.wrapping_add(*slope));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[i64]) -> usize {
        let mut out = Vec::new();
        encode(values, &mut out);
        let (mut input, mut back) = (Input::new(&out), Vec::new());
        decode(&mut input, values.len(), &mut back).unwrap();
        assert_eq!(back, values);
        assert!(input.is_empty());
        out.len()
    }

    #[test]
    fn regular_columns_are_tiny() {
        assert!(round_trip(&(0..1440).map(|i| 1_700_000_000_000 + i * 15_000).collect::<Vec<_>>()) <= 16);
        assert!(round_trip(&[42; 2000]) <= 4);
        let jitter: Vec<i64> = (0..1440).map(|i| i * 15_000 + (i * 7919 % 5)).collect();
        assert!(round_trip(&jitter) < 1440 * 4 / 8);
        let pages: Vec<i64> = (0..1440).map(|i| (i * 7919 % 64) * 4096).collect();
        assert!(round_trip(&pages) < 1440 * 7 / 8);
    }

    #[test]
    fn extremes_return() {
        round_trip(&[]);
        round_trip(&[i64::MIN]);
        round_trip(&[i64::MIN, i64::MAX, 0, -1, i64::MIN, i64::MIN, 1]);
        round_trip(&[i64::MAX, i64::MIN]);
    }

    fn column() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![Just(0i64), -3i64..3, any::<i64>(), (0i64..60).prop_map(|s| 1 << s)];
        (prop::collection::vec(step, 1..700), 0u8..3, 1i64..5000).prop_map(|(steps, sums, factor)| {
            let mut values: Vec<i64> = steps.iter().map(|s| s.wrapping_mul(factor)).collect();
            for _ in 0..sums {
                let mut sum = 0i64;
                for v in &mut values {
                    sum = sum.wrapping_add(*v);
                    *v = sum;
                }
            }
            values
        })
    }

    proptest! {
        #[test]
        fn columns_return(values in column()) {
            round_trip(&values);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), n in 0usize..700) {
            let _ = decode(&mut Input::new(&bytes), n, &mut Vec::new());
        }
    }
}
