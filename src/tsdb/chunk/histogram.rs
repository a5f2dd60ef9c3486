//! Chunks of native histograms: each sample against the one before, byte by byte. Integer counts as differences,
//! floats as XOR with their zero bytes left out, the bucket layout only when it changes.

use std::sync::Arc;

use super::Damaged;
use super::bytes::{Cursor, put_ivarint, put_uvarint};
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::is_stale_nan;
use crate::model::sample::{HistogramValue, stale_nan};

const SAME_LAYOUT: u8 = 1;
const FLOAT: u8 = 1 << 1;
const HINT_SHIFT: u8 = 2;
const NEW_START: u8 = 1 << 4;
const STALE: u8 = 1 << 5;

fn hint_code(hint: CounterResetHint) -> u8 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

fn hint_from(flags: u8) -> CounterResetHint {
    match (flags >> HINT_SHIFT) & 3 {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        _ => CounterResetHint::Gauge,
    }
}

/// XOR of two floats: 0, or a byte with the numbers of leading zero bytes and of kept bytes, and the kept bytes.
fn put_xor(out: &mut Vec<u8>, xor: u64) {
    if xor == 0 {
        return out.push(0);
    }
    let leading = (xor.leading_zeros() / 8) as usize;
    let kept = 8 - leading - (xor.trailing_zeros() / 8) as usize;
    out.push((leading << 4 | kept) as u8);
    out.extend_from_slice(&xor.to_be_bytes()[leading..leading + kept]);
}

fn take_xor(cursor: &mut Cursor<'_>) -> Result<u64, Damaged> {
    let code = cursor.byte()?;
    let (leading, kept) = (usize::from(code >> 4), usize::from(code & 15));
    let mut eight = [0; 8];
    let place = eight.get_mut(leading..leading + kept).ok_or(Damaged("a float has more than eight bytes"))?;
    place.copy_from_slice(cursor.take(kept)?);
    Ok(u64::from_be_bytes(eight))
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_uvarint(out, spans.len() as u64);
    for span in spans {
        put_ivarint(out, i64::from(span.offset));
        put_uvarint(out, u64::from(span.length));
    }
}

fn take_spans(cursor: &mut Cursor<'_>) -> Result<Vec<Span>, Damaged> {
    let n = cursor.count(2)?;
    (0..n)
        .map(|_| {
            let offset =
                i32::try_from(cursor.ivarint()?).map_err(|_| Damaged("a span offset is too large"))?;
            Ok(Span { offset, length: cursor.uvarint32()? })
        })
        .collect()
}

struct Layout<'a> {
    schema: i32,
    zero_threshold: f64,
    positive: &'a [Span],
    negative: &'a [Span],
    custom: &'a Arc<[f64]>,
}

impl Layout<'_> {
    fn of(value: &HistogramValue) -> Layout<'_> {
        match value {
            HistogramValue::Integer(h) => Layout {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                positive: &h.positive_spans,
                negative: &h.negative_spans,
                custom: &h.custom_values,
            },
            HistogramValue::Float(h) => Layout {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                positive: &h.positive_spans,
                negative: &h.negative_spans,
                custom: &h.custom_values,
            },
        }
    }

    fn same_as(&self, other: &Layout<'_>) -> bool {
        self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && self.positive == other.positive
            && self.negative == other.negative
            && same_bits(self.custom, other.custom)
    }
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Whether two histograms are equal to the bit, NaN payloads included.
#[must_use]
pub fn same_histogram(a: &HistogramValue, b: &HistogramValue) -> bool {
    if !Layout::of(a).same_as(&Layout::of(b)) {
        return false;
    }
    match (a, b) {
        (HistogramValue::Integer(a), HistogramValue::Integer(b)) => {
            a.count == b.count
                && a.zero_count == b.zero_count
                && a.sum.to_bits() == b.sum.to_bits()
                && a.counter_reset_hint == b.counter_reset_hint
                && a.positive_buckets == b.positive_buckets
                && a.negative_buckets == b.negative_buckets
        }
        (HistogramValue::Float(a), HistogramValue::Float(b)) => {
            a.count.to_bits() == b.count.to_bits()
                && a.zero_count.to_bits() == b.zero_count.to_bits()
                && a.sum.to_bits() == b.sum.to_bits()
                && a.counter_reset_hint == b.counter_reset_hint
                && same_bits(&a.positive_buckets, &b.positive_buckets)
                && same_bits(&a.negative_buckets, &b.negative_buckets)
        }
        _ => false,
    }
}

