//! What does a record of Prometheus's log say? All types are read, of both generations; those that only help
//! Prometheus itself are passed over. The layout is in `docs/format/prometheus-log.md`.

use std::sync::Arc;

use crate::model::Labels;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::metadata::{Metadata, MetricType};
use crate::model::sample::{HistogramValue, Value};
use crate::tsdb::block::bytes::{DecodeError, Input, Result};

const MAX_LABELS: usize = 1 << 16;
const MAX_SPANS: usize = 1 << 14;
const MAX_BUCKETS: usize = 1 << 16;
const MAX_FIELDS: usize = 1 << 8;
/// Finest resolution that is stored; finer ones are reduced to it.
const MAX_SCHEMA: i32 = 8;
/// Finest resolution that a later version may write.
const MAX_RESERVED_SCHEMA: i32 = 52;
const MIN_SCHEMA: i32 = -4;

/// A sample of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Prometheus's number of the series.
    pub series: u64,
    /// Timestamp, milliseconds.
    pub t_ms: i64,
    /// Start timestamp, 0 = unknown.
    pub start_ms: i64,
    /// Value.
    pub value: Value,
}

/// A record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Series with their numbers.
    Series(Vec<(u64, Labels)>),
    /// Samples.
    Samples(Vec<Sample>),
    /// Deletions: series, first and last time.
    Deletions(Vec<(u64, i64, i64)>),
    /// Exemplars: series, time, value, their own labels.
    Exemplars(Vec<(u64, i64, f64, Labels)>),
    /// Metadata of series.
    Metadata(Vec<(u64, Metadata)>),
    /// Nothing that is stored.
    Nothing,
}

impl Record {
    /// Number of samples in it.
    #[must_use]
    pub fn samples(&self) -> usize {
        if let Self::Samples(samples) = self { samples.len() } else { 0 }
    }
}

fn varint(input: &mut Input<'_>) -> Result<u64> {
    input.varint()
}

fn zigzag(input: &mut Input<'_>) -> Result<i64> {
    input.zigzag()
}

fn i64_be(input: &mut Input<'_>) -> Result<i64> {
    input.u64_be().map(u64::cast_signed)
}

fn f64_be(input: &mut Input<'_>) -> Result<f64> {
    input.u64_be().map(f64::from_bits)
}

fn text<'a>(input: &mut Input<'a>) -> Result<&'a str> {
    let len = input.count(input.len())?;
    std::str::from_utf8(input.bytes(len)?).map_err(|_| DecodeError("text is not UTF-8"))
}

fn labels(input: &mut Input<'_>) -> Result<Labels> {
    let n = input.count(MAX_LABELS)?;
    let mut pairs = Vec::with_capacity(n.min(64));
    for _ in 0..n {
        pairs.push((text(input)?, text(input)?));
    }
    Ok(Labels::from_pairs(pairs))
}

fn metric_type(code: u8) -> MetricType {
    match code {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    }
}

fn metadata(input: &mut Input<'_>) -> Result<(u64, Metadata)> {
    let series = input.varint()?;
    let mut found = Metadata { metric_type: metric_type(input.u8()?), ..Metadata::default() };
    for _ in 0..input.count(MAX_FIELDS)? {
        let (name, value) = (text(input)?, text(input)?);
        match name {
            "UNIT" => value.clone_into(&mut found.unit),
            "HELP" => value.clone_into(&mut found.help),
            _ => {}
        }
    }
    Ok((series, found))
}

