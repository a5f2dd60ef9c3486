//! What does the API need to know of other rooms? Small traits in the API's own terms; the wiring of the process
//! implements them, so that a handler never depends on how scraping, rules or storage are built.

use std::collections::BTreeMap;

use crate::alert::backfill::JobStatus;
use crate::alert::silences::SilenceDoor;
use crate::model::metadata::Metadata;
use crate::model::{Labels, Matcher};
use crate::tsdb::StorageError;

/// A target that is scraped.
#[derive(Debug, Clone)]
pub struct ActiveTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels of its series.
    pub labels: Labels,
    /// Scrape job.
    pub scrape_pool: String,
    /// What is fetched.
    pub scrape_url: String,
    /// The same as seen from elsewhere.
    pub global_url: String,
    /// Empty when the last scrape went well.
    pub last_error: String,
    /// Start of the last scrape, milliseconds; `None` before the first.
    pub last_scrape_ms: Option<i64>,
    /// Seconds.
    pub last_scrape_duration: f64,
    /// `up`, `down` or `unknown`.
    pub health: &'static str,
    /// As a Prometheus duration.
    pub scrape_interval: String,
    /// As a Prometheus duration.
    pub scrape_timeout: String,
}

/// A target that relabelling dropped.
#[derive(Debug, Clone)]
pub struct DroppedTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Scrape job.
    pub scrape_pool: String,
}

/// What one relabelling rule does to a label set.
#[derive(Debug, Clone)]
pub struct RelabelStep {
    /// The rule as a JSON object of its configuration fields.
    pub rule_json: String,
    /// Labels afterwards.
    pub output: Labels,
    /// Whether the target is still there.
    pub keep: bool,
}

/// Metadata as one target states it.
#[derive(Debug, Clone)]
pub struct TargetMetadata {
    /// Labels of the target.
    pub target: Labels,
    /// Metric family.
    pub metric: String,
    /// Type, help, unit.
    pub metadata: Metadata,
}

/// What is scraped.
pub trait TargetsSource: Send + Sync {
    /// Names of the scrape jobs, sorted.
    fn scrape_pools(&self) -> Vec<String>;
    /// Active targets, of one job or of all.
    fn active(&self, pool: Option<&str>) -> Vec<ActiveTarget>;
    /// Dropped targets that are remembered, of one job or of all.
    fn dropped(&self, pool: Option<&str>) -> Vec<DroppedTarget>;
    /// Number of dropped targets by job, remembered or not.
    fn dropped_counts(&self) -> Vec<(String, usize)>;
    /// The configuration of a job as YAML without secrets.
    fn pool_config(&self, pool: &str) -> Option<String>;
    /// Runs the relabelling rules of a job over a label set; the error is the answer's text.
    fn relabel_steps(&self, pool: &str, labels: &Labels) -> Result<Vec<RelabelStep>, String>;
    /// Metadata known from live targets, of one family or of all.
    fn metadata(&self, metric: Option<&str>) -> Vec<TargetMetadata>;
}

/// One alert of an alerting rule.
#[derive(Debug, Clone)]
pub struct AlertView {
    /// Labels.
    pub labels: Labels,
    /// Expanded annotations.
    pub annotations: Labels,
    /// `inactive`, `pending` or `firing`.
    pub state: &'static str,
    /// Since when the expression holds, milliseconds.
    pub active_at_ms: i64,
    /// Since when it is only kept firing, milliseconds.
    pub keep_firing_since_ms: Option<i64>,
    /// Value of the expression, printed as `1e+00`.
    pub value: String,
}

