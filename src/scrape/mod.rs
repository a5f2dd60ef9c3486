//! Which targets exist, and what do they say? Discovery, target pools, scrape loops, exposition parsers.

/// Parsers of scraped bodies.
pub mod exposition;
