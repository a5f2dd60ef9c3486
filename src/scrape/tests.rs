//! The scrape loop against a storage that writes everything down: what is stored for which body.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::buffers::BufferPool;
use super::cache::HashKey;
use super::metadata::Interner;
use super::metrics::ScrapeMetrics;
use super::pool::{ScrapePool, build_client};
use super::scrape_loop::{LastScrape, ScrapeLoop};
use super::settings::{JobSettings, ScrapeOptions, Shared};
use super::target::{Populated, populate};
use crate::config::{Config, LoadOptions, ScrapeConfig};
use crate::model::clock::ManualClock;
use crate::model::metadata::{Exemplar, Metadata};
use crate::model::sample::HistogramValue;
use crate::model::{Labels, is_stale_nan};
use crate::telemetry::Registry;
use crate::tsdb::door::{AppendError, Appendable, Appender, BatchOptions, Commit, SeriesRef};

/// Series by labels with their references, and the batches that were committed.
#[derive(Default)]
struct Recording {
    references: BTreeMap<Labels, u64>,
    newest: BTreeMap<u64, i64>,
    batches: Vec<Vec<String>>,
}

#[derive(Default)]
pub(super) struct RecordingStorage(Mutex<Recording>);

struct RecordingAppender<'a> {
    storage: &'a RecordingStorage,
    lines: Vec<(u64, i64, String)>,
}

impl Appendable for RecordingStorage {
    fn appender(&self, _: BatchOptions) -> Box<dyn Appender + '_> {
        Box::new(RecordingAppender { storage: self, lines: Vec::new() })
    }
}

impl RecordingAppender<'_> {
    fn add(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        t_ms: i64,
        value: &str,
    ) -> Result<SeriesRef, AppendError> {
        let mut recording = self.storage.0.lock();
        let known = recording.references.iter().find(|(_, r)| **r == reference.0).map(|(l, _)| l.clone());
        let labels = known.unwrap_or_else(labels);
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("empty".into()));
        }
        let next = recording.references.len() as u64 + 1;
        let reference = *recording.references.entry(labels.clone()).or_insert(next);
        if recording.newest.get(&reference).is_some_and(|newest| *newest > t_ms) {
            return Err(AppendError::OutOfOrder);
        }
        self.lines.push((reference, t_ms, format!("{labels} {value} @{t_ms}")));
        Ok(SeriesRef(reference))
    }
}

impl Appender for RecordingAppender<'_> {
    fn append(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        value: f64,
    ) -> Result<SeriesRef, AppendError> {
        let value = if is_stale_nan(value) { "stale".to_owned() } else { value.to_string() };
        let start = if start_ms == 0 { String::new() } else { format!(" from {start_ms}") };
        self.add(reference, labels, t_ms, &format!("{value}{start}"))
    }

    fn append_histogram(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        _: i64,
        t_ms: i64,
        histogram: HistogramValue,
    ) -> Result<SeriesRef, AppendError> {
        self.add(reference, labels, t_ms, &format!("histogram of {}", histogram.to_float().count))
    }

    fn append_exemplar(&mut self, _: SeriesRef, _: i64, _: &Exemplar) -> Result<(), AppendError> {
        Ok(())
    }

    fn update_metadata(&mut self, _: &str, _: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<Commit, AppendError> {
        let mut recording = self.storage.0.lock();
        let samples = self.lines.len() as u64;
        let mut batch = Vec::new();
        for (reference, t_ms, line) in self.lines {
            recording.newest.insert(reference, t_ms);
            batch.push(line);
        }
        recording.batches.push(batch);
        Ok(Commit::new(samples, 0, None))
    }

    fn rollback(self: Box<Self>) {}
}

impl RecordingStorage {
    /// The last batch without the series that report on the scrape but for `up`.
    fn last(&self) -> Vec<String> {
        let recording = self.0.lock();
        let batch = recording.batches.last().cloned().unwrap_or_default();
        batch.into_iter().filter(|l| !l.contains("__name__=\"scrape_")).collect()
    }

