//! Instruments of blocks, compaction and retention, under Prometheus's names.

use std::sync::{Arc, Weak};

use super::super::compact::BlockSet;
use super::super::head::Head;
use crate::telemetry::{Counter, Gauge, Histogram, Registry};

/// What the stored side counts.
#[derive(Debug, Clone)]
pub struct StoredMetrics {
    /// Blocks written by flushing or merging.
    pub compactions: Counter,
    /// Steps that failed.
    pub failed: Counter,
    /// Cycles begun.
    pub triggered: Counter,
    /// Merges of blocks that overlap.
    pub vertical: Counter,
    /// Seconds of a step.
    pub duration: Histogram,
    /// Looks at the directory.
    pub reloads: Counter,
    /// Looks at the directory that failed.
    pub reloads_failed: Counter,
    /// Retentions that dropped blocks because of their age.
    pub time_retentions: Counter,
    /// Retentions that dropped blocks because of the size.
    pub size_retentions: Counter,
    /// Limit, bytes.
    pub limit_bytes: Gauge,
    /// Limit, percent of the disk.
    pub limit_percentage: Gauge,
    /// Limit, seconds.
    pub limit_seconds: Gauge,
    /// Blocks set aside, and files of blocks written anew, because they are damaged.
    pub damaged: Counter,
    /// Seconds that removing deleted samples took.
    pub tombstone_cleanup: Histogram,
}

impl StoredMetrics {
    /// Registers the instruments, also those that are read when somebody asks.
    #[must_use]
    pub fn new(registry: &Registry, blocks: &Arc<BlockSet>, head: &Arc<Head>) -> Self {
        let total = |name, help| registry.counter(name, help, &[]);
        let gauge = |name, help| registry.gauge(name, help, &[]);
        let bounds: Vec<f64> = (0..14).map(|i| f64::from(1u32 << i)).collect();
        let seconds = |name, help| registry.histogram(name, help, &bounds, &[]);
        watch(registry, Arc::downgrade(blocks), Arc::downgrade(head));
        Self {
            compactions: total(
                "prometheus_tsdb_compactions_total",
                "Total number of compactions that were executed for the partition.",
            ),
            failed: total(
                "prometheus_tsdb_compactions_failed_total",
                "Total number of compactions that failed for the partition.",
            ),
            triggered: total(
                "prometheus_tsdb_compactions_triggered_total",
                "Total number of triggered compactions for the partition.",
            ),
            vertical: total(
                "prometheus_tsdb_vertical_compactions_total",
                "Total number of compactions done on overlapping blocks.",
            ),
            duration: seconds("prometheus_tsdb_compaction_duration_seconds", "Duration of compaction runs"),
            reloads: total(
                "prometheus_tsdb_reloads_total",
                "Number of times the database reloaded block data from disk.",
            ),
            reloads_failed: total(
                "prometheus_tsdb_reloads_failures_total",
                "Number of times the database failed to reload block data from disk.",
            ),
            time_retentions: total(
                "prometheus_tsdb_time_retentions_total",
                "The number of times that blocks were deleted because the maximum time limit was exceeded.",
            ),
            size_retentions: total(
                "prometheus_tsdb_size_retentions_total",
                "The number of times that blocks were deleted because the maximum number of bytes was exceeded.",
            ),
            limit_bytes: gauge(
                "prometheus_tsdb_retention_limit_bytes",
                "Max number of bytes to be retained in the tsdb blocks, configured 0 means disabled",
            ),
            limit_percentage: gauge(
                "prometheus_tsdb_retention_limit_percentage",
                "Max percentage of total storage space to be retained in the tsdb blocks, configured 0 means disabled",
            ),
            limit_seconds: gauge(
                "prometheus_tsdb_retention_limit_seconds",
                "How long to retain samples in storage.",
            ),
            damaged: total(
                "meerkat_tsdb_damaged_block_files_total",
                "Number of damaged files of blocks: the block was set aside or the file was written anew.",
            ),
            tombstone_cleanup: seconds(
                "prometheus_tsdb_tombstone_cleanup_seconds",
                "The time taken to recompact blocks to remove tombstones.",
            ),
        }
    }
}

fn watch(registry: &Registry, blocks: Weak<BlockSet>, head: Weak<Head>) {
    let gauge = |name, help| registry.gauge(name, help, &[]);
    let loaded = gauge("prometheus_tsdb_blocks_loaded", "Number of currently loaded data blocks");
    let bytes = gauge(
        "prometheus_tsdb_storage_blocks_bytes",
        "The number of bytes that are currently used for local storage by all blocks.",
    );
    let lowest = gauge(
        "prometheus_tsdb_lowest_timestamp",
        "Lowest timestamp value stored in the database. The unit is decided by the library consumer.",
    );
    let lowest_seconds =
        gauge("prometheus_tsdb_lowest_timestamp_seconds", "Lowest timestamp value stored in the database.");
    registry.on_collect(move || {
        let (Some(set), Some(head)) = (blocks.upgrade(), head.upgrade()) else { return };
        let blocks = set.blocks();
        loaded.set(blocks.len() as f64);
        bytes.set(set.size_bytes() as f64);
        let oldest = blocks.first().map_or_else(|| head.stats().min_time, |b| b.meta().min_time);
        lowest.set(oldest as f64);
        lowest_seconds.set(oldest as f64 / 1000.0);
    });
}
