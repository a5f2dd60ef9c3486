//! Scraping's own metrics, under Prometheus's names.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::net::Dialer;
use crate::telemetry::{Counter, Gauge, Registry, Summary};

/// Quantiles of the summaries, as in Prometheus.
const QUANTILES: [f64; 5] = [0.01, 0.05, 0.5, 0.90, 0.99];

/// Instruments shared by all pools.
pub struct ScrapeMetrics {
    registry: Arc<Registry>,
    interval_length: Mutex<HashMap<String, Summary>>,
    /// Pools that could not be created.
    pub pools_failed: Counter,
    /// Pools that were created, or tried to be.
    pub pools: Counter,
    /// Reloads of pools.
    pub pool_reloads: Counter,
    /// Reloads of pools that failed.
    pub pool_reloads_failed: Counter,
    /// Syncs that exceeded the target limit.
    pub exceeded_target_limit: Counter,
    /// Scrapes that exceeded a label limit.
    pub exceeded_label_limits: Counter,
    /// Scrapes that exceeded the sample limit.
    pub exceeded_sample_limit: Counter,
    /// Scrapes that exceeded the limit on native histogram buckets.
    pub exceeded_bucket_limit: Counter,
    /// Scrapes that exceeded the body size limit.
    pub exceeded_body_size: Counter,
    /// Samples with a timestamp that is stored with another value.
    pub duplicate_timestamp: Counter,
    /// Samples older than the newest of their series.
    pub out_of_order: Counter,
    /// Samples outside the time storage takes.
    pub out_of_bounds: Counter,
    /// Exemplars older than the newest of their series.
    pub exemplar_out_of_order: Counter,
    /// Samples refused by a limit on series.
    pub series_limited: Counter,
}

impl ScrapeMetrics {
    /// Counts the connections of a job.
    pub(super) fn dialer(&self, job: &str) -> Dialer {
        Dialer::keeping(&self.registry, job)
    }

    /// Registers all instruments.
    #[must_use]
    pub fn new(registry: &Arc<Registry>) -> Self {
        let c = |name: &str, help: &str| registry.counter(name, help, &[]);
        Self {
            registry: Arc::clone(registry),
            interval_length: Mutex::default(),
            pools_failed: c(
                "prometheus_target_scrape_pools_failed_total",
                "Total number of scrape pool creations that failed.",
            ),
            pools: c(
                "prometheus_target_scrape_pools_total",
                "Total number of scrape pool creation attempts.",
            ),
            pool_reloads: c(
                "prometheus_target_scrape_pool_reloads_total",
                "Total number of scrape pool reloads.",
            ),
            pool_reloads_failed: c(
                "prometheus_target_scrape_pool_reloads_failed_total",
                "Total number of failed scrape pool reloads.",
            ),
            exceeded_target_limit: c(
                "prometheus_target_scrape_pool_exceeded_target_limit_total",
                "Total number of times scrape pools hit the target limit, during sync or config reload.",
            ),
            exceeded_label_limits: c(
                "prometheus_target_scrape_pool_exceeded_label_limits_total",
                "Total number of times scrape pools hit the label limits, during sync or config reload.",
            ),
            exceeded_sample_limit: c(
                "prometheus_target_scrapes_exceeded_sample_limit_total",
                "Total number of scrapes that hit the sample limit and were rejected.",
            ),
            exceeded_bucket_limit: c(
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected.",
            ),
            exceeded_body_size: c(
                "prometheus_target_scrapes_exceeded_body_size_limit_total",
                "Total number of scrapes that hit the body size limit.",
            ),
            duplicate_timestamp: c(
                "prometheus_target_scrapes_sample_duplicate_timestamp_total",
                "Total number of samples rejected due to duplicate timestamps but different values.",
            ),
            out_of_order: c(
                "prometheus_target_scrapes_sample_out_of_order_total",
                "Total number of samples rejected due to not being out of the expected order.",
            ),
            out_of_bounds: c(
                "prometheus_target_scrapes_sample_out_of_bounds_total",
                "Total number of samples rejected due to timestamp falling outside of the time bounds.",
            ),
            exemplar_out_of_order: c(
                "prometheus_target_scrapes_exemplar_out_of_order_total",
                "Total number of exemplar rejected due to not being out of the expected order.",
            ),
            series_limited: c(
                "meerkat_target_scrapes_series_limited_total",
                "Total number of samples rejected by a limit on active series or memory.",
            ),
        }
    }

    /// What takes the times between two scrapes of targets with this interval.
    pub fn interval_length(&self, interval: &str) -> Summary {
        let mut summaries = self.interval_length.lock();
        if let Some(summary) = summaries.get(interval) {
            return summary.clone();
        }
        let summary = self.registry.summary(
            "prometheus_target_interval_length_seconds",
            "Actual intervals between scrapes.",
            &QUANTILES,
            &[("interval", interval)],
        );
        summaries.insert(interval.to_owned(), summary.clone());
        summary
    }

    /// The instruments of one pool.
    #[must_use]
    pub fn pool(&self, job: &str) -> PoolMetrics {
        let labels = [("scrape_job", job)];
        let r = &self.registry;
        PoolMetrics {
            registry: Arc::clone(r),
            job: job.to_owned(),
            syncs: r.counter(
                "prometheus_target_scrape_pool_sync_total",
                "Total number of syncs that were executed on a scrape pool.",
                &labels,
            ),
            targets: r.gauge(
                "prometheus_target_scrape_pool_targets",
                "Current number of targets in this scrape pool.",
                &labels,
            ),
            target_limit: r.gauge(
                "prometheus_target_scrape_pool_target_limit",
                "Maximum number of targets allowed in this scrape pool.",
                &labels,
            ),
            sync_length: r.summary(
                "prometheus_target_sync_length_seconds",
                "Actual interval to sync the scrape pool.",
                &QUANTILES,
                &labels,
            ),
            sync_failed: r.counter(
                "prometheus_target_sync_failed_total",
                "Total number of target sync failures.",
                &labels,
            ),
            metadata_entries: r.gauge(
                "prometheus_target_metadata_cache_entries",
                "Total number of metric metadata entries in the cache",
                &labels,
            ),
            metadata_bytes: r.gauge(
                "prometheus_target_metadata_cache_bytes",
                "The number of bytes that are currently used for storing metric metadata in the cache",
                &labels,
            ),
        }
    }
}

/// Instruments of one pool; they go away with it.
pub struct PoolMetrics {
    registry: Arc<Registry>,
    job: String,
    /// Syncs with discovery.
    pub syncs: Counter,
    /// Active targets.
    pub targets: Gauge,
    /// The limit on targets, 0 = none.
    pub target_limit: Gauge,
    /// How long a sync took, seconds.
    pub sync_length: Summary,
    /// Discovered targets that cannot be scraped.
    pub sync_failed: Counter,
    /// Families in the metadata caches of the targets.
    pub metadata_entries: Gauge,
    /// Bytes of these caches.
    pub metadata_bytes: Gauge,
}

impl Drop for PoolMetrics {
    fn drop(&mut self) {
        for name in [
            "prometheus_target_scrape_pool_sync_total",
            "prometheus_target_scrape_pool_targets",
            "prometheus_target_scrape_pool_target_limit",
            "prometheus_target_sync_length_seconds",
            "prometheus_target_sync_failed_total",
            "prometheus_target_metadata_cache_entries",
            "prometheus_target_metadata_cache_bytes",
        ] {
            self.registry.remove(name, &[("scrape_job", &self.job)]);
        }
    }
}
