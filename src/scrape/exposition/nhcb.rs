//! How does a classic histogram become a native one with custom buckets (schema −53, "NHCB")?
//!
//! [`NhcbSink`] stands between parser and sink. It gathers the consecutive series of one classic histogram and hands
//! on one native sample when the next thing comes. Bucket counts that go down make the histogram inconsistent:
//! nothing is handed on for it. Series of other types pass through.

use std::sync::Arc;

use super::labels::pack_pair;
use super::{Family, Form, PairBuffer, ParseOptions, SampleView, SeriesView, Sink, Stop, parse_float};
use crate::model::METRIC_NAME;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, Span};
use crate::model::metadata::{Exemplar, MetricType};
use crate::model::sample::HistogramValue;

/// Most buckets of one converted histogram.
const MAX_BUCKETS: usize = 100_000;

#[derive(Default)]
struct Gathering {
    /// Packed labels of the native series; empty while nothing is gathered.
    key: Vec<u8>,
    family: Family,
    context: u64,
    /// Upper bound and cumulative count.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    timestamp_ms: Option<i64>,
    start_ms: i64,
    exemplars: Vec<Exemplar>,
}

/// The converting sink.
pub struct NhcbSink<'s, S> {
    inner: &'s mut S,
    options: ParseOptions,
    /// Protobuf leaves out exemplars of native histograms that have no timestamp.
    exemplars_need_time: bool,
    pairs: PairBuffer,
    key: Vec<u8>,
    gathering: Gathering,
    /// The labels of the last histogram that came in native form; its classic series are not converted.
    last_native: Vec<u8>,
    /// Exemplars of the native form, to use instead of those of the buckets.
    native_exemplars: Vec<Exemplar>,
}

enum Role {
    Bucket(f64),
    Count,
    Sum,
}

impl<'s, S: Sink> NhcbSink<'s, S> {
    /// A sink in front of `inner`.
    pub fn new(inner: &'s mut S, exemplars_need_time: bool, options: ParseOptions) -> Self {
        Self {
            inner,
            options,
            exemplars_need_time,
            pairs: PairBuffer::default(),
            key: Vec::new(),
            gathering: Gathering::default(),
            last_native: Vec::new(),
            native_exemplars: Vec::new(),
        }
    }

    /// Hands on what is still gathered.
    ///
    /// # Errors
    ///
    /// The inner sink stopped.
    pub fn finish(mut self) -> Result<(), Stop> {
        self.flush()
    }

    fn pack_base(&mut self, family: &str) {
        self.key.clear();
        pack_pair(&mut self.key, METRIC_NAME, &[family]);
        for label in self.pairs.iter() {
            if label.name != METRIC_NAME && label.name != "le" {
                pack_pair(&mut self.key, label.name, &[label.value]);
            }
        }
    }

    /// What the series is to its histogram, with the key in `self.key`; `None` for series to leave alone.
    fn role(&mut self, series: &SeriesView<'_>) -> Option<Role> {
        let family = series.family();
        if family.metric_type != MetricType::Histogram || series.labels(&mut self.pairs).is_err() {
            return None;
        }
        let suffix = self.pairs.get(METRIC_NAME).strip_prefix(family.name.as_str())?;
        let role = match suffix {
            "_bucket" => {
                Role::Bucket(parse_float(self.pairs.get("le").as_bytes()).ok().filter(|b| !b.is_nan())?)
            }
            "_count" => Role::Count,
            "_sum" => Role::Sum,
            _ => return None,
        };
        self.pack_base(&family.name);
        (self.key != self.last_native).then_some(role)
    }

    fn gather(&mut self, series: &SeriesView<'_>, role: &Role, sample: &SampleView<'_>) -> Result<(), Stop> {
        if self.gathering.key != self.key {
            self.flush()?;
            std::mem::swap(&mut self.gathering.key, &mut self.key);
            self.gathering.family.clone_from(series.family());
            self.gathering.context = series.context();
        }
        let gathering = &mut self.gathering;
        match role {
            Role::Bucket(bound) if gathering.buckets.len() < MAX_BUCKETS => {
                gathering.buckets.push((*bound, sample.value));
            }
            Role::Bucket(_) => {}
            Role::Count => gathering.count = Some(sample.value),
            Role::Sum => gathering.sum = sample.value,
        }
        gathering.timestamp_ms = sample.timestamp_ms;
        if sample.start_ms != 0 {
            gathering.start_ms = sample.start_ms;
        }
        let wanted =
            sample.exemplars.iter().filter(|e| !self.exemplars_need_time || e.timestamp_ms.is_some());
        gathering.exemplars.extend(wanted.cloned());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.gathering.key.is_empty() {
            return Ok(());
        }
        let mut gathering = std::mem::take(&mut self.gathering);
        if !self.native_exemplars.is_empty() {
            gathering.exemplars = std::mem::take(&mut self.native_exemplars);
        }
        let Some(histogram) = convert(gathering.buckets, gathering.count, gathering.sum) else {
            return Ok(());
        };
        let series = SeriesView {
            text: &gathering.key,
            valid: None,
            form: Form::Packed,
            family: &gathering.family,
            options: &self.options,
            context: gathering.context,
        };
        let sample = SampleView {
            value: 0.0,
            timestamp_ms: gathering.timestamp_ms,
            start_ms: gathering.start_ms,
            exemplars: &gathering.exemplars,
        };
        self.inner.histogram(&series, histogram, &sample)
    }
}