/// What only alerting rules have.
#[derive(Debug, Clone)]
pub struct AlertingView {
    /// `unknown`, `inactive`, `pending` or `firing`.
    pub state: &'static str,
    /// `for`, seconds.
    pub duration: f64,
    /// `keep_firing_for`, seconds.
    pub keep_firing_for: f64,
    /// Annotation templates, empty ones included.
    pub annotations: BTreeMap<String, String>,
    /// Its alerts.
    pub alerts: Vec<AlertView>,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct RuleView {
    /// Name of the alert or of the recorded series.
    pub name: String,
    /// Expression.
    pub query: String,
    /// Labels as configured, those without a value included.
    pub labels: BTreeMap<String, String>,
    /// `ok`, `err` or `unknown`.
    pub health: &'static str,
    /// Empty when the last evaluation went well.
    pub last_error: String,
    /// Seconds.
    pub evaluation_time: f64,
    /// Milliseconds; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
    /// Present for alerting rules.
    pub alerting: Option<AlertingView>,
}

/// A group of rules.
#[derive(Debug, Clone)]
pub struct RuleGroupView {
    /// Name.
    pub name: String,
    /// File it comes from.
    pub file: String,
    /// Rules in order.
    pub rules: Vec<RuleView>,
    /// Seconds.
    pub interval: f64,
    /// Most series or alerts a rule may produce, 0 = any.
    pub limit: usize,
    /// Seconds.
    pub evaluation_time: f64,
    /// Milliseconds; `None` before the first.
    pub last_evaluation_ms: Option<i64>,
}

/// What is evaluated and where alerts go.
pub trait RulesSource: Send + Sync {
    /// All groups, sorted by file and name.
    fn groups(&self) -> Vec<RuleGroupView>;
    /// All alerts that are pending or firing.
    fn alerts(&self) -> Vec<AlertView>;
    /// URLs of the active and of the dropped Alertmanagers.
    fn alertmanagers(&self) -> (Vec<String>, Vec<String>);
    /// Begins to compute recording rules of a group over `[start_ms, end_ms]`: all, or those named. An empty `file`
    /// means any file. The number of the job, or why it was refused.
    fn start_backfill(
        &self,
        _group: &str,
        _file: &str,
        _rules: &[String],
        _start_ms: i64,
        _end_ms: i64,
    ) -> Result<u64, String> {
        Err("there are no rules".into())
    }
    /// Such jobs, oldest first.
    fn backfills(&self) -> Vec<JobStatus> {
        Vec::new()
    }
    /// Stops a job; false if it does not run.
    fn cancel_backfill(&self, _id: u64) -> bool {
        false
    }
    /// The silences of an active Alertmanager, by its URL.
    fn silences(&self, _alertmanager: &str) -> Option<SilenceDoor> {
        None
    }
}

/// A process without rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRules;

impl RulesSource for NoRules {
    fn groups(&self) -> Vec<RuleGroupView> {
        Vec::new()
    }

    fn alerts(&self) -> Vec<AlertView> {
        Vec::new()
    }

    fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        (Vec::new(), Vec::new())
    }
}

/// A process that scrapes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTargets;

impl TargetsSource for NoTargets {
    fn scrape_pools(&self) -> Vec<String> {
        Vec::new()
    }

    fn active(&self, _: Option<&str>) -> Vec<ActiveTarget> {
        Vec::new()
    }

    fn dropped(&self, _: Option<&str>) -> Vec<DroppedTarget> {
        Vec::new()
    }

    fn dropped_counts(&self) -> Vec<(String, usize)> {
        Vec::new()
    }

    fn pool_config(&self, _: &str) -> Option<String> {
        None
    }

    fn relabel_steps(&self, pool: &str, _: &Labels) -> Result<Vec<RelabelStep>, String> {
        Err(format!("scrape pool {pool:?} not found"))
    }

    fn metadata(&self, _: Option<&str>) -> Vec<TargetMetadata> {
        Vec::new()
    }
}

/// A name with a count, as the statistics list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCount {
    /// Name.
    pub name: String,
    /// Count or bytes.
    pub value: u64,
}

/// The numbers of `/api/v1/status/tsdb`.
#[derive(Debug, Clone, Default)]
pub struct HeadStats {
    /// Series in memory.
    pub series: u64,
    /// Different label pairs in memory.
    pub label_pairs: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// Oldest sample, milliseconds.
    pub min_time_ms: i64,
    /// Newest sample, milliseconds.
    pub max_time_ms: i64,
    /// Series by metric name, largest first.
    pub series_by_metric: Vec<NamedCount>,
    /// Values by label name, largest first.
    pub values_by_label: Vec<NamedCount>,
    /// Bytes of values by label name, largest first.
    pub bytes_by_label: Vec<NamedCount>,
    /// Series by label pair (`name=value`), largest first.
    pub series_by_pair: Vec<NamedCount>,
}

/// What the status and admin endpoints ask of storage. All of it may block.
pub trait StorageAdmin: Send + Sync {
    /// Statistics with lists of at most `limit` entries.
    fn head_stats(&self, limit: usize) -> Result<HeadStats, StorageError>;
    /// The blocks' `meta.json` objects with their size on disk as `stats.numBytes`, oldest first.
    fn blocks(&self) -> Vec<String>;
    /// Damage found so far.
    fn corruption_count(&self) -> u64;
    /// Writes a snapshot and names its directory.
    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError>;
    /// Deletes the samples in `[start_ms, end_ms]` of series that satisfy all matchers.
    fn delete(&self, start_ms: i64, end_ms: i64, matchers: &[Matcher]) -> Result<(), StorageError>;
    /// Removes deleted samples from disk.
    fn clean_tombstones(&self) -> Result<(), StorageError>;
}

/// The running configuration.
pub trait ConfigSource: Send + Sync {
    /// As YAML, defaults filled in, secrets hidden.
    fn yaml(&self) -> String;
    /// The configuration as it stands on disk now, printed like [`ConfigSource::yaml`]; the error says why it could
    /// not be read.
    fn yaml_on_disk(&self, now_ms: i64) -> Result<String, String>;
    /// `global.external_labels`.
    fn external_labels(&self) -> Labels;
    /// Storage retention as text: `15d or 1GiB`.
    fn retention(&self) -> String;
}