    fn reports(&self) -> Vec<String> {
        let recording = self.0.lock();
        let batch = recording.batches.last().cloned().unwrap_or_default();
        let wanted = |l: &String| l.contains("__name__=\"scrape_") && !l.contains("duration");
        batch.into_iter().filter(wanted).collect()
    }
}

pub(super) fn job(yaml: &str) -> ScrapeConfig {
    let text = format!("scrape_configs:\n- job_name: j\n{yaml}");
    let mut config = Config::parse(&text, std::path::Path::new("/x/prometheus.yml"), &LoadOptions::default())
        .expect("valid");
    config.scrape_configs.remove(0)
}

/// A target that answers with whatever the test puts in, and the loop that scrapes it.
struct Bench {
    answer: Arc<Mutex<Vec<u8>>>,
    seen_head: Arc<Mutex<String>>,
    storage: Arc<RecordingStorage>,
    registry: Arc<Registry>,
    pool: Arc<ScrapePool>,
    scrape_loop: Arc<ScrapeLoop>,
}

async fn serve(listener: TcpListener, answer: Arc<Mutex<Vec<u8>>>, head: Arc<Mutex<String>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = Vec::new();
        while memchr::memmem::find(&request, b"\r\n\r\n").is_none() {
            if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                break;
            }
        }
        *head.lock() = String::from_utf8_lossy(&request).into_owned();
        let bytes = answer.lock().clone();
        let _ = stream.write_all(&bytes).await;
    }
}

impl Bench {
    async fn new(yaml: &str, options: ScrapeOptions) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (answer, seen_head) = (Arc::default(), Arc::default());
        tokio::spawn(serve(listener, Arc::clone(&answer), Arc::clone(&seen_head)));
        let config = job(yaml);
        let registry = Registry::new();
        let storage = Arc::new(RecordingStorage::default());
        let shared = Arc::new(Shared {
            bursts: super::settings::bursts(),
            storage: Arc::clone(&storage) as Arc<dyn Appendable>,
            clock: ManualClock::at(1_000),
            metrics: ScrapeMetrics::new(&registry),
            options,
            hash_key: HashKey::random(),
            interner: Interner::default(),
        });
        let labels = [("__address__".to_owned(), address), ("instance".to_owned(), "i".to_owned())];
        let populated =
            populate(&config, &labels.into_iter().collect(), &BTreeMap::new()).expect("scrapable");
        let Populated::Keep(target) = populated else { panic!("kept") };
        let client = build_client(&config, None, &shared.metrics).expect("a client");
        let pool = ScrapePool::new(
            shared,
            JobSettings::new(config, 0, String::new()),
            client,
            None,
            Arc::new(BufferPool::default()),
            tokio_util::sync::CancellationToken::new(),
            tokio_util::task::TaskTracker::new(),
            tokio::runtime::Handle::current(),
        );
        let scrape_loop =
            ScrapeLoop::new(target, Arc::clone(&pool.shared), Arc::default(), LastScrape::default());
        Self { answer, seen_head, storage, registry, pool, scrape_loop }
    }

    async fn scrape_raw(&self, answer: Vec<u8>, t_ms: i64) -> Vec<String> {
        *self.answer.lock() = answer;
        self.scrape_loop.scrape(t_ms, Instant::now()).await;
        self.storage.last()
    }

    async fn scrape(&self, body: &str, t_ms: i64) -> Vec<String> {
        let len = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n"
        );
        self.scrape_raw(format!("{head}{body}").into_bytes(), t_ms).await
    }

    fn counter(&self, name: &str) -> f64 {
        self.registry.counter(name, "", &[]).get()
    }
}