/// The native form; `None` if counts go down, are negative, or contradict the total.
fn convert(mut buckets: Vec<(f64, f64)>, count: Option<f64>, sum: f64) -> Option<HistogramValue> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets.dedup_by(|a, b| a.0 == b.0);
    let highest = buckets.last().map_or(0.0, |last| last.1);
    let count = count.unwrap_or(highest);
    let bounds: Vec<f64> = buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
    let mut cumulative: Vec<f64> = buckets.iter().filter(|b| b.0 != f64::INFINITY).map(|b| b.1).collect();
    cumulative.push(buckets.last().filter(|b| b.0 == f64::INFINITY).map_or(count, |b| b.1));
    if bounds.len() + 1 != cumulative.len() {
        return None;
    }
    let mut before = 0.0;
    let mut counts = Vec::with_capacity(cumulative.len());
    for total in cumulative {
        // Also refuses NaN.
        if !(total >= before && total.is_finite()) {
            return None;
        }
        counts.push(total - before);
        before = total;
    }
    if before != count {
        return None;
    }
    let mut spans: Vec<Span> = Vec::new();
    let mut populated: Vec<f64> = Vec::new();
    let mut gap = 0;
    for own in counts {
        if own == 0.0 {
            gap += 1;
            continue;
        }
        match spans.last_mut() {
            Some(last) if gap == 0 => last.length += 1,
            _ => spans.push(Span { offset: gap, length: 1 }),
        }
        gap = 0;
        populated.push(own);
    }
    let custom_values: Arc<[f64]> = Arc::from(bounds);
    let whole = |v: &f64| v.fract() == 0.0 && *v < 9e15;
    if whole(&count) && populated.iter().all(whole) {
        let mut last = 0;
        let deltas = populated
            .iter()
            .map(|v| {
                let v = *v as i64;
                v - std::mem::replace(&mut last, v)
            })
            .collect();
        return Some(HistogramValue::Integer(Arc::new(Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: count as u64,
            sum,
            positive_spans: spans,
            positive_buckets: deltas,
            custom_values,
            ..Histogram::default()
        })));
    }
    Some(HistogramValue::Float(Arc::new(FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum,
        positive_spans: spans,
        positive_buckets: populated,
        custom_values,
        ..FloatHistogram::default()
    })))
}

impl<S: Sink> Sink for NhcbSink<'_, S> {
    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        self.flush()?;
        self.inner.help(family, text)
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        self.flush()?;
        self.inner.metric_type(family, metric_type)
    }

    fn unit(&mut self, family: &str, unit: &str) -> Result<(), Stop> {
        self.flush()?;
        self.inner.unit(family, unit)
    }

    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, known: bool) -> Result<(), Stop> {
        if let Some(role) = self.role(series) {
            self.gather(series, &role, sample)?;
            if self.options.always_scrape_classic_histograms {
                self.inner.series(series, sample, known)?;
            }
            return Ok(());
        }
        self.flush()?;
        self.inner.series(series, sample, known)
    }

    fn native_exemplars(&mut self, exemplars: &[Exemplar]) {
        // What is gathered belongs to the histogram before; a stop comes up again at the next call.
        let _ = self.flush();
        self.native_exemplars.clear();
        self.native_exemplars.extend(exemplars.iter().filter(|e| e.timestamp_ms.is_some()).cloned());
    }

    fn histogram(
        &mut self,
        series: &SeriesView<'_>,
        histogram: HistogramValue,
        sample: &SampleView<'_>,
    ) -> Result<(), Stop> {
        self.flush()?;
        self.last_native.clear();
        if series.labels(&mut self.pairs).is_ok() {
            self.pack_base(&series.family().name);
            std::mem::swap(&mut self.last_native, &mut self.key);
        }
        self.inner.histogram(series, histogram, sample)
    }
}
