//! How is a storage opened?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::head::JobLimits;
use super::super::head::replay::ReplayWatch;
use crate::telemetry::memory::MemoryBudget;

/// How an agent keeps samples.
#[derive(Debug, Clone, Copy)]
pub struct AgentOptions {
    /// How often samples are forgotten.
    pub truncate_every: Duration,
    /// Samples younger than this stay, milliseconds.
    pub min_age_ms: i64,
    /// Log older than this goes even if somebody has not read it.
    pub max_age: Duration,
}

/// How a storage is opened.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// The data directory.
    pub path: PathBuf,
    /// Blocks whose newest sample is older than this are deleted, milliseconds; 0 = never.
    pub retention_ms: i64,
    /// The oldest blocks are deleted when everything together is larger, bytes; 0 = never.
    pub retention_bytes: u64,
    /// Length of the first blocks, milliseconds.
    pub block_range_ms: i64,
    /// Length of the longest blocks, milliseconds; 0 = a tenth of the retention, at most 31 days.
    pub max_block_ms: i64,
    /// A sync of the log follows a write at most this much later. Zero: no background threads at all; syncs and
    /// checkpoints happen when asked for, as tests want it.
    pub wal_sync_interval: Duration,
    /// A segment of the log is closed when it is longer, bytes.
    pub wal_segment_bytes: u64,
    /// A checkpoint is written when this much log has come since the last one, bytes.
    pub checkpoint_bytes: u64,
    /// How long to wait between attempts to write again after a failure.
    pub retry_interval: Duration,
    /// Whether to compress the log.
    pub wal_compression: bool,
    /// Most log that is kept for readers that are behind, bytes.
    pub max_held_log_bytes: u64,
    /// How much older than the newest sample of all an out-of-order sample may be, milliseconds; 0 = refused.
    pub out_of_order_window_ms: i64,
    /// Most series in memory; 0 = any number.
    pub max_series: u64,
    /// Most series of one job in memory.
    pub max_series_per_job: JobLimits,
    /// Series that have ended leave memory when they are more than this share of all; 0 = with their range only.
    pub ended_series_share: f64,
    /// Exemplars kept, 0 = none.
    pub exemplar_capacity: usize,
    /// The memory limit of the process, under which new series are refused first.
    pub memory: Arc<MemoryBudget>,
    /// An agent: samples are only kept for those who pass them on, and no blocks are written.
    pub agent: Option<AgentOptions>,
    /// Do not take the lock file (network file systems without locks).
    pub no_lockfile: bool,
    /// Told how far replay is.
    pub replay: Arc<ReplayWatch>,
}

impl Default for DbOptions {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data"),
            retention_ms: 15 * 24 * 3_600_000,
            retention_bytes: 0,
            block_range_ms: 2 * 3_600_000,
            max_block_ms: 0,
            wal_sync_interval: Duration::from_millis(200),
            wal_segment_bytes: 64 << 20,
            checkpoint_bytes: 192 << 20,
            retry_interval: Duration::from_secs(1),
            wal_compression: true,
            max_held_log_bytes: 4 << 30,
            out_of_order_window_ms: 0,
            max_series: 0,
            max_series_per_job: JobLimits::default(),
            ended_series_share: 0.05,
            exemplar_capacity: 100_000,
            memory: MemoryBudget::unlimited(),
            agent: None,
            no_lockfile: false,
            replay: Arc::default(),
        }
    }
}
