//! The float section of a batch. A target repeats its series in the same order with mostly the same values, so a
//! section is written as the difference to the one of the same source before; both ends keep that one.

use super::super::chunk::Damaged;
use super::super::chunk::bytes::{Cursor, put_ivarint, put_uvarint, unzigzag, zigzag};
use super::LogFloat;
use crate::model::STALE_NAN_BITS;

const CHAINED: u8 = 1;
const STARTS: u8 = 2;
const STALE: u8 = 0x80;
const XOR: u8 = 0x40;
/// A whole section comes at least this often, so that one lost record hides at most that many.
pub const CHAIN_LENGTH: u32 = 32;
/// Integers up to here are exact in a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What both ends remember of a source: its last section.
#[derive(Debug, Default, Clone)]
pub struct Chain {
    position: u32,
    known: bool,
    base_t: i64,
    series: Vec<u32>,
    values: Vec<u64>,
    /// Empty when all are 0.
    starts: Vec<i64>,
}

/// Which samples of a section continue which of the section before: equal series at both ends.
struct Matching {
    prefix: usize,
    suffix: usize,
    n: usize,
    before: usize,
}

impl Matching {
    fn index(&self, i: usize) -> Option<usize> {
        if i < self.prefix {
            Some(i)
        } else if i >= self.n - self.suffix {
            Some(self.before - (self.n - i))
        } else {
            None
        }
    }
}

/// Decimal places that values are tried with: counters of seconds mostly have two or three.
const PLACES: [f64; 4] = [1.0, 10.0, 100.0, 1000.0];

/// The integer that a float times `scale` is, if dividing again gives back every bit; −0 is none.
fn scaled(bits: u64, scale: f64) -> Option<i64> {
    let scaled = (f64::from_bits(bits) * scale).round();
    if !(-EXACT..=EXACT).contains(&scaled) {
        return None;
    }
    let i = scaled as i64;
    ((i as f64 / scale).to_bits() == bits).then_some(i)
}

fn bytes_of(v: u64) -> usize {
    8 - (v.leading_zeros() / 8) as usize
}

fn put_value(controls: &mut Vec<u8>, data: &mut Vec<u8>, before: u64, now: u64) {
    if now == STALE_NAN_BITS {
        return controls.push(STALE);
    }
    let xor = now ^ before;
    let leading = (xor.leading_zeros() / 8).min(7) as usize;
    let kept = (8 - leading - (xor.trailing_zeros() / 8).min(7) as usize).max(1);
    let fits = |scale: &f64| Some((scaled(before, *scale)?, scaled(now, *scale)?));
    if let Some((places, (a, b))) = PLACES.iter().enumerate().find_map(|(i, scale)| Some((i, fits(scale)?))) {
        let difference = zigzag(b.wrapping_sub(a));
        let n = bytes_of(difference);
        if n <= kept && n > 0 {
            controls.push((places << 4 | n) as u8);
            data.extend_from_slice(&difference.to_le_bytes()[..n]);
            return;
        }
    }
    controls.push(XOR | (leading as u8) << 3 | (kept as u8 - 1));
    data.extend_from_slice(&xor.to_be_bytes()[leading..leading + kept]);
}

fn take_value(control: u8, data: &mut Cursor<'_>, before: u64) -> Result<u64, Damaged> {
    let mut eight = [0; 8];
    match control {
        STALE => Ok(STALE_NAN_BITS),
        1..XOR => {
            let n = usize::from(control & 15);
            let scale = PLACES.get(usize::from(control >> 4)).copied().unwrap_or(1.0);
            let place = eight.get_mut(..n).ok_or(Damaged("a value has too many bytes"))?;
            place.copy_from_slice(data.take(n)?);
            let a = scaled(before, scale).ok_or(Damaged("a decimal follows a value that is none"))?;
            let b = a.wrapping_add(unzigzag(u64::from_le_bytes(eight)));
            Ok((b as f64 / scale).to_bits())
        }
        XOR..0x80 => {
            let (leading, kept) = (usize::from(control >> 3 & 7), usize::from(control & 7) + 1);
            let place =
                eight.get_mut(leading..leading + kept).ok_or(Damaged("a value has too many bytes"))?;
            place.copy_from_slice(data.take(kept)?);
            Ok(before ^ u64::from_be_bytes(eight))
        }
        _ => Err(Damaged("an unknown control byte")),
    }
}

