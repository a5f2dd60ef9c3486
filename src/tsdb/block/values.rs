//! How is a column of floats stored without changing a bit? Several codecs are tried and the smallest wins:
//! scaled decimals, decimals with a correction in units of the last place, bit patterns as integers, a
//! dictionary, XOR. Stale markers and what a codec cannot express are patched in afterwards.
//! Bytes: `docs/format/block-values.md`.

use std::cell::Cell;

use crate::model::sample::STALE_NAN_BITS;

use super::bytes::{DecodeError, Input, Result, put_varint};
use super::{ints, xor};

/// Codec numbers as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// XOR with the value before.
    Xor = 0,
    /// Integers divided by a power of ten.
    Decimal = 1,
    /// The nearest scaled decimal and the distance to it in units of the last place.
    DecimalUlp = 2,
    /// Ordered bit patterns.
    Bits = 3,
    /// Indexes into a list of distinct values.
    Dictionary = 4,
}

impl Codec {
    /// All of them, for reports.
    pub const ALL: [Codec; 5] =
        [Codec::Xor, Codec::Decimal, Codec::DecimalUlp, Codec::Bits, Codec::Dictionary];

    fn from_code(code: u8) -> Result<Self> {
        Self::ALL.into_iter().find(|c| *c as u8 == code).ok_or(DecodeError("unknown value codec"))
    }
}

const PATCHED: u8 = 0x10;
/// Powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
const MAX_DICTIONARY: usize = 64;

/// The integer m with m / 10^e equal to `bits`, bit for bit, if there is one below 2^53.
#[inline]
fn to_decimal(bits: u64, power: f64) -> Option<i64> {
    let v = f64::from_bits(bits);
    let scaled = (v * power).round_ties_even();
    let m = scaled as i64;
    // Through the integer, which knows no −0 and no NaN.
    if scaled.abs() <= MAX_EXACT && (m as f64 / power).to_bits() == bits { Some(m) } else { None }
}

/// Maps bit patterns to integers in the order of the floats; its own inverse.
#[inline]
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

/// Takes back a shift by common trailing zeros: in the ordered form of a negative number these are ones.
fn unshift(ordered: i64, shift: u32) -> i64 {
    let low = (1u64 << shift) - 1;
    (ordered << shift) | if ordered < 0 { low.cast_signed() } else { 0 }
}

/// What has to be set after decoding.
#[derive(Default)]
struct Patches {
    stale: Vec<usize>,
    raw: Vec<(usize, u64)>,
}

impl Patches {
    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.stale.len() as u64);
        let mut last = 0;
        for &at in &self.stale {
            put_varint(out, (at - last) as u64);
            last = at;
        }
        put_varint(out, self.raw.len() as u64);
        last = 0;
        for &(at, bits) in &self.raw {
            put_varint(out, (at - last) as u64);
            out.extend_from_slice(&bits.to_le_bytes());
            last = at;
        }
    }

    fn apply(input: &mut Input<'_>, out: &mut [f64]) -> Result<()> {
        let outside = DecodeError("patch lies outside its column");
        let mut patch = |at: &mut usize, step: usize, bits: u64| -> Result<()> {
            *at = at.checked_add(step).ok_or(outside)?;
            *out.get_mut(*at).ok_or(outside)? = f64::from_bits(bits);
            Ok(())
        };
        let limit = ints::MAX_INTS;
        let mut at = 0;
        for _ in 0..input.count(limit)? {
            patch(&mut at, input.count(limit)?, STALE_NAN_BITS)?;
        }
        at = 0;
        for _ in 0..input.count(limit)? {
            let step = input.count(limit)?;
            patch(&mut at, step, input.u64()?)?;
        }
        Ok(())
    }
}

/// Appends the column, in the smallest way found; its length is not stored. Returns the codec.
pub fn encode(values: &[f64], out: &mut Vec<u8>) -> Codec {
    if values.is_empty() {
        return Codec::Xor;
    }
    let mut stale = Vec::new();
    let first = values.iter().map(|v| v.to_bits()).find(|b| *b != STALE_NAN_BITS).unwrap_or(0);
    let mut last = first;
    let filled: Vec<u64> = values
        .iter()
        .enumerate()
        .map(|(i, v)| {
            if v.to_bits() == STALE_NAN_BITS {
                stale.push(i);
            } else {
                last = v.to_bits();
            }
            last
        })
        .collect();
    let start = out.len();
    let codec = encode_filled(&filled, stale, true, out);
    debug_assert!(out.len() > start || values.is_empty());
    codec
}

