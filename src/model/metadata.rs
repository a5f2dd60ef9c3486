//! What is known of a metric besides its samples: type, help, unit; and exemplars.

use super::Labels;

/// The type of a metric family, as expositions and the API name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum MetricType {
    /// `counter`
    Counter,
    /// `gauge`
    Gauge,
    /// `histogram`
    Histogram,
    /// `gaugehistogram`
    GaugeHistogram,
    /// `summary`
    Summary,
    /// `info`
    Info,
    /// `stateset`
    StateSet,
    /// `unknown` (called `untyped` in the Prometheus text format)
    #[default]
    Unknown,
}

impl MetricType {
    /// The name used by the API and by OpenMetrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
            MetricType::Unknown => "unknown",
        }
    }
}

/// Metadata of a metric family.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metadata {
    /// Type of the family.
    pub metric_type: MetricType,
    /// Unit, often empty.
    pub unit: String,
    /// Help text with escapes resolved.
    pub help: String,
}

/// A sample that stands for others, usually with a trace id.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Labels of the exemplar itself, not of its series.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// When it was observed, milliseconds; `None` takes the time of the scrape.
    pub timestamp_ms: Option<i64>,
}
