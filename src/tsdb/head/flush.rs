//! How does data leave the head for a block? Compaction asks which range is ready, reads it through a view that
//! loses nothing, writes and verifies its block, and then tells the head to forget what is older.
//!
//! The order that keeps every sample readable: `range_to_flush` → `flush_view` → block written, synced, read back
//! → block published to new queriers → `forget_before(max + 1)`. Truncation waits for queriers that were opened
//! before the block was published and still look at the old range.

use crate::model::Labels;
use crate::model::sample::HistogramValue;
use crate::tsdb::door::StorageError;

/// A time range, milliseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushRange {
    /// First timestamp, aligned down to the block range.
    pub min_t_ms: i64,
    /// Last timestamp: the next block range starts one millisecond later.
    pub max_t_ms: i64,
}

/// The samples of one series as they were ingested, in columns; nothing is converted.
///
/// Floats and histograms lie apart, each strictly ascending in time; no timestamp occurs in both. Out-of-order
/// samples are merged in already.
#[derive(Debug, Clone, Default)]
pub struct RawSamples {
    /// Timestamps of the floats.
    pub timestamps: Vec<i64>,
    /// Values of the floats, bit for bit.
    pub values: Vec<f64>,
    /// Start timestamps of the floats (0 = unknown); empty when none is known, else as long as `timestamps`.
    pub starts: Vec<i64>,
    /// Histograms: timestamp, start timestamp (0 = unknown), the histogram with its ingested hint.
    pub histograms: Vec<(i64, i64, HistogramValue)>,
}

impl RawSamples {
    /// Empties the columns and keeps their allocations.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.starts.clear();
        self.histograms.clear();
    }

    /// Number of samples of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a float with its start timestamp (0 = unknown).
    pub fn push_float(&mut self, t_ms: i64, start_ms: i64, value: f64) {
        if start_ms != 0 && self.starts.is_empty() {
            self.starts.resize(self.timestamps.len(), 0);
        }
        self.timestamps.push(t_ms);
        self.values.push(value);
        if start_ms != 0 || !self.starts.is_empty() {
            self.starts.push(start_ms);
        }
    }
}

/// A consistent view of one range of the head.
pub trait FlushView: Send + Sync {
    /// The range.
    fn range(&self) -> FlushRange;

    /// Number of series; they are sorted by labels. Some may turn out to have no sample in the range.
    fn len(&self) -> usize;

    /// Whether there is no series.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Labels of series `i`.
    fn labels(&self, i: usize) -> Labels;

    /// Replaces the content of `out` by the samples of series `i` in the range.
    fn samples(&self, i: usize, out: &mut RawSamples) -> Result<(), StorageError>;
}
