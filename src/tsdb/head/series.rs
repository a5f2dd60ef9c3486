//! One series in memory: its labels as numbers, its open chunk, and where its full chunks are.

use super::super::chunk::Damaged;
use super::super::chunk::float::{FloatDecoder, FloatEncoder};
use super::super::chunk::histogram::{HistogramDecoder, HistogramEncoder, same_histogram};
use super::super::index::PairId;
use super::chunks::{ChunkRef, Encoding};
use crate::model::sample::{HistogramValue, Value};
use crate::model::{STALE_NAN_BITS, is_stale_nan};

/// A chunk of floats is full at so many samples: at 15 s that is an hour, which keeps the number of chunks low.
const FLOAT_SAMPLES: u16 = 240;
/// Or at so many bytes.
const FLOAT_BYTES: usize = 1024;
/// A chunk of histograms is full at so many samples, because reading one sample decodes those before it.
const HISTOGRAM_SAMPLES: u16 = 120;
/// Or at so many bytes.
const HISTOGRAM_BYTES: usize = 8192;

/// The chunk that takes in-order samples.
pub enum Open {
    /// None: `last_t_ms` is the time of the newest in-order sample, `i64::MIN` if there was none.
    Empty {
        /// Time of the newest in-order sample.
        last_t_ms: i64,
    },
    /// Floats.
    Float(FloatEncoder),
    /// Histograms.
    Histogram(Box<HistogramEncoder>),
}

impl Open {
    /// Time of the newest in-order sample.
    #[must_use]
    pub fn last_t_ms(&self) -> i64 {
        match self {
            Open::Empty { last_t_ms } => *last_t_ms,
            Open::Float(encoder) => encoder.last_t(),
            Open::Histogram(encoder) => encoder.last_t(),
        }
    }

    /// Encoding, number of samples and bytes of the chunk; `None` if there is none.
    #[must_use]
    pub fn content(&self) -> Option<(Encoding, u16, &[u8])> {
        match self {
            Open::Empty { .. } => None,
            Open::Float(encoder) => Some((Encoding::Float, encoder.count(), encoder.bytes())),
            Open::Histogram(encoder) => Some((Encoding::Histogram, encoder.count(), encoder.bytes())),
        }
    }

    /// Whether a sample of this kind needs a new chunk.
    #[must_use]
    pub fn is_full_for(&self, histogram: bool) -> bool {
        match self {
            Open::Empty { .. } => false,
            Open::Float(e) => histogram || e.count() >= FLOAT_SAMPLES || e.bytes().len() >= FLOAT_BYTES,
            Open::Histogram(e) => {
                !histogram || e.count() >= HISTOGRAM_SAMPLES || e.bytes().len() >= HISTOGRAM_BYTES
            }
        }
    }

    /// Whether the newest sample is at hand and a staleness marker.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Open::Empty { .. } => false,
            Open::Float(encoder) => encoder.last_value_bits() == STALE_NAN_BITS,
            Open::Histogram(encoder) => match encoder.last() {
                Some(HistogramValue::Integer(h)) => is_stale_nan(h.sum),
                Some(HistogramValue::Float(h)) => is_stale_nan(h.sum),
                None => false,
            },
        }
    }

    /// Whether the newest sample is exactly this one; `None` if the newest sample is not at hand.
    #[must_use]
    pub fn is_last(&self, value: &Value) -> Option<bool> {
        match (self, value) {
            (Open::Empty { .. }, _) => None,
            (Open::Float(e), Value::Float(v)) => Some(e.last_value_bits() == v.to_bits()),
            (Open::Histogram(e), Value::Histogram(h)) => Some(e.last().is_some_and(|l| same_histogram(l, h))),
            _ => Some(false),
        }
    }
}

/// An out-of-order sample.
#[derive(Debug, Clone)]
pub struct LateSample {
    /// Timestamp, milliseconds.
    pub t_ms: i64,
    /// Start timestamp, 0 = unknown.
    pub start_ms: i64,
    /// The commit that brought it.
    pub sequence: u64,
    /// Value.
    pub value: Value,
}

/// A series.
pub struct Series {
    /// Persistent id.
    pub id: u64,
    /// Its label pairs in order of name.
    pub pairs: Box<[PairId]>,
    /// The chunk that is being filled.
    pub open: Open,
    /// Time of the first sample of the open chunk.
    pub open_min_t_ms: i64,
    /// Time of the oldest sample; `i64::MAX` if there is none.
    pub min_t_ms: i64,
    /// The newest full chunk.
    pub sealed: ChunkRef,
    /// Out-of-order samples in order of time; most series never have any.
    pub late: Option<Box<Vec<LateSample>>>,
    /// Low bits of the hash of the labels, to find the series again without building them.
    pub hash: u32,
}

impl Series {
    /// A series without samples.
    #[must_use]
    pub fn new(id: u64, pairs: Box<[PairId]>, hash: u32) -> Self {
        Self {
            id,
            pairs,
            open: Open::Empty { last_t_ms: i64::MIN },
            open_min_t_ms: i64::MAX,
            min_t_ms: i64::MAX,
            sealed: ChunkRef::NONE,
            late: None,
            hash,
        }
    }

    /// Time of the newest sample of all; `i64::MIN` if there is none.
    #[must_use]
    pub fn max_t_ms(&self) -> i64 {
        let late = self.late().last().map_or(i64::MIN, |s| s.t_ms);
        self.open.last_t_ms().max(late)
    }

