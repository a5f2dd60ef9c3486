//! Meerkat's own immutable blocks: what lies in them, how are they written, opened and read?
//!
//! A block is a directory: `meta.json`, `block.mkt` with samples and index, and `deletions.mkt` once something was
//! deleted. The bytes are described in `docs/format/block.md`.

/// Bit streams.
pub mod bits;
/// Checked cursors and varints.
pub mod bytes;
/// Chunks: samples to bytes and back.
pub mod chunk;
/// Footer, directories, references.
pub mod format;
/// Histogram columns.
pub mod histograms;
/// Integer columns.
pub mod ints;
/// Found series.
pub mod list;
/// `meta.json`.
pub mod meta;
/// Pages of series.
pub mod page;
/// Posting lists.
pub mod postings;
/// Querier over one block.
pub mod querier;
/// Entropy coding of small numbers.
pub mod rans;
/// Opening and reading.
pub mod reader;
/// Matchers to series.
mod select;
/// What goes into a block.
pub mod source;
/// What series cost.
mod survey;
/// String table.
pub mod symbols;
/// Timestamp columns.
pub mod times;
/// Deletions.
pub mod tombstones;
/// Float columns.
pub mod values;
/// Writing.
pub mod writer;
/// XOR streams, the fallback for floats.
pub mod xor;

#[cfg(test)]
mod tests;

pub use meta::{BlockMeta, new_ulid};
pub use querier::{BlockQuerier, BlockSource};
pub use reader::Block;
pub use source::{SeriesColumns, SeriesSource};
pub use writer::{Cancelled, WriteReport, write_block};
