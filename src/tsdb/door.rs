//! The contracts between storage and everybody else.
//!
//! Times are milliseconds since the Unix epoch; ranges include both ends. A [`Querier`] sees the batches that
//! were committed when it was opened and none later, and never half a batch. All traits are synchronous: calls
//! may touch the disk, so async code runs them on a blocking pool.

use std::fmt;
use std::sync::Arc;

use super::changes::Changes;
use crate::model::metadata::{Exemplar, Metadata};
use crate::model::sample::HistogramValue;
use crate::model::{Labels, Matcher, SampleBuffer};

/// Names a series within one running storage. Never reused while the process lives; 0 means "not known yet".
/// A reference may die (the series left memory): appending with it then falls back to the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SeriesRef(pub u64);

impl SeriesRef {
    /// "Not known yet."
    pub const NONE: Self = Self(0);

    /// Whether the reference names a series.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// Why a sample, exemplar or batch was refused. The texts are Prometheus's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Older than the newest sample of its series, and outside the out-of-order window (which is zero).
    #[error("out of order sample")]
    OutOfOrder,
    /// Same timestamp as a stored sample, other value.
    #[error("duplicate sample for timestamp")]
    DuplicateTimestamp,
    /// Too old for the head, or too far in the future.
    #[error("out of bounds")]
    OutOfBounds,
    /// Older than the out-of-order window.
    #[error("too old sample")]
    TooOld,
    /// An exemplar older than the newest of its series.
    #[error("out of order exemplar")]
    ExemplarOutOfOrder,
    /// The same exemplar again.
    #[error("duplicate exemplar")]
    ExemplarDuplicate,
    /// Exemplar labels longer than 128 characters.
    #[error("label length for exemplar exceeds 128 UTF-8 characters")]
    ExemplarLabelLength,
    /// A label set that cannot be stored: no labels, repeated name, invalid name.
    #[error("invalid labels: {0}")]
    InvalidLabels(String),
    /// A histogram that contradicts itself.
    #[error("invalid histogram: {0}")]
    InvalidHistogram(String),
    /// A limit on active series or the memory budget; the text names the limit and its flag.
    #[error("series limit reached: {0}")]
    SeriesLimit(String),
    /// The reference is not known and no labels were given.
    #[error("unknown series reference")]
    UnknownSeries,
    /// The storage cannot write now (disk full, failed sync, shutting down).
    #[error("{0}")]
    Storage(#[from] StorageError),
}

/// A failure of the storage itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// An operation on a file failed.
    #[error("{operation} {path}: {message}")]
    Io {
        /// What was attempted: `open`, `write`, `sync`, …
        operation: &'static str,
        /// The file.
        path: String,
        /// The system's words.
        message: String,
    },
    /// A file holds something else than it should.
    #[error("{path} is damaged at byte {offset}: {message}")]
    Corrupt {
        /// The file.
        path: String,
        /// Where, in bytes from its start.
        offset: u64,
        /// What was expected or found.
        message: String,
    },
    /// The storage takes no more writes; the text says why and what helps.
    #[error("storage is read-only: {0}")]
    ReadOnly(String),
    /// The storage is closed or not open yet.
    #[error("storage is not ready: {0}")]
    NotReady(String),
    /// There is not enough memory for the answer; the text names the limit.
    #[error("{0}")]
    Limit(String),
    /// The caller cancelled.
    #[error("canceled")]
    Canceled,
}

/// What a batch is and how strictly it is judged.
#[derive(Debug, Clone, Default)]
pub struct BatchOptions {
    /// Identity of the sender (a target, a remote writer): batches of one source tend to repeat the same series
    /// in the same order, which the log exploits. 0 = none.
    pub source: u64,
    /// Refuse out-of-order samples even where a window would allow them (recording rules, stale markers).
    pub reject_out_of_order: bool,
    /// Name of the scrape job or tenant for limits by job; empty = none.
    pub job: Arc<str>,
}

/// Opens batches.
pub trait Appendable: Send + Sync {
    /// Opens a batch. Cheap; takes no lock that a query waits for.
    fn appender(&self, options: BatchOptions) -> Box<dyn Appender + '_>;
}

/// One transactional batch: a scrape, a remote-write request, a rule's result.
///
/// Samples that fail are refused one by one and leave the rest untouched; the caller decides whether a refusal
/// fails the batch. Nothing is visible or logged before [`Appender::commit`]. Dropping without commit rolls back.
pub trait Appender {
    /// Adds a float sample. `reference` may be [`SeriesRef::NONE`] or one returned earlier by the same storage for
    /// the same labels; `labels` is only called when the reference is unknown or dead. `start_ms` is the start
    /// timestamp, 0 = unknown. Returns the reference to use next time.
    fn append(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        value: f64,
    ) -> Result<SeriesRef, AppendError>;

    /// Adds a native histogram sample; otherwise like [`Appender::append`].
    fn append_histogram(
        &mut self,
        reference: SeriesRef,
        labels: &dyn Fn() -> Labels,
        start_ms: i64,
        t_ms: i64,
        histogram: HistogramValue,
    ) -> Result<SeriesRef, AppendError>;

    /// Adds an exemplar to a series that this or an earlier batch created.
    fn append_exemplar(
        &mut self,
        reference: SeriesRef,
        t_ms: i64,
        exemplar: &Exemplar,
    ) -> Result<(), AppendError>;

    /// Notes the metadata of a metric family.
    fn update_metadata(&mut self, metric_name: &str, metadata: &Metadata) -> Result<(), AppendError>;

