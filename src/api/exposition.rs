//! In which format does a page of samples leave? Negotiated from `Accept` as Prometheus's exporters do: the text
//! format, length-delimited protobuf, and OpenMetrics for clients that take nothing else.

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::{ACCEPT, HeaderMap};

use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Span};
use crate::model::labels::{is_legacy_label_name, is_legacy_metric_name};
use crate::model::number::format_g;

/// Most parts of an `Accept` header that are looked at.
const MAX_ACCEPTED: usize = 32;

/// How names are changed that old readers do not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escaping {
    /// Each strange character becomes `_`.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`, others `__`.
    Dots,
    /// `U__` and code points.
    Values,
    /// Names stay as they are.
    AllowUtf8,
}

impl Escaping {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "underscores" => Some(Self::Underscores),
            "dots" => Some(Self::Dots),
            "values" => Some(Self::Values),
            "allow-utf-8" => Some(Self::AllowUtf8),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
            Self::AllowUtf8 => "allow-utf-8",
        }
    }

    /// The name as this scheme writes it.
    #[must_use]
    pub fn apply(self, name: &str) -> String {
        let legacy = |i: usize, c: char| {
            c.is_ascii_alphabetic() || c == '_' || c == ':' || (c.is_ascii_digit() && i > 0)
        };
        let is_legacy = !name.is_empty() && name.chars().enumerate().all(|(i, c)| legacy(i, c));
        let mut out = String::with_capacity(name.len());
        match self {
            Self::AllowUtf8 => return name.to_owned(),
            Self::Underscores if is_legacy => return name.to_owned(),
            Self::Underscores => {
                out.extend(name.chars().enumerate().map(|(i, c)| if legacy(i, c) { c } else { '_' }));
            }
            Self::Dots => {
                for (i, c) in name.chars().enumerate() {
                    match c {
                        '_' => out.push_str("__"),
                        '.' => out.push_str("_dot_"),
                        c if legacy(i, c) => out.push(c),
                        _ => out.push_str("__"),
                    }
                }
            }
            Self::Values if is_legacy => return name.to_owned(),
            Self::Values => {
                out.push_str("U__");
                for (i, c) in name.chars().enumerate() {
                    match c {
                        '_' => out.push_str("__"),
                        c if legacy(i, c) => out.push(c),
                        // Writing to a String cannot fail.
                        c => drop(write!(out, "_{:x}_", u32::from(c))),
                    }
                }
            }
        }
        out
    }
}

/// A format with its escaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text, version 0.0.4.
    Text(Escaping),
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics(Escaping),
    /// Messages `io.prometheus.client.MetricFamily`, each after its length.
    Protobuf(Escaping),
}

impl Format {
    /// The best format that a client accepts; the text format for those that name none.
    #[must_use]
    pub fn negotiate(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
        let mut offers: Vec<(f64, &str)> = values
            .flat_map(|v| v.split(','))
            .take(MAX_ACCEPTED)
            .map(|part| (parameter(part, "q").and_then(|q| q.parse().ok()).unwrap_or(1.0), part))
            .filter(|(q, _)| *q > 0.0)
            .collect();
        offers.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut escaping = Escaping::default();
        let mut open_metrics = false;
        let mut other = false;
        for (_, offer) in &offers {
            if let Some(scheme) = parameter(offer, "escaping").and_then(Escaping::parse) {
                escaping = scheme;
            }
            let kind = offer.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
            let family = parameter(offer, "proto") == Some("io.prometheus.client.MetricFamily");
            let version = parameter(offer, "version").unwrap_or("");
            match kind.as_str() {
                "application/vnd.google.protobuf"
                    if family && parameter(offer, "encoding") == Some("delimited") =>
                {
                    return Self::Protobuf(escaping);
                }
                "text/plain" if matches!(version, "" | "0.0.4") => return Self::Text(escaping),
                "application/openmetrics-text" => open_metrics = true,
                _ => other = true,
            }
        }
        // Prometheus federates in the text format even then; who asks for nothing but OpenMetrics gets it.
        if open_metrics && !other { Self::OpenMetrics(escaping) } else { Self::Text(escaping) }
    }