fn encode_filled(filled: &[u64], stale: Vec<usize>, dictionary: bool, out: &mut Vec<u8>) -> Codec {
    let mut best: Option<(Vec<u8>, Codec)> = None;
    let mut offer = |bytes: Vec<u8>, codec: Codec| {
        if best.as_ref().is_none_or(|(b, _)| bytes.len() < b.len()) {
            best = Some((bytes, codec));
        }
    };
    let clean = Patches { stale, raw: Vec::new() };
    let mut exact = false;
    for scale in candidate_scales(filled) {
        let mut patches = Patches { stale: clean.stale.clone(), raw: Vec::new() };
        if let Some(numbers) = decimals(filled, scale, &mut patches) {
            exact |= patches.raw.is_empty();
            let mut bytes = header(Codec::Decimal, &patches);
            bytes.push(scale);
            ints::encode(&numbers, &mut bytes);
            offer(bytes, Codec::Decimal);
        }
    }
    if dictionary && let Some(bytes) = dictionary_column(filled, &clean) {
        offer(bytes, Codec::Dictionary);
    }
    if !exact {
        for scale in [6, 9] {
            if let Some(bytes) = decimal_ulp(filled, scale, &clean) {
                offer(bytes, Codec::DecimalUlp);
            }
        }
        let mut bytes = header(Codec::Bits, &clean);
        let shift = filled.iter().fold(0, |all, b| all | b).trailing_zeros().min(63);
        bytes.push(shift as u8);
        let numbers: Vec<i64> = filled.iter().map(|b| ordered(b.cast_signed()) >> shift).collect();
        ints::encode(&numbers, &mut bytes);
        offer(bytes, Codec::Bits);
        let mut bytes = header(Codec::Xor, &clean);
        let stream = xor::encode(filled);
        put_varint(&mut bytes, stream.len() as u64);
        bytes.extend_from_slice(&stream);
        offer(bytes, Codec::Xor);
    }
    let (bytes, codec) = best.unwrap_or((Vec::new(), Codec::Xor));
    out.extend_from_slice(&bytes);
    codec
}

fn header(codec: Codec, patches: &Patches) -> Vec<u8> {
    let patched = !patches.stale.is_empty() || !patches.raw.is_empty();
    let mut bytes = vec![codec as u8 | if patched { PATCHED } else { 0 }];
    if patched {
        patches.write(&mut bytes);
    }
    bytes
}

/// Scales worth a full try: what a sample of the column needs at most, and for nearly all of it.
fn candidate_scales(filled: &[u64]) -> Vec<u8> {
    // Scattered places: equal steps could fall in with a rhythm of the values.
    let place = |i: usize| (i * 0x9e37_79b1) % filled.len();
    let mut needed: Vec<u8> = (0..filled.len().min(64))
        .filter_map(|i| {
            let bits = filled[place(i)];
            (0..POWERS.len()).find(|e| to_decimal(bits, POWERS[*e]).is_some())
        })
        .map(|e| e as u8)
        .collect();
    needed.sort_unstable();
    let mut scales: Vec<u8> =
        [needed.last(), needed.get(needed.len() * 9 / 10)].into_iter().flatten().copied().collect();
    scales.dedup();
    scales
}

/// The column as integers of one scale; `None` when more than one value in eight would need a patch.
fn decimals(filled: &[u64], scale: u8, patches: &mut Patches) -> Option<Vec<i64>> {
    let power = POWERS[usize::from(scale)];
    let mut numbers = Vec::with_capacity(filled.len());
    let mut last = filled.iter().find_map(|b| to_decimal(*b, power))?;
    for (i, &bits) in filled.iter().enumerate() {
        match to_decimal(bits, power) {
            Some(m) => last = m,
            // A filled-in value repeats the one before; its patch comes from the stale list.
            None if patches.stale.binary_search(&i).is_ok() => {}
            None => patches.raw.push((i, bits)),
        }
        if patches.raw.len() > 4 + filled.len() / 8 {
            return None;
        }
        numbers.push(last);
    }
    Some(numbers)
}

fn decimal_ulp(filled: &[u64], scale: u8, clean: &Patches) -> Option<Vec<u8>> {
    let power = POWERS[usize::from(scale)];
    let (mut numbers, mut ulps) = (Vec::with_capacity(filled.len()), Vec::with_capacity(filled.len()));
    for &bits in filled {
        let scaled = (f64::from_bits(bits) * power).round_ties_even();
        if !scaled.is_finite() || scaled.abs() > MAX_EXACT {
            return None;
        }
        numbers.push(scaled as i64);
        let nearest = ((scaled as i64) as f64 / power).to_bits();
        ulps.push(ordered(bits.cast_signed()).wrapping_sub(ordered(nearest.cast_signed())));
    }
    let mut bytes = header(Codec::DecimalUlp, clean);
    bytes.push(scale);
    ints::encode(&numbers, &mut bytes);
    ints::encode(&ulps, &mut bytes);
    Some(bytes)
}

