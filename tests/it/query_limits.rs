//! Queries that ask for too much end with an error that names the limit, and take nothing else down.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meerkat::model::{Labels, Matcher, SampleBuffer};
use meerkat::query::parse::{ParseOptions, parse_expr, pretty};
use meerkat::query::{CancelToken, Engine, EngineOptions, QueryError, QueryOptions, QueryResult};
use meerkat::telemetry::Registry;
use meerkat::tsdb::memory::MemoryStorage;
use meerkat::tsdb::{
    Appendable, BatchOptions, LabelQueryHints, Querier, Queryable, SelectHints, SeriesRef, SeriesSet,
    StorageError,
};

const HOUR: i64 = 3_600_000;
/// The default stack of a thread that Rust starts.
const SMALL_STACK: usize = 2 << 20;

fn engine(options: EngineOptions) -> Engine {
    Engine::new(options, &Registry::new())
}

/// `a` and `b` with `series` series each and a sample every 15 seconds for an hour.
fn storage(series: usize) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    for name in ["a", "b"] {
        for i in 0..series {
            let mut appender = storage.appender(BatchOptions::default());
            let x = i.to_string();
            let labels = Labels::from_pairs([("__name__", name), ("x", &x)]);
            for step in 0..240 {
                let t = step * 15_000;
                appender.append(SeriesRef::NONE, &|| labels.clone(), 0, t, step as f64).unwrap();
            }
            appender.commit().unwrap();
        }
    }
    storage
}

fn instant(engine: &Engine, storage: &dyn Queryable, query: &str) -> Result<QueryResult, QueryError> {
    engine.instant(storage, query, HOUR, &QueryOptions::default())
}

fn error(engine: &Engine, storage: &dyn Queryable, query: &str) -> String {
    instant(engine, storage, query).map_or_else(|e| e.to_string(), |r| panic!("{query}: {:?}", r.value))
}

/// Writes out `<text*n>`.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("`>` behind `<`");
        let (part, times) = rest[at + 1..end].rsplit_once('*').expect("`*` before the count");
        out.push_str(&rest[..at]);
        out.push_str(&part.replace("%20", " ").repeat(times.parse().expect("a count")));
        rest = &rest[end + 1..];
    }
    out + rest
}

#[test]
fn queries_of_death_end_with_an_error_or_a_value_on_a_small_stack() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/promql/death/queries.txt");
    let text = fs::read_to_string(path).unwrap();
    let work = move || {
        let (engine, storage) = (engine(EngineOptions::default()), storage(3));
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (want, query) = line.split_once(" | ").expect("outcome and query");
            let got = instant(&engine, &*storage, &expand(query)).err().map(|e| e.to_string());
            match got {
                None => assert_eq!(want, "ok", "{line}"),
                Some(e) => assert!(want != "ok" && e.contains(want), "{line}: {}", &e[..e.len().min(300)]),
            }
        }
    };
    std::thread::Builder::new().stack_size(SMALL_STACK).spawn(work).unwrap().join().unwrap();
}

#[test]
fn long_chains_are_printed_and_dropped_on_a_small_stack() {
    let work = || {
        for link in ["a or ", "a + ", "1 + "] {
            let text = link.repeat(3_500) + "1".repeat(usize::from(link.starts_with('1'))).as_str();
            let text = if text.ends_with(' ') { text + "a" } else { text };
            let expr = parse_expr(&text, &ParseOptions::default()).unwrap();
            assert_eq!(expr.to_string(), text);
            assert!(pretty(&expr).len() > text.len());
        }
    };
    std::thread::Builder::new().stack_size(SMALL_STACK).spawn(work).unwrap().join().unwrap();
}

#[test]
fn limits_name_themselves() {
    let storage = storage(10);
    let samples = engine(EngineOptions { max_samples: 1_000, ..EngineOptions::default() });
    let said = error(&samples, &*storage, "sum_over_time(a[1h:1s])");
    assert!(said.contains("query processing would load too many samples into memory"), "{said}");
    let bytes = engine(EngineOptions { max_query_bytes: 100, ..EngineOptions::default() });
    let said = error(&bytes, &*storage, "a or b");
    assert!(said.contains("100 bytes") && said.contains("--query.max-bytes"), "{said}");
    let total = engine(EngineOptions { max_total_bytes: 100, ..EngineOptions::default() });
    let said = error(&total, &*storage, "a or b");
    assert!(said.contains("100 bytes") && said.contains("--query.max-total-bytes"), "{said}");
    // What a failed query held is free again.
    assert!(instant(&total, &*storage, "1").is_ok());
    let late = QueryOptions { timeout: Some(Duration::ZERO), ..QueryOptions::default() };
    let said = engine(EngineOptions::default()).instant(&*storage, "sum(a)", HOUR, &late).unwrap_err();
    assert!(matches!(said, QueryError::Timeout(_)) && said.to_string().contains("timed out"), "{said}");
}

