//! The float section of a batch. A target repeats its series in the same order with mostly the same values, so a
//! section is written as the difference to the one of the same source before; both ends keep that one.

use super::super::chunk::Damaged;
use super::super::chunk::bytes::{Cursor, put_ivarint, put_uvarint, unzigzag, zigzag};
use super::LogFloat;
use super::frame::KEEP;
use crate::model::STALE_NAN_BITS;

const CHAINED: u8 = 1;
const STARTS: u8 = 2;
const OWN_TIMES: u8 = 4;
const SAME_SERIES: u8 = 8;
/// In the state of a series: its value changed in the section before. The other bits are the last control byte.
const MOVED: u8 = 0x80;
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
    /// Distance between the last two base times.
    beat: i64,
    series: Vec<u32>,
    values: Vec<u64>,
    /// What is expected of each series next: that it moves as before, by a difference of the same kind.
    states: Vec<u8>,
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
    fn is_same(&self) -> bool {
        self.prefix == self.n && self.before == self.n
    }

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

/// Appends a value and returns its control byte.
fn put_value(data: &mut Vec<u8>, before: u64, now: u64) -> u8 {
    if now == STALE_NAN_BITS {
        return STALE;
    }
    let xor = now ^ before;
    let leading = (xor.leading_zeros() / 8).min(7) as usize;
    let kept = (8 - leading - (xor.trailing_zeros() / 8).min(7) as usize).max(1);
    let fits = |scale: &f64| Some((scaled(before, *scale)?, scaled(now, *scale)?));
    if let Some((places, (a, b))) = PLACES.iter().enumerate().find_map(|(i, scale)| Some((i, fits(scale)?))) {
        let difference = zigzag(b.wrapping_sub(a));
        let n = bytes_of(difference);
        if n <= kept && n > 0 {
            data.extend_from_slice(&difference.to_le_bytes()[..n]);
            return (places << 4 | n) as u8;
        }
    }
    data.extend_from_slice(&xor.to_be_bytes()[leading..leading + kept]);
    XOR | (leading as u8) << 3 | (kept as u8 - 1)
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

/// What is expected of a series after a value with this control byte; `None` = the value did not change.
fn next_state(before: u8, control: Option<u8>) -> u8 {
    match control {
        None => before & !MOVED,
        Some(STALE) => before | MOVED,
        Some(control) => MOVED | control,
    }
}

/// Reused from section to section: where it goes as expected and where not, how the values that moved are written, and
/// the bytes that say how far.
#[derive(Default)]
pub struct Scratch {
    runs: Vec<u8>,
    controls: Vec<u8>,
    data: Vec<u8>,
    expected: bool,
    length: u64,
}

impl Scratch {
    fn begin(&mut self) {
        for buffer in [&mut self.runs, &mut self.controls, &mut self.data] {
            buffer.clear();
            buffer.shrink_to(KEEP);
        }
        (self.expected, self.length) = (true, 0);
    }

    /// Adds a value, given the one before and what was expected; answers with both for the next section.
    #[inline]
    fn add(&mut self, now: u64, before: u64, state: u8) -> (u64, u8) {
        if ((now != before) == (state & MOVED != 0)) != self.expected {
            put_uvarint(&mut self.runs, self.length);
            (self.expected, self.length) = (!self.expected, 0);
        }
        self.length += 1;
        let control = (now != before).then(|| put_value(&mut self.data, before, now));
        self.controls.extend(control.map(|control| control ^ (state & !MOVED)));
        (if now == STALE_NAN_BITS { before } else { now }, next_state(state, control))
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        put_uvarint(&mut self.runs, self.length);
        put_uvarint(out, self.runs.len() as u64);
        put_uvarint(out, self.controls.len() as u64);
        out.extend_from_slice(&self.runs);
        out.extend_from_slice(&self.controls);
        out.extend_from_slice(&self.data);
    }
}

/// Appends the section of `samples`, of which there is at least one, and remembers it in `chain`; `None` for senders
/// without identity. `samples[..].series` are numbers local to the segment.
pub fn put_section(
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    chain: Option<&mut Chain>,
    samples: &[LogFloat],
) {
    let mut own = Chain::default();
    let chain = chain.unwrap_or(&mut own);
    let chained = chain.known && chain.position + 1 < CHAIN_LENGTH;
    if !chained {
        *chain = Chain::default();
    }
    let matching = matching(chain, samples);
    let base_t = samples.first().map_or(0, |s| s.t_ms);
    let starts = samples.iter().any(|s| s.start_ms != 0) || !chain.starts.is_empty();
    let own_times = samples.iter().any(|s| s.t_ms != base_t);
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    out.push(
        flag(chained, CHAINED)
            | flag(starts, STARTS)
            | flag(own_times, OWN_TIMES)
            | flag(matching.is_same(), SAME_SERIES),
    );
    let position = if chained { chain.position + 1 } else { 0 };
    put_uvarint(out, u64::from(position));
    put_layout(out, &matching, chained, samples);
    let step = base_t.wrapping_sub(chain.base_t);
    put_ivarint(out, step.wrapping_sub(chain.beat));
    if own_times {
        samples.iter().for_each(|s| put_ivarint(out, s.t_ms.wrapping_sub(base_t)));
    }
    if starts {
        for (i, sample) in samples.iter().enumerate() {
            let before = matching.index(i).and_then(|at| chain.starts.get(at)).copied().unwrap_or(0);
            put_ivarint(out, sample.start_ms.wrapping_sub(before));
        }
    }
    scratch.begin();
    if matching.is_same() {
        for ((sample, value), state) in samples.iter().zip(&mut chain.values).zip(&mut chain.states) {
            (*value, *state) = scratch.add(sample.value.to_bits(), *value, *state);
        }
    } else {
        let mut values = Vec::with_capacity(samples.len());
        let mut states = Vec::with_capacity(samples.len());
        for (i, sample) in samples.iter().enumerate() {
            let (before, state) = chain.expect(matching.index(i));
            let (value, state) = scratch.add(sample.value.to_bits(), before, state);
            values.push(value);
            states.push(state);
        }
        (chain.values, chain.states) = (values, states);
    }
    scratch.finish(out);
    chain.position = position;
    chain.known = true;
    chain.beat = if chained { step } else { 0 };
    chain.base_t = base_t;
    chain.starts.clear();
    if starts {
        chain.starts.extend(samples.iter().map(|s| s.start_ms));
    }
    if !matching.is_same() {
        chain.series = samples.iter().map(|s| s.series).collect();
    }
}

impl Chain {
    /// The value before of a series and what is expected of the next one; a new series is expected to be no zero.
    fn expect(&self, at: Option<usize>) -> (u64, u8) {
        at.and_then(|at| Some((*self.values.get(at)?, *self.states.get(at)?))).unwrap_or((0, MOVED))
    }
}

fn matching(chain: &Chain, samples: &[LogFloat]) -> Matching {
    let (n, before) = (samples.len(), chain.series.len());
    let ahead = samples.iter().zip(&chain.series);
    let prefix = ahead.take_while(|(s, series)| s.series == **series).count();
    let back = samples.iter().rev().zip(chain.series.iter().rev()).take(n.min(before) - prefix);
    let suffix = back.take_while(|(s, series)| s.series == **series).count();
    Matching { prefix, suffix, n, before }
}

fn put_layout(out: &mut Vec<u8>, matching: &Matching, chained: bool, samples: &[LogFloat]) {
    if matching.is_same() {
        return;
    }
    put_uvarint(out, matching.n as u64);
    if chained {
        put_uvarint(out, matching.prefix as u64);
        put_uvarint(out, matching.suffix as u64);
    }
    let mut last = 0i64;
    for sample in &samples[matching.prefix..matching.n - matching.suffix] {
        put_ivarint(out, i64::from(sample.series) - last);
        last = i64::from(sample.series);
    }
}

/// Reads a section that [`put_section`] wrote, with the chain of its source.
pub fn take_section(bytes: &[u8], chain: Option<&mut Chain>) -> Result<Vec<LogFloat>, Damaged> {
    let mut own = Chain::default();
    let chain = chain.unwrap_or(&mut own);
    let result = take_samples(&mut Cursor::new(bytes), chain);
    if result.is_err() {
        // Whatever follows in this chain refers to something that is not known.
        chain.known = false;
    }
    result
}

fn take_layout(cursor: &mut Cursor<'_>, chain: &Chain, flags: u8) -> Result<(Matching, Vec<u32>), Damaged> {
    let before = chain.series.len();
    if flags & SAME_SERIES != 0 {
        return Ok((Matching { prefix: before, suffix: 0, n: before, before }, chain.series.clone()));
    }
    let n = cursor.uvarint()?;
    // Each sample that does not continue one takes a byte at least.
    if n > (before + cursor.rest().len()) as u64 {
        return Err(Damaged("more samples than data"));
    }
    let n = n as usize;
    let mut matching = Matching { prefix: 0, suffix: 0, n, before };
    if flags & CHAINED != 0 {
        let (prefix, suffix) = (cursor.uvarint()?, cursor.uvarint()?);
        if prefix.saturating_add(suffix) > n.min(before) as u64 {
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
    Ok((matching, series))
}

fn take_samples(cursor: &mut Cursor<'_>, chain: &mut Chain) -> Result<Vec<LogFloat>, Damaged> {
    let flags = cursor.byte()?;
    let position = cursor.uvarint32()?;
    if flags & CHAINED == 0 {
        *chain = Chain::default();
    } else if !chain.known || chain.position.checked_add(1) != Some(position) {
        return Err(Damaged("the record that this one continues is missing"));
    }
    let (matching, series) = take_layout(cursor, chain, flags)?;
    let n = matching.n;
    let step = chain.beat.wrapping_add(cursor.ivarint()?);
    let base_t = chain.base_t.wrapping_add(step);
    let mut times = vec![base_t; if flags & OWN_TIMES != 0 { n } else { 0 }];
    for t in &mut times {
        *t = base_t.wrapping_add(cursor.ivarint()?);
    }
    let mut starts = vec![0; if flags & STARTS != 0 { n } else { 0 }];
    for (i, start) in starts.iter_mut().enumerate() {
        let before: i64 = matching.index(i).and_then(|at| chain.starts.get(at)).copied().unwrap_or(0);
        *start = before.wrapping_add(cursor.ivarint()?);
    }
    let (runs, controls) = (cursor.uvarint()?, cursor.uvarint()?);
    let mut runs = Cursor::new(cursor.take(usize::try_from(runs).unwrap_or(usize::MAX))?);
    let mut controls = Cursor::new(cursor.take(usize::try_from(controls).unwrap_or(usize::MAX))?);
    let (mut expected, mut length) = (true, runs.uvarint()?);
    let (mut values, mut states) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut samples = Vec::with_capacity(n);
    for (i, series) in series.iter().enumerate() {
        while length == 0 {
            (expected, length) = (!expected, runs.uvarint()?);
        }
        length -= 1;
        let (before, state) = chain.expect(matching.index(i));
        let moved = (state & MOVED != 0) == expected;
        let control = if moved { Some(controls.byte()? ^ (state & !MOVED)) } else { None };
        let now = control.map_or(Ok(before), |control| take_value(control, cursor, before))?;
        states.push(next_state(state, control));
        values.push(if now == STALE_NAN_BITS { before } else { now });
        samples.push(LogFloat {
            series: *series,
            t_ms: times.get(i).copied().unwrap_or(base_t),
            start_ms: starts.get(i).copied().unwrap_or(0),
            value: f64::from_bits(now),
        });
    }
    let beat = if flags & CHAINED != 0 { step } else { 0 };
    *chain = Chain { position, known: true, base_t, beat, series, values, states, starts };
    Ok(samples)
}
