//! The protobuf format: `io.prometheus.client.MetricFamily` messages, each behind its length.

use std::sync::Arc;

use super::labels::pack_pair;
use super::messages::{
    BUCKET, BUCKET_SPAN, COUNTER, EXEMPLAR, GAUGE, HISTOGRAM, LABEL_PAIR, METRIC, METRIC_FAMILY, Message,
    QUANTILE, SUMMARY, TIMESTAMP, UNTYPED,
};
use super::number::normal_nan;
use super::wire::{Part, Value, WireError, check_field, fields, zigzag};
use super::{Family, Form, ParseError, ParseOptions, SampleView, SeriesView, Sink};
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::metadata::{Exemplar, MetricType};
use crate::model::number::format_open_metrics;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, METRIC_NAME};

impl From<WireError> for ParseError {
    fn from(error: WireError) -> Self {
        ParseError::Syntax(error.to_string())
    }
}

fn text<'a>(part: Part<'a>, what: &str) -> Result<&'a str, ParseError> {
    std::str::from_utf8(part.bytes)
        .map_err(|_| ParseError::Syntax(format!("invalid {what}: {}", super::excerpt(part.bytes))))
}

fn scraped(v: f64) -> f64 {
    if v.is_nan() { normal_nan() } else { v }
}

/// Parses a body into `sink`.
pub(super) fn parse<S: Sink>(body: &[u8], options: &ParseOptions, sink: &mut S) -> Result<(), ParseError> {
    let mut body = Part { bytes: body, at: 0 };
    let mut state =
        State { options, family: Family::default(), context: 0, key: Vec::new(), exemplars: Vec::new() };
    while !body.is_empty() {
        let message = body.delimited()?;
        state.metric_family(message, sink)?;
    }
    Ok(())
}

struct State<'o> {
    options: &'o ParseOptions,
    family: Family,
    context: u64,
    /// The packed text of the current series.
    key: Vec<u8>,
    exemplars: Vec<Exemplar>,
}

#[derive(Default)]
struct Metric<'a> {
    value: f64,
    timestamp_ms: Option<i64>,
    start_ms: i64,
    summary: Part<'a>,
    histogram: Part<'a>,
    labels: Vec<Part<'a>>,
}

