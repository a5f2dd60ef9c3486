//! OpenTelemetry's metrics as both decoders hand them on: only what becomes series here.

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyValue {
    /// Nothing.
    Empty,
    /// Text.
    Text(String),
    /// Flag.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Number.
    Double(f64),
    /// List.
    Array(Vec<AnyValue>),
    /// Map.
    Map(Vec<(String, AnyValue)>),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// Attributes in their order.
pub type Attributes = Vec<(String, AnyValue)>;

/// One resource with its metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceMetrics {
    /// What the resource is.
    pub attributes: Attributes,
    /// Its scopes.
    pub scopes: Vec<ScopeMetrics>,
}

/// One instrumentation scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeMetrics {
    /// Name of the library.
    pub name: String,
    /// Its version.
    pub version: String,
    /// URL of its schema.
    pub schema_url: String,
    /// More about it.
    pub attributes: Attributes,
    /// Its metrics.
    pub metrics: Vec<Metric>,
}

/// Over which time points count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Temporality {
    /// Not said.
    #[default]
    Unspecified,
    /// Since the point before.
    Delta,
    /// Since the start.
    Cumulative,
}

impl Temporality {
    /// By number.
    #[must_use]
    pub fn of(number: u64) -> Self {
        match number {
            1 => Temporality::Delta,
            2 => Temporality::Cumulative,
            _ => Temporality::Unspecified,
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metric {
    /// Name.
    pub name: String,
    /// Help.
    pub description: String,
    /// Unit in UCUM.
    pub unit: String,
    /// Points.
    pub data: Data,
}

/// Points by kind of metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Data {
    /// None.
    #[default]
    Empty,
    /// Values.
    Gauge(Vec<NumberPoint>),
    /// Sums.
    Sum {
        /// Points.
        points: Vec<NumberPoint>,
        /// Over which time.
        temporality: Temporality,
        /// Whether it only grows.
        monotonic: bool,
    },
    /// Histograms with explicit bounds.
    Histogram(Vec<HistogramPoint>, Temporality),
    /// Histograms with exponential bounds.
    Exponential(Vec<ExponentialPoint>, Temporality),
    /// Quantiles.
    Summary(Vec<SummaryPoint>),
}

/// What all points have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// Attributes.
    pub attributes: Attributes,
    /// Nanoseconds, 0 = unknown.
    pub start_ns: u64,
    /// Nanoseconds.
    pub time_ns: u64,
    /// The point says that there is no value.
    pub no_value: bool,
    /// Exemplars.
    pub exemplars: Vec<OtlpExemplar>,
}

/// A number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NumberPoint {
    /// What all points have.
    pub point: Point,
    /// Value.
    pub value: f64,
}

/// A histogram with explicit bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramPoint {
    /// What all points have.
    pub point: Point,
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// Observations by bucket.
    pub counts: Vec<u64>,
    /// Upper bounds, one fewer than buckets.
    pub bounds: Vec<f64>,
}

/// Consecutive buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Index of the first.
    pub offset: i32,
    /// Observations of each.
    pub counts: Vec<u64>,
}

/// A histogram with exponential bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExponentialPoint {
    /// What all points have.
    pub point: Point,
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// Resolution.
    pub scale: i32,
    /// Observations around zero.
    pub zero_count: u64,
    /// Positive observations.
    pub positive: Buckets,
    /// Negative observations.
    pub negative: Buckets,
}

/// Quantiles.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SummaryPoint {
    /// What all points have.
    pub point: Point,
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Quantile and value.
    pub quantiles: Vec<(f64, f64)>,
}

/// An exemplar.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OtlpExemplar {
    /// Attributes that the metric left out.
    pub attributes: Attributes,
    /// Nanoseconds.
    pub time_ns: u64,
    /// Value.
    pub value: f64,
    /// Trace.
    pub trace_id: Vec<u8>,
    /// Span.
    pub span_id: Vec<u8>,
}