fn up(value: u8, t_ms: i64) -> String {
    format!(r#"{{__name__="up", instance="i", job="j"}} {value} @{t_ms}"#)
}

fn line(name: &str, rest: &str) -> String {
    format!(r#"{{__name__="{name}", instance="i", job="j"}} {rest}"#)
}

#[tokio::test]
async fn samples_stale_markers_and_reports_come_in_one_batch() {
    let bench = Bench::new("", ScrapeOptions::default()).await;
    let got = bench.scrape("a 1\nb 2\nc 3 500\n", 1_000).await;
    assert_eq!(got, [line("a", "1 @1000"), line("b", "2 @1000"), line("c", "3 @500"), up(1, 1_000)]);
    assert_eq!(
        bench.storage.reports(),
        [
            line("scrape_samples_scraped", "3 @1000"),
            line("scrape_samples_post_metric_relabeling", "3 @1000"),
            line("scrape_series_added", "3 @1000"),
        ]
    );
    // `c` has a timestamp of its own: it does not end.
    let got = bench.scrape("b 4\n", 2_000).await;
    assert_eq!(got, [line("b", "4 @2000"), line("a", "stale @2000"), up(1, 2_000)]);
    let got = bench.scrape("d 4\nb 5\n", 3_000).await;
    assert_eq!(got, [line("d", "4 @3000"), line("b", "5 @3000"), up(1, 3_000)]);
    assert_eq!(bench.storage.reports()[2], line("scrape_series_added", "1 @3000"));
}

#[tokio::test]
async fn failures_end_everything_once_and_nothing_of_a_bad_body_stays() {
    let bench = Bench::new("", ScrapeOptions::default()).await;
    bench.scrape("a 1\nb 2\n", 1_000).await;
    let got = bench.scrape("a 2\nnew 1\nbad bad\n", 2_000).await;
    assert_eq!(got, [line("a", "stale @2000"), line("b", "stale @2000"), up(0, 2_000)]);
    let got = bench
        .scrape_raw(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(), 3_000)
        .await;
    assert_eq!(got, [up(0, 3_000)]);
    assert_eq!(bench.scrape_loop.last().error, "server returned HTTP status 500 Internal Server Error");
    let got = bench.scrape("a 2\nb 2\n", 4_000).await;
    assert_eq!(got, [line("a", "2 @4000"), line("b", "2 @4000"), up(1, 4_000)]);
    assert_eq!(bench.storage.reports()[2], line("scrape_series_added", "0 @4000"));
    let got = bench
        .scrape_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\na 1".to_vec(), 5_000)
        .await;
    assert_eq!(got.last(), Some(&up(0, 5_000)));
    assert!(bench.scrape_loop.last().error.contains("blank Content-Type"));
}

#[tokio::test]
async fn labels_merge_relabel_and_drop() {
    let yaml = "  metric_relabel_configs:\n  - {source_labels: [__name__], regex: drop_.*, action: drop}\n";
    let bench = Bench::new(yaml, ScrapeOptions::default()).await;
    let body = "x{job=\"own\",exported_job=\"y\"} 1\ndrop_me 2\n";
    for t_ms in [1_000, 2_000] {
        let got = bench.scrape(body, t_ms).await;
        let want = format!(
            r#"{{__name__="x", exported_exported_job="own", exported_job="y", instance="i", job="j"}} 1 @{t_ms}"#
        );
        assert_eq!(got, [want, up(1, t_ms)]);
        assert_eq!(
            bench.storage.reports()[..2],
            [
                line("scrape_samples_scraped", &format!("2 @{t_ms}")),
                line("scrape_samples_post_metric_relabeling", &format!("1 @{t_ms}")),
            ]
        );
    }
    let honest = Bench::new("  honor_labels: true\n", ScrapeOptions::default()).await;
    let got = honest.scrape("x{job=\"own\"} 1\n", 1_000).await;
    assert_eq!(got[0], r#"{__name__="x", instance="i", job="own"} 1 @1000"#);
}

#[tokio::test]
async fn limits_fail_the_whole_scrape() {
    for (yaml, body, counter, error) in [
        (
            "  sample_limit: 2\n",
            "a 1\nb 1\nc 1\n",
            "scrapes_exceeded_sample_limit_total",
            "sample limit exceeded",
        ),
        (
            "  body_size_limit: 10B\n",
            "a 1\nb 1\nc 1\n",
            "scrapes_exceeded_body_size_limit_total",
            "body size limit",
        ),
        (
            "  label_limit: 3\n",
            "a{b=\"c\"} 1\n",
            "scrape_pool_exceeded_label_limits_total",
            "label_limit exceeded",
        ),
        (
            "  label_limit: 3\n",
            "a 1\na{b=\"c\"} 1\n",
            "scrape_pool_exceeded_label_limits_total",
            r#" in line 2: "a{b=\"c\"} 1""#,
        ),
        (
            "  label_value_length_limit: 4\n",
            "a{b=\"12345\"} 1\n",
            "scrape_pool_exceeded_label_limits_total",
            "label_value_length_limit",
        ),
    ] {
        let bench = Bench::new(yaml, ScrapeOptions::default()).await;
        assert_eq!(bench.scrape(body, 1_000).await, [up(0, 1_000)], "{yaml}");
        assert!(bench.scrape_loop.last().error.contains(error), "{}", bench.scrape_loop.last().error);
        assert_eq!(bench.counter(&format!("prometheus_target_{counter}")), 1.0, "{yaml}");
    }
}

#[tokio::test]
async fn duplicates_lose_and_far_future_is_refused() {
    let bench = Bench::new("", ScrapeOptions::default()).await;
    for t_ms in [1_000, 2_000] {
        let got = bench.scrape("a 1\na 2\nb 3\n", t_ms).await;
        assert_eq!(got, [line("a", &format!("1 @{t_ms}")), line("b", &format!("3 @{t_ms}")), up(1, t_ms)]);
    }
    assert_eq!(bench.counter("prometheus_target_scrapes_sample_duplicate_timestamp_total"), 2.0);
    let got = bench.scrape("a 1 999999999\n", 3_000).await;
    assert_eq!(got, [line("b", "stale @3000"), up(1, 3_000)]);
    assert_eq!(bench.counter("prometheus_target_scrapes_sample_out_of_bounds_total"), 1.0);
}

#[tokio::test]
async fn changed_rules_end_what_no_longer_exists() {
    let bench = Bench::new("", ScrapeOptions::default()).await;
    bench.scrape("a 1\nb 2\n", 1_000).await;
    let changed = job("  metric_relabel_configs:\n  - {source_labels: [__name__], regex: b, action: drop}\n");
    bench.pool.reconfigure(changed, None, None);
    let got = bench.scrape("a 1\nb 2\n", 2_000).await;
    assert_eq!(got, [line("a", "1 @2000"), line("b", "stale @2000"), up(1, 2_000)]);
}

#[tokio::test]
async fn a_removed_target_ends_with_its_reports() {
    let bench = Bench::new("", ScrapeOptions::default()).await;
    bench.scrape("a 1\n", 1_000).await;
    bench.scrape_loop.end_series(2_000);
    let recording = bench.storage.0.lock();
    let batch = recording.batches.last().expect("a batch");
    assert_eq!(batch.len(), 6);
    assert!(batch.iter().all(|line| line.ends_with("stale @2000")), "{batch:?}");
}

#[tokio::test]
async fn requests_look_like_those_of_prometheus() {
    let bench =
        Bench::new("  scrape_timeout: 2500ms\n  params: {a: [b c]}\n", ScrapeOptions::default()).await;
    bench.scrape("a 1\n", 1_000).await;
    let head = bench.seen_head.lock().to_lowercase();
    for want in [
        "get /metrics?a=b+c http/1.1\r\n",
        "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,",
        "accept-encoding: gzip\r\n",
        "x-prometheus-scrape-timeout-seconds: 2.5\r\n",
        "user-agent: prometheus/",
    ] {
        assert!(head.contains(want), "{want} is missing in {head}");
    }
}

#[tokio::test]
async fn start_times_become_zero_samples_when_asked() {
    let options = ScrapeOptions { zero_ingestion: true, ..ScrapeOptions::default() };
    let bench = Bench::new("", options).await;
    let body = "# TYPE x counter\nx_total 5\nx_created 0.5\n# EOF\n";
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\n\r\n";
    let got = bench.scrape_raw(format!("{head}{body}").into_bytes(), 1_000).await;
    assert_eq!(got, [line("x_total", "0 @500"), line("x_total", "5 @1000"), up(1, 1_000)]);
}