/// Appends the section of `samples` and remembers it in `chain`; `None` for senders without identity.
/// `samples[..].series` are numbers local to the segment.
pub fn put_section(out: &mut Vec<u8>, chain: Option<&mut Chain>, samples: &[LogFloat]) {
    let mut own = Chain::default();
    let chain = chain.unwrap_or(&mut own);
    let chained = chain.known && chain.position + 1 < CHAIN_LENGTH && !samples.is_empty();
    let starts = samples.iter().any(|s| s.start_ms != 0) || (chained && !chain.starts.is_empty());
    out.push(if chained { CHAINED } else { 0 } | if starts { STARTS } else { 0 });
    if samples.is_empty() {
        // An empty section says nothing about the next one: the chain stays as it is.
        put_uvarint(out, 0);
        put_uvarint(out, 0);
        return;
    }
    if !chained {
        *chain = Chain::default();
    }
    let position = if chained { chain.position + 1 } else { 0 };
    put_uvarint(out, u64::from(position));
    put_uvarint(out, samples.len() as u64);
    let base_t = samples.first().map_or(0, |s| s.t_ms);
    put_ivarint(out, base_t.wrapping_sub(chain.base_t));
    let matching = put_layout(out, chain, chained, samples);
    if samples.iter().all(|s| s.t_ms == base_t) {
        out.push(0);
    } else {
        out.push(1);
        samples.iter().for_each(|s| put_ivarint(out, s.t_ms.wrapping_sub(base_t)));
    }
    let start_before = |i| matching.index(i).and_then(|at| chain.starts.get(at)).copied().unwrap_or(0);
    if starts {
        for (i, sample) in samples.iter().enumerate() {
            put_ivarint(out, sample.start_ms.wrapping_sub(start_before(i)));
        }
    }
    let (mut runs, mut controls, mut data) = (Vec::new(), Vec::new(), Vec::new());
    let mut values = Vec::with_capacity(samples.len());
    let (mut equal, mut length) = (true, 0u64);
    for (i, sample) in samples.iter().enumerate() {
        let before = matching.index(i).and_then(|at| chain.values.get(at)).copied().unwrap_or(0);
        let now = sample.value.to_bits();
        if (now == before) != equal {
            put_uvarint(&mut runs, length);
            (equal, length) = (!equal, 0);
        }
        length += 1;
        if now != before {
            put_value(&mut controls, &mut data, before, now);
        }
        values.push(if now == STALE_NAN_BITS { before } else { now });
    }
    put_uvarint(&mut runs, length);
    put_uvarint(out, runs.len() as u64);
    put_uvarint(out, controls.len() as u64);
    out.extend_from_slice(&runs);
    out.extend_from_slice(&controls);
    out.extend_from_slice(&data);
    chain.position = position;
    chain.known = true;
    chain.base_t = base_t;
    chain.starts.clear();
    if starts {
        chain.starts.extend(samples.iter().map(|s| s.start_ms));
    }
    chain.values = values;
    if matching.prefix != samples.len() || matching.before != samples.len() {
        chain.series = samples.iter().map(|s| s.series).collect();
    }
}

fn put_layout(out: &mut Vec<u8>, chain: &Chain, chained: bool, samples: &[LogFloat]) -> Matching {
    let (n, before) = (samples.len(), chain.series.len());
    let mut matching = Matching { prefix: 0, suffix: 0, n, before };
    if chained {
        matching.prefix =
            samples.iter().zip(&chain.series).take_while(|(s, series)| s.series == **series).count();
        let most = n.min(before) - matching.prefix;
        let ends = samples.iter().rev().zip(chain.series.iter().rev());
        matching.suffix = ends.take(most).take_while(|(s, series)| s.series == **series).count();
        put_uvarint(out, matching.prefix as u64);
        put_uvarint(out, matching.suffix as u64);
    }
    let mut last = 0i64;
    for sample in &samples[matching.prefix..n - matching.suffix] {
        put_ivarint(out, i64::from(sample.series) - last);
        last = i64::from(sample.series);
    }
    matching
}

