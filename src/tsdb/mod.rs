//! The storage engine, seen through two narrow doors: an [`Appender`] takes batches in, a [`Querier`] hands
//! series out. No other room knows its files or tables.

/// Immutable blocks in the native format.
pub mod block;
/// Which times changed since when.
pub mod changes;
/// Encodings of young samples.
pub mod chunk;
/// How blocks are made, merged and dropped.
pub mod compact;
/// The storage as a whole.
pub mod db;
/// The doors: traits, hints and errors.
pub mod door;
/// Where new samples live until they become blocks.
pub mod head;
/// The inverted index of the head.
pub mod index;
/// A small storage in memory with the same doors, for rule unit tests and as the naive twin in tests.
pub mod memory;
/// Several sources seen as one.
pub mod merge;
/// Prometheus's own blocks.
pub mod prometheus;
/// The door to the log.
pub mod tail;
/// The seam to the disk.
pub mod vfs;
/// The write-ahead log.
pub mod wal;

pub use changes::Changes;
pub use db::{AgentOptions, Db, DbOptions};
pub use door::{
    AppendError, Appendable, Appender, BatchOptions, Commit, ExemplarQuerier, ExemplarSeries,
    LabelQueryHints, MetadataStore, Projection, Querier, Queryable, SelectHints, SeriesRef, SeriesSet,
    StorageError,
};
pub use head::replay::ReplayWatch;
pub use tail::{LogPosition, LogTail, LogTails, TailBatch, TailMarks};

/// Hash maps inside storage: fast, seeded at random so that nobody can aim at one bucket.
pub(crate) type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
