//! Warnings and infos that accompany a result, with the place in the query they are about.
//!
//! While a query runs, nodes report [`Note`]s into [`Notes`], keyed by text so that a remark made at every step
//! of every series is kept once. At the end [`Notes::finish`] adds the positions and sorts.

use std::collections::BTreeMap;

use super::parse::Span;
use crate::model::labels::quoted;
use crate::model::number::format_g;

/// Annotations of one query, each text once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Problems that may make the result wrong; each text begins `PromQL warning: ` where PromQL raised it.
    pub warnings: Vec<String>,
    /// Remarks of lower weight; each text begins `PromQL info: `.
    pub infos: Vec<String>,
}

impl Annotations {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }
}

/// Weight of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The result may be wrong.
    Warning,
    /// Good to know.
    Info,
}

/// Where histograms were combined, as the texts name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HistogramOperation {
    /// `+`
    Addition,
    /// `-`
    Subtraction,
    /// Sums and means, over series or over time.
    Aggregation,
}

impl HistogramOperation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

/// What there is to say. The texts are Prometheus's.
#[derive(Debug, Clone, PartialEq)]
pub enum Note<'a> {
    /// `limit_ratio` with a ratio outside [−1, 1]: the value and what it is capped to.
    InvalidRatio(f64, f64),
    /// A quantile outside [0, 1].
    InvalidQuantile(f64),
    /// A bucket without a usable `le`: metric name, value of `le`.
    BadBucketLabel(&'a str, &'a str),
    /// Floats and histograms in one window of this metric.
    MixedFloatsHistograms(&'a str),
    /// Floats and histograms in one group.
    MixedFloatsHistogramsAggregation,
    /// Classic and native histograms under one name.
    MixedClassicNative(&'a str),
    /// `rate` and the like over a gauge histogram.
    NativeHistogramNotCounter(&'a str),
    /// `delta` and the like over a counter histogram.
    NativeHistogramNotGauge(&'a str),
    /// Exponential and custom buckets in one window.
    MixedExponentialCustom(&'a str),
    /// Exponential and custom buckets in one group.
    MixedExponentialCustomAggregation,
    /// Bucket layouts that an operator cannot combine.
    IncompatibleBucketLayout(&'a str),
    /// `sort` in a range query.
    SortIneffective,
    /// One addend had a counter reset, another had none.
    CounterResetCollision(HistogramOperation),
    /// A start time lies before the previous sample.
    StartTimeOverlap(&'a str),
    /// `rate` over a name that does not look like a counter.
    PossibleNonCounter(&'a str),
    /// `rate` over a metric of another type: metric name, `__type__`.
    PossibleNonCounterType(&'a str, &'a str),
    /// Types an operator cannot combine: left, operator, right.
    IncompatibleTypes(&'a str, &'a str, &'a str),
    /// An aggregation that only counts floats met a histogram.
    HistogramIgnoredInAggregation(&'a str),
    /// A function that only counts floats met a histogram beside floats.
    HistogramIgnoredInMixedRange(&'a str),
    /// NaN observations make the quantile NaN.
    QuantileNanResult(&'a str),
    /// NaN observations shift the quantile.
    QuantileNanSkew(&'a str),
    /// NaN observations are in no fraction.
    FractionNans(&'a str),
    /// Histograms with different custom bounds were brought to the shared bounds.
    MismatchedCustomBuckets(HistogramOperation),
    /// A text that carries its prefix already.
    Raw(Level, &'a str),
}

fn for_metric(text: &str, name: &str) -> String {
    if name.is_empty() { text.to_owned() } else { format!("{text} for metric name {}", quoted(name)) }
}

impl Note<'_> {
    fn level(&self) -> Level {
        match self {
            Note::Raw(level, _) => *level,
            Note::PossibleNonCounter(_)
            | Note::PossibleNonCounterType(..)
            | Note::IncompatibleTypes(..)
            | Note::HistogramIgnoredInAggregation(_)
            | Note::HistogramIgnoredInMixedRange(_)
            | Note::QuantileNanResult(_)
            | Note::QuantileNanSkew(_)
            | Note::FractionNans(_)
            | Note::MismatchedCustomBuckets(_) => Level::Info,
            _ => Level::Warning,
        }
    }

    fn text(&self) -> String {
        match self {
            Note::InvalidRatio(got, cap) => format!(
                "ratio value should be between -1 and 1, got {}, capping to {}",
                format_g(*got),
                format_g(*cap)
            ),
            Note::InvalidQuantile(q) => {
                format!("quantile value should be between 0 and 1, got {}", format_g(*q))
            }
            Note::BadBucketLabel(name, le) => for_metric(
                &format!("bucket label \"le\" is missing or has a malformed value of {}", quoted(le)),
                name,
            ),
            Note::MixedFloatsHistograms(name) => {
                format!("encountered a mix of histograms and floats for metric name {}", quoted(name))
            }
            Note::MixedFloatsHistogramsAggregation => {
                "encountered a mix of histograms and floats for aggregation".into()
            }
            Note::MixedClassicNative(name) => {
                for_metric("vector contains a mix of classic and native histograms", name)
            }
            Note::NativeHistogramNotCounter(name) => {
                format!("this native histogram metric is not a counter: {}", quoted(name))
            }
            Note::NativeHistogramNotGauge(name) => {
                format!("this native histogram metric is not a gauge: {}", quoted(name))
            }
            Note::MixedExponentialCustom(name) => format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                quoted(name)
            ),
            Note::MixedExponentialCustomAggregation => {
                "vector contains a mix of histograms with exponential and custom buckets schemas".into()
            }
            Note::IncompatibleBucketLayout(op) => {
                format!("incompatible bucket layout encountered for binary operator {op}")
            }
            Note::SortIneffective => {
                "sort is ineffective for range queries since results are always ordered by labels".into()
            }
            Note::CounterResetCollision(op) => {
                format!("conflicting counter resets during histogram {}", op.as_str())
            }
            Note::StartTimeOverlap(name) => format!(
                "sample has start time that overlaps with previous sample timestamp for metric {}",
                quoted(name)
            ),
            Note::PossibleNonCounter(name) => format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                quoted(name)
            ),
            Note::PossibleNonCounterType(name, kind) => format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {}: {}",
                quoted(kind),
                quoted(name)
            ),
            Note::IncompatibleTypes(left, op, right) => {
                format!(
                    "incompatible sample types encountered for binary operator \"{op}\": {left} {op} {right}"
                )
            }
            Note::HistogramIgnoredInAggregation(op) => format!("ignored histogram in {op} aggregation"),
            Note::HistogramIgnoredInMixedRange(name) => format!(
                "ignored histograms in a range containing both floats and histograms for metric name {}",
                quoted(name)
            ),
            Note::QuantileNanResult(name) => {
                for_metric("input to histogram_quantile has NaN observations, result is NaN", name)
            }
            Note::QuantileNanSkew(name) => {
                for_metric("input to histogram_quantile has NaN observations, result is skewed higher", name)
            }
            Note::FractionNans(name) => for_metric(
                "input to histogram_fraction has NaN observations, which are excluded from all fractions",
                name,
            ),
            Note::MismatchedCustomBuckets(op) => {
                format!("mismatched custom buckets were reconciled during {}", op.as_str())
            }
            Note::Raw(_, text) => (*text).to_owned(),
        }
    }
}

/// What a forced monotonicity was like, merged over all steps and series of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForcedMonotonicity {
    /// Lowest bound that was raised.
    pub min_bucket: f64,
    /// Highest bound that was raised.
    pub max_bucket: f64,
    /// Largest correction.
    pub max_diff: f64,
    /// First step, milliseconds.
    pub min_t_ms: i64,
    /// Last step, milliseconds.
    pub max_t_ms: i64,
    /// Steps with a correction.
    pub count: u64,
}

/// Collects notes while a query runs.
#[derive(Debug, Default)]
pub struct Notes {
    entries: BTreeMap<(Level, String), Span>,
    forced: BTreeMap<String, (ForcedMonotonicity, Span)>,
    /// Texts of the storage, without positions.
    storage: Vec<String>,
}

impl Notes {
    /// Adds a note about the expression at `span`; a text that is there already keeps its place.
    pub fn add(&mut self, note: &Note<'_>, span: Span) {
        let level = note.level();
        let text = match (note, level) {
            (Note::Raw(..), _) => note.text(),
            (_, Level::Warning) => format!("PromQL warning: {}", note.text()),
            (_, Level::Info) => format!("PromQL info: {}", note.text()),
        };
        self.entries.entry((level, text)).or_insert(span);
    }

    /// Adds what `histogram_quantile` had to correct for `metric`.
    pub fn add_forced_monotonicity(&mut self, metric: &str, forced: ForcedMonotonicity, span: Span) {
        self.forced
            .entry(metric.to_owned())
            .and_modify(|(old, _)| {
                old.min_bucket = old.min_bucket.min(forced.min_bucket);
                old.max_bucket = old.max_bucket.max(forced.max_bucket);
                old.max_diff = old.max_diff.max(forced.max_diff);
                old.min_t_ms = old.min_t_ms.min(forced.min_t_ms);
                old.max_t_ms = old.max_t_ms.max(forced.max_t_ms);
                old.count += forced.count;
            })
            .or_insert((forced, span));
    }

    /// Adds a warning of the storage.
    pub fn add_storage(&mut self, text: String) {
        if !self.storage.contains(&text) {
            self.storage.push(text);
        }
    }

    /// The annotations with their positions in `query`.
    #[must_use]
    pub fn finish(&self, query: &str) -> Annotations {
        let mut out = Annotations { warnings: self.storage.clone(), infos: Vec::new() };
        for ((level, text), span) in &self.entries {
            let text = format!("{text} ({})", position(query, *span));
            match level {
                Level::Warning => out.warnings.push(text),
                Level::Info => out.infos.push(text),
            }
        }
        for (metric, (forced, span)) in &self.forced {
            let head = for_metric(
                "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
                metric,
            );
            let time = |t_ms: i64| {
                jiff::Timestamp::from_millisecond(t_ms)
                    .map_or_else(|_| t_ms.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            };
            out.infos.push(format!(
                "{head}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {} ({})",
                format_g(forced.min_bucket),
                format_g(forced.max_bucket),
                format_g(forced.max_diff),
                forced.count,
                time(forced.min_t_ms),
                time(forced.max_t_ms),
                position(query, *span)
            ));
        }
        out
    }
}

/// `line:column` of the start of `span`, both from 1, columns in bytes.
fn position(query: &str, span: Span) -> String {
    let end = (span.start as usize).min(query.len());
    let before = &query.as_bytes()[..end];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = end - before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1) + 1;
    format!("{line}:{column}")
}
