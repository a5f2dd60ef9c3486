//! What series does an export request make? Resources become `job`, `instance` and `target_info`, points become samples
//! with the labels of their attributes. The rules are those of OpenTelemetry's compatibility specification as
//! Prometheus applies them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::delta::DeltaStore;
use super::model::{
    AnyValue, Attributes, Data, ExponentialPoint, HistogramPoint, Metric, NumberPoint, OtlpExemplar, Point,
    ResourceMetrics, ScopeMetrics, SummaryPoint, Temporality,
};
use super::names::{NameOf, label_name, metric_name};
use super::shapes::{MAX_BUCKETS, custom_buckets, native_of};
use crate::config::OtlpConfig;
use crate::model::metadata::{Exemplar, Metadata, MetricType};
use crate::model::number::format_plain;
use crate::model::sample::{HistogramValue, Value, stale_nan};
use crate::model::{Labels, METRIC_NAME};

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE: &str = "service.instance.id";
const IDENTIFYING: [&str; 3] = [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE];
/// Most bytes of labels that one request may make: a histogram repeats its labels for each bucket.
const MAX_LABEL_BYTES: usize = 256 << 20;
/// Most samples of `target_info` for one resource.
const MAX_INFO_SAMPLES: i64 = 1000;
/// Longest texts of exemplar labels, characters.
const MAX_EXEMPLAR_LABELS: usize = 128;

/// What to do with points that count since the point before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeltaMode {
    /// Refuse them.
    #[default]
    Refuse,
    /// Add them up (feature `otlp-deltatocumulative`).
    AddUp,
    /// Store them as they are (feature `otlp-native-delta-ingestion`).
    Keep,
}

/// How requests are translated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `otlp`
    pub config: OtlpConfig,
    /// Distance of samples of `target_info`, milliseconds.
    pub info_every_ms: i64,
    /// Points that count since the point before.
    pub delta: DeltaMode,
    /// Whether start timestamps are stored.
    pub start_timestamps: bool,
}

/// One sample.
#[derive(Debug, Clone)]
pub struct OutSample {
    /// Its series.
    pub labels: Labels,
    /// Start, milliseconds, 0 = unknown.
    pub start_ms: i64,
    /// Time, milliseconds.
    pub t_ms: i64,
    /// Value.
    pub value: Value,
    /// Exemplars.
    pub exemplars: Vec<Exemplar>,
}

/// Takes what a request makes, in order.
pub trait Sink {
    /// A sample.
    fn sample(&mut self, sample: OutSample);
    /// What is known of a family.
    fn metadata(&mut self, family: &str, metadata: &Metadata);
}

/// Data points that were not translated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rejected {
    /// How many.
    pub points: u64,
    /// Why.
    pub reasons: Vec<String>,
}

impl Rejected {
    fn add(&mut self, points: usize, reason: impl FnOnce() -> String) {
        self.points += points as u64;
        if self.reasons.len() < 20 {
            self.reasons.push(reason());
        }
    }
}

/// Translates one request.
pub struct Translator<'a> {
    settings: &'a Settings,
    deltas: &'a DeltaStore,
    sink: &'a mut dyn Sink,
    label_bytes: usize,
    rejected: Rejected,
}

fn millis(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

/// A value as a text: containers as JSON.
fn value_text(value: &AnyValue) -> String {
    match value {
        AnyValue::Empty => String::new(),
        AnyValue::Text(text) => text.clone(),
        AnyValue::Bool(v) => v.to_string(),
        AnyValue::Int(v) => v.to_string(),
        AnyValue::Double(v) => json_of(&AnyValue::Double(*v)).to_string().trim_matches('"').to_owned(),
        AnyValue::Bytes(_) | AnyValue::Array(_) | AnyValue::Map(_) => match json_of(value) {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        },
    }
}

fn json_of(value: &AnyValue) -> serde_json::Value {
    use base64::Engine as _;
    match value {
        AnyValue::Empty => serde_json::Value::Null,
        AnyValue::Text(text) => text.as_str().into(),
        AnyValue::Bool(v) => (*v).into(),
        AnyValue::Int(v) => (*v).into(),
        AnyValue::Double(v) if v.fract() == 0.0 && v.abs() < 1e15 => (*v as i64).into(),
        AnyValue::Double(v) if v.is_finite() => (*v).into(),
        AnyValue::Double(v) => format_plain(*v).into(),
        AnyValue::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        AnyValue::Array(list) => list.iter().map(json_of).collect(),
        AnyValue::Map(pairs) => pairs.iter().map(|(k, v)| (k.clone(), json_of(v))).collect(),
    }
}

fn find<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|(k, _)| k == key).map(|(_, v)| v)
}