fn timestamp_ms(message: Part<'_>) -> Result<i64, WireError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    fields(&TIMESTAMP, message, |number, value| {
        match number {
            1 => seconds = value.varint() as i64,
            2 => nanos = value.varint() as i64,
            _ => {}
        }
        Ok::<_, WireError>(())
    })?;
    Ok(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

fn exemplar(message: Part<'_>) -> Result<Exemplar, ParseError> {
    let mut pairs = Vec::new();
    let mut out = Exemplar { labels: Labels::empty(), value: 0.0, timestamp_ms: None };
    fields(&EXEMPLAR, message, |number, value| {
        match number {
            1 => pairs.push(label_pair(value.bytes())?),
            2 => out.value = scraped(value.double()),
            3 => out.timestamp_ms = Some(timestamp_ms(value.bytes())?),
            _ => {}
        }
        Ok::<_, ParseError>(())
    })?;
    out.labels = Labels::from_pairs(pairs);
    Ok(out)
}

fn label_pair(message: Part<'_>) -> Result<(&str, &str), ParseError> {
    let (mut name, mut value) = ("", "");
    fields(&LABEL_PAIR, message, |number, field| {
        match number {
            1 => name = text(field.bytes(), "label name")?,
            2 => value = text(field.bytes(), "label value")?,
            _ => {}
        }
        Ok::<_, ParseError>(())
    })?;
    Ok((name, value))
}

#[derive(Default)]
struct Bucket {
    count: f64,
    upper_bound: f64,
}

/// One side of a native histogram as the message has it.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

#[derive(Default)]
struct NativeParts {
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    positive: Side,
    negative: Side,
}

#[derive(Default)]
struct HistogramParts {
    count: u64,
    count_float: f64,
    sum: f64,
    start_ms: i64,
    buckets: Vec<Bucket>,
    /// Exemplar of the bucket with this index.
    bucket_exemplars: Vec<(usize, Exemplar)>,
    own_exemplars: Vec<Exemplar>,
    native: NativeParts,
}

impl State<'_> {
    fn metric_family<S: Sink>(&mut self, message: Part<'_>, sink: &mut S) -> Result<(), ParseError> {
        let (mut name, mut help, mut unit): (Part<'_>, Part<'_>, Part<'_>) = Default::default();
        let mut kind = 0;
        let mut metrics = 0usize;
        fields(&METRIC_FAMILY, message, |number, value| {
            match number {
                1 => name = value.bytes(),
                2 => help = value.bytes(),
                3 => kind = value.varint(),
                4 => metrics += 1,
                5 => unit = value.bytes(),
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        if metrics == 0 {
            return Ok(());
        }
        let name = text(name, "metric name")?;
        if name.is_empty() {
            return Err(ParseError::Syntax("invalid metric name: ".into()));
        }
        let help = text(help, "help")?;
        let unit = text(unit, "unit")?;
        let metric_type = match kind {
            0 => MetricType::Counter,
            1 => MetricType::Gauge,
            2 => MetricType::Summary,
            3 => MetricType::Unknown,
            4 => MetricType::Histogram,
            5 => MetricType::GaugeHistogram,
            other => {
                return Err(ParseError::Syntax(format!(
                    "unknown metric type for metric {:?}: {other}",
                    super::excerpt(name.as_bytes())
                )));
            }
        };
        self.family.enter(name);
        self.family.metric_type = metric_type;
        self.family.unit.clear();
        self.family.unit.push_str(unit);
        self.context = self.family.context(self.options);
        sink.help(name, help)?;
        if !unit.is_empty() {
            sink.unit(name, unit)?;
        }
        sink.metric_type(name, metric_type)?;
        fields(&METRIC_FAMILY, message, |number, value| match number {
            4 => self.metric(value.bytes(), sink),
            _ => Ok(()),
        })
    }

    fn metric<S: Sink>(&mut self, message: Part<'_>, sink: &mut S) -> Result<(), ParseError> {
        let mut metric = Metric::default();
        self.exemplars.clear();
        let exemplars = &mut self.exemplars;
        let mut simple = |metric: &mut Metric<'_>, kind: &Message, message| {
            fields(kind, message, |number, value| {
                match number {
                    1 => metric.value = scraped(value.double()),
                    2 => exemplars.push(exemplar(value.bytes())?),
                    3 => metric.start_ms = timestamp_ms(value.bytes())?,
                    _ => {}
                }
                Ok::<_, ParseError>(())
            })
        };
        let expected = match self.family.metric_type {
            MetricType::Gauge => 2,
            MetricType::Counter => 3,
            MetricType::Summary => 4,
            MetricType::Unknown => 5,
            _ => 7,
        };
        fields(&METRIC, message, |number, value| {
            match number {
                1 => metric.labels.push(value.bytes()),
                2 if expected == 2 => simple(&mut metric, &GAUGE, value.bytes())?,
                3 if expected == 3 => simple(&mut metric, &COUNTER, value.bytes())?,
                4 if expected == 4 => metric.summary = value.bytes(),
                5 if expected == 5 => simple(&mut metric, &UNTYPED, value.bytes())?,
                6 => metric.timestamp_ms = Some(value.varint() as i64),
                7 if expected == 7 => metric.histogram = value.bytes(),
                // Values of other types than that of the family.
                _ => check_field(&METRIC, number, value)?,
            }
            Ok::<_, ParseError>(())
        })?;
        match self.family.metric_type {
            MetricType::Summary => self.summary(&metric, sink),
            MetricType::Histogram | MetricType::GaugeHistogram => self.histogram(&metric, sink),
            _ => {
                self.start_key("", &metric)?;
                let sample = SampleView {
                    value: metric.value,
                    timestamp_ms: metric.timestamp_ms,
                    start_ms: metric.start_ms,
                    exemplars: &self.exemplars,
                };
                Ok(sink.series(&self.view(), &sample, false)?)
            }
        }
    }

    fn view(&self) -> SeriesView<'_> {
        SeriesView {
            text: &self.key,
            valid: None,
            form: Form::Packed,
            family: &self.family,
            options: self.options,
            context: self.context,
        }
    }

    fn start_key(&mut self, suffix: &str, metric: &Metric<'_>) -> Result<(), ParseError> {
        self.key.clear();
        pack_pair(&mut self.key, METRIC_NAME, &[&self.family.name, suffix]);
        for label in &metric.labels {
            let (name, value) = label_pair(*label)?;
            pack_pair(&mut self.key, name, &[value]);
        }
        Ok(())
    }

    fn emit<S: Sink>(
        &mut self,
        sink: &mut S,
        suffix: &str,
        extra: Option<(&str, f64)>,
        metric: &Metric<'_>,
        value: f64,
        exemplars: &[Exemplar],
    ) -> Result<(), ParseError> {
        self.start_key(suffix, metric)?;
        if let Some((name, bound)) = extra {
            pack_pair(&mut self.key, name, &[&format_open_metrics(bound)]);
        }
        let sample = SampleView {
            value: scraped(value),
            timestamp_ms: metric.timestamp_ms,
            start_ms: metric.start_ms,
            exemplars,
        };
        Ok(sink.series(&self.view(), &sample, false)?)
    }

    fn summary<S: Sink>(&mut self, metric: &Metric<'_>, sink: &mut S) -> Result<(), ParseError> {
        let (mut count, mut sum, mut start_ms) = (0u64, 0.0, 0);
        let mut quantiles = Vec::new();
        fields(&SUMMARY, metric.summary, |number, value| {
            match number {
                1 => count = value.varint(),
                2 => sum = value.double(),
                3 => {
                    let (mut quantile, mut v) = (0.0, 0.0);
                    fields(&QUANTILE, value.bytes(), |number, value| {
                        match number {
                            1 => quantile = value.double(),
                            2 => v = value.double(),
                            _ => {}
                        }
                        Ok::<_, WireError>(())
                    })?;
                    quantiles.push((quantile, v));
                }
                4 => start_ms = timestamp_ms(value.bytes())?,
                _ => {}
            }
            Ok::<_, WireError>(())
        })?;
        let metric = Metric { start_ms, labels: metric.labels.clone(), ..*metric };
        self.emit(sink, "_count", None, &metric, count as f64, &[])?;
        self.emit(sink, "_sum", None, &metric, sum, &[])?;
        for (quantile, value) in quantiles {
            self.emit(sink, "", Some(("quantile", quantile)), &metric, value, &[])?;
        }
        Ok(())
    }

    fn histogram<S: Sink>(&mut self, metric: &Metric<'_>, sink: &mut S) -> Result<(), ParseError> {
        let parts = HistogramParts::read(metric.histogram)?;
        let metric = Metric { start_ms: parts.start_ms, labels: metric.labels.clone(), ..*metric };
        let is_native = parts.native.is_present() && self.options.scrape_native_histograms;
        if is_native {
            let gauge = self.family.metric_type == MetricType::GaugeHistogram;
            let histogram = parts.to_native(&self.family.name, gauge)?;
            self.start_key("", &metric)?;
            // A native exemplar without a time could not be told from its repetition at the next scrape.
            let with_time = |e: &&Exemplar| e.timestamp_ms.is_some();
            let exemplars: Vec<Exemplar> = if parts.own_exemplars.is_empty() {
                parts.bucket_exemplars.iter().map(|(_, e)| e).filter(with_time).cloned().collect()
            } else {
                parts.own_exemplars.iter().filter(with_time).cloned().collect()
            };
            let sample = SampleView {
                value: 0.0,
                timestamp_ms: metric.timestamp_ms,
                start_ms: metric.start_ms,
                exemplars: &exemplars,
            };
            sink.histogram(&self.view(), histogram, &sample)?;
            if !self.options.always_scrape_classic_histograms || parts.buckets.is_empty() {
                return Ok(());
            }
        }
        sink.native_exemplars(&parts.own_exemplars);
        let count = if parts.count_float > 0.0 { parts.count_float } else { parts.count as f64 };
        self.emit(sink, "_count", None, &metric, count, &[])?;
        self.emit(sink, "_sum", None, &metric, parts.sum, &[])?;
        let mut infinite = false;
        let mut exemplars = parts.bucket_exemplars.iter().peekable();
        for (i, bucket) in parts.buckets.iter().enumerate() {
            let own = exemplars.next_if(|(at, _)| *at == i).map(|(_, exemplar)| exemplar);
            infinite |= bucket.upper_bound == f64::INFINITY;
            let le = Some(("le", bucket.upper_bound));
            self.emit(sink, "_bucket", le, &metric, bucket.count, own.map_or(&[], std::slice::from_ref))?;
        }
        if !infinite {
            self.emit(sink, "_bucket", Some(("le", f64::INFINITY)), &metric, count, &[])?;
        }
        Ok(())
    }
}

fn span(message: Part<'_>) -> Result<Span, WireError> {
    let mut span = Span::default();
    fields(&BUCKET_SPAN, message, |number, value| {
        match number {
            1 => span.offset = zigzag(value.varint()) as i32,
            2 => span.length = value.varint() as u32,
            _ => {}
        }
        Ok::<_, WireError>(())
    })?;
    Ok(span)
}

/// A repeated `sint64`, packed or one by one.
fn push_deltas(value: Value<'_>, out: &mut Vec<i64>) -> Result<(), WireError> {
    match value {
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                out.push(zigzag(packed.varint()?));
            }
        }
        single => out.push(zigzag(single.varint())),
    }
    Ok(())
}

