//! How are consecutive samples of one series packed while they are young? Floats as a bit stream in the manner of
//! Gorilla ([`float`]), histograms as bytes, each against the one before ([`histogram`]). The layout is in
//! `docs/format/head-chunks.md`.

/// Bit streams.
pub mod bits;
/// Variable-length integers and checked reading of bytes.
pub mod bytes;
/// Chunks of floats.
pub mod float;
/// Chunks of native histograms.
pub mod histogram;

/// A chunk could not be read: it ends early or contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged data: {0}")]
pub struct Damaged(pub &'static str);