/// Whether this is a stale marker without further content, which has a code of its own.
fn is_plain_stale(value: &HistogramValue) -> bool {
    match value {
        HistogramValue::Integer(h) => plain_stale_integer(h),
        HistogramValue::Float(h) => plain_stale_float(h),
    }
}

fn plain_stale_integer(h: &Histogram) -> bool {
    is_stale_nan(h.sum)
        && h.count == 0
        && h.zero_count == 0
        && h.schema == 0
        && h.zero_threshold.to_bits() == 0
        && h.positive_spans.is_empty()
        && h.negative_spans.is_empty()
        && h.positive_buckets.is_empty()
        && h.negative_buckets.is_empty()
        && h.custom_values.is_empty()
}

fn plain_stale_float(h: &FloatHistogram) -> bool {
    is_stale_nan(h.sum)
        && h.count.to_bits() == 0
        && h.zero_count.to_bits() == 0
        && h.schema == 0
        && h.zero_threshold.to_bits() == 0
        && h.positive_spans.is_empty()
        && h.negative_spans.is_empty()
        && h.positive_buckets.is_empty()
        && h.negative_buckets.is_empty()
        && h.custom_values.is_empty()
}

/// Appends the part of a sample that is not its time: flags, layout if it is new, counts against `previous`.
fn put_value(out: &mut Vec<u8>, previous: Option<&HistogramValue>, value: &HistogramValue, new_start: bool) {
    let (float, hint) = match value {
        HistogramValue::Integer(h) => (false, h.counter_reset_hint),
        HistogramValue::Float(h) => (true, h.counter_reset_hint),
    };
    let mut flags = if float { FLOAT } else { 0 } | hint_code(hint) << HINT_SHIFT;
    flags |= if new_start { NEW_START } else { 0 };
    if is_plain_stale(value) {
        return out.push(flags | STALE);
    }
    let layout = Layout::of(value);
    let previous = previous.filter(|p| {
        matches!(p, HistogramValue::Float(_)) == float
            && layout.same_as(&Layout::of(p))
            && bucket_counts(p) == bucket_counts(value)
    });
    out.push(flags | if previous.is_some() { SAME_LAYOUT } else { 0 });
    if previous.is_none() {
        put_ivarint(out, i64::from(layout.schema));
        put_xor(out, layout.zero_threshold.to_bits());
        put_spans(out, layout.positive);
        put_spans(out, layout.negative);
        put_uvarint(out, layout.custom.len() as u64);
        layout.custom.iter().for_each(|bound| put_xor(out, bound.to_bits()));
        let (positive, negative) = bucket_counts(value);
        put_uvarint(out, positive as u64);
        put_uvarint(out, negative as u64);
    }
    match value {
        HistogramValue::Integer(h) => {
            let zero = Arc::new(Histogram::default());
            let p = match previous {
                Some(HistogramValue::Integer(p)) => p,
                _ => &zero,
            };
            put_ivarint(out, h.count.wrapping_sub(p.count) as i64);
            put_ivarint(out, h.zero_count.wrapping_sub(p.zero_count) as i64);
            put_xor(out, h.sum.to_bits() ^ p.sum.to_bits());
            for (own, before) in
                [(&h.positive_buckets, &p.positive_buckets), (&h.negative_buckets, &p.negative_buckets)]
            {
                for (i, bucket) in own.iter().enumerate() {
                    put_ivarint(out, bucket.wrapping_sub(before.get(i).copied().unwrap_or(0)));
                }
            }
        }
        HistogramValue::Float(h) => {
            let zero = Arc::new(FloatHistogram::default());
            let p = match previous {
                Some(HistogramValue::Float(p)) => p,
                _ => &zero,
            };
            put_xor(out, h.count.to_bits() ^ p.count.to_bits());
            put_xor(out, h.zero_count.to_bits() ^ p.zero_count.to_bits());
            put_xor(out, h.sum.to_bits() ^ p.sum.to_bits());
            for (own, before) in
                [(&h.positive_buckets, &p.positive_buckets), (&h.negative_buckets, &p.negative_buckets)]
            {
                for (i, bucket) in own.iter().enumerate() {
                    put_xor(out, bucket.to_bits() ^ before.get(i).copied().unwrap_or(0.0).to_bits());
                }
            }
        }
    }
}