    /// Out-of-order samples in order of time.
    #[must_use]
    pub fn late(&self) -> &[LateSample] {
        self.late.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Adds an in-order sample to the open chunk, which must not be full.
    pub fn push(&mut self, t_ms: i64, start_ms: i64, value: &Value) {
        if matches!(self.open, Open::Empty { .. }) {
            self.open_min_t_ms = t_ms;
            self.open = match value {
                Value::Float(_) => Open::Float(FloatEncoder::default()),
                Value::Histogram(_) => Open::Histogram(Box::default()),
            };
        }
        match (&mut self.open, value) {
            (Open::Float(encoder), Value::Float(v)) => encoder.push(t_ms, start_ms, *v),
            (Open::Histogram(encoder), Value::Histogram(h)) => encoder.push(t_ms, start_ms, h),
            _ => debug_assert!(false, "a full chunk was not closed"),
        }
        self.min_t_ms = self.min_t_ms.min(t_ms);
    }

    /// Adds an out-of-order sample; one at the same time stays as it is.
    pub fn push_late(&mut self, sample: LateSample) {
        self.min_t_ms = self.min_t_ms.min(sample.t_ms);
        let late = self.late.get_or_insert_default();
        if let Err(at) = late.binary_search_by_key(&sample.t_ms, |s| s.t_ms) {
            late.insert(at, sample);
        }
    }

    /// Heap bytes, by estimate.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let open = match &self.open {
            Open::Empty { .. } => 0,
            Open::Float(e) => e.heap_bytes(),
            Open::Histogram(e) => size_of::<HistogramEncoder>() + e.heap_bytes(),
        };
        let late = self.late.as_ref().map_or(0, |l| 24 + l.capacity() * size_of::<LateSample>());
        4 * self.pairs.len() + open + late
    }
}

/// A decoded sample.
pub type Sample = (i64, i64, Value);

/// Calls `each` with every sample of a chunk.
pub fn decode(
    encoding: Encoding,
    count: u16,
    bytes: &[u8],
    mut each: impl FnMut(i64, i64, Value),
) -> Result<(), Damaged> {
    match encoding {
        Encoding::Float => {
            for sample in FloatDecoder::new(bytes, count) {
                let sample = sample?;
                each(sample.t_ms, sample.start_ms, Value::Float(sample.value));
            }
        }
        Encoding::Histogram => {
            for sample in HistogramDecoder::new(bytes, count) {
                let (t, start, value) = sample?;
                each(t, start, Value::Histogram(value));
            }
        }
    }
    Ok(())
}

/// Whether two values are equal to the bit.
#[must_use]
pub fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Histogram(a), Value::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

/// Checks that a histogram does not contradict itself, as Prometheus does before it stores one.
pub fn validate(histogram: &HistogramValue) -> Result<(), String> {
    use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
    let spans_fit = |spans: &[Span], buckets: usize, side: &str| {
        let total: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
        if total != buckets as u64 {
            return Err(format!("{side} side: spans need {total} buckets, have {buckets} buckets"));
        }
        match spans.iter().skip(1).find(|s| s.offset < 0) {
            Some(span) => Err(format!("{side} side: span has a negative offset {}", span.offset)),
            None => Ok(()),
        }
    };
    let (schema, custom, positive, negative, counts) = match histogram {
        HistogramValue::Integer(h) => {
            spans_fit(&h.positive_spans, h.positive_buckets.len(), "positive")?;
            spans_fit(&h.negative_spans, h.negative_buckets.len(), "negative")?;
            let mut total = u128::from(h.zero_count);
            for buckets in [&h.positive_buckets, &h.negative_buckets] {
                let mut current = 0i64;
                for delta in buckets {
                    current = current.checked_add(*delta).ok_or("bucket count overflows")?;
                    total += u128::try_from(current)
                        .map_err(|_| format!("bucket count is negative: {current}"))?;
                }
            }
            let count = u128::from(h.count);
            let fits = if h.sum.is_nan() { total <= count } else { total == count };
            (h.schema, &h.custom_values, h.positive_buckets.len(), h.negative_buckets.len(), fits)
        }
        HistogramValue::Float(h) => {
            spans_fit(&h.positive_spans, h.positive_buckets.len(), "positive")?;
            spans_fit(&h.negative_spans, h.negative_buckets.len(), "negative")?;
            let mut all =
                h.positive_buckets.iter().chain(&h.negative_buckets).chain([&h.zero_count, &h.count]);
            if let Some(negative) = all.find(|v| **v < 0.0) {
                return Err(format!("bucket count is negative: {negative}"));
            }
            (h.schema, &h.custom_values, h.positive_buckets.len(), h.negative_buckets.len(), true)
        }
    };
    if !counts && !histogram.is_stale() {
        return Err("observations found in buckets do not add up to the count".into());
    }
    if schema == CUSTOM_BUCKETS_SCHEMA {
        if negative > 0 || positive > custom.len() + 1 {
            return Err("more buckets than custom bounds".into());
        }
        if custom.windows(2).any(|w| w[0].partial_cmp(&w[1]) != Some(std::cmp::Ordering::Less)) {
            return Err("custom bounds are not ascending".into());
        }
    } else if !(-9..=52).contains(&schema) {
        return Err(format!("unknown schema {schema}"));
    }
    Ok(())
}
