//! What is in a remote-write request? The messages of `prometheus.WriteRequest` (1.0) and
//! `io.prometheus.write.v2.Request` (2.0), read in place; field numbers are those of the published schemas.

use std::sync::Arc;

use super::wire::{Field, Fields, WireError, unzigzag};
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::metadata::MetricType;
use crate::model::sample::HistogramValue;

/// Most buckets or spans of one histogram.
const MAX_BUCKETS: usize = 1 << 16;
/// Most labels of one series.
pub const MAX_LABELS: usize = 1024;

/// A float sample.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// Value.
    pub value: f64,
    /// Milliseconds.
    pub t_ms: i64,
    /// Start timestamp, milliseconds, 0 = unknown (2.0 only).
    pub start_ms: i64,
}

/// Reads a `Sample`.
pub fn sample(message: &[u8]) -> Result<Sample, WireError> {
    let mut out = Sample::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => out.value = field.double()?,
            2 => out.t_ms = field.signed()?,
            3 => out.start_ms = field.signed()?,
            _ => {}
        }
    }
    Ok(out)
}

/// A histogram sample.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSample {
    /// Milliseconds.
    pub t_ms: i64,
    /// Start timestamp, milliseconds, 0 = unknown (2.0 only).
    pub start_ms: i64,
    /// The histogram.
    pub value: HistogramValue,
}

fn span(field: &Field<'_>) -> Result<Span, WireError> {
    let mut out = Span::default();
    let mut fields = Fields::new(field.bytes()?);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => out.offset = field.zigzag32()?,
            2 => out.length = field.unsigned()? as u32,
            _ => {}
        }
    }
    Ok(out)
}

fn push<T>(out: &mut Vec<T>, value: T) -> Result<(), WireError> {
    if out.len() >= MAX_BUCKETS {
        return Err(WireError::Limit("a histogram has more than 65536 buckets"));
    }
    out.push(value);
    Ok(())
}

/// Reads a `Histogram`, which has the same fields in both versions.
pub fn histogram(message: &[u8]) -> Result<HistogramSample, WireError> {
    let (mut int, mut float) = (Histogram::default(), FloatHistogram::default());
    let mut is_float = false;
    let (mut t_ms, mut start_ms) = (0, 0);
    let mut custom = Vec::new();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => int.count = field.unsigned()?,
            2 => {
                float.count = field.double()?;
                is_float = true;
            }
            3 => int.sum = field.double()?,
            4 => int.schema = field.zigzag32()?,
            5 => int.zero_threshold = field.double()?,
            6 => int.zero_count = field.unsigned()?,
            7 => float.zero_count = field.double()?,
            8 => push(&mut int.negative_spans, span(&field)?)?,
            9 => field.each_varint(|v| push(&mut int.negative_buckets, unzigzag(v)))?,
            10 => field.each_double(|v| float.negative_buckets.push(v))?,
            11 => push(&mut int.positive_spans, span(&field)?)?,
            12 => field.each_varint(|v| push(&mut int.positive_buckets, unzigzag(v)))?,
            13 => field.each_double(|v| float.positive_buckets.push(v))?,
            14 => {
                int.counter_reset_hint = match field.unsigned()? {
                    1 => CounterResetHint::Reset,
                    2 => CounterResetHint::NotReset,
                    3 => CounterResetHint::Gauge,
                    _ => CounterResetHint::Unknown,
                };
            }
            15 => t_ms = field.signed()?,
            16 => field.each_double(|v| custom.push(v))?,
            17 => start_ms = field.signed()?,
            _ => {}
        }
        if [custom.len(), float.negative_buckets.len(), float.positive_buckets.len()]
            .iter()
            .any(|n| *n > MAX_BUCKETS)
        {
            return Err(WireError::Limit("a histogram has more than 65536 buckets"));
        }
    }
    int.custom_values = Arc::from(custom);
    let value = if is_float {
        float.counter_reset_hint = int.counter_reset_hint;
        float.schema = int.schema;
        float.zero_threshold = int.zero_threshold;
        float.sum = int.sum;
        float.positive_spans = int.positive_spans;
        float.negative_spans = int.negative_spans;
        float.custom_values = int.custom_values;
        HistogramValue::Float(Arc::new(float))
    } else {
        HistogramValue::Integer(Arc::new(int))
    };
    Ok(HistogramSample { t_ms, start_ms, value })
}

/// Reads a `Label` of version 1.0. Texts are checked for UTF-8 later, where a bad one only skips its series.
pub fn label(message: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut name, mut value) = (&[][..], &[][..]);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// An exemplar whose labels are still in wire form.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RawExemplar<'a> {
    /// Labels of version 1.0, one message each.
    pub labels: Vec<&'a [u8]>,
    /// Symbol references of version 2.0.
    pub references: Vec<u32>,
    /// Value.
    pub value: f64,
    /// Milliseconds.
    pub t_ms: i64,
}

/// Reads an `Exemplar` of version 1.0 or 2.0: they differ in field 1 only.
pub fn exemplar(message: &[u8], symbols: bool) -> Result<RawExemplar<'_>, WireError> {
    let mut out = RawExemplar::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 if symbols => field.each_varint(|v| push_reference(&mut out.references, v))?,
            1 => {
                if out.labels.len() >= MAX_LABELS {
                    return Err(WireError::Limit("an exemplar has more than 1024 labels"));
                }
                out.labels.push(field.bytes()?);
            }
            2 => out.value = field.double()?,
            3 => out.t_ms = field.signed()?,
            _ => {}
        }
    }
    Ok(out)
}

/// Adds one symbol reference.
pub fn push_reference(out: &mut Vec<u32>, reference: u64) -> Result<(), WireError> {
    if out.len() >= 2 * MAX_LABELS {
        return Err(WireError::Limit("a series has more than 1024 labels"));
    }
    out.push(u32::try_from(reference).map_err(|_| WireError::Overflow)?);
    Ok(())
}

/// The metric type of a number; both versions count alike.
#[must_use]
pub fn metric_type(number: u64) -> MetricType {
    match number {
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

/// Metadata of a metric family; texts of version 2.0 are symbol references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawMetadata<'a> {
    /// Type.
    pub metric_type: MetricType,
    /// Family name (1.0).
    pub family: &'a str,
    /// Help (1.0).
    pub help: &'a str,
    /// Unit (1.0).
    pub unit: &'a str,
    /// Help (2.0).
    pub help_ref: u32,
    /// Unit (2.0).
    pub unit_ref: u32,
}

/// Reads `MetricMetadata` of version 1.0.
pub fn metadata_v1(message: &[u8]) -> Result<RawMetadata<'_>, WireError> {
    let mut out = RawMetadata::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => out.metric_type = metric_type(field.unsigned()?),
            2 => out.family = field.text()?,
            4 => out.help = field.text()?,
            5 => out.unit = field.text()?,
            _ => {}
        }
    }
    Ok(out)
}

/// Reads `Metadata` of version 2.0.
pub fn metadata_v2(message: &[u8]) -> Result<RawMetadata<'static>, WireError> {
    let mut out = RawMetadata::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => out.metric_type = metric_type(field.unsigned()?),
            3 => out.help_ref = u32::try_from(field.unsigned()?).map_err(|_| WireError::Overflow)?,
            4 => out.unit_ref = u32::try_from(field.unsigned()?).map_err(|_| WireError::Overflow)?,
            _ => {}
        }
    }
    Ok(out)
}