fn bucket_counts(value: &HistogramValue) -> (usize, usize) {
    match value {
        HistogramValue::Integer(h) => (h.positive_buckets.len(), h.negative_buckets.len()),
        HistogramValue::Float(h) => (h.positive_buckets.len(), h.negative_buckets.len()),
    }
}

fn take_value(
    cursor: &mut Cursor<'_>,
    previous: Option<&HistogramValue>,
) -> Result<(HistogramValue, bool, bool), Damaged> {
    let flags = cursor.byte()?;
    let (float, hint, new_start) = (flags & FLOAT != 0, hint_from(flags), flags & NEW_START != 0);
    if flags & STALE != 0 {
        let sum = stale_nan();
        let value = if float {
            let h = FloatHistogram { counter_reset_hint: hint, sum, ..FloatHistogram::default() };
            HistogramValue::Float(Arc::new(h))
        } else {
            let h = Histogram { counter_reset_hint: hint, sum, ..Histogram::default() };
            HistogramValue::Integer(Arc::new(h))
        };
        return Ok((value, new_start, true));
    }
    let mut frame = if flags & SAME_LAYOUT != 0 {
        let previous = previous.ok_or(Damaged("a histogram refers to one before it that is not there"))?;
        if matches!(previous, HistogramValue::Float(_)) != float {
            return Err(Damaged("a histogram refers to one of the other kind"));
        }
        previous.clone()
    } else {
        take_layout(cursor, float)?
    };
    match &mut frame {
        HistogramValue::Integer(h) => {
            let h = Arc::make_mut(h);
            h.counter_reset_hint = hint;
            h.count = h.count.wrapping_add(cursor.ivarint()? as u64);
            h.zero_count = h.zero_count.wrapping_add(cursor.ivarint()? as u64);
            h.sum = f64::from_bits(h.sum.to_bits() ^ take_xor(cursor)?);
            for bucket in h.positive_buckets.iter_mut().chain(&mut h.negative_buckets) {
                *bucket = bucket.wrapping_add(cursor.ivarint()?);
            }
        }
        HistogramValue::Float(h) => {
            let h = Arc::make_mut(h);
            h.counter_reset_hint = hint;
            for field in [&mut h.count, &mut h.zero_count, &mut h.sum] {
                *field = f64::from_bits(field.to_bits() ^ take_xor(cursor)?);
            }
            for bucket in h.positive_buckets.iter_mut().chain(&mut h.negative_buckets) {
                *bucket = f64::from_bits(bucket.to_bits() ^ take_xor(cursor)?);
            }
        }
    }
    Ok((frame, new_start, false))
}

