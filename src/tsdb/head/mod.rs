//! The part of storage that takes writes: active series, their open chunks, the index over them.

/// The way of data from the head into blocks.
pub mod flush;
