//! The door of PromQL: options, limits, errors, instant and range queries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::annotations::Annotations;
use super::parse::ParseError;
use super::value::QueryValue;
use crate::telemetry::Registry;
use crate::tsdb::{Queryable, StorageError};

/// Settings of an engine that hold for all its queries.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// `--query.timeout`.
    pub timeout: Duration,
    /// `--query.max-samples`: samples a query may hold at once.
    pub max_samples: usize,
    /// `--query.max-concurrency`.
    pub max_concurrency: usize,
    /// `--query.lookback-delta`, milliseconds.
    pub lookback_delta_ms: i64,
    /// Default step of subqueries, milliseconds (`global.evaluation_interval`).
    pub default_subquery_step_ms: i64,
    /// Bytes one query may hold.
    pub max_query_bytes: usize,
    /// Bytes all queries together may hold.
    pub max_total_bytes: usize,
    /// Feature `promql-experimental-functions`.
    pub experimental_functions: bool,
    /// Feature `promql-extended-range-selectors`.
    pub extended_range_selectors: bool,
    /// Feature `promql-binop-fill-modifiers`.
    pub fill_modifiers: bool,
    /// Feature `promql-delayed-name-removal`.
    pub delayed_name_removal: bool,
    /// Feature `use-start-timestamps`.
    pub use_start_timestamps: bool,
    /// Feature `type-and-unit-labels`.
    pub type_and_unit_labels: bool,
    /// Feature `promql-per-step-stats`.
    pub per_step_stats: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            max_samples: 50_000_000,
            max_concurrency: 20,
            lookback_delta_ms: 300_000,
            default_subquery_step_ms: 60_000,
            max_query_bytes: 2 << 30,
            max_total_bytes: 4 << 30,
            experimental_functions: false,
            extended_range_selectors: false,
            fill_modifiers: false,
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            per_step_stats: false,
        }
    }
}

/// Settings of one query.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// Overrides the engine's timeout when shorter.
    pub timeout: Option<Duration>,
    /// Overrides the engine's lookback, milliseconds.
    pub lookback_delta_ms: Option<i64>,
    /// Collect per-step statistics.
    pub per_step_stats: bool,
    /// Lets the caller stop the query.
    pub cancel: CancelToken,
}

/// Stops a query from another thread; clones share one switch.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the query to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why there is no result. The API maps the kinds to `errorType` and status.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text is not PromQL, or breaks its typing rules.
    #[error("{0}")]
    Parse(ParseError),
    /// Evaluation failed: a rule of the language, or a limit (named in the text).
    #[error("{0}")]
    Execution(String),
    /// The deadline passed.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// The caller cancelled.
    #[error("query was canceled in {0}")]
    Canceled(&'static str),
    /// The storage failed.
    #[error("{0}")]
    Storage(#[from] StorageError),
}

/// What a query cost. Durations in seconds.
#[derive(Debug, Clone, Default)]
pub struct QueryStats {
    /// Waiting for a slot.
    pub exec_queue_time: f64,
    /// Parsing and planning.
    pub query_preparation_time: f64,
    /// Evaluation proper.
    pub inner_eval_time: f64,
    /// Sorting the result.
    pub result_sort_time: f64,
    /// Evaluation with preparation and sorting.
    pub eval_total_time: f64,
    /// All.
    pub exec_total_time: f64,
    /// Samples looked at, counted as Prometheus counts them.
    pub total_queryable_samples: u64,
    /// Samples read from storage.
    pub samples_read: u64,
    /// Most samples held at once.
    pub peak_samples: u64,
    /// Most bytes held at once.
    pub peak_bytes: u64,
    /// `(time, samples)` by step when asked for.
    pub samples_per_step: Vec<(i64, u64)>,
}

/// The answer to a query.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Value.
    pub value: QueryValue,
    /// Warnings and infos.
    pub annotations: Annotations,
    /// Cost.
    pub stats: QueryStats,
}

/// Evaluates queries. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    /// An engine with these settings that counts itself in `registry` under Prometheus's names.
    #[must_use]
    pub fn new(options: EngineOptions, _registry: &Registry) -> Self {
        Self { options }
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates `query` at `t_ms`.
    pub fn instant(
        &self,
        _storage: &dyn Queryable,
        _query: &str,
        _t_ms: i64,
        _options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        Err(QueryError::Execution("the engine is not built yet".into()))
    }

    /// Evaluates `query` at `start_ms`, `start_ms + step_ms`, … up to `end_ms`.
    pub fn range(
        &self,
        _storage: &dyn Queryable,
        _query: &str,
        _start_ms: i64,
        _end_ms: i64,
        _step_ms: i64,
        _options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        Err(QueryError::Execution("the engine is not built yet".into()))
    }
}
