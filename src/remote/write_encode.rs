//! How do samples become remote-write messages? Both versions, from the same items; field numbers are those of the
//! published schemas. A series of version 1.0 keeps its labels encoded, one of 2.0 its texts become symbols.

use std::collections::HashMap;
use std::sync::Arc;

use super::receive::MessageVersion;
use super::wire_out::{bytes, double, packed, packed_doubles, signed, text, unsigned, varint, zigzag};
use crate::model::Labels;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use crate::model::metadata::{Metadata, MetricType};
use crate::model::sample::HistogramValue;

/// The labels of a series in the form that its message needs.
#[derive(Debug)]
pub enum Identity {
    /// Encoded `labels` fields of a `prometheus.TimeSeries`.
    V1(Box<[u8]>),
    /// The labels.
    V2(Labels),
}

impl Identity {
    /// The form for a version.
    #[must_use]
    pub fn new(version: MessageVersion, labels: &Labels) -> Self {
        match version {
            MessageVersion::V1 => {
                let mut out = Vec::new();
                put_labels(&mut out, labels);
                Identity::V1(out.into())
            }
            MessageVersion::V2 => Identity::V2(labels.clone()),
        }
    }
}

/// What an item says about its series.
#[derive(Debug, Clone)]
pub enum Content {
    /// A float sample.
    Float(f64),
    /// A histogram sample.
    Histogram(HistogramValue),
    /// An exemplar: value and labels.
    Exemplar(Box<(f64, Labels)>),
}

/// Something to send.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its series.
    pub series: Arc<Identity>,
    /// Time, milliseconds.
    pub t_ms: i64,
    /// Start timestamp, milliseconds, 0 = unknown.
    pub start_ms: i64,
    /// What there is at that time.
    pub content: Content,
}

/// Appends labels as repeated messages of field 1.
pub fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    let mut pair = Vec::new();
    for label in labels.iter() {
        pair.clear();
        text(&mut pair, 1, label.name);
        text(&mut pair, 2, label.value);
        bytes(out, 1, &pair);
    }
}

/// Numbers of metric types, the same in both versions.
#[must_use]
pub fn type_number(metric_type: MetricType) -> u64 {
    match metric_type {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

/// Appends the content of a `Sample`.
pub fn put_sample(out: &mut Vec<u8>, value: f64, t_ms: i64, start_ms: i64) {
    double(out, 1, value, false);
    signed(out, 2, t_ms);
    signed(out, 3, start_ms);
}

fn put_spans(out: &mut Vec<u8>, number: u32, spans: &[Span]) {
    let mut message = Vec::new();
    for span in spans {
        message.clear();
        unsigned(&mut message, 1, zigzag(i64::from(span.offset)));
        unsigned(&mut message, 2, u64::from(span.length));
        bytes(out, number, &message);
    }
}

/// Appends the content of a `Histogram`; `start_ms` must be 0 in version 1.0, which has no field for it.
pub fn put_histogram(out: &mut Vec<u8>, value: &HistogramValue, t_ms: i64, start_ms: i64) {
    let zigzag32 = |v: i32| zigzag(i64::from(v));
    let hint = |hint| match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    };
    match value {
        HistogramValue::Integer(h) => {
            // A member of a `oneof`: written even when it is zero.
            varint(out, 1 << 3);
            varint(out, h.count);
            double(out, 3, h.sum, false);
            unsigned(out, 4, zigzag32(h.schema));
            double(out, 5, h.zero_threshold, false);
            varint(out, 6 << 3);
            varint(out, h.zero_count);
            put_spans(out, 8, &h.negative_spans);
            packed(out, 9, h.negative_buckets.iter().map(|v| zigzag(*v)));
            put_spans(out, 11, &h.positive_spans);
            packed(out, 12, h.positive_buckets.iter().map(|v| zigzag(*v)));
            unsigned(out, 14, hint(h.counter_reset_hint));
            signed(out, 15, t_ms);
            packed_doubles(out, 16, &h.custom_values);
        }
        HistogramValue::Float(h) => {
            double(out, 2, h.count, true);
            double(out, 3, h.sum, false);
            unsigned(out, 4, zigzag32(h.schema));
            double(out, 5, h.zero_threshold, false);
            double(out, 7, h.zero_count, true);
            put_spans(out, 8, &h.negative_spans);
            packed_doubles(out, 10, &h.negative_buckets);
            put_spans(out, 11, &h.positive_spans);
            packed_doubles(out, 13, &h.positive_buckets);
            unsigned(out, 14, hint(h.counter_reset_hint));
            signed(out, 15, t_ms);
            packed_doubles(out, 16, &h.custom_values);
        }
    }
    signed(out, 17, start_ms);
}

/// Whether the histogram has custom buckets, which version 1.0 cannot carry.
#[must_use]
pub fn has_custom_buckets(value: &HistogramValue) -> bool {
    match value {
        HistogramValue::Integer(h) => h.schema == CUSTOM_BUCKETS_SCHEMA,
        HistogramValue::Float(h) => h.schema == CUSTOM_BUCKETS_SCHEMA,
    }
}

/// A `prometheus.WriteRequest`. Items of one series that follow each other share a `TimeSeries`.
#[must_use]
pub fn version_1<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<u8> {
    let (mut out, mut series, mut inner) = (Vec::new(), Vec::new(), Vec::new());
    let mut last: Option<&Arc<Identity>> = None;
    for entry in entries {
        let Identity::V1(labels) = &*entry.series else { continue };
        if last.is_none_or(|last| !Arc::ptr_eq(last, &entry.series)) {
            if last.is_some() {
                bytes(&mut out, 1, &series);
            }
            series.clear();
            series.extend_from_slice(labels);
            last = Some(&entry.series);
        }
        inner.clear();
        let number = match &entry.content {
            Content::Float(value) => {
                put_sample(&mut inner, *value, entry.t_ms, 0);
                2
            }
            Content::Exemplar(exemplar) => {
                put_labels(&mut inner, &exemplar.1);
                double(&mut inner, 2, exemplar.0, false);
                signed(&mut inner, 3, entry.t_ms);
                3
            }
            Content::Histogram(value) => {
                put_histogram(&mut inner, value, entry.t_ms, 0);
                4
            }
        };
        bytes(&mut series, number, &inner);
    }
    if last.is_some() {
        bytes(&mut out, 1, &series);
    }
    out
}

/// A `prometheus.WriteRequest` with metadata only.
#[must_use]
pub fn metadata_1(families: &[(String, Metadata)]) -> Vec<u8> {
    let (mut out, mut message) = (Vec::new(), Vec::new());
    for (name, metadata) in families {
        message.clear();
        unsigned(&mut message, 1, type_number(metadata.metric_type));
        text(&mut message, 2, name);
        text(&mut message, 4, &metadata.help);
        text(&mut message, 5, &metadata.unit);
        bytes(&mut out, 3, &message);
    }
    out
}

/// The symbols of one request of version 2.0; number 0 is the empty text.
struct Symbols<'a> {
    numbers: HashMap<&'a str, u32, foldhash::fast::RandomState>,
    list: Vec<&'a str>,
}

