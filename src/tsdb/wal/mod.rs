//! How does an acknowledged sample survive a crash? Each batch is one checksummed frame in a self-contained segment,
//! written before the batch becomes visible and synced a moment later. The layout is in `docs/format/wal.md`.

use crate::model::Labels;
use crate::model::metadata::Metadata;
use crate::model::sample::HistogramValue;

/// Batches as bytes.
pub mod batch;
/// The float section of a batch.
pub mod column;
/// Frames: magic, length, checksum; the one reader.
pub mod frame;
/// Segments that readers still need.
pub mod holds;
/// Segments on disk: names, listing, deleting.
pub mod segment;
/// The reading end for those who pass samples on.
pub mod tail;
/// The writing end: segments, group commit, failures.
pub mod writer;

pub use writer::{Wal, WalOptions};

/// A float sample. `series` is a slot of the head when writing and a number local to the segment when reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogFloat {
    /// Which series.
    pub series: u32,
    /// Timestamp, milliseconds.
    pub t_ms: i64,
    /// Start timestamp, 0 = unknown.
    pub start_ms: i64,
    /// Value.
    pub value: f64,
}

/// A histogram sample.
#[derive(Debug, Clone)]
pub struct LogHistogram {
    /// Which series.
    pub series: u32,
    /// Timestamp, milliseconds.
    pub t_ms: i64,
    /// Start timestamp, 0 = unknown.
    pub start_ms: i64,
    /// Whether it was older than the newest sample of its series.
    pub out_of_order: bool,
    /// Value.
    pub value: HistogramValue,
}

/// An exemplar.
#[derive(Debug, Clone, PartialEq)]
pub struct LogExemplar {
    /// Which series.
    pub series: u32,
    /// Timestamp, milliseconds.
    pub t_ms: i64,
    /// Observed value.
    pub value: f64,
    /// Its own labels.
    pub labels: Labels,
}

/// A deletion of a range of one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDelete {
    /// Which series.
    pub series: u32,
    /// First timestamp.
    pub min_t_ms: i64,
    /// Last timestamp.
    pub max_t_ms: i64,
}

/// Everything that one commit says.
#[derive(Debug, Clone, Default)]
pub struct LogBatch {
    /// Identity of the sender, 0 = none.
    pub source: u64,
    /// Floats newer than anything their series had.
    pub floats: Vec<LogFloat>,
    /// Floats that were not.
    pub out_of_order: Vec<LogFloat>,
    /// Histograms.
    pub histograms: Vec<LogHistogram>,
    /// Exemplars.
    pub exemplars: Vec<LogExemplar>,
    /// Metadata by family name.
    pub metadata: Vec<(String, Metadata)>,
    /// Deletions.
    pub deletes: Vec<LogDelete>,
}

impl LogBatch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.floats.is_empty()
            && self.out_of_order.is_empty()
            && self.histograms.is_empty()
            && self.exemplars.is_empty()
            && self.metadata.is_empty()
            && self.deletes.is_empty()
    }
}

/// Tells the log who is behind a slot.
pub trait SeriesNames: Send + Sync {
    /// Persistent id and labels of the series in a slot.
    fn identity(&self, slot: u32) -> Option<(u64, Labels)>;
}