fn dictionary_column(filled: &[u64], clean: &Patches) -> Option<Vec<u8>> {
    let mut distinct: Vec<(u64, u32)> = Vec::new();
    let mut indexes = Vec::with_capacity(filled.len());
    for &bits in filled {
        let at = match distinct.iter().position(|(b, _)| *b == bits) {
            Some(at) => at,
            None if distinct.len() == MAX_DICTIONARY => return None,
            None => {
                distinct.push((bits, 0));
                distinct.len() - 1
            }
        };
        distinct[at].1 += 1;
        indexes.push(at as i64);
    }
    if distinct.len() < 2 || distinct.len() * 3 > filled.len() {
        return None;
    }
    // The most frequent first: they get the short tokens.
    let mut rank: Vec<usize> = (0..distinct.len()).collect();
    rank.sort_by_key(|i| std::cmp::Reverse(distinct[*i].1));
    let mut place = vec![0i64; distinct.len()];
    for (new, old) in rank.iter().enumerate() {
        place[*old] = new as i64;
    }
    for i in &mut indexes {
        *i = place[*i as usize];
    }
    let mut bytes = header(Codec::Dictionary, clean);
    put_varint(&mut bytes, distinct.len() as u64);
    let values: Vec<u64> = rank.iter().map(|i| distinct[*i].0).collect();
    encode_filled(&values, Vec::new(), false, &mut bytes);
    ints::encode(&indexes, &mut bytes);
    Some(bytes)
}

thread_local! {
    /// Room for the integers of one column, used again for the next.
    static NUMBERS: Cell<Vec<i64>> = const { Cell::new(Vec::new()) };
}

/// Replaces the content of `out` by the `n` values of a column.
pub fn decode(input: &mut Input<'_>, n: usize, out: &mut Vec<f64>) -> Result<()> {
    out.clear();
    let mut numbers = NUMBERS.take();
    let result = decode_column(input, n, true, &mut numbers, out);
    NUMBERS.set(numbers);
    result
}

/// Replaces the content of `out` by `n` zeros with staleness markers where the column has them. The rest of the column
/// is not read.
pub fn decode_presence(input: &mut Input<'_>, n: usize, out: &mut Vec<f64>) -> Result<()> {
    out.clear();
    if n == 0 {
        return Ok(());
    }
    let (_, patched) = head(input, n)?;
    out.resize(n, 0.0);
    if patched { Patches::apply(input, out) } else { Ok(()) }
}

/// Codec of a column of `n` values, and whether it is patched.
fn head(input: &mut Input<'_>, n: usize) -> Result<(Codec, bool)> {
    if n > ints::MAX_INTS {
        return Err(DecodeError("column is longer than 1048576 values"));
    }
    let head = input.u8()?;
    let codec = Codec::from_code(head & 0x0f)?;
    if head & !0x1f != 0 {
        return Err(DecodeError("unknown flag of a value column"));
    }
    Ok((codec, head & PATCHED != 0))
}

fn decode_column(
    input: &mut Input<'_>,
    n: usize,
    dictionary: bool,
    numbers: &mut Vec<i64>,
    out: &mut Vec<f64>,
) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let (codec, patched) = head(input, n)?;
    let mut patches = *input;
    if patched {
        // Patches stand before the column and are applied after it: skip them by a dry run.
        skip_patches(input)?;
    }
    match codec {
        Codec::Xor => {
            let len = input.count(input.len())?;
            xor::decode(input.bytes(len)?, n, out)?;
        }
        Codec::Decimal => {
            let power = scale(input)?;
            ints::decode(input, n, numbers)?;
            if power == 1.0 {
                out.extend(numbers.iter().map(|m| *m as f64));
            } else {
                out.extend(numbers.iter().map(|m| *m as f64 / power));
            }
        }
        Codec::DecimalUlp => {
            let power = scale(input)?;
            ints::decode(input, n, numbers)?;
            out.extend(numbers.iter().map(|m| *m as f64 / power));
            ints::decode(input, n, numbers)?;
            for (v, ulp) in out.iter_mut().zip(numbers) {
                let nearest = ordered(v.to_bits().cast_signed());
                *v = f64::from_bits(ordered(nearest.wrapping_add(*ulp)).cast_unsigned());
            }
        }
        Codec::Bits => {
            let shift = u32::from(input.u8()?);
            if shift > 63 {
                return Err(DecodeError("impossible shift"));
            }
            ints::decode(input, n, numbers)?;
            out.extend(numbers.iter().map(|o| f64::from_bits(ordered(unshift(*o, shift)).cast_unsigned())));
        }
        Codec::Dictionary => {
            let count = input.count(MAX_DICTIONARY)?;
            if !dictionary {
                return Err(DecodeError("dictionary inside a dictionary"));
            }
            let mut values = Vec::new();
            decode_column(input, count, false, numbers, &mut values)?;
            ints::decode(input, n, numbers)?;
            for i in numbers {
                let value = usize::try_from(*i).ok().and_then(|i| values.get(i));
                out.push(*value.ok_or(DecodeError("index outside the dictionary"))?);
            }
        }
    }
    if patched {
        Patches::apply(&mut patches, out)?;
    }
    Ok(())
}

