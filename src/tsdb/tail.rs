//! The door to the log for those who pass samples on: what was committed comes out batch by batch, in order, each with
//! its place, and a reader that was away goes on where it was.

use std::collections::BTreeSet;

use super::door::StorageError;
pub use super::wal::{LogExemplar, LogFloat, LogHistogram};
use crate::model::Labels;
use crate::model::metadata::Metadata;

/// A place in the log, between two batches. Places are ordered as the batches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct LogPosition {
    /// Number of the segment.
    pub segment: u32,
    /// Bytes from the start of the segment.
    pub offset: u64,
}

/// One committed batch. Series are numbers that hold within one segment: a batch names the series that its segment
/// mentions for the first time.
#[derive(Debug, Clone, Default)]
pub struct TailBatch {
    /// Where it begins.
    pub start: LogPosition,
    /// Where it ends.
    pub end: LogPosition,
    /// Series mentioned for the first time in this segment, with their numbers.
    pub series: Vec<(u32, Labels)>,
    /// Floats, those out of order last.
    pub floats: Vec<LogFloat>,
    /// Histograms.
    pub histograms: Vec<LogHistogram>,
    /// Exemplars.
    pub exemplars: Vec<LogExemplar>,
    /// Metadata by family name.
    pub metadata: Vec<(String, Metadata)>,
    /// Whether it is passed over: it only serves to name series, because it lies before the place where reading
    /// goes on.
    pub passed: bool,
}

/// What a reader of the log remembers over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TailMarks {
    /// Everything before this place is settled.
    pub done: LogPosition,
    /// Nothing after this place was passed on yet.
    pub begun: LogPosition,
}

/// Reads the log.
pub trait LogTail: Send {
    /// The next batch; `None` when nothing more is committed yet. Does not wait.
    fn next_batch(&mut self) -> Result<Option<TailBatch>, StorageError>;

    /// The marks as they were saved last; for a new reader the end of the log at the time it was opened.
    fn marks(&self) -> TailMarks;

    /// Saves the marks; the log before `done` may go. They survive `kill -9`, with `durable` also a power cut.
    fn save(&mut self, marks: TailMarks, durable: bool) -> Result<(), StorageError>;

    /// Samples that were dropped unread since the last call, because the log that waited was over its limit.
    fn take_lost(&mut self) -> u64;

    /// Damaged places that were skipped since the last call.
    fn take_damaged(&mut self) -> u64;
}

/// Opens readers of the log. The log keeps what they have not settled, up to a limit.
pub trait LogTails: Send + Sync {
    /// Opens the reader of this name where it was, or at the end of the log if there was none. One at a time.
    fn tail(&self, name: &str) -> Result<Box<dyn LogTail>, StorageError>;

    /// Forgets all readers but these.
    fn keep_tails(&self, names: &BTreeSet<String>);
}