/// What all points of a scope share.
struct Scope<'a> {
    resource: &'a Attributes,
    scope: &'a ScopeMetrics,
}

impl<'a> Translator<'a> {
    /// A translator into `sink`.
    pub fn new(settings: &'a Settings, deltas: &'a DeltaStore, sink: &'a mut dyn Sink) -> Self {
        Self { settings, deltas, sink, label_bytes: 0, rejected: Rejected::default() }
    }

    /// Translates everything; what could not be translated comes back.
    pub fn run(mut self, request: &[ResourceMetrics]) -> Rejected {
        for resource in request {
            let (mut earliest, mut latest) = (i64::MAX, i64::MIN);
            for scope in &resource.scopes {
                let scope = Scope { resource: &resource.attributes, scope };
                for metric in &scope.scope.metrics {
                    self.metric(&scope, metric, &mut |t_ms| {
                        earliest = earliest.min(t_ms);
                        latest = latest.max(t_ms);
                    });
                }
            }
            if latest != i64::MIN {
                self.target_info(&resource.attributes, earliest, latest);
            }
        }
        self.rejected
    }

    fn metric(&mut self, scope: &Scope<'_>, metric: &Metric, seen: &mut dyn FnMut(i64)) {
        let (temporality, of, metric_type) = match &metric.data {
            Data::Empty => return,
            Data::Gauge(_) => (Temporality::Cumulative, NameOf::Gauge, MetricType::Gauge),
            Data::Sum { temporality, monotonic: true, .. } => {
                (*temporality, NameOf::Counter, MetricType::Counter)
            }
            Data::Sum { temporality, .. } => (*temporality, NameOf::Other, MetricType::Gauge),
            Data::Histogram(_, temporality) | Data::Exponential(_, temporality) => {
                (*temporality, NameOf::Other, MetricType::Histogram)
            }
            Data::Summary(_) => (Temporality::Cumulative, NameOf::Other, MetricType::Summary),
        };
        let points = match &metric.data {
            Data::Gauge(p) | Data::Sum { points: p, .. } => p.len(),
            Data::Histogram(p, _) => p.len(),
            Data::Exponential(p, _) => p.len(),
            Data::Summary(p) => p.len(),
            Data::Empty => 0,
        };
        let accepted = match temporality {
            Temporality::Cumulative => true,
            Temporality::Delta => self.settings.delta != DeltaMode::Refuse,
            Temporality::Unspecified => false,
        };
        if !accepted {
            self.rejected.add(points, || {
                format!("invalid temporality and type combination for metric {:?}", metric.name)
            });
            return;
        }
        let name = metric_name(&self.settings.config, &metric.name, &metric.unit, of);
        if name.is_empty() {
            self.rejected
                .add(points, || format!("the name of metric {:?} has nothing that may stay", metric.name));
            return;
        }
        if points == 0 {
            self.rejected.add(0, || format!("empty data points. {name} is dropped"));
            return;
        }
        let delta = temporality == Temporality::Delta;
        // A sum that is kept as it came is no counter.
        let kept = delta && self.settings.delta == DeltaMode::Keep;
        let metric_type =
            if kept && metric_type == MetricType::Counter { MetricType::Unknown } else { metric_type };
        let metadata = Metadata { metric_type, unit: metric.unit.clone(), help: metric.description.clone() };
        self.sink.metadata(&name, &metadata);
        match &metric.data {
            Data::Empty => {}
            Data::Gauge(points) => {
                points.iter().for_each(|p| self.number(scope, &name, p, false, seen));
            }
            Data::Sum { points, .. } => {
                points.iter().for_each(|p| self.number(scope, &name, p, delta, seen));
            }
            Data::Histogram(points, _) => {
                points.iter().for_each(|p| self.histogram(scope, &name, p, delta, seen));
            }
            Data::Exponential(points, _) => {
                points.iter().for_each(|p| self.exponential(scope, &name, p, delta, seen));
            }
            Data::Summary(points) => points.iter().for_each(|p| self.summary(scope, &name, p, seen)),
        }
    }