fn take_layout(cursor: &mut Cursor<'_>, float: bool) -> Result<HistogramValue, Damaged> {
    let schema = i32::try_from(cursor.ivarint()?).map_err(|_| Damaged("a schema is too large"))?;
    let zero_threshold = f64::from_bits(take_xor(cursor)?);
    let positive_spans = take_spans(cursor)?;
    let negative_spans = take_spans(cursor)?;
    let n = cursor.count(1)?;
    let custom =
        (0..n).map(|_| Ok(f64::from_bits(take_xor(cursor)?))).collect::<Result<Vec<_>, Damaged>>()?;
    let custom_values: Arc<[f64]> = custom.into();
    let (positive, negative) = (cursor.count(1)?, cursor.count(1)?);
    if positive + negative > cursor.rest().len() {
        return Err(Damaged("more buckets than data"));
    }
    Ok(if float {
        HistogramValue::Float(Arc::new(FloatHistogram {
            schema,
            zero_threshold,
            positive_spans,
            negative_spans,
            positive_buckets: vec![0.0; positive],
            negative_buckets: vec![0.0; negative],
            custom_values,
            ..FloatHistogram::default()
        }))
    } else {
        HistogramValue::Integer(Arc::new(Histogram {
            schema,
            zero_threshold,
            positive_spans,
            negative_spans,
            positive_buckets: vec![0; positive],
            negative_buckets: vec![0; negative],
            custom_values,
            ..Histogram::default()
        }))
    })
}

/// Appends one histogram by itself, as the log stores it.
pub fn put_histogram(out: &mut Vec<u8>, value: &HistogramValue) {
    put_value(out, None, value, false);
}

/// Reads what [`put_histogram`] wrote.
pub fn take_histogram(cursor: &mut Cursor<'_>) -> Result<HistogramValue, Damaged> {
    Ok(take_value(cursor, None)?.0)
}

/// The writing end of a chunk of histograms.
#[derive(Debug, Clone, Default)]
pub struct HistogramEncoder {
    bytes: Vec<u8>,
    count: u16,
    last_t: i64,
    last_delta: i64,
    last_start: i64,
    /// The newest histogram that is not a plain stale marker.
    base: Option<HistogramValue>,
    /// The newest histogram.
    last: Option<HistogramValue>,
}

impl HistogramEncoder {
    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The bytes so far; a valid chunk together with [`HistogramEncoder::count`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Timestamp of the newest sample.
    #[must_use]
    pub fn last_t(&self) -> i64 {
        self.last_t
    }

    /// The newest histogram.
    #[must_use]
    pub fn last(&self) -> Option<&HistogramValue> {
        self.last.as_ref()
    }

    /// Heap bytes, the kept histograms included by estimate.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let kept = self.base.as_ref().map_or(0, |h| {
            let (positive, negative) = bucket_counts(h);
            200 + 8 * (positive + negative)
        });
        self.bytes.capacity() + kept
    }

    /// Takes the bytes out and starts anew.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }

    /// Appends a sample; `t_ms` must be greater than the last timestamp.
    pub fn push(&mut self, t_ms: i64, start_ms: i64, value: &HistogramValue) {
        put_value(&mut self.bytes, self.base.as_ref(), value, start_ms != self.last_start);
        let delta = t_ms.wrapping_sub(self.last_t);
        put_ivarint(&mut self.bytes, delta.wrapping_sub(self.last_delta));
        if start_ms != self.last_start {
            put_ivarint(&mut self.bytes, start_ms.wrapping_sub(self.last_start));
        }
        // The first timestamp is not a distance.
        self.last_delta = if self.count == 0 { 0 } else { delta };
        self.last_t = t_ms;
        self.last_start = start_ms;
        self.count += 1;
        if !is_plain_stale(value) {
            self.base = Some(value.clone());
        }
        self.last = Some(value.clone());
    }
}

/// One decoded histogram sample: timestamp, start timestamp (0 = unknown), value.
pub type HistogramSample = (i64, i64, HistogramValue);

/// Reads a chunk; ends after the first damage.
#[derive(Debug, Clone)]
pub struct HistogramDecoder<'a> {
    cursor: Cursor<'a>,
    left: u16,
    first: bool,
    t: i64,
    delta: i64,
    start: i64,
    base: Option<HistogramValue>,
}

