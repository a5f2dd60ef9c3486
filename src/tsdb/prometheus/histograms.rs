//! Histogram chunks, integer and float.

use std::sync::Arc;

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::is_stale_nan;
use crate::model::sample::HistogramValue;
use crate::tsdb::block::SeriesColumns;
use crate::tsdb::block::bytes::{DecodeError, Result};

use super::bits::{BitReader, BitWriter, Window};

const MAX_SPANS: u64 = 1 << 14;
const MAX_BUCKETS: u64 = 1 << 16;
const GAUGE: u8 = 0b1100_0000;
const RESET: u8 = 0b1000_0000;
const NO_RESET: u8 = 0b0100_0000;

/// What all histograms of a chunk share.
#[derive(Debug, Clone, Default, PartialEq)]
struct Layout {
    schema: i32,
    zero_threshold: f64,
    positive: Vec<Span>,
    negative: Vec<Span>,
    custom: Arc<[f64]>,
}

impl Layout {
    fn read(bits: &mut BitReader<'_>) -> Result<Self> {
        let zero_threshold = match bits.bits(8)? {
            0 => 0.0,
            255 => f64::from_bits(bits.bits(64)?),
            // 2^(code − 244), from −243 to 10.
            code => f64::from_bits((code + 1023 - 244) << 52),
        };
        let schema = i32::try_from(bits.varbit()?).map_err(|_| DecodeError("impossible schema"))?;
        let mut this = Self { schema, zero_threshold, ..Self::default() };
        this.positive = read_spans(bits)?;
        this.negative = read_spans(bits)?;
        if schema == CUSTOM_BUCKETS_SCHEMA {
            let n = bits.uvarbit()?;
            if n > MAX_BUCKETS {
                return Err(DecodeError("too many bucket bounds"));
            }
            let mut bounds = Vec::new();
            for _ in 0..n {
                bounds.push(match bits.uvarbit()? {
                    0 => f64::from_bits(bits.bits(64)?),
                    thousandths => (thousandths - 1) as f64 / 1000.0,
                });
            }
            this.custom = bounds.into();
        }
        Ok(this)
    }

