//! The storage engine, seen through two narrow doors: an [`Appender`] takes batches in, a [`Querier`] hands
//! series out. No other room knows its files or tables.

/// Immutable blocks in the native format.
pub mod block;
/// The doors: traits, hints and errors.
pub mod door;
/// Where new samples live until they become blocks.
pub mod head;
/// A small storage in memory with the same doors, for rule unit tests and as the naive twin in tests.
pub mod memory;

pub use door::{
    AppendError, Appendable, Appender, BatchOptions, Commit, ExemplarQuerier, ExemplarSeries,
    LabelQueryHints, MetadataStore, Projection, Querier, Queryable, SelectHints, SeriesRef, SeriesSet,
    StorageError,
};