    /// The content type of the answer.
    #[must_use]
    pub fn content_type(self) -> String {
        match self {
            Self::Text(e) => format!("text/plain; version=0.0.4; charset=utf-8; escaping={}", e.as_str()),
            Self::OpenMetrics(e) => {
                format!("application/openmetrics-text; version=1.0.0; charset=utf-8; escaping={}", e.as_str())
            }
            Self::Protobuf(e) => format!(
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping={}",
                e.as_str()
            ),
        }
    }

    /// How names are written.
    #[must_use]
    pub fn escaping(self) -> Escaping {
        match self {
            Self::Text(e) | Self::OpenMetrics(e) | Self::Protobuf(e) => e,
        }
    }

    /// Whether the format has native histograms.
    #[must_use]
    pub fn has_native_histograms(self) -> bool {
        matches!(self, Self::Protobuf(_))
    }

    /// Appends one family.
    pub fn write(self, family: &Family, out: &mut Vec<u8>) {
        match self {
            Self::Text(_) => out.extend_from_slice(text(family, false).as_bytes()),
            Self::OpenMetrics(_) => out.extend_from_slice(text(family, true).as_bytes()),
            Self::Protobuf(_) => protobuf(family, out),
        }
    }

    /// Appends what ends a page.
    pub fn finish(self, out: &mut Vec<u8>) {
        if matches!(self, Self::OpenMetrics(_)) {
            out.extend_from_slice(b"# EOF\n");
        }
    }
}

fn parameter<'a>(offer: &'a str, name: &str) -> Option<&'a str> {
    let mut parts = offer.split(';').skip(1).filter_map(|p| p.split_once('='));
    parts.find(|(n, _)| n.trim().eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().trim_matches('"'))
}

/// What was measured.
#[derive(Debug, Clone)]
pub enum Measured {
    /// A number of unknown type.
    Number(f64),
    /// A native histogram; with custom bounds it is written as a classic one.
    Histogram(Arc<FloatHistogram>),
}

/// One sample.
#[derive(Debug, Clone)]
pub struct Metric {
    /// Labels without the name, in the order in which they are written.
    pub labels: Vec<(String, String)>,
    /// Value.
    pub measured: Measured,
    /// Milliseconds.
    pub t_ms: i64,
}

/// Samples of one name and one type.
#[derive(Debug, Clone)]
pub struct Family {
    /// Name, escaped already.
    pub name: String,
    /// Samples, of one kind.
    pub metrics: Vec<Metric>,
}

impl Family {
    fn histogram(&self) -> Option<&FloatHistogram> {
        match self.metrics.first().map(|m| &m.measured) {
            Some(Measured::Histogram(h)) => Some(h),
            _ => None,
        }
    }
}