fn hint(code: u8) -> CounterResetHint {
    match code {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

fn list<T>(
    input: &mut Input<'_>,
    limit: usize,
    mut one: impl FnMut(&mut Input<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let n = input.count(limit)?;
    let mut out = Vec::with_capacity(n.min(256));
    for _ in 0..n {
        out.push(one(input)?);
    }
    Ok(out)
}

fn span(input: &mut Input<'_>) -> Result<Span> {
    let offset = i32::try_from(input.zigzag()?).map_err(|_| DecodeError("impossible span"))?;
    Ok(Span { offset, length: input.varint32()? })
}

fn schema(input: &mut Input<'_>) -> Result<i32> {
    i32::try_from(input.zigzag()?).map_err(|_| DecodeError("impossible schema"))
}

fn custom_bounds(input: &mut Input<'_>, schema: i32) -> Result<Arc<[f64]>> {
    Ok(if schema == CUSTOM_BUCKETS_SCHEMA {
        list(input, MAX_BUCKETS, f64_be)?.into()
    } else {
        Arc::default()
    })
}

/// Whether histograms of a schema are stored, after a reduction if need be.
fn is_known(schema: i32) -> bool {
    schema == CUSTOM_BUCKETS_SCHEMA || (MIN_SCHEMA..=MAX_RESERVED_SCHEMA).contains(&schema)
}

/// A reader of histograms whose counts are read by `$count` and buckets by `$bucket`.
macro_rules! histogram_reader {
    ($name:ident, $kind:ident, $variant:ident, $count:expr, $bucket:expr) => {
        fn $name(input: &mut Input<'_>) -> Result<Option<Value>> {
            let counter_reset_hint = hint(input.u8()?);
            let schema = schema(input)?;
            let zero_threshold = f64_be(input)?;
            let (zero_count, count) = ($count(input)?, $count(input)?);
            let sum = f64_be(input)?;
            let positive_spans = list(input, MAX_SPANS, span)?;
            let negative_spans = list(input, MAX_SPANS, span)?;
            let positive_buckets = list(input, MAX_BUCKETS, $bucket)?;
            let negative_buckets = list(input, MAX_BUCKETS, $bucket)?;
            let custom_values = custom_bounds(input, schema)?;
            let mut found = $kind {
                counter_reset_hint,
                schema,
                zero_threshold,
                zero_count,
                count,
                sum,
                positive_spans,
                negative_spans,
                positive_buckets,
                negative_buckets,
                custom_values,
            };
            if !is_known(schema) {
                return Ok(None);
            }
            // Validation knows no finer resolution; reducing needs buckets that fit their spans.
            found.schema = schema.min(MAX_SCHEMA);
            if found.validate().is_err() && !crate::model::is_stale_nan(sum) {
                return Ok(None);
            }
            if schema > MAX_SCHEMA {
                found.schema = schema;
                found.reduce_resolution(MAX_SCHEMA);
            }
            Ok(Some(Value::Histogram(HistogramValue::$variant(Arc::new(found)))))
        }
    };
}

histogram_reader!(read_histogram, Histogram, Integer, varint, zigzag);
histogram_reader!(read_float_histogram, FloatHistogram, Float, f64_be, f64_be);

/// How the values of a record are written.
type Read = fn(&mut Input<'_>) -> Result<Option<Value>>;

fn read_float(input: &mut Input<'_>) -> Result<Option<Value>> {
    Ok(Some(Value::Float(f64_be(input)?)))
}

/// The first generation: everything relative to a first number and time.
fn samples(input: &mut Input<'_>, read: Read) -> Result<Record> {
    let mut out = Vec::new();
    if input.is_empty() {
        return Ok(Record::Samples(out));
    }
    let (base, base_t) = (input.u64_be()?, i64_be(input)?);
    while !input.is_empty() {
        let series = base.wrapping_add_signed(input.zigzag()?);
        let t_ms = base_t.wrapping_add(input.zigzag()?);
        if let Some(value) = read(input)? {
            out.push(Sample { series, t_ms, start_ms: 0, value });
        }
    }
    Ok(Record::Samples(out))
}

/// The second generation: numbers relative to the sample before, times to the first one, start timestamps.
fn samples_v2(input: &mut Input<'_>, read: Read) -> Result<Record> {
    let mut out = Vec::new();
    let mut first: Option<(i64, i64)> = None;
    let (mut series, mut start_ms) = (0u64, 0);
    while !input.is_empty() {
        let t_ms = match first {
            None => {
                series = input.zigzag()?.cast_unsigned();
                let t_ms = input.zigzag()?;
                start_ms = input.zigzag()?;
                first = Some((t_ms, start_ms));
                t_ms
            }
            Some((first_t, first_start)) => {
                series = series.wrapping_add_signed(input.zigzag()?);
                let t_ms = first_t.wrapping_add(input.zigzag()?);
                start_ms = match input.u8()? {
                    0 => 0,
                    1 => start_ms,
                    _ => first_start.wrapping_add(input.zigzag()?),
                };
                t_ms
            }
        };
        if let Some(value) = read(input)? {
            out.push(Sample { series, t_ms, start_ms, value });
        }
    }
    Ok(Record::Samples(out))
}

/// Reads a record. Histograms that cannot be valid are left out of it.
pub fn decode(bytes: &[u8]) -> Result<Record> {
    let mut input = Input::new(bytes);
    let input = &mut input;
    Ok(match input.u8()? {
        1 => {
            let mut all = Vec::new();
            while !input.is_empty() {
                all.push((input.u64_be()?, labels(input)?));
            }
            Record::Series(all)
        }
        2 => samples(input, read_float)?,
        3 => {
            let mut all = Vec::new();
            while !input.is_empty() {
                all.push((input.u64_be()?, input.zigzag()?, input.zigzag()?));
            }
            Record::Deletions(all)
        }
        4 => {
            let mut all = Vec::new();
            if !input.is_empty() {
                let (base, base_t) = (input.u64_be()?, i64_be(input)?);
                while !input.is_empty() {
                    let series = base.wrapping_add_signed(input.zigzag()?);
                    let t_ms = base_t.wrapping_add(input.zigzag()?);
                    all.push((series, t_ms, f64_be(input)?, labels(input)?));
                }
            }
            Record::Exemplars(all)
        }
        // Places of chunks in files of their own, and the bound of a checkpoint: of no use elsewhere.
        5 | 14 => Record::Nothing,
        6 => {
            let mut all = Vec::new();
            while !input.is_empty() {
                all.push(metadata(input)?);
            }
            Record::Metadata(all)
        }
        7 | 9 => samples(input, read_histogram)?,
        8 | 10 => samples(input, read_float_histogram)?,
        11 => samples_v2(input, read_float)?,
        12 => samples_v2(input, read_histogram)?,
        13 => samples_v2(input, read_float_histogram)?,
        _ => return Err(DecodeError("record has a type that this program does not read")),
    })
}