#[test]
fn labels_of_what_is_selected_count() {
    let storage = MemoryStorage::new();
    for i in 0..50 {
        let mut appender = storage.appender(BatchOptions::default());
        let labels = Labels::from_pairs([("__name__", "long"), ("x", &format!("{i:010000}"))]);
        appender.append(SeriesRef::NONE, &|| labels.clone(), 0, HOUR, 1.0).unwrap();
        appender.commit().unwrap();
    }
    let limited = engine(EngineOptions { max_query_bytes: 400_000, ..EngineOptions::default() });
    for query in ["count(long)", "long", "sum(rate(long[5m]))"] {
        let said = error(&limited, &*storage, query);
        assert!(said.contains("400000 bytes") && said.contains("--query.max-bytes"), "{said}");
    }
    // They are given back at the end of each query.
    let total = engine(EngineOptions { max_total_bytes: 1_200_000, ..EngineOptions::default() });
    for _ in 0..5 {
        assert!(instant(&total, &*storage, "count(long)").is_ok());
    }
}

/// A storage that does something before each view, and something before each series is read.
struct Meddling<V, R> {
    inner: Arc<MemoryStorage>,
    on_view: V,
    on_read: Arc<R>,
}

struct View<R>(Box<dyn Querier>, Arc<R>);

struct Set<R>(Box<dyn SeriesSet>, Arc<R>);

impl<V: Fn() + Send + Sync, R: Fn() + Send + Sync + 'static> Queryable for Meddling<V, R> {
    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError> {
        (self.on_view)();
        Ok(Box::new(View(self.inner.querier(min_t_ms, max_t_ms)?, Arc::clone(&self.on_read))))
    }
}

impl<R: Fn() + Send + Sync + 'static> Querier for View<R> {
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        Ok(Box::new(Set(self.0.select(hints, matchers)?, Arc::clone(&self.1))))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        self.0.label_names(matchers, hints)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        self.0.label_values(name, matchers, hints)
    }
}

impl<R: Fn() + Send + Sync> SeriesSet for Set<R> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.0.labels(i)
    }

    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError> {
        (self.1)();
        self.0.samples(i, min_t_ms, max_t_ms, out)
    }
}

#[test]
fn a_cancelled_query_reads_hardly_any_more_series() {
    let cancel = CancelToken::default();
    let reads = Arc::new(AtomicUsize::new(0));
    let on_read = {
        let (cancel, reads) = (cancel.clone(), Arc::clone(&reads));
        move || {
            if reads.fetch_add(1, Ordering::Relaxed) == 5 {
                cancel.cancel();
            }
        }
    };
    let storage = Meddling { inner: storage(300), on_view: || {}, on_read: Arc::new(on_read) };
    let options = QueryOptions { cancel, ..QueryOptions::default() };
    let engine = engine(EngineOptions::default());
    let said = engine.range(&storage, "sum(rate(a[5m]))", 0, HOUR, 1_000, &options).unwrap_err();
    assert!(matches!(said, QueryError::Canceled(_)), "{said}");
    // Threads that were in the middle of a series finish that one.
    assert!(reads.load(Ordering::Relaxed) < 40, "{reads:?}");
}

#[test]
fn who_waits_for_a_slot_can_time_out_and_be_cancelled() {
    let engine = Arc::new(engine(EngineOptions { max_concurrency: 1, ..EngineOptions::default() }));
    let inner = storage(1);
    let on_view = {
        let (engine, inner) = (Arc::clone(&engine), Arc::clone(&inner));
        move || {
            // The only slot is taken by the query that is asking for this view.
            let late = QueryOptions { timeout: Some(Duration::ZERO), ..QueryOptions::default() };
            let said = engine.instant(&*inner, "a", HOUR, &late).unwrap_err();
            assert_eq!(said.to_string(), "query timed out in query queue");
            let cancelled = QueryOptions::default();
            cancelled.cancel.cancel();
            let said = engine.instant(&*inner, "a", HOUR, &cancelled).unwrap_err();
            assert_eq!(said.to_string(), "query was canceled in query queue");
        }
    };
    let storage = Meddling { inner: Arc::clone(&inner), on_view, on_read: Arc::new(|| {}) };
    assert!(instant(&engine, &storage, "a").is_ok());
    assert!(instant(&engine, &*inner, "a").is_ok(), "the slot is free again");
}

#[test]
fn an_explained_query_counts_series_samples_and_time() {
    let (engine, storage) = (engine(EngineOptions::default()), storage(4));
    let explain = |query: &str, end, step| {
        engine.explain(&*storage, query, 0, end, step, &QueryOptions::default()).unwrap()
    };
    let plan = explain("sum by (x) (rate(a[5m])) / 2", HOUR, 60_000).plan;
    assert_eq!((plan.kind, plan.name, plan.series), ("binary", "/", 4));
    assert_eq!(plan.text, "sum by (x) (rate(a[5m])) / 2");
    let sum = &plan.children[0];
    assert_eq!(
        (sum.kind, sum.name, sum.series, sum.text.as_str()),
        ("aggregation", "sum", 4, "sum by (x) (rate(a[5m]))")
    );
    let rate = &sum.children[0];
    assert_eq!((rate.kind, rate.name, rate.series, rate.samples), ("call", "rate", 4, 4 * 60));
    let selector = &rate.children[0];
    assert_eq!((selector.kind, selector.series, selector.samples), ("range selector", 4, 4 * 240));
    assert!(plan.seconds >= sum.seconds && plan.own_seconds <= plan.seconds);
    let plan = explain("a @ 60", HOUR, 60_000).plan;
    assert!(plan.constant);
    assert_eq!((plan.kind, plan.series, plan.samples), ("selector", 4, 4));
    assert_eq!(explain("a", 0, 0).plan.samples, 4);
}
