//! How long do queries take when storage costs next to nothing? Samples are made up on the fly, so the figures
//! are those of the engine: selection, windows, folding, results.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meerkat::model::{Labels, Matcher, SampleBuffer};
use meerkat::query::parse::FUNCTIONS;
use meerkat::query::parse::ast::ValueType;
use meerkat::query::{Engine, EngineOptions, QueryOptions};
use meerkat::telemetry::Registry;
use meerkat::tsdb::{LabelQueryHints, Querier, Queryable, SelectHints, SeriesSet, StorageError};

const INTERVAL_MS: i64 = 15_000;
const DAY_MS: i64 = 86_400_000;

/// Counters on a 15-second grid that fall back to zero once in a while.
#[derive(Clone)]
struct Counters {
    labels: Arc<Vec<Labels>>,
}

impl Counters {
    fn new(series: usize) -> Self {
        let labels = (0..series).map(|i| {
            Labels::from_pairs([
                ("__name__".to_owned(), "requests_total".to_owned()),
                ("instance".to_owned(), format!("host-{:05}:9100", i / 10)),
                ("job".to_owned(), format!("job-{}", i % 7)),
                ("code".to_owned(), format!("{}", 200 + i % 10)),
            ])
        });
        Self { labels: Arc::new(labels.collect()) }
    }

    /// What `info` finds: a series for each instance and job.
    fn infos(&self) -> Self {
        let labels = self.labels.iter().map(|labels| {
            let kept = ["instance", "job"].map(|name| (name, labels.value(name)));
            Labels::from_pairs(kept.into_iter().chain([("__name__", "target_info"), ("version", "1.2.3")]))
        });
        let all: std::collections::BTreeSet<Labels> = labels.collect();
        Self { labels: Arc::new(all.into_iter().collect()) }
    }
}

impl Queryable for Counters {
    fn querier(&self, _: i64, _: i64) -> Result<Box<dyn Querier>, StorageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Querier for Counters {
    fn select(&self, _: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let infos = matchers.iter().any(|m| &*m.name == "__name__" && &*m.value == "target_info");
        Ok(Box::new(if infos { self.infos() } else { self.clone() }))
    }

    fn label_names(&self, _: &[Matcher], _: &LabelQueryHints) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: &LabelQueryHints) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }
}

impl SeriesSet for Counters {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.labels[i].clone()
    }

    fn samples(&self, i: usize, min: i64, max: i64, out: &mut SampleBuffer) -> Result<(), StorageError> {
        out.clear();
        let first = min.div_euclid(INTERVAL_MS) + 1;
        let last = max.div_euclid(INTERVAL_MS);
        out.timestamps.extend((first..=last).map(|k| k * INTERVAL_MS));
        out.values.extend((first..=last).map(|k| ((k + i as i64) % 3_000) as f64 * 1.25));
        Ok(())
    }
}

fn engine() -> Engine {
    Engine::new(EngineOptions::default(), &Registry::new())
}

fn run_range(engine: &Engine, storage: &Counters, query: &str, hours: i64, step_s: i64) {
    let options = QueryOptions::default();
    let result = engine.range(storage, query, DAY_MS, DAY_MS + hours * 3_600_000, step_s * 1000, &options);
    black_box(result.expect("the query runs"));
}

fn dashboards(c: &mut Criterion) {
    let (engine, storage) = (engine(), Counters::new(10_000));
    let mut group = c.benchmark_group("10k_series");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(10_000 * 24 * 240));
    for (name, query) in [
        ("sum_by_rate_24h", "sum by (job) (rate(requests_total[5m]))"),
        ("sum_24h", "sum(requests_total)"),
        ("max_by_24h", "max by (job) (requests_total)"),
    ] {
        group.bench_function(name, |b| b.iter(|| run_range(&engine, &storage, query, 24, 300)));
    }
    group.throughput(Throughput::Elements(10_000 * 240));
    for (name, query) in [
        ("rate_1h", "rate(requests_total[5m])"),
        ("topk_1h", "topk(10, requests_total)"),
        ("ratio_1h", "rate(requests_total[5m]) / rate(requests_total[10m])"),
    ] {
        group.bench_function(name, |b| b.iter(|| run_range(&engine, &storage, query, 1, 15)));
    }
    group.finish();
}

fn instant(c: &mut Criterion) {
    let engine = engine();
    let options = QueryOptions::default();
    let mut group = c.benchmark_group("instant");
    for (name, series, query) in [
        ("one_series", 1, "requests_total"),
        ("one_series_rate", 1, "sum(rate(requests_total[5m]))"),
        ("1k_series_rate", 1_000, "sum by (job) (rate(requests_total[5m]))"),
    ] {
        let storage = Counters::new(series);
        group.bench_function(name, |b| {
            b.iter(|| black_box(engine.instant(&storage, query, DAY_MS, &options).expect("the query runs")));
        });
    }
    group.finish();
}