impl<'a> HistogramDecoder<'a> {
    /// Reads `count` samples from `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8], count: u16) -> Self {
        Self { cursor: Cursor::new(bytes), left: count, first: true, t: 0, delta: 0, start: 0, base: None }
    }

    fn step(&mut self) -> Result<HistogramSample, Damaged> {
        let (value, new_start, plain_stale) = take_value(&mut self.cursor, self.base.as_ref())?;
        let delta = self.delta.wrapping_add(self.cursor.ivarint()?);
        if new_start {
            self.start = self.start.wrapping_add(self.cursor.ivarint()?);
        }
        self.t = self.t.wrapping_add(delta);
        self.delta = if self.first { 0 } else { delta };
        self.first = false;
        if !plain_stale {
            self.base = Some(value.clone());
        }
        Ok((self.t, self.start, value))
    }
}

impl Iterator for HistogramDecoder<'_> {
    type Item = Result<HistogramSample, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}

/// Continues a chunk that was stored.
pub fn resume(bytes: &[u8], count: u16) -> Result<HistogramEncoder, Damaged> {
    let mut encoder = HistogramEncoder::default();
    for sample in HistogramDecoder::new(bytes, count) {
        let (t, start, value) = sample?;
        encoder.push(t, start, &value);
    }
    Ok(encoder)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_histogram() -> impl Strategy<Value = HistogramValue> {
        let spans = prop::collection::vec((-5i32..50, 0u32..4), 0..4);
        (spans, any::<u8>(), any::<[u64; 4]>(), prop::collection::vec(0i64..1000, 16), any::<bool>())
            .prop_map(|(spans, code, numbers, buckets, custom)| {
                let positive_spans: Vec<Span> =
                    spans.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect();
                let n = positive_spans.iter().map(|s| s.length as usize).sum::<usize>();
                let counter_reset_hint = hint_from(code);
                let sum = if code & 16 != 0 { stale_nan() } else { f64::from_bits(numbers[0]) };
                let custom_values: Arc<[f64]> = if custom { vec![0.5, 1.0].into() } else { Arc::default() };
                if code & 1 == 0 {
                    HistogramValue::Integer(Arc::new(Histogram {
                        counter_reset_hint,
                        schema: 3,
                        zero_threshold: 0.001,
                        zero_count: numbers[1],
                        count: numbers[2],
                        sum,
                        positive_spans,
                        positive_buckets: buckets[..n].to_vec(),
                        custom_values,
                        ..Histogram::default()
                    }))
                } else {
                    HistogramValue::Float(Arc::new(FloatHistogram {
                        counter_reset_hint,
                        schema: 3,
                        zero_threshold: 0.001,
                        zero_count: f64::from_bits(numbers[1]),
                        count: f64::from_bits(numbers[2]),
                        sum,
                        positive_spans,
                        positive_buckets: buckets[..n].iter().map(|b| *b as f64).collect(),
                        custom_values,
                        ..FloatHistogram::default()
                    }))
                }
            })
    }

    proptest! {
        #[test]
        fn gives_back_every_histogram(
            samples in prop::collection::vec((1i64..20_000, 0i64..3, any_histogram(), any::<bool>()), 1..40),
        ) {
            let mut encoder = HistogramEncoder::default();
            let mut want: Vec<HistogramSample> = Vec::new();
            let mut t = 1_700_000_000_000;
            for (delta, start, value, repeat) in samples {
                t += delta;
                let value = if repeat { want.last().map_or(value, |(_, _, v)| v.clone()) } else { value };
                encoder.push(t, start, &value);
                want.push((t, start, value));
            }
            let got: Vec<_> = HistogramDecoder::new(encoder.bytes(), encoder.count())
                .collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(&want) {
                prop_assert_eq!((got.0, got.1), (want.0, want.1));
                prop_assert!(same_histogram(&got.2, &want.2), "{:?} {:?}", got, want);
            }
            let resumed = resume(encoder.bytes(), encoder.count()).unwrap();
            prop_assert_eq!(resumed.bytes(), encoder.bytes());
        }

        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u16..50) {
            for sample in HistogramDecoder::new(&bytes, count) {
                if sample.is_err() { break; }
            }
        }
    }
}