/// A repeated `double`, packed or one by one.
fn push_counts(value: Value<'_>, out: &mut Vec<f64>) -> Result<(), WireError> {
    match value {
        Value::Bytes(packed) => {
            let (chunks, rest) = packed.bytes.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(packed.error("cut packed doubles"));
            }
            out.extend(chunks.iter().map(|bytes| f64::from_le_bytes(*bytes)));
        }
        single => out.push(single.double()),
    }
    Ok(())
}

impl NativeParts {
    /// Whether the message has a native part; a span of length 0 marks an empty one.
    fn is_present(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
            || self.zero_count_float > 0.0
    }
}

impl HistogramParts {
    fn read(message: Part<'_>) -> Result<Self, ParseError> {
        let mut parts = Self::default();
        fields(&HISTOGRAM, message, |number, value| {
            let native = &mut parts.native;
            match number {
                1 => parts.count = value.varint(),
                2 => parts.sum = scraped(value.double()),
                3 => {
                    let (mut bucket, mut count, mut found) = (Bucket::default(), 0u64, None);
                    fields(&BUCKET, value.bytes(), |number, value| {
                        match number {
                            1 => count = value.varint(),
                            2 => bucket.upper_bound = value.double(),
                            3 => found = Some(exemplar(value.bytes())?),
                            4 => bucket.count = value.double(),
                            _ => {}
                        }
                        Ok::<_, ParseError>(())
                    })?;
                    if bucket.count <= 0.0 {
                        bucket.count = count as f64;
                    }
                    parts.bucket_exemplars.extend(found.map(|e| (parts.buckets.len(), e)));
                    parts.buckets.push(bucket);
                }
                4 => parts.count_float = value.double(),
                5 => native.schema = zigzag(value.varint()) as i32,
                6 => native.zero_threshold = value.double(),
                7 => native.zero_count = value.varint(),
                8 => native.zero_count_float = value.double(),
                9 => native.negative.spans.push(span(value.bytes())?),
                10 => push_deltas(value, &mut native.negative.deltas)?,
                11 => push_counts(value, &mut native.negative.counts)?,
                12 => native.positive.spans.push(span(value.bytes())?),
                13 => push_deltas(value, &mut native.positive.deltas)?,
                14 => push_counts(value, &mut native.positive.counts)?,
                15 => parts.start_ms = timestamp_ms(value.bytes())?,
                16 => parts.own_exemplars.push(exemplar(value.bytes())?),
                _ => {}
            }
            Ok::<_, ParseError>(())
        })?;
        Ok(parts)
    }

