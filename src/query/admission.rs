//! Who may run now, and what does the engine say about itself?

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::engine::{CancelToken, QueryError, QueryStats};
use crate::telemetry::{Counter, Gauge, Histogram, Registry, Summary};

/// Queries that may wait; more are turned away at once.
const MAX_WAITING: usize = 1024;
/// How long a waiting query sleeps before it looks whether somebody cancelled it.
const NAP: Duration = Duration::from_millis(20);

/// Lets a limited number of queries in; the others wait until their deadline.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<(usize, usize)>,
    freed: Condvar,
    limit: usize,
}

/// The right to run; given back when dropped.
#[derive(Debug)]
pub struct Slot<'a>(&'a Gate);

impl Gate {
    /// A gate for `limit` queries at once (at least one).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { state: Mutex::new((0, 0)), freed: Condvar::new(), limit: limit.max(1) }
    }

    /// Waits for a slot.
    pub fn enter(&self, deadline: Instant, cancel: &CancelToken) -> Result<Slot<'_>, QueryError> {
        let mut state = self.state.lock();
        if state.0 >= self.limit && state.1 >= MAX_WAITING {
            return Err(QueryError::Timeout("query queue"));
        }
        state.1 += 1;
        let result = loop {
            if state.0 < self.limit {
                state.0 += 1;
                break Ok(Slot(self));
            }
            if cancel.is_cancelled() {
                break Err(QueryError::Canceled("query queue"));
            }
            let now = Instant::now();
            if now >= deadline {
                break Err(QueryError::Timeout("query queue"));
            }
            self.freed.wait_until(&mut state, deadline.min(now + NAP));
        };
        state.1 -= 1;
        result
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state.lock().0 -= 1;
        self.0.freed.notify_one();
    }
}

/// The engine's own metrics.
#[derive(Debug)]
pub struct EngineMetrics {
    active: Gauge,
    queue: (Summary, Histogram),
    prepare: (Summary, Histogram),
    inner: (Summary, Histogram),
    sort: (Summary, Histogram),
    samples: Counter,
    samples_read: Counter,
    steps: Counter,
    steps_cached: Counter,
}

/// Counts a query as running until dropped.
#[derive(Debug)]
pub struct Active<'a>(&'a Gauge);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

impl EngineMetrics {
    /// Registers the metrics under Prometheus's names.
    #[must_use]
    pub fn new(registry: &Registry, max_concurrency: usize) -> Self {
        let slice = |name: &str| {
            let labels = [("slice", name)];
            let summary = registry.summary(
                "prometheus_engine_query_duration_seconds",
                "Query timings.",
                &[0.5, 0.9, 0.99],
                &labels,
            );
            let histogram = registry.histogram(
                "prometheus_engine_query_duration_histogram_seconds",
                "The duration of various parts of PromQL query execution.",
                &[0.01, 0.1, 1.0, 10.0],
                &labels,
            );
            (summary, histogram)
        };
        registry
            .gauge("prometheus_engine_queries_concurrent_max", "The max number of concurrent queries.", &[])
            .set(max_concurrency as f64);
        Self {
            active: registry.gauge(
                "prometheus_engine_queries",
                "The current number of queries being executed or waiting.",
                &[],
            ),
            queue: slice("queue_time"),
            prepare: slice("prepare_time"),
            inner: slice("inner_eval"),
            sort: slice("result_sort"),
            samples: registry.counter(
                "prometheus_engine_query_samples_total",
                "The total number of samples loaded by all queries.",
                &[],
            ),
            samples_read: registry.counter(
                "prometheus_engine_query_samples_read_total",
                "The total number of samples read from storage by all queries.",
                &[],
            ),
            steps: registry.counter(
                "meerkat_query_result_cache_steps_total",
                "Steps of range queries that the result cache was asked for.",
                &[],
            ),
            steps_cached: registry.counter(
                "meerkat_query_result_cache_hit_steps_total",
                "Steps of range queries that the result cache knew.",
                &[],
            ),
        }
    }

    /// Counts a query as running.
    #[must_use]
    pub fn enter(&self) -> Active<'_> {
        self.active.add(1.0);
        Active(&self.active)
    }

    /// Counts the steps of a query that the result cache knew, and all of them.
    pub fn count_cached(&self, known: usize, all: usize) {
        self.steps.add(all as f64);
        self.steps_cached.add(known as f64);
    }

    /// Counts a finished query.
    pub fn observe(&self, stats: &QueryStats) {
        for ((summary, histogram), seconds) in [
            (&self.queue, stats.exec_queue_time),
            (&self.prepare, stats.query_preparation_time),
            (&self.inner, stats.inner_eval_time),
            (&self.sort, stats.result_sort_time),
        ] {
            summary.observe(seconds);
            histogram.observe(seconds);
        }
        self.samples.add(stats.total_queryable_samples as f64);
        self.samples_read.add(stats.samples_read as f64);
    }
}
