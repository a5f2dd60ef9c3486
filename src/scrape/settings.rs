//! What does a job decide about its scrapes, and what does the server?

use std::sync::Arc;

use crate::config::ScrapeConfig;
use crate::model::clock::Clock;
use crate::tsdb::door::Appendable;

use super::cache::HashKey;
use super::metadata::Interner;
use super::metrics::ScrapeMetrics;

/// What the command line decides about scraping.
#[derive(Debug, Clone)]
pub struct ScrapeOptions {
    /// Align sample times to the schedule (`--scrape.adjust-timestamps`).
    pub align_timestamps: bool,
    /// How far a scrape may be late and still get the scheduled time, milliseconds; at most 1 % of the interval
    /// counts (`--scrape.timestamp-tolerance`).
    pub timestamp_tolerance_ms: i64,
    /// Least time between two updates from discovery, milliseconds (`--scrape.discovery-reload-interval`).
    pub discovery_interval_ms: u64,
    /// Feature `type-and-unit-labels`.
    pub type_and_unit_labels: bool,
    /// Feature `created-timestamp-zero-ingestion`.
    pub zero_ingestion: bool,
    /// Feature `st-storage`.
    pub store_start_timestamps: bool,
    /// Feature `metadata-wal-records`.
    pub append_metadata: bool,
    /// Mixed into the offsets of scrapes, so that two servers of a pair do not scrape at the same moment.
    pub offset_seed: u64,
    /// The `User-Agent` header; empty takes that of the HTTP client.
    pub user_agent: String,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        Self {
            align_timestamps: true,
            timestamp_tolerance_ms: 2,
            discovery_interval_ms: 5_000,
            type_and_unit_labels: false,
            zero_ingestion: false,
            store_start_timestamps: false,
            append_metadata: false,
            offset_seed: 0,
            user_agent: String::new(),
        }
    }
}

/// What all scrape loops share.
pub struct Shared {
    /// Where samples go.
    pub storage: Arc<dyn Appendable>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Own metrics.
    pub metrics: ScrapeMetrics,
    /// Options.
    pub options: ScrapeOptions,
    /// Key of the caches' hashes.
    pub hash_key: HashKey,
    /// Shares metadata between targets.
    pub interner: Interner,
    /// Large bodies that may be parsed and stored at once, one for each core: more would only add threads, each with
    /// an allocator heap of its own (2,000 targets once took 4 GiB that way).
    pub bursts: tokio::sync::Semaphore,
}

/// As many bursts of work as there are cores.
#[must_use]
pub fn bursts() -> tokio::sync::Semaphore {
    tokio::sync::Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from))
}

/// What a job decides about how samples are taken; replaced as a whole on reload.
pub struct JobSettings {
    /// The job.
    pub config: ScrapeConfig,
    /// Name of the job for the appender.
    pub job: Arc<str>,
    /// The headers that all its requests have.
    pub headers: http::HeaderMap,
    /// Grows when a reload changes how texts become labels; caches of an older epoch are not valid.
    pub epoch: u64,
    /// The `User-Agent` header; empty takes that of the HTTP client.
    pub user_agent: String,
}

impl JobSettings {
    /// Prepares the settings of a job.
    #[must_use]
    pub fn new(config: ScrapeConfig, epoch: u64, user_agent: String) -> Self {
        let accept = super::exposition::accept_header(&config.scrape_protocols, config.escaping().as_str());
        let headers = super::fetch::headers(&accept, config.enable_compression, &user_agent);
        Self { job: Arc::from(config.job_name.as_str()), headers, config, epoch, user_agent }
    }

    /// Whether texts become the same labels under `other`.
    #[must_use]
    pub fn labels_alike(&self, other: &ScrapeConfig) -> bool {
        let own = &self.config;
        own.honor_labels == other.honor_labels
            && own.metric_relabel_configs == other.metric_relabel_configs
            && own.label_limit == other.label_limit
            && own.label_name_length_limit == other.label_name_length_limit
            && own.label_value_length_limit == other.label_value_length_limit
            && own.metric_name_validation_scheme == other.metric_name_validation_scheme
    }
}
