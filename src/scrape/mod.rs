//! Which targets exist, and what do they say? Discovery, target pools, scrape loops, exposition parsers.
//!
//! [`ScrapeManager`] is the way in: give it a configuration and it scrapes into an
//! [`Appendable`](crate::tsdb::door::Appendable).

mod buffers;
/// The series of the previous scrape.
pub mod cache;
/// Mechanisms that find targets, and the manager that runs them.
pub mod discovery;
/// Parsers of scraped bodies.
pub mod exposition;
mod fetch;
mod ingest;
mod manager;
/// What targets say about their metric families.
pub mod metadata;
mod metrics;
mod native_limits;
mod pool;
mod schedule;
mod scrape_loop;
mod settings;
mod target;
#[cfg(test)]
mod tests;

pub use manager::{ApplyError, ScrapeManager};
pub use metadata::FamilyMetadata;
pub use pool::{PoolSnapshot, TargetStatus};
pub use scrape_loop::{Health, LastScrape};
pub use settings::ScrapeOptions;
pub use target::{Populated, Target, discovered_labels, populate};