/// Upper bounds with cumulative counts of a histogram with custom bounds, `+Inf` last.
fn classic_buckets(histogram: &FloatHistogram) -> Vec<(f64, f64)> {
    let mut counts = vec![0.0; histogram.custom_values.len() + 1];
    let (mut next, mut used) = (0i64, 0usize);
    for span in &histogram.positive_spans {
        next += i64::from(span.offset);
        for _ in 0..span.length {
            let slot = usize::try_from(next).ok().and_then(|i| counts.get_mut(i));
            if let (Some(slot), Some(count)) = (slot, histogram.positive_buckets.get(used)) {
                *slot += count;
            }
            (next, used) = (next + 1, used + 1);
        }
    }
    let bounds = histogram.custom_values.iter().copied().chain([f64::INFINITY]);
    let cumulative = counts.iter().scan(0.0, |total, count| {
        *total += count;
        Some(*total)
    });
    bounds.zip(cumulative).collect()
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn text_line(
    name: &str,
    metric: &Metric,
    extra: Option<(&str, &str)>,
    value: f64,
    open_metrics: bool,
    out: &mut String,
) {
    let legacy = is_legacy_metric_name(name);
    if legacy {
        out.push_str(name);
    }
    let mut first = true;
    let mut begin = |out: &mut String| {
        out.push(if first { '{' } else { ',' });
        first = false;
    };
    if !legacy {
        begin(out);
        quoted(name, out);
    }
    let labels = metric.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    for (name, value) in labels.chain(extra) {
        begin(out);
        if is_legacy_label_name(name) {
            out.push_str(name);
        } else {
            quoted(name, out);
        }
        out.push('=');
        quoted(value, out);
    }
    if !first {
        out.push('}');
    }
    // Writing to a String cannot fail.
    let _ = if open_metrics {
        writeln!(out, " {} {}", format_g(value), format_g(metric.t_ms as f64 / 1000.0))
    } else {
        writeln!(out, " {} {}", format_g(value), metric.t_ms)
    };
}

fn text(family: &Family, open_metrics: bool) -> String {
    let mut out = String::from("# TYPE ");
    if is_legacy_metric_name(&family.name) {
        out.push_str(&family.name);
    } else {
        quoted(&family.name, &mut out);
    }
    out.push_str(match (family.histogram(), open_metrics) {
        (Some(_), _) => " histogram\n",
        (None, true) => " unknown\n",
        (None, false) => " untyped\n",
    });
    for metric in &family.metrics {
        match &metric.measured {
            Measured::Number(value) => {
                text_line(&family.name, metric, None, *value, open_metrics, &mut out);
            }
            Measured::Histogram(histogram) => {
                let bucket = format!("{}_bucket", family.name);
                for (bound, count) in classic_buckets(histogram) {
                    let le = format_g(bound);
                    text_line(&bucket, metric, Some(("le", &le)), count, open_metrics, &mut out);
                }
                for (suffix, value) in [("sum", histogram.sum), ("count", histogram.count)] {
                    let name = format!("{}_{suffix}", family.name);
                    text_line(&name, metric, None, value, open_metrics, &mut out);
                }
            }
        }
    }
    out
}

fn varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_varint(field: u32, v: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3, out);
    varint(v, out);
}

fn put_zigzag(field: u32, v: i64, out: &mut Vec<u8>) {
    put_varint(field, ((v << 1) ^ (v >> 63)) as u64, out);
}

fn put_double(field: u32, v: f64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 1, out);
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn spans(field: u32, spans: &[Span], out: &mut Vec<u8>) {
    for span in spans {
        let mut inner = Vec::new();
        put_zigzag(1, i64::from(span.offset), &mut inner);
        put_varint(2, u64::from(span.length), &mut inner);
        put_bytes(field, &inner, out);
    }
}

/// `io.prometheus.client.Histogram` with float counts.
fn histogram_message(histogram: &FloatHistogram) -> Vec<u8> {
    let mut out = Vec::new();
    put_double(2, histogram.sum, &mut out);
    let custom = histogram.schema == CUSTOM_BUCKETS_SCHEMA;
    for (bound, count) in if custom { classic_buckets(histogram) } else { Vec::new() } {
        let mut bucket = Vec::new();
        put_double(2, bound, &mut bucket);
        put_double(4, count, &mut bucket);
        put_bytes(3, &bucket, &mut out);
    }
    put_double(4, histogram.count, &mut out);
    if custom {
        return out;
    }
    put_zigzag(5, i64::from(histogram.schema), &mut out);
    put_double(6, histogram.zero_threshold, &mut out);
    put_double(8, histogram.zero_count, &mut out);
    spans(9, &histogram.negative_spans, &mut out);
    for count in &histogram.negative_buckets {
        put_double(11, *count, &mut out);
    }
    spans(12, &histogram.positive_spans, &mut out);
    for count in &histogram.positive_buckets {
        put_double(14, *count, &mut out);
    }
    // A histogram without any bucket would look like a classic one.
    if histogram.positive_spans.is_empty() && histogram.negative_spans.is_empty() {
        spans(12, &[Span { offset: 0, length: 0 }], &mut out);
    }
    out
}

/// The type numbers of `io.prometheus.client.MetricType`.
fn type_number(family: &Family) -> u64 {
    match family.histogram() {
        Some(h) if h.counter_reset_hint == CounterResetHint::Gauge => 5,
        Some(_) => 4,
        None => 3,
    }
}