/// What stands around the series to call a function, if it is not the plain form.
fn call_of(function: &str) -> String {
    let (vector, window) = ("requests_total", "requests_total[1h]");
    let buckets = "label_replace(requests_total, \"le\", \"$1\", \"code\", \"2(.*)\")";
    match function {
        "clamp" => format!("clamp({vector}, 100, 1000)"),
        "clamp_max" | "clamp_min" => format!("{function}({vector}, 1000)"),
        "round" => format!("round({vector}, 10)"),
        "predict_linear" => format!("predict_linear({window}, 3600)"),
        "quantile_over_time" => format!("quantile_over_time(0.9, {window})"),
        "double_exponential_smoothing" => format!("double_exponential_smoothing({window}, 0.5, 0.5)"),
        "histogram_quantile" => format!("histogram_quantile(0.9, {buckets})"),
        "histogram_quantiles" => format!("histogram_quantiles({buckets}, \"q\", 0.5, 0.9)"),
        "histogram_fraction" => format!("histogram_fraction(1, 5, {buckets})"),
        "label_join" => format!("label_join({vector}, \"where\", \"/\", \"job\", \"instance\")"),
        "label_replace" => format!("label_replace({vector}, \"host\", \"$1\", \"instance\", \"(.*):.*\")"),
        "sort_by_label" | "sort_by_label_desc" => format!("{function}({vector}, \"job\")"),
        "scalar" => format!("scalar({vector})"),
        "vector" => "vector(1)".to_owned(),
        "max_of" | "min_of" => format!("vector({function}(time(), 5))"),
        "info" => format!("info({vector})"),
        _ => {
            let argument = function_arguments(function);
            match argument.first() {
                Some(ValueType::Matrix) => format!("{function}({window})"),
                Some(_) => format!("{function}({vector})"),
                None => format!("{function}()"),
            }
        }
    }
}

fn function_arguments(name: &str) -> &'static [ValueType] {
    FUNCTIONS.iter().find(|f| f.name == name).map_or(&[], |f| f.args)
}

/// Every function of the language over 20 series, a day at a step of a minute; windows are an hour long.
fn functions(c: &mut Criterion) {
    let options = EngineOptions { experimental_functions: true, ..EngineOptions::default() };
    let (engine, storage) = (Engine::new(options, &Registry::new()), Counters::new(20));
    let mut group = c.benchmark_group("functions");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    group.throughput(Throughput::Elements(20 * 24 * 240));
    for function in FUNCTIONS {
        let query = call_of(function.name);
        group.bench_function(function.name, |b| b.iter(|| run_range(&engine, &storage, &query, 24, 60)));
    }
    group.finish();
}

/// Every aggregation and every kind of binary operation over 1,000 series, an hour at a step of 15 seconds.
fn operators(c: &mut Criterion) {
    let options = EngineOptions { experimental_functions: true, ..EngineOptions::default() };
    let (engine, storage) = (Engine::new(options, &Registry::new()), Counters::new(1_000));
    let mut group = c.benchmark_group("operators");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    group.throughput(Throughput::Elements(1_000 * 240));
    for operator in ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"] {
        let query = format!("{operator} by (job) (requests_total)");
        group.bench_function(operator, |b| b.iter(|| run_range(&engine, &storage, &query, 1, 15)));
    }
    for (name, query) in [
        ("topk", "topk by (job) (5, requests_total)"),
        ("bottomk", "bottomk by (job) (5, requests_total)"),
        ("quantile", "quantile by (job) (0.9, requests_total)"),
        ("count_values", "count_values by (job) (\"v\", requests_total > bool 100)"),
        ("limitk", "limitk by (job) (5, requests_total)"),
        ("limit_ratio", "limit_ratio(0.5, requests_total)"),
        ("scalar_arithmetic", "requests_total * 100"),
        ("scalar_comparison", "requests_total > 100"),
        ("vector_arithmetic", "requests_total / requests_total"),
        ("vector_comparison", "requests_total >= bool requests_total"),
        ("many_to_one", "requests_total / on (job) group_left sum by (job) (requests_total)"),
        ("and", "requests_total and requests_total > 100"),
        ("or", "requests_total > 100 or requests_total"),
        ("unless", "requests_total unless requests_total > 100"),
        ("subquery", "max_over_time(requests_total[10m:1m])"),
    ] {
        group.bench_function(name, |b| b.iter(|| run_range(&engine, &storage, query, 1, 15)));
    }
    group.finish();
}

/// How time grows with series and with hours; 60 steps each.
fn growth(c: &mut Criterion) {
    let engine = engine();
    let query = "sum by (job) (rate(requests_total[5m]))";
    let mut group = c.benchmark_group("growth");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for series in [1_000, 10_000, 100_000, 1_000_000] {
        let storage = Counters::new(series);
        group.throughput(Throughput::Elements(series as u64));
        group.bench_function(format!("series_{series}_1h"), |b| {
            b.iter(|| run_range(&engine, &storage, query, 1, 60));
        });
    }
    let storage = Counters::new(1_000);
    for hours in [1, 24, 7 * 24, 30 * 24] {
        group.throughput(Throughput::Elements(hours as u64 * 1_000 * 240));
        group.bench_function(format!("series_1000_{hours}h"), |b| {
            b.iter(|| run_range(&engine, &storage, query, hours, hours * 60));
        });
    }
    group.finish();
}

criterion_group!(benches, dashboards, instant, functions, operators, growth);
criterion_main!(benches);