    fn start_ms(&self, point: &Point) -> i64 {
        if self.settings.start_timestamps { millis(point.start_ns) } else { 0 }
    }

    /// The labels of a point without its name.
    fn labels(&self, scope: &Scope<'_>, attributes: &Attributes) -> BTreeMap<String, String> {
        let config = &self.settings.config;
        let mut out = BTreeMap::new();
        let mut sorted: Vec<&(String, AnyValue)> = attributes.iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, value) in sorted {
            let value = value_text(value);
            match out.entry(label_name(config, key)) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(value);
                }
                std::collections::btree_map::Entry::Occupied(mut taken) => {
                    let joined: &mut String = taken.get_mut();
                    joined.push(';');
                    joined.push_str(&value);
                }
            }
        }
        for (key, value) in scope.resource {
            let promoted = if config.promote_all_resource_attributes {
                !config.ignore_resource_attributes.iter().any(|i| i == key)
            } else {
                config.promote_resource_attributes.iter().any(|p| p == key)
            };
            if promoted {
                out.entry(label_name(config, key)).or_insert_with(|| value_text(value));
            }
        }
        if config.promote_scope_metadata {
            for (key, value) in &scope.scope.attributes {
                out.insert(label_name(config, &format!("otel_scope_{key}")), value_text(value));
            }
            for (name, value) in [
                ("otel_scope_name", &scope.scope.name),
                ("otel_scope_version", &scope.scope.version),
                ("otel_scope_schema_url", &scope.scope.schema_url),
            ] {
                out.insert(name.into(), value.clone());
            }
        }
        identity(scope.resource, &mut out);
        out
    }

    fn emit(
        &mut self,
        base: &BTreeMap<String, String>,
        name: String,
        extra: Option<(&str, &str)>,
        (start_ms, t_ms): (i64, i64),
        value: Value,
        exemplars: Vec<Exemplar>,
    ) {
        let mut labels = base.clone();
        labels.insert(METRIC_NAME.into(), name);
        if let Some((key, value)) = extra {
            labels.insert(key.into(), value.into());
        }
        let pairs = labels.iter().filter(|(n, v)| !n.is_empty() && !v.is_empty());
        let labels = Labels::from_sorted(pairs.map(|(n, v)| (n.as_str(), v.as_str())));
        self.label_bytes += labels.as_packed().len();
        if self.label_bytes > MAX_LABEL_BYTES {
            return self.rejected.add(1, || "the labels of one request are longer than 256 MiB".into());
        }
        self.sink.sample(OutSample { labels, start_ms, t_ms, value, exemplars });
    }

    fn number(
        &mut self,
        scope: &Scope<'_>,
        name: &str,
        number: &NumberPoint,
        delta: bool,
        seen: &mut dyn FnMut(i64),
    ) {
        let point = &number.point;
        let t_ms = millis(point.time_ns);
        seen(t_ms);
        let labels = self.labels(scope, &point.attributes);
        let mut value = if point.no_value { stale_nan() } else { number.value };
        if delta && self.settings.delta == DeltaMode::AddUp && !point.no_value {
            match self.deltas.add_number(&key_of(name, &labels), t_ms, value) {
                Some(sum) => value = sum,
                None => return self.rejected.add(1, || format!("a point of {name} is out of order")),
            }
        }
        let exemplars = exemplars(self.settings, &point.exemplars);
        let times = (self.start_ms(point), t_ms);
        self.emit(&labels, name.into(), None, times, Value::Float(value), exemplars);
    }

    fn histogram(
        &mut self,
        scope: &Scope<'_>,
        name: &str,
        histogram: &HistogramPoint,
        delta: bool,
        seen: &mut dyn FnMut(i64),
    ) {
        let point = &histogram.point;
        let t_ms = millis(point.time_ns);
        seen(t_ms);
        let sound = histogram.counts.is_empty() && histogram.bounds.is_empty()
            || histogram.counts.len() == histogram.bounds.len() + 1;
        if !sound || histogram.counts.len() > MAX_BUCKETS {
            return self.rejected.add(1, || format!("the buckets of histogram {name} do not fit its bounds"));
        }
        let labels = self.labels(scope, &point.attributes);
        let mut summed;
        let mut histogram = histogram;
        if delta && self.settings.delta == DeltaMode::AddUp && !point.no_value {
            summed = histogram.clone();
            if !self.deltas.add_histogram(&key_of(name, &labels), t_ms, &mut summed) {
                return self.rejected.add(1, || format!("a point of {name} is out of order"));
            }
            histogram = &summed;
        }
        let times = (self.start_ms(point), t_ms);
        let mut rest = exemplars(self.settings, &point.exemplars);
        if self.settings.config.convert_histograms_to_nhcb {
            let value = custom_buckets(histogram, delta && self.settings.delta == DeltaMode::Keep);
            let value = Value::Histogram(HistogramValue::Integer(Arc::new(value)));
            return self.emit(&labels, name.into(), None, times, value, rest);
        }
        let float = |v: f64| Value::Float(if point.no_value { stale_nan() } else { v });
        if let Some(sum) = histogram.sum {
            self.emit(&labels, format!("{name}_sum"), None, times, float(sum), Vec::new());
        }
        let count = histogram.count as f64;
        self.emit(&labels, format!("{name}_count"), None, times, float(count), Vec::new());
        let mut cumulative = 0u64;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            cumulative = cumulative.saturating_add(*count);
            let (inside, above) = rest.into_iter().partition(|e| e.value <= *bound);
            rest = above;
            let le = format_plain(*bound);
            let value = float(cumulative as f64);
            self.emit(&labels, format!("{name}_bucket"), Some(("le", &le)), times, value, inside);
        }
        self.emit(&labels, format!("{name}_bucket"), Some(("le", "+Inf")), times, float(count), rest);
    }

    fn exponential(
        &mut self,
        scope: &Scope<'_>,
        name: &str,
        histogram: &ExponentialPoint,
        delta: bool,
        seen: &mut dyn FnMut(i64),
    ) {
        let point = &histogram.point;
        let t_ms = millis(point.time_ns);
        seen(t_ms);
        let mut native = native_of(histogram, delta && self.settings.delta == DeltaMode::Keep);
        let labels = self.labels(scope, &point.attributes);
        if native.is_ok() && delta && self.settings.delta == DeltaMode::AddUp && !point.no_value {
            let mut summed = histogram.clone();
            if !self.deltas.add_exponential(&key_of(name, &labels), t_ms, &mut summed) {
                return self.rejected.add(1, || format!("a point of {name} is out of order"));
            }
            native = native_of(&summed, false);
        }
        let value = match native {
            Ok(native) => HistogramValue::Integer(Arc::new(native)),
            Err(e) => return self.rejected.add(1, || e),
        };
        let times = (self.start_ms(point), t_ms);
        let exemplars = exemplars(self.settings, &point.exemplars);
        self.emit(&labels, name.into(), None, times, Value::Histogram(value), exemplars);
    }

    fn summary(&mut self, scope: &Scope<'_>, name: &str, summary: &SummaryPoint, seen: &mut dyn FnMut(i64)) {
        let point = &summary.point;
        let t_ms = millis(point.time_ns);
        seen(t_ms);
        let labels = self.labels(scope, &point.attributes);
        let times = (self.start_ms(point), t_ms);
        let float = |v: f64| Value::Float(if point.no_value { stale_nan() } else { v });
        self.emit(&labels, format!("{name}_sum"), None, times, float(summary.sum), Vec::new());
        let count = summary.count as f64;
        self.emit(&labels, format!("{name}_count"), None, times, float(count), Vec::new());
        for (quantile, value) in &summary.quantiles {
            let text = format_plain(*quantile);
            let extra = Some(("quantile", text.as_str()));
            self.emit(&labels, name.into(), extra, times, float(*value), Vec::new());
        }
    }

    /// The series that tells what a resource is, if there is more to tell than its name.
    fn target_info(&mut self, resource: &Attributes, earliest: i64, latest: i64) {
        if resource.iter().all(|(key, _)| IDENTIFYING.contains(&key.as_str())) {
            return;
        }
        let keeps = self.settings.config.keep_identifying_resource_attributes;
        let shown: Attributes =
            resource.iter().filter(|(k, _)| keeps || !IDENTIFYING.contains(&k.as_str())).cloned().collect();
        let nothing = (Attributes::new(), ScopeMetrics::default());
        let scope = Scope { resource: &nothing.0, scope: &nothing.1 };
        let mut labels = self.labels(&scope, &shown);
        labels.retain(|name, _| !name.starts_with("otel_scope_"));
        identity(resource, &mut labels);
        if !labels.contains_key("job") && !labels.contains_key("instance") {
            return;
        }
        let step = self.settings.info_every_ms.max(1).max(latest.saturating_sub(earliest) / MAX_INFO_SAMPLES);
        let mut t_ms = earliest;
        while t_ms < latest {
            self.emit(&labels, "target_info".into(), None, (0, t_ms), Value::Float(1.0), Vec::new());
            t_ms = t_ms.saturating_add(step);
        }
        self.emit(&labels, "target_info".into(), None, (0, latest), Value::Float(1.0), Vec::new());
    }
}

