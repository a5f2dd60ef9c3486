//! Instruments of the head, under Prometheus's names.

use std::sync::{Arc, Weak};

use super::Head;
use crate::telemetry::{Counter, Registry, Summary};

/// Counters that commits touch.
#[derive(Debug, Clone)]
pub struct HeadMetrics {
    /// Stored floats.
    pub floats: Counter,
    /// Stored histograms.
    pub histograms: Counter,
    /// Refused as out of order, floats.
    pub out_of_order_floats: Counter,
    /// Refused as out of order, histograms.
    pub out_of_order_histograms: Counter,
    /// Refused as out of bounds, floats.
    pub out_of_bounds: Counter,
    /// Refused as too old.
    pub too_old: Counter,
    /// Stored although out of order.
    pub late: Counter,
    /// Damaged head chunks met.
    pub chunk_corruptions: Counter,
    /// Checkpoints tried.
    pub checkpoints: Counter,
    /// Checkpoints that failed.
    pub checkpoints_failed: Counter,
    /// Truncations of the head.
    pub truncations: Counter,
    /// Truncations of the head that failed.
    pub truncations_failed: Counter,
    /// Time spent on removing series.
    pub gc_duration: Summary,
}

impl HeadMetrics {
    /// Registers the counters.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let typed = |name, help, kind| registry.counter(name, help, &[("type", kind)]);
        let plain = |name, help| registry.counter(name, help, &[]);
        let appended = |kind| {
            typed("prometheus_tsdb_head_samples_appended_total", "Total number of appended samples.", kind)
        };
        let out_of_order = |kind| {
            let help = "Total number of out of order samples ingestion failed attempts due to out of order being disabled.";
            typed("prometheus_tsdb_out_of_order_samples_total", help, kind)
        };
        Self {
            floats: appended("float"),
            histograms: appended("histogram"),
            out_of_order_floats: out_of_order("float"),
            out_of_order_histograms: out_of_order("histogram"),
            out_of_bounds: typed(
                "prometheus_tsdb_out_of_bound_samples_total",
                "Total number of out of bound samples ingestion failed attempts with out of order support disabled.",
                "float",
            ),
            too_old: typed(
                "prometheus_tsdb_too_old_samples_total",
                "Total number of out of order samples ingestion failed attempts with out of support enabled, but sample outside of time window.",
                "float",
            ),
            late: typed(
                "prometheus_tsdb_head_out_of_order_samples_appended_total",
                "Total number of appended out of order samples.",
                "float",
            ),
            chunk_corruptions: plain(
                "prometheus_tsdb_mmap_chunk_corruptions_total",
                "Total number of memory-mapped chunk corruptions.",
            ),
            checkpoints: plain(
                "prometheus_tsdb_checkpoint_creations_total",
                "Total number of checkpoint creations attempted.",
            ),
            checkpoints_failed: plain(
                "prometheus_tsdb_checkpoint_creations_failed_total",
                "Total number of checkpoint creations that failed.",
            ),
            truncations: plain(
                "prometheus_tsdb_head_truncations_total",
                "Total number of head truncations attempted.",
            ),
            truncations_failed: plain(
                "prometheus_tsdb_head_truncations_failed_total",
                "Total number of head truncations that failed.",
            ),
            gc_duration: registry.summary(
                "prometheus_tsdb_head_gc_duration_seconds",
                "Runtime of garbage collection in the head block.",
                &[],
                &[],
            ),
        }
    }
}

/// Registers the numbers that are read when somebody asks.
pub fn register(head: &Arc<Head>, registry: &Registry) {
    let gauge = |name, help| registry.gauge(name, help, &[]);
    let total = |name, help| registry.counter(name, help, &[]);
    let series = gauge("prometheus_tsdb_head_series", "Total number of series in the head block.");
    let chunks =
        total("prometheus_tsdb_head_chunks_created_total", "Total number of chunks created in the head");
    let created =
        total("prometheus_tsdb_head_series_created_total", "Total number of series created in the head");
    let removed =
        total("prometheus_tsdb_head_series_removed_total", "Total number of series removed in the head");
    let head_chunks = gauge("prometheus_tsdb_head_chunks", "Total number of chunks in the head block.");
    let chunk_bytes =
        gauge("prometheus_tsdb_head_chunks_storage_size_bytes", "Size of the chunks_head directory.");
    let min = gauge("prometheus_tsdb_head_min_time_seconds", "Minimum time bound of the head block.");
    let max = gauge("prometheus_tsdb_head_max_time_seconds", "Maximum timestamp of the head block.");
    let min_ms =
        gauge("prometheus_tsdb_head_min_time", "Minimum time bound of the head block in milliseconds.");
    let max_ms =
        gauge("prometheus_tsdb_head_max_time", "Maximum timestamp of the head block in milliseconds.");
    let appenders =
        gauge("prometheus_tsdb_head_active_appenders", "Number of currently active appender transactions");
    let exemplars = gauge(
        "prometheus_tsdb_exemplar_exemplars_in_storage",
        "Number of exemplars currently in circular storage.",
    );
    let with_exemplars = gauge(
        "prometheus_tsdb_exemplar_series_with_exemplars_in_storage",
        "Number of series with exemplars currently in circular storage.",
    );
    let exemplars_total =
        total("prometheus_tsdb_exemplar_exemplars_appended_total", "Total number of appended exemplars.");
    let head: Weak<Head> = Arc::downgrade(head);
    registry.on_collect(move || {
        let Some(head) = head.upgrade() else { return };
        let stats = head.stats();
        series.set(stats.num_series as f64);
        head_chunks.set(stats.chunk_count as f64);
        chunk_bytes.set(head.chunks.bytes() as f64);
        min_ms.set(stats.min_time as f64);
        max_ms.set(stats.max_time as f64);
        min.set(stats.min_time as f64 / 1000.0);
        max.set(stats.max_time as f64 / 1000.0);
        appenders.set(head.appenders.load(std::sync::atomic::Ordering::Relaxed) as f64);
        let counts = head.state.read().counts;
        chunks.set_total(counts.chunks_created as f64);
        created.set_total(counts.created as f64);
        removed.set_total(counts.removed as f64);
        let ring = head.exemplars.lock();
        exemplars.set(ring.len().0 as f64);
        with_exemplars.set(ring.len().1 as f64);
        exemplars_total.set_total(ring.appended as f64);
    });
}