    /// Writes the batch to the log and makes it visible, all or nothing. On error nothing is visible.
    fn commit(self: Box<Self>) -> Result<Commit, AppendError>;

    /// Throws the batch away.
    fn rollback(self: Box<Self>);
}

/// Proof of a commit. The batch survives `kill -9` already; [`Commit::wait_durable`] returns when it also
/// survives a power cut.
pub struct Commit {
    /// Samples of both kinds that were stored.
    pub samples: u64,
    /// Series that did not exist before.
    pub series_created: u64,
    waiter: Option<Box<dyn FnOnce() -> Result<(), StorageError> + Send>>,
}

impl Commit {
    /// A commit with a function that blocks until the batch is durable; `None` where that is never needed.
    #[must_use]
    pub fn new(
        samples: u64,
        series_created: u64,
        waiter: Option<Box<dyn FnOnce() -> Result<(), StorageError> + Send>>,
    ) -> Self {
        Self { samples, series_created, waiter }
    }

    /// Blocks until the batch survives a power cut; an error means it may not.
    pub fn wait_durable(self) -> Result<(), StorageError> {
        self.waiter.map_or(Ok(()), |wait| wait())
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("samples", &self.samples)
            .field("series_created", &self.series_created)
            .finish_non_exhaustive()
    }
}

/// Which labels of the selected series the caller needs; storage may leave out the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Projection {
    /// Only these.
    Include(Vec<Arc<str>>),
    /// All but these.
    Exclude(Vec<Arc<str>>),
}

/// What the caller is going to do with a selection. All of it is advice: ignoring a hint is never wrong.
#[derive(Debug, Clone, Default)]
pub struct SelectHints {
    /// First timestamp of interest.
    pub start_ms: i64,
    /// Last timestamp of interest.
    pub end_ms: i64,
    /// Step of the range query, 0 for an instant one.
    pub step_ms: i64,
    /// Range of the matrix selector, 0 for an instant one.
    pub range_ms: i64,
    /// Name of the surrounding function or aggregation, if any.
    pub function: Option<Arc<str>>,
    /// Labels needed, `None` = all.
    pub projection: Option<Projection>,
    /// Only count and sum of histograms are needed, not the buckets.
    pub skip_histogram_buckets: bool,
    /// Only timestamps and staleness markers are needed: any other float may come as any other float.
    pub presence_alone: bool,
    /// At most this many series are needed, 0 = all.
    pub limit: usize,
    /// The same selection is asked for again and again, as rules do: its series are worth remembering.
    pub repeats: bool,
}

/// Advice for label queries.
#[derive(Debug, Clone, Default)]
pub struct LabelQueryHints {
    /// At most this many results are needed, 0 = all.
    pub limit: usize,
}

/// Opens consistent views.
pub trait Queryable: Send + Sync {
    /// A view of `[min_t_ms, max_t_ms]`, both included, as of now.
    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError>;

    /// What tells whether an answer of earlier still holds; `None` if nothing can: answers are not kept then.
    fn changes(&self) -> Option<Arc<Changes>> {
        None
    }
}

/// A consistent view of the stored series. Holding it keeps files mapped, not the storage locked.
pub trait Querier: Send + Sync {
    /// The series that satisfy all matchers and may have samples in the view, sorted by labels.
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError>;

    /// Sorted names of all labels of the series that satisfy all matchers (all series if there are none).
    fn label_names(&self, matchers: &[Matcher], hints: &LabelQueryHints)
    -> Result<Vec<String>, StorageError>;

    /// Sorted values of one label over the series that satisfy all matchers (all series if there are none).
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError>;
}

/// Selected series: labels first, samples on demand, in any order and from several threads at once.
pub trait SeriesSet: Send + Sync {
    /// Number of series.
    fn len(&self) -> usize;

    /// Whether nothing was selected.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Labels of series `i` (all, or at least the projection that was asked for).
    fn labels(&self, i: usize) -> Labels;

    /// Whether these are the labels of series `i`; may be cheaper than making them.
    fn is(&self, i: usize, labels: &Labels) -> bool {
        self.labels(i) == *labels
    }

    /// Replaces the content of `out` by the samples of series `i` in `[min_t_ms, max_t_ms]`, stale markers included.
    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError>;

    /// The newest sample of series `i` at or before `t_ms`, staleness markers included, where it is known without reading;
    /// `None` says nothing.
    fn latest(&self, i: usize, t_ms: i64) -> Option<(i64, f64)> {
        let _ = (i, t_ms);
        None
    }

    /// What the caller should pass on to the user: damaged ranges that were left out, and the like.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The exemplars of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct ExemplarSeries {
    /// Labels of the series.
    pub labels: Labels,
    /// Its exemplars in order of time; `timestamp_ms` is always set.
    pub exemplars: Vec<Exemplar>,
}

/// Finds exemplars.
pub trait ExemplarQuerier: Send + Sync {
    /// Exemplars in `[start_ms, end_ms]` of series that satisfy at least one of the matcher sets.
    fn select_exemplars(
        &self,
        start_ms: i64,
        end_ms: i64,
        matcher_sets: &[Vec<Matcher>],
    ) -> Result<Vec<ExemplarSeries>, StorageError>;
}

/// Stored metadata of metric families.
pub trait MetadataStore: Send + Sync {
    /// Metadata of one family, or of all.
    fn metadata(&self, metric_name: Option<&str>) -> Vec<(String, Metadata)>;
}