fn scale(input: &mut Input<'_>) -> Result<f64> {
    POWERS.get(usize::from(input.u8()?)).copied().ok_or(DecodeError("impossible decimal scale"))
}

fn skip_patches(input: &mut Input<'_>) -> Result<()> {
    for _ in 0..input.count(ints::MAX_INTS)? {
        input.varint()?;
    }
    for _ in 0..input.count(ints::MAX_INTS)? {
        input.varint()?;
        input.u64()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f64]) -> (Codec, usize) {
        let mut out = Vec::new();
        let codec = encode(values, &mut out);
        let (mut input, mut back) = (Input::new(&out), Vec::new());
        decode(&mut input, values.len(), &mut back).unwrap();
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values), "{codec:?}");
        assert!(input.is_empty());
        decode_presence(&mut Input::new(&out), values.len(), &mut back).unwrap();
        let stale = |v: &[f64]| v.iter().map(|v| v.to_bits() == STALE_NAN_BITS).collect::<Vec<_>>();
        assert_eq!(stale(&back), stale(values), "{codec:?}");
        (codec, out.len())
    }

    fn special() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(f64::NAN),
            Just(f64::from_bits(STALE_NAN_BITS)),
            Just(f64::from_bits(0x7ff8_0000_0000_0001)),
            Just(f64::from_bits(0xfff0_0000_0000_0007)),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(f64::MAX),
            Just(f64::MIN_POSITIVE),
            Just(5e-324),
            Just(0.1),
            Just(9_007_199_254_740_993.0),
            Just(-9_223_372_036_854_775_808.0),
            Just(1e22),
            Just(1e-22),
            any::<u64>().prop_map(f64::from_bits),
            (-1000i64..1000).prop_map(|v| v as f64),
            (-100_000i64..100_000).prop_map(|v| v as f64 / 1000.0),
        ]
    }

    #[test]
    fn each_codec_wins_where_it_should() {
        let stale = f64::from_bits(STALE_NAN_BITS);
        let (codec, len) = round_trip(&vec![5.0; 1440]);
        assert!(len <= 6, "{codec:?} {len}");
        let mut counter: Vec<f64> = (0..1440).map(|i| f64::from(i * 3)).collect();
        assert!(round_trip(&counter).1 <= 8);
        counter[700] = stale;
        assert!(round_trip(&counter).1 <= 40);
        let cents: Vec<f64> = (0..1440).map(|i| f64::from(i * 7919 % 1000) / 100.0).collect();
        assert_eq!(round_trip(&cents).0, Codec::Decimal);
        let mut sum = 0.0;
        let sums: Vec<f64> = (0..1440)
            .map(|i| {
                sum += f64::from(i * 7919 % 1009) * 1e-9;
                sum
            })
            .collect();
        assert_eq!(round_trip(&sums).0, Codec::DecimalUlp);
        let toggles: Vec<f64> = (0..1440).map(|i| [1e300, 0.1, 7e-9][i * i % 7 % 3]).collect();
        assert_eq!(round_trip(&toggles).0, Codec::Dictionary);
        assert!(round_trip(&toggles).1 < 1440 / 3);
        round_trip(&[stale; 9]);
        round_trip(&[]);
    }

    #[test]
    fn an_outlier_beside_small_fractions_stays_exact() {
        let mut values: Vec<f64> = (0..500).map(|i| f64::from(i) * 0.01).collect();
        values[77] = 1.234_567_890_123_456_7e300;
        values[78] = -0.0;
        let (_, len) = round_trip(&values);
        assert!(len < 500 * 3, "{len}");
    }

    proptest! {
        #[test]
        fn any_bits_return(values in prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..300)) {
            round_trip(&values);
        }

        #[test]
        fn mixtures_return(values in prop::collection::vec(special(), 0..300)) {
            round_trip(&values);
        }

        #[test]
        fn mostly_decimal_returns(scale in 0usize..8, walk in prop::collection::vec((-500i64..500, 0u8..40), 1..400),
                                  odd in special()) {
            let mut at = 0i64;
            let values: Vec<f64> = walk.iter().map(|(step, dice)| {
                at += step;
                if *dice == 0 { odd } else { at as f64 / POWERS[scale] }
            }).collect();
            round_trip(&values);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), n in 0usize..700) {
            let _ = decode(&mut Input::new(&bytes), n, &mut Vec::new());
            let _ = decode_presence(&mut Input::new(&bytes), n, &mut Vec::new());
        }
    }
}
