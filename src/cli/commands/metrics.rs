//! `check metrics`: does an exposition follow the format, and the customs of naming
//! (<https://prometheus.io/docs/practices/naming/>)?

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use clap::{Arg, ArgMatches, Command};

use super::output::{say, tell};
use super::{EXIT_LINT, switch, text};
use crate::cli::serve::EXIT_FAILURE;
use crate::model::metadata::MetricType;
use crate::model::sample::HistogramValue;
use crate::scrape::exposition::{
    Format, PairBuffer, ParseOptions, SampleView, SeriesView, Sink, Stop, parse,
};

/// Most bytes that are read.
const MAX_INPUT_BYTES: u64 = 1 << 30;
/// Units that are not base units, and what to use.
const UNITS: [(&str, &str); 21] = [
    ("milliseconds", "seconds"),
    ("microseconds", "seconds"),
    ("nanoseconds", "seconds"),
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvins", "celsius"),
    ("fahrenheit", "celsius"),
    ("kilometers", "meters"),
    ("millimeters", "meters"),
    ("inches", "meters"),
    ("miles", "meters"),
    ("bits", "bytes"),
    ("kilobytes", "bytes"),
    ("megabytes", "bytes"),
    ("gigabytes", "bytes"),
    ("kibibytes", "bytes"),
    ("mebibytes", "bytes"),
    ("kilograms", "grams"),
    ("kilojoules", "joules"),
];
const ABBREVIATIONS: [&str; 14] =
    ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];

pub(super) fn command() -> Command {
    Command::new("metrics")
        .about("Check metrics in the text format from standard input")
        .after_help(
            "Exit codes: 0 all is well, 1 the format is broken, 3 names or metadata break the customs.\n\nExample: \
             curl -s http://localhost:9090/metrics | meerkat check metrics",
        )
        .arg(switch("extended", "Print how many series each metric has."))
        .arg(
            Arg::new("lint")
                .long("lint")
                .value_parser(["all", "none"])
                .default_value("all")
                .help("Whether to look at names and metadata."),
        )
}

#[derive(Debug, Default)]
struct Metric {
    metric_type: Option<MetricType>,
    help: Option<String>,
    labels: BTreeSet<String>,
    series: usize,
}

#[derive(Debug, Default)]
struct Exposition {
    metrics: BTreeMap<String, Metric>,
    fault: String,
}

impl Exposition {
    fn family(&mut self, name: &str) -> &mut Metric {
        self.metrics.entry(name.to_owned()).or_default()
    }
}

impl Sink for Exposition {
    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        self.family(family).help = Some(text.to_owned());
        Ok(())
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        self.family(family).metric_type = Some(metric_type);
        Ok(())
    }

    fn unit(&mut self, _family: &str, _unit: &str) -> Result<(), Stop> {
        Ok(())
    }

    fn series(&mut self, series: &SeriesView<'_>, _: &SampleView<'_>, _known: bool) -> Result<(), Stop> {
        let mut pairs = PairBuffer::default();
        if let Err(e) = series.labels(&mut pairs) {
            self.fault = e.to_string();
            return Err(Stop);
        }
        let name = pairs.get("__name__").to_owned();
        let family = series.family();
        let grouped = matches!(family.metric_type, MetricType::Histogram | MetricType::Summary);
        let name = if grouped && family.owns(&name) { family.name.clone() } else { name };
        let own = match family.metric_type {
            MetricType::Histogram => "le",
            MetricType::Summary => "quantile",
            _ => "",
        };
        let labels: Vec<String> = pairs
            .iter()
            .map(|l| l.name.to_owned())
            .filter(|l| l != "__name__" && !(grouped && l == own))
            .collect();
        let metric = self.family(&name);
        metric.series += 1;
        metric.labels.extend(labels);
        Ok(())
    }

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        self.fault = "the text format has no native histograms".into();
        Err(Stop)
    }
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    let mut body = Vec::new();
    if let Err(e) = std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_end(&mut body) {
        tell!("error while reading standard input: {e}");
        return EXIT_FAILURE;
    }
    let mut exposition = Exposition::default();
    if let Err(e) = parse(Format::Text, &body, &ParseOptions::default(), &mut exposition) {
        let reason = if exposition.fault.is_empty() { e.to_string() } else { exposition.fault };
        tell!("error while linting: {reason}");
        return EXIT_FAILURE;
    }
    let mut problems = 0;
    if text(matches, "lint") == "all" {
        for (name, metric) in &exposition.metrics {
            for problem in lint(name, metric) {
                tell!("{name} {problem}");
                problems += 1;
            }
        }
    }
    if matches.get_flag("extended") {
        let total: usize = exposition.metrics.values().map(|m| m.series).sum();
        let mut rows: Vec<_> = exposition.metrics.iter().map(|(name, m)| (m.series, name)).collect();
        rows.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        say!("{:<60}{:>12}{:>12}", "Metric", "Cardinality", "Percentage");
        for (series, name) in rows {
            say!("{name:<60}{series:>12}{:>11.2}%", 100.0 * series as f64 / total.max(1) as f64);
        }
        say!("{:<60}{total:>12}{:>11.2}%", "Total", 100.0);
    }
    if problems > 0 { EXIT_LINT } else { 0 }
}