fn protobuf(family: &Family, out: &mut Vec<u8>) {
    let mut message = Vec::new();
    put_bytes(1, family.name.as_bytes(), &mut message);
    put_varint(3, type_number(family), &mut message);
    for metric in &family.metrics {
        let mut inner = Vec::new();
        for (name, value) in &metric.labels {
            let mut label = Vec::new();
            put_bytes(1, name.as_bytes(), &mut label);
            put_bytes(2, value.as_bytes(), &mut label);
            put_bytes(1, &label, &mut inner);
        }
        // In order of field numbers, as the reference encoder writes them.
        if let Measured::Number(value) = &metric.measured {
            let mut untyped = Vec::new();
            put_double(1, *value, &mut untyped);
            put_bytes(5, &untyped, &mut inner);
        }
        put_varint(6, metric.t_ms as u64, &mut inner);
        if let Measured::Histogram(histogram) = &metric.measured {
            put_bytes(7, &histogram_message(histogram), &mut inner);
        }
        put_bytes(4, &inner, &mut message);
    }
    varint(message.len() as u64, out);
    out.extend_from_slice(&message);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn negotiates_as_exporters_do() {
        let proto =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let utf8 = Escaping::AllowUtf8;
        let plain = Escaping::Underscores;
        for (accept, want) in [
            (String::new(), Format::Text(plain)),
            ("*/*".into(), Format::Text(plain)),
            ("text/plain;version=0.0.4;escaping=allow-utf-8".into(), Format::Text(utf8)),
            (proto.into(), Format::Protobuf(plain)),
            (format!("text/plain;q=0.3,{proto};q=0.7;escaping=allow-utf-8"), Format::Protobuf(utf8)),
            (format!("text/plain;q=0.9,{proto};q=0.7"), Format::Text(plain)),
            ("application/openmetrics-text;version=1.0.0".into(), Format::OpenMetrics(plain)),
            ("application/openmetrics-text;version=1.0.0,*/*;q=0.1".into(), Format::Text(plain)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_str(&accept).expect("valid"));
            assert_eq!(Format::negotiate(&headers), want, "{accept}");
        }
    }

    #[test]
    fn names_are_escaped_by_scheme() {
        for (scheme, want) in [
            (Escaping::Underscores, "my_name_1"),
            (Escaping::Dots, "my_dot_name__1"),
            (Escaping::Values, "U__my_2e_name__1"),
            (Escaping::AllowUtf8, "my.name_1"),
        ] {
            assert_eq!(scheme.apply("my.name_1"), want);
        }
        assert_eq!(Escaping::Values.apply("plain_name"), "plain_name");
    }

    fn family(measured: Measured) -> Family {
        let labels = vec![("a".to_owned(), "x\"".to_owned()), ("b.c".to_owned(), "y".to_owned())];
        Family { name: "m".into(), metrics: vec![Metric { labels, measured, t_ms: 1500 }] }
    }

    #[test]
    fn text_and_open_metrics() {
        let mut out = Vec::new();
        let number = family(Measured::Number(2.0));
        Format::Text(Escaping::AllowUtf8).write(&number, &mut out);
        let open = Format::OpenMetrics(Escaping::AllowUtf8);
        open.write(&number, &mut out);
        open.finish(&mut out);
        let want = "# TYPE m untyped\nm{a=\"x\\\"\",\"b.c\"=\"y\"} 2 1500\n\
                    # TYPE m unknown\nm{a=\"x\\\"\",\"b.c\"=\"y\"} 2 1.5\n# EOF\n";
        assert_eq!(String::from_utf8_lossy(&out), want);
        let custom = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: Arc::from([0.5, 1.0]),
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![3.0, 2.0],
            count: 5.0,
            sum: 9.0,
            ..FloatHistogram::default()
        };
        assert_eq!(classic_buckets(&custom), [(0.5, 3.0), (1.0, 3.0), (f64::INFINITY, 5.0)]);
    }
}