impl<'a> Symbols<'a> {
    fn number(&mut self, text: &'a str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        let next = self.list.len() as u32;
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.list.push(text);
        }
        u64::from(number)
    }
}

/// Metadata of the family that a metric belongs to.
pub trait FamilyMetadata: Send + Sync {
    /// By the metric's name; suffixes such as `_bucket` are looked through.
    fn of_metric(&self, metric_name: &str) -> Option<Arc<Metadata>>;
}

/// An `io.prometheus.write.v2.Request`.
#[must_use]
pub fn version_2(entries: &[Entry], families: &dyn FamilyMetadata) -> Vec<u8> {
    // Texts of metadata must live as long as the symbols.
    let found: Vec<Option<Arc<Metadata>>> = entries
        .iter()
        .enumerate()
        .map(|(i, entry)| match &*entry.series {
            Identity::V2(_) if i > 0 && Arc::ptr_eq(&entries[i - 1].series, &entry.series) => None,
            Identity::V2(labels) => families.of_metric(labels.metric_name()),
            Identity::V1(_) => None,
        })
        .collect();
    let mut symbols = Symbols { numbers: HashMap::default(), list: vec![""] };
    let (mut all, mut series, mut inner) = (Vec::new(), Vec::new(), Vec::new());
    let mut i = 0;
    while i < entries.len() {
        let first = &entries[i];
        let same = entries[i..].iter().take_while(|e| Arc::ptr_eq(&e.series, &first.series)).count();
        let run = &entries[i..i + same];
        let metadata = found[i].as_deref();
        i += same;
        let Identity::V2(labels) = &*first.series else { continue };
        series.clear();
        let references: Vec<u64> =
            labels.iter().flat_map(|l| [symbols.number(l.name), symbols.number(l.value)]).collect();
        packed(&mut series, 1, references);
        for entry in run {
            inner.clear();
            let number = match &entry.content {
                Content::Float(value) => {
                    put_sample(&mut inner, *value, entry.t_ms, entry.start_ms);
                    2
                }
                Content::Histogram(value) => {
                    put_histogram(&mut inner, value, entry.t_ms, entry.start_ms);
                    3
                }
                Content::Exemplar(exemplar) => {
                    let pairs: Vec<u64> = exemplar
                        .1
                        .iter()
                        .flat_map(|l| [symbols.number(l.name), symbols.number(l.value)])
                        .collect();
                    packed(&mut inner, 1, pairs);
                    double(&mut inner, 2, exemplar.0, false);
                    signed(&mut inner, 3, entry.t_ms);
                    4
                }
            };
            bytes(&mut series, number, &inner);
        }
        if let Some(metadata) = metadata {
            inner.clear();
            unsigned(&mut inner, 1, type_number(metadata.metric_type));
            unsigned(&mut inner, 3, symbols.number(&metadata.help));
            unsigned(&mut inner, 4, symbols.number(&metadata.unit));
            bytes(&mut series, 5, &inner);
        }
        bytes(&mut all, 5, &series);
    }
    let mut out = Vec::with_capacity(all.len() + 4096);
    for symbol in &symbols.list {
        bytes(&mut out, 4, symbol.as_bytes());
    }
    out.extend_from_slice(&all);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::histogram::{FloatHistogram, Histogram};
    use crate::model::sample::STALE_NAN_BITS;
    use crate::remote::wire::Fields;
    use crate::remote::write_messages as messages;

    struct Nothing;

    impl FamilyMetadata for Nothing {
        fn of_metric(&self, _: &str) -> Option<Arc<Metadata>> {
            Some(Arc::new(Metadata {
                metric_type: MetricType::Counter,
                unit: String::new(),
                help: "Help.".into(),
            }))
        }
    }

    fn histograms() -> Vec<HistogramValue> {
        let integer = Histogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: -4,
            zero_threshold: 1e-128,
            zero_count: 3,
            count: 10,
            sum: -1.5,
            positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            positive_buckets: vec![2, -1, 5],
            negative_buckets: vec![1],
            custom_values: Arc::from([]),
        };
        let float = FloatHistogram {
            counter_reset_hint: CounterResetHint::Reset,
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 2.5,
            sum: f64::from_bits(STALE_NAN_BITS),
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 1.5],
            custom_values: Arc::from([1.0, 2.0]),
            ..FloatHistogram::default()
        };
        let empty = Histogram::default();
        let values = [HistogramValue::Integer(Arc::new(integer)), HistogramValue::Float(Arc::new(float))];
        values.into_iter().chain([HistogramValue::Integer(Arc::new(empty))]).collect()
    }

    #[test]
    fn histograms_come_back() {
        for value in histograms() {
            let mut out = Vec::new();
            put_histogram(&mut out, &value, -5, 7);
            let back = messages::histogram(&out).expect("readable");
            assert_eq!((back.t_ms, back.start_ms), (-5, 7));
            // NaN is not equal to itself, its text is.
            assert_eq!(format!("{:?}", back.value), format!("{value:?}"));
        }
    }

    #[test]
    fn items_of_one_series_share_its_labels() {
        let labels = Labels::from_pairs([("__name__", "a"), ("x", "y")]);
        for version in [MessageVersion::V1, MessageVersion::V2] {
            let series = Arc::new(Identity::new(version, &labels));
            let other = Arc::new(Identity::new(version, &Labels::from_pairs([("__name__", "b")])));
            let entry = |series: &Arc<Identity>, t_ms, content| Entry {
                series: Arc::clone(series),
                t_ms,
                start_ms: 0,
                content,
            };
            let exemplar = Content::Exemplar(Box::new((0.5, Labels::from_pairs([("id", "1")]))));
            let entries = [
                entry(&series, 1, Content::Float(0.0)),
                entry(&series, 2, Content::Float(f64::from_bits(STALE_NAN_BITS))),
                entry(&series, 2, exemplar),
                entry(&other, 3, Content::Histogram(histograms().remove(0))),
            ];
            let (message, number) = match version {
                MessageVersion::V1 => (version_1(entries.iter()), 1),
                MessageVersion::V2 => (version_2(&entries, &Nothing), 5),
            };
            let mut fields = Fields::new(&message);
            let (mut counts, mut symbols) = (Vec::new(), Vec::new());
            while let Some(field) = fields.next_field().expect("readable") {
                if field.number != number {
                    symbols.push(field.text().expect("text").to_owned());
                    continue;
                }
                let mut inside = Fields::new(field.bytes().expect("a message"));
                let mut count = [0; 6];
                while let Some(field) = inside.next_field().expect("readable") {
                    count[field.number as usize] += 1;
                }
                counts.push(count);
            }
            if version == MessageVersion::V1 {
                assert_eq!(counts, [[0, 2, 2, 1, 0, 0], [0, 1, 0, 0, 1, 0]]);
            } else {
                assert_eq!(counts, [[0, 1, 2, 0, 1, 1], [0, 1, 0, 1, 0, 1]]);
                assert_eq!(symbols, ["", "__name__", "a", "x", "y", "id", "1", "Help.", "b"]);
            }
        }
    }
}