    fn to_native(&self, name: &str, gauge: bool) -> Result<HistogramValue, ParseError> {
        let counter_reset_hint = if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
        let native = &self.native;
        let invalid = |side: &str, why: String| {
            let name = super::excerpt(name.as_bytes());
            ParseError::Syntax(format!("histogram {name:?}: {side} side: {why}"))
        };
        if self.count_float > 0.0 || native.zero_count_float > 0.0 {
            let side =
                |side: &Side, what| compact(&side.spans, &side.counts).map_err(|why| invalid(what, why));
            let (positive_spans, positive_buckets) = side(&native.positive, "positive")?;
            let (negative_spans, negative_buckets) = side(&native.negative, "negative")?;
            return Ok(HistogramValue::Float(Arc::new(FloatHistogram {
                counter_reset_hint,
                schema: native.schema,
                zero_threshold: native.zero_threshold,
                zero_count: native.zero_count_float,
                count: self.count_float,
                sum: self.sum,
                positive_spans,
                negative_spans,
                positive_buckets,
                negative_buckets,
                custom_values: Arc::from([]),
            })));
        }
        let side = |side: &Side, what| {
            let mut total = 0i64;
            let absolute: Vec<i64> = side
                .deltas
                .iter()
                .map(|delta| {
                    total = total.wrapping_add(*delta);
                    total
                })
                .collect();
            if let Some(negative) = absolute.iter().find(|count| **count < 0) {
                return Err(invalid(what, format!("a bucket has the negative count {negative}")));
            }
            let (spans, counts) = compact(&side.spans, &absolute).map_err(|why| invalid(what, why))?;
            let mut before = 0;
            let deltas = counts.iter().map(|count| count - std::mem::replace(&mut before, *count)).collect();
            Ok::<_, ParseError>((spans, deltas))
        };
        let (positive_spans, positive_buckets) = side(&native.positive, "positive")?;
        let (negative_spans, negative_buckets) = side(&native.negative, "negative")?;
        Ok(HistogramValue::Integer(Arc::new(Histogram {
            counter_reset_hint,
            schema: native.schema,
            zero_threshold: native.zero_threshold,
            zero_count: native.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: Arc::from([]),
        })))
    }
}