fn lint(name: &str, metric: &Metric) -> Vec<String> {
    let mut out = Vec::new();
    let metric_type = metric.metric_type.unwrap_or_default();
    if metric.help.as_deref().unwrap_or_default().is_empty() {
        out.push("no help text".to_owned());
    }
    match metric_type {
        MetricType::Counter if !name.ends_with("_total") => {
            out.push("counter metrics should have \"_total\" suffix".into());
        }
        MetricType::Counter | MetricType::Unknown => {}
        _ if name.ends_with("_total") => {
            out.push("non-counter metrics should not have \"_total\" suffix".into());
        }
        _ => {}
    }
    if !matches!(metric_type, MetricType::Histogram | MetricType::Unknown) {
        if name.ends_with("_bucket") {
            out.push("non-histogram metrics should not have \"_bucket\" suffix".into());
        }
        if metric.labels.contains("le") {
            out.push("non-histogram metrics should not have \"le\" label".into());
        }
    }
    if !matches!(metric_type, MetricType::Histogram | MetricType::Summary | MetricType::Unknown) {
        for suffix in ["_count", "_sum"] {
            if name.ends_with(suffix) {
                out.push(format!(
                    "non-histogram and non-summary metrics should not have \"{suffix}\" suffix"
                ));
            }
        }
    }
    if !matches!(metric_type, MetricType::Summary | MetricType::Unknown) && metric.labels.contains("quantile")
    {
        out.push("non-summary metrics should not have \"quantile\" label".into());
    }
    if metric_type != MetricType::Unknown
        && name.to_ascii_lowercase().split('_').any(|word| word == metric_type.as_str())
    {
        out.push(format!("metric name should not include type '{}'", metric_type.as_str()));
    }
    if name.contains(':') {
        out.push("metric names should not contain ':'".into());
    }
    let is_camel = |text: &str| {
        text.as_bytes().windows(2).any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase())
    };
    if is_camel(name) {
        out.push("metric names should be written in 'snake_case' not 'camelCase'".into());
    }
    for label in metric.labels.iter().filter(|l| is_camel(l)) {
        out.push(format!("label names should be written in 'snake_case' not 'camelCase': {label}"));
    }
    let words: Vec<String> = name.to_ascii_lowercase().split('_').map(str::to_owned).collect();
    if let Some((unit, base)) = UNITS.iter().find(|(unit, _)| words.iter().any(|w| w == unit)) {
        out.push(format!("use base unit \"{base}\" instead of \"{unit}\""));
    }
    if words.iter().skip(1).any(|w| ABBREVIATIONS.contains(&w.as_str())) {
        out.push("metric names should not contain abbreviated units".into());
    }
    out
}