/// Reads a section that [`put_section`] wrote, with the chain of its source.
pub fn take_section(bytes: &[u8], chain: Option<&mut Chain>) -> Result<Vec<LogFloat>, Damaged> {
    let mut own = Chain::default();
    let chain = chain.unwrap_or(&mut own);
    let mut cursor = Cursor::new(bytes);
    let flags = cursor.byte()?;
    let (chained, has_starts) = (flags & CHAINED != 0, flags & STARTS != 0);
    let position = cursor.uvarint32()?;
    let n = cursor.uvarint()?;
    if n == 0 {
        return Ok(Vec::new());
    }
    let result = take_samples(&mut cursor, chain, chained, has_starts, position, n);
    if result.is_err() {
        // Whatever follows in this chain refers to something that is not known.
        chain.known = false;
    }
    result
}

fn take_samples(
    cursor: &mut Cursor<'_>,
    chain: &mut Chain,
    chained: bool,
    has_starts: bool,
    position: u32,
    n: u64,
) -> Result<Vec<LogFloat>, Damaged> {
    if !chained {
        *chain = Chain::default();
    } else if !chain.known || chain.position.checked_add(1) != Some(position) {
        return Err(Damaged("the record that this one continues is missing"));
    }
    // Each sample that does not continue one takes a byte at least.
    if n > (chain.series.len() + cursor.rest().len()) as u64 {
        return Err(Damaged("more samples than data"));
    }
    let n = n as usize;
    let base_t = chain.base_t.wrapping_add(cursor.ivarint()?);
    let mut matching = Matching { prefix: 0, suffix: 0, n, before: chain.series.len() };
    if chained {
        let (prefix, suffix) = (cursor.uvarint()?, cursor.uvarint()?);
        if prefix.saturating_add(suffix) > n.min(chain.series.len()) as u64 {
            return Err(Damaged("a record repeats more than there was"));
        }
        (matching.prefix, matching.suffix) = (prefix as usize, suffix as usize);
    }
    let mut series = Vec::with_capacity(n);
    let mut last = 0i64;
    for i in 0..n {
        series.push(match matching.index(i).and_then(|at| chain.series.get(at)) {
            Some(series) => *series,
            None => {
                last = last.wrapping_add(cursor.ivarint()?);
                u32::try_from(last).map_err(|_| Damaged("a series number is out of range"))?
            }
        });
    }
    let own_times = cursor.byte()? != 0;
    let mut times = vec![base_t; if own_times { n } else { 0 }];
    for t in &mut times {
        *t = base_t.wrapping_add(cursor.ivarint()?);
    }
    let mut starts = vec![0; if has_starts { n } else { 0 }];
    for (i, start) in starts.iter_mut().enumerate() {
        let before: i64 = matching.index(i).and_then(|at| chain.starts.get(at)).copied().unwrap_or(0);
        *start = before.wrapping_add(cursor.ivarint()?);
    }
    let (runs, controls) = (cursor.uvarint()?, cursor.uvarint()?);
    let mut runs = Cursor::new(cursor.take(usize::try_from(runs).unwrap_or(usize::MAX))?);
    let mut controls = Cursor::new(cursor.take(usize::try_from(controls).unwrap_or(usize::MAX))?);
    let (mut equal, mut length) = (true, runs.uvarint()?);
    let mut values = Vec::with_capacity(n);
    let mut samples = Vec::with_capacity(n);
    for (i, series) in series.iter().enumerate() {
        while length == 0 {
            (equal, length) = (!equal, runs.uvarint()?);
        }
        length -= 1;
        let before = matching.index(i).and_then(|at| chain.values.get(at)).copied().unwrap_or(0);
        let now = if equal { before } else { take_value(controls.byte()?, cursor, before)? };
        values.push(if now == STALE_NAN_BITS { before } else { now });
        samples.push(LogFloat {
            series: *series,
            t_ms: times.get(i).copied().unwrap_or(base_t),
            start_ms: starts.get(i).copied().unwrap_or(0),
            value: f64::from_bits(now),
        });
    }
    *chain = Chain { position, known: true, base_t, series, values, starts };
    Ok(samples)
}