/// Checks spans against counts and leaves out empty buckets.
fn compact<N: Copy + Default + PartialEq>(
    spans: &[Span],
    counts: &[N],
) -> Result<(Vec<Span>, Vec<N>), String> {
    let needed: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if needed != counts.len() as u64 {
        return Err(format!("spans require {needed} buckets, have {}", counts.len()));
    }
    let (mut out_spans, mut out_counts): (Vec<Span>, Vec<N>) = (Vec::new(), Vec::new());
    let mut index = 0i64;
    let mut next_out = 0i64;
    let mut rest = counts;
    for (i, span) in spans.iter().enumerate() {
        if i > 0 && span.offset < 0 {
            return Err(format!("span number {} has the negative offset {}", i + 1, span.offset));
        }
        index += i64::from(span.offset);
        let (own, after) = rest.split_at_checked(span.length as usize).unwrap_or((rest, &[]));
        rest = after;
        for count in own {
            if *count != N::default() {
                let gap =
                    i32::try_from(index - next_out).map_err(|_| "bucket index out of range".to_owned())?;
                match out_spans.last_mut() {
                    Some(last) if gap == 0 => last.length += 1,
                    _ => out_spans.push(Span { offset: gap, length: 1 }),
                }
                out_counts.push(*count);
                next_out = index + 1;
            }
            index += 1;
        }
    }
    Ok((out_spans, out_counts))
}