    fn write(&self, bits: &mut BitWriter) {
        let raw = self.zero_threshold.to_bits();
        let exponent = raw >> 52;
        let power_of_two = raw & ((1 << 52) - 1) == 0 && (1023 - 243..=1023 + 10).contains(&exponent);
        if raw == 0 {
            bits.put(0, 8);
        } else if power_of_two {
            bits.put(exponent + 244 - 1023, 8);
        } else {
            bits.put(255, 8);
            bits.put(raw, 64);
        }
        bits.varbit(i64::from(self.schema));
        for spans in [&self.positive, &self.negative] {
            bits.uvarbit(spans.len() as u64);
            for span in spans {
                bits.uvarbit(u64::from(span.length));
                bits.varbit(i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            bits.uvarbit(self.custom.len() as u64);
            for bound in self.custom.iter() {
                let thousandths = bound * 1000.0;
                if (0.0..=33_554_430.0).contains(&thousandths)
                    && thousandths.fract() == 0.0
                    && (thousandths / 1000.0).to_bits() == bound.to_bits()
                {
                    bits.uvarbit(thousandths as u64 + 1);
                } else {
                    bits.put(0, 1);
                    bits.put(bound.to_bits(), 64);
                }
            }
        }
    }

    fn of(h: &HistogramValue) -> Self {
        if h.is_stale() {
            return Self::default();
        }
        match h {
            HistogramValue::Integer(h) => Self {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                positive: h.positive_spans.clone(),
                negative: h.negative_spans.clone(),
                custom: Arc::clone(&h.custom_values),
            },
            HistogramValue::Float(h) => Self {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                positive: h.positive_spans.clone(),
                negative: h.negative_spans.clone(),
                custom: Arc::clone(&h.custom_values),
            },
        }
    }

    fn buckets(&self) -> Result<(usize, usize)> {
        let sum = |spans: &[Span]| spans.iter().map(|s| u64::from(s.length)).sum::<u64>();
        let (positive, negative) = (sum(&self.positive), sum(&self.negative));
        if positive > MAX_BUCKETS || negative > MAX_BUCKETS {
            return Err(DecodeError("too many buckets"));
        }
        Ok((positive as usize, negative as usize))
    }
}

fn read_spans(bits: &mut BitReader<'_>) -> Result<Vec<Span>> {
    let n = bits.uvarbit()?;
    if n > MAX_SPANS {
        return Err(DecodeError("too many spans"));
    }
    let mut spans = Vec::new();
    for _ in 0..n {
        let length = u32::try_from(bits.uvarbit()?).map_err(|_| DecodeError("impossible span"))?;
        let offset = i32::try_from(bits.varbit()?).map_err(|_| DecodeError("impossible span"))?;
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

/// A number that is stored by its difference of differences.
#[derive(Debug, Clone, Copy, Default)]
struct Sloped {
    value: i64,
    slope: i64,
}

impl Sloped {
    fn read(&mut self, i: usize, bits: &mut BitReader<'_>) -> Result<i64> {
        let step = bits.varbit()?;
        match i {
            0 => self.value = step,
            1 => {
                self.slope = step;
                self.value = self.value.wrapping_add(step);
            }
            _ => {
                self.slope = self.slope.wrapping_add(step);
                self.value = self.value.wrapping_add(self.slope);
            }
        }
        Ok(self.value)
    }

    fn write(&mut self, i: usize, value: i64, bits: &mut BitWriter) {
        let slope = value.wrapping_sub(self.value);
        match i {
            0 => bits.varbit(value),
            1 => bits.varbit(slope),
            _ => bits.varbit(slope.wrapping_sub(self.slope)),
        }
        self.slope = if i == 0 { 0 } else { slope };
        self.value = value;
    }
}

/// A float that is stored by XOR.
#[derive(Debug, Clone, Copy, Default)]
struct Xored {
    bits: u64,
    window: Window,
}

impl Xored {
    fn read(&mut self, i: usize, bits: &mut BitReader<'_>) -> Result<f64> {
        self.bits = if i == 0 { bits.bits(64)? } else { self.window.read(bits, self.bits)? };
        Ok(f64::from_bits(self.bits))
    }

    fn write(&mut self, i: usize, value: f64, bits: &mut BitWriter) {
        if i == 0 {
            bits.put(value.to_bits(), 64);
        } else {
            self.window.write(bits, self.bits, value.to_bits());
        }
        self.bits = value.to_bits();
    }
}

/// Reads a histogram chunk.
pub fn decode(data: &[u8], integers: bool, out: &mut SeriesColumns) -> Result<()> {
    let short = DecodeError("chunk is shorter than its header");
    let (n, rest) = data.split_first_chunk::<2>().ok_or(short)?;
    let n = usize::from(u16::from_be_bytes(*n));
    let (flags, stream) = rest.split_first().ok_or(short)?;
    let hint = |i: usize| match flags & GAUGE {
        GAUGE => CounterResetHint::Gauge,
        RESET if i == 0 => CounterResetHint::Reset,
        _ => CounterResetHint::Unknown,
    };
    let mut bits = BitReader::new(stream);
    if n == 0 {
        return Ok(());
    }
    let layout = Layout::read(&mut bits)?;
    let (positive, negative) = layout.buckets()?;
    if integers {
        let (mut t, mut count, mut zero, mut sum) =
            (Sloped::default(), Sloped::default(), Sloped::default(), Xored::default());
        let mut buckets = vec![Sloped::default(); positive + negative];
        for i in 0..n {
            let time = t.read(i, &mut bits)?;
            if i == 0 {
                count.value = bits.uvarbit()?.cast_signed();
                zero.value = bits.uvarbit()?.cast_signed();
            } else {
                count.read(i, &mut bits)?;
                zero.read(i, &mut bits)?;
            }
            let sum = sum.read(i, &mut bits)?;
            let mut h = Histogram { counter_reset_hint: hint(i), sum, ..Histogram::default() };
            // A stale marker has no buckets and no counts.
            if !is_stale_nan(sum) {
                let values =
                    buckets.iter_mut().map(|b| b.read(i, &mut bits)).collect::<Result<Vec<i64>>>()?;
                h.schema = layout.schema;
                h.zero_threshold = layout.zero_threshold;
                h.count = count.value.cast_unsigned();
                h.zero_count = zero.value.cast_unsigned();
                h.positive_spans.clone_from(&layout.positive);
                h.negative_spans.clone_from(&layout.negative);
                h.positive_buckets = values.get(..positive).unwrap_or_default().to_vec();
                h.negative_buckets = values.get(positive..).unwrap_or_default().to_vec();
                h.custom_values = Arc::clone(&layout.custom);
            }
            out.push_histogram(time, 0, HistogramValue::Integer(Arc::new(h)));
        }
        return Ok(());
    }
    let mut t = Sloped::default();
    let (mut count, mut zero, mut sum) = (Xored::default(), Xored::default(), Xored::default());
    let mut buckets = vec![Xored::default(); positive + negative];
    for i in 0..n {
        let time = t.read(i, &mut bits)?;
        let (count, zero) = (count.read(i, &mut bits)?, zero.read(i, &mut bits)?);
        let sum = sum.read(i, &mut bits)?;
        let mut h = FloatHistogram { counter_reset_hint: hint(i), sum, ..FloatHistogram::default() };
        if !is_stale_nan(sum) {
            let values = buckets.iter_mut().map(|b| b.read(i, &mut bits)).collect::<Result<Vec<f64>>>()?;
            h.schema = layout.schema;
            h.zero_threshold = layout.zero_threshold;
            h.count = count;
            h.zero_count = zero;
            h.positive_spans.clone_from(&layout.positive);
            h.negative_spans.clone_from(&layout.negative);
            h.positive_buckets = values.get(..positive).unwrap_or_default().to_vec();
            h.negative_buckets = values.get(positive..).unwrap_or_default().to_vec();
            h.custom_values = Arc::clone(&layout.custom);
        }
        out.push_histogram(time, 0, HistogramValue::Float(Arc::new(h)));
    }
    Ok(())
}

fn is_gauge(h: &HistogramValue) -> bool {
    let hint = match h {
        HistogramValue::Integer(h) => h.counter_reset_hint,
        HistogramValue::Float(h) => h.counter_reset_hint,
    };
    hint == CounterResetHint::Gauge
}

/// How many of `samples` (at most `limit`) fit one chunk: one layout, one kind, all gauges or none, no counter
/// reset inside, stale markers only at the end.
pub fn chunk_len(samples: &[(i64, HistogramValue)], limit: usize) -> usize {
    let Some((_, first)) = samples.first() else { return 0 };
    let layout = Layout::of(first);
    let integers = matches!(first, HistogramValue::Integer(_));
    let mut previous = first;
    1 + samples
        .iter()
        .skip(1)
        .take(limit - 1)
        .take_while(|(_, h)| {
            let kind = matches!(h, HistogramValue::Integer(_)) == integers;
            let fits = if h.is_stale() {
                true
            } else {
                !previous.is_stale()
                    && Layout::of(h) == layout
                    && is_gauge(h) == is_gauge(first)
                    && (is_gauge(h) || !resets(previous, h))
            };
            previous = h;
            kind && fits
        })
        .count()
}

/// Whether any count of `after` is below that of `before`, which have the same layout.
fn resets(before: &HistogramValue, after: &HistogramValue) -> bool {
    let (a, b) = (before.to_float(), after.to_float());
    let below = |x: &[f64], y: &[f64]| x.iter().zip(y).any(|(x, y)| y < x);
    b.count < a.count
        || b.zero_count < a.zero_count
        || below(&a.positive_buckets, &b.positive_buckets)
        || below(&a.negative_buckets, &b.negative_buckets)
}

/// Whether the chunk that begins with `next` follows a counter reset: what its header has to say.
pub fn header_flags(before: Option<&HistogramValue>, next: &HistogramValue) -> u8 {
    match before {
        _ if is_gauge(next) => GAUGE,
        Some(b) if !b.is_stale() && !is_gauge(b) && Layout::of(b) == Layout::of(next) => {
            if resets(b, next) {
                RESET
            } else {
                NO_RESET
            }
        }
        _ => 0,
    }
}

/// Writes a histogram chunk of samples for which [`chunk_len`] says that they fit one.
pub fn encode(samples: &[(i64, HistogramValue)], flags: u8) -> Vec<u8> {
    let mut head = (samples.len() as u16).to_be_bytes().to_vec();
    head.push(flags);
    let mut bits = BitWriter::after(head);
    if let Some((_, first)) = samples.first() {
        Layout::of(first).write(&mut bits);
    }
    let mut t = Sloped::default();
    let (mut count, mut zero) = (Sloped::default(), Sloped::default());
    let (mut float_count, mut float_zero, mut sum) = (Xored::default(), Xored::default(), Xored::default());
    let (mut buckets, mut float_buckets) = (Vec::<Sloped>::new(), Vec::<Xored>::new());
    for (i, (time, h)) in samples.iter().enumerate() {
        t.write(i, *time, &mut bits);
        match h {
            HistogramValue::Integer(h) => {
                let stale = is_stale_nan(h.sum);
                // Under a stale marker counts go on as they went, which is a zero bit each.
                let held = |s: &Sloped| if i >= 2 { s.value.wrapping_add(s.slope) } else { s.value };
                let (c, z) = if stale {
                    (held(&count), held(&zero))
                } else {
                    (h.count.cast_signed(), h.zero_count.cast_signed())
                };
                if i == 0 {
                    bits.uvarbit(c.cast_unsigned());
                    bits.uvarbit(z.cast_unsigned());
                    (count.value, zero.value) = (c, z);
                } else {
                    count.write(i, c, &mut bits);
                    zero.write(i, z, &mut bits);
                }
                sum.write(i, h.sum, &mut bits);
                if !stale {
                    let values = h.positive_buckets.iter().chain(&h.negative_buckets);
                    buckets.resize(h.positive_buckets.len() + h.negative_buckets.len(), Sloped::default());
                    for (bucket, v) in buckets.iter_mut().zip(values) {
                        bucket.write(i, *v, &mut bits);
                    }
                }
            }
            HistogramValue::Float(h) => {
                let stale = is_stale_nan(h.sum);
                float_count.write(i, if stale { 0.0 } else { h.count }, &mut bits);
                float_zero.write(i, if stale { 0.0 } else { h.zero_count }, &mut bits);
                sum.write(i, h.sum, &mut bits);
                if !stale {
                    let values = h.positive_buckets.iter().chain(&h.negative_buckets);
                    float_buckets
                        .resize(h.positive_buckets.len() + h.negative_buckets.len(), Xored::default());
                    for (bucket, v) in float_buckets.iter_mut().zip(values) {
                        bucket.write(i, *v, &mut bits);
                    }
                }
            }
        }
    }
    debug_assert!(bits.len() >= 3);
    bits.finish()
}
