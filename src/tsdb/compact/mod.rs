//! How does stored data age? Ranges leave the head as 2-hour blocks, blocks grow by merging, deletions are worked in,
//! and what is past retention goes. Everything happens in steps that can be given up at any moment.

/// The blocks of a data directory.
pub mod block_set;
/// Which blocks to merge, which to drop.
pub mod plan;
/// The steps themselves.
pub mod run;
/// Several sources of series as one.
pub mod sources;

#[cfg(test)]
mod tests;

pub use block_set::{AnyBlock, BlockSet, BlockSetReport};
pub use plan::Retention;
pub use run::{Compactor, CompactorOptions, Step};