/// `job` and `instance` of a resource.
fn identity(resource: &Attributes, out: &mut BTreeMap<String, String>) {
    if let Some(name) = find(resource, SERVICE_NAME) {
        let name = value_text(name);
        let job = match find(resource, SERVICE_NAMESPACE) {
            Some(namespace) => format!("{}/{name}", value_text(namespace)),
            None => name,
        };
        out.insert("job".into(), job);
    }
    if let Some(instance) = find(resource, SERVICE_INSTANCE) {
        out.insert("instance".into(), value_text(instance));
    }
}

/// The identity of a stream of points.
fn key_of(name: &str, labels: &BTreeMap<String, String>) -> u128 {
    let mut text = Vec::with_capacity(256);
    let pairs = labels.iter().flat_map(|(n, v)| [n.as_str(), v.as_str()]);
    for part in std::iter::once(name).chain(pairs) {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    xxhash_rust::xxh3::xxh3_128(&text)
}

fn exemplars(settings: &Settings, list: &[OtlpExemplar]) -> Vec<Exemplar> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let one = |exemplar: &OtlpExemplar| {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
            if id.iter().any(|b| *b != 0) {
                pairs.push((name.into(), hex(id)));
            }
        }
        let mut length: usize = pairs.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        let mut more = Vec::new();
        for (key, value) in &exemplar.attributes {
            let pair = (label_name(&settings.config, key), value_text(value));
            length += pair.0.chars().count() + pair.1.chars().count();
            more.push(pair);
        }
        // Attributes only come along when all of them fit.
        if length <= MAX_EXEMPLAR_LABELS {
            pairs.extend(more);
        }
        Exemplar {
            labels: Labels::from_pairs(pairs),
            value: exemplar.value,
            timestamp_ms: Some(millis(exemplar.time_ns)),
        }
    };
    list.iter().map(one).collect()
}
