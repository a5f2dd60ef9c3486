//! The door of PromQL: options, limits, errors, instant and range queries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::admission::{EngineMetrics, Gate};
use super::annotations::Annotations;
use super::cache::{CacheKey, ResultCache, join, missing, surroundings};
use super::exec::answer::answer;
use super::exec::build::Root;
use super::exec::column::Axis;
use super::exec::context::{Context, GlobalBudget, Limits, Rules};
use super::explain::{Explanation, PlanNode, Profile, tree};
use super::log::{LoggedQuery, QueryLog, QueryOrigin};
use super::parse::ast::{Expr, ValueType};
use super::parse::{ParseError, ParseOptions, parse_expr};
use super::plan::{Plan, PlanOptions, plan, reach};
use super::stack::{is_high, on_large_stack};
use super::value::QueryValue;
use parking_lot::RwLock;

use crate::telemetry::Registry;
use crate::telemetry::memory::MemoryBudget;
use crate::telemetry::spans::{SpanContext, SpanKind};
use crate::tsdb::{Changes, Queryable, StorageError};

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
    /// Default step of subqueries, milliseconds (`global.evaluation_interval`), until
    /// [`Engine::set_default_subquery_step`] says otherwise.
    pub default_subquery_step_ms: i64,
    /// Bytes one query may hold.
    pub max_query_bytes: usize,
    /// Bytes all queries together may hold.
    pub max_total_bytes: usize,
    /// Bytes of range queries' answers that are kept for the next time; 0 = none.
    pub result_cache_bytes: usize,
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
            result_cache_bytes: 0,
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
    /// Who asks, for the query log.
    pub origin: QueryOrigin,
    /// Evaluate everything anew, and keep nothing of it.
    pub no_cache: bool,
    /// The trace that the query belongs to.
    pub trace: SpanContext,
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
    /// A range query over an expression that is neither a number nor an instant vector.
    #[error("invalid expression type {0:?} for range query, must be Scalar or instant Vector")]
    RangeType(&'static str),
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
    gate: Gate,
    memory: Arc<GlobalBudget>,
    metrics: EngineMetrics,
    log: RwLock<Option<Arc<dyn QueryLog>>>,
    subquery_step_ms: AtomicI64,
    cache: ResultCache,
    /// Threads a query may use: asking the system takes longer than a small query.
    threads: usize,
}

/// A query that was read once to be evaluated often.
#[derive(Debug)]
pub struct PreparedQuery {
    text: String,
    expr: Expr,
}

/// What is asked of a query.
#[derive(Debug, Clone, Copy)]
struct Times {
    axis: Axis,
    /// 0 in instant queries.
    step_ms: i64,
    instant: bool,
}

impl Engine {
    /// An engine with these settings that counts itself in `registry` under Prometheus's names.
    #[must_use]
    pub fn new(options: EngineOptions, registry: &Registry) -> Self {
        let gate = Gate::new(options.max_concurrency);
        let memory = GlobalBudget::new(options.max_total_bytes, MemoryBudget::unlimited());
        let metrics = EngineMetrics::new(registry, options.max_concurrency);
        let subquery_step_ms = AtomicI64::new(options.default_subquery_step_ms);
        let cache = ResultCache::new(options.result_cache_bytes);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { options, gate, memory, metrics, log: RwLock::new(None), subquery_step_ms, cache, threads }
    }

    /// Tells each query to `log` from now on, or to nobody.
    pub fn set_query_log(&self, log: Option<Arc<dyn QueryLog>>) {
        *self.log.write() = log;
    }

    /// Whether each query is told to a log.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.log.read().is_some()
    }

    /// From now on subqueries without a step take this one, milliseconds: the configuration was read again.
    pub fn set_default_subquery_step(&self, step_ms: i64) {
        self.subquery_step_ms.store(step_ms, Ordering::Relaxed);
    }

    /// The same engine in a process with a memory limit: heavy queries give way to it, and all queries together hold at
    /// most half of it.
    #[must_use]
    pub fn within(mut self, process: Arc<MemoryBudget>) -> Self {
        if process.limit() > 0 {
            let half = usize::try_from(process.limit() / 2).unwrap_or(usize::MAX);
            self.options.max_total_bytes = self.options.max_total_bytes.min(half);
        }
        self.memory = GlobalBudget::new(self.options.max_total_bytes, process);
        self
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates `query` at `t_ms`.
    pub fn instant(
        &self,
        storage: &dyn Queryable,
        query: &str,
        t_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let times = Times { axis: Axis::instant(t_ms), step_ms: 0, instant: true };
        self.run(storage, query, times, options)
    }

    /// Reads `query` for [`Engine::instant_again`].
    pub fn prepare(&self, query: &str) -> Result<PreparedQuery, QueryError> {
        Ok(PreparedQuery { text: query.to_owned(), expr: self.parse(query)? })
    }

    /// Evaluates a query at `t_ms` that is going to be evaluated again and again, as those of rules are.
    pub fn instant_again(
        &self,
        storage: &dyn Queryable,
        query: &PreparedQuery,
        t_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let times = Times { axis: Axis::instant(t_ms), step_ms: 0, instant: true };
        let asked = Asked { text: &query.text, expr: &query.expr, began: Instant::now(), repeats: true };
        self.run_parsed(storage, &asked, times, options, QueryStats::default(), None)
    }

    fn parse(&self, query: &str) -> Result<Expr, QueryError> {
        let parse_options = ParseOptions {
            experimental_functions: self.options.experimental_functions,
            extended_range_selectors: self.options.extended_range_selectors,
            fill_modifiers: self.options.fill_modifiers,
        };
        parse_expr(query, &parse_options).map_err(QueryError::Parse)
    }

    /// Evaluates `query` at `start_ms`, `start_ms + step_ms`, … up to `end_ms`.
    pub fn range(
        &self,
        storage: &dyn Queryable,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let times = self.times(start_ms, end_ms, step_ms)?;
        self.run(storage, query, times, options)
    }

    /// Evaluates `query` from `start_ms` to `end_ms` (at `start_ms` alone if `step_ms` is 0) and answers its plan
    /// with series, samples and time of each part instead of its value.
    pub fn explain(
        &self,
        storage: &dyn Queryable,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<Explanation, QueryError> {
        let times = if step_ms == 0 {
            Times { axis: Axis::instant(start_ms), step_ms: 0, instant: true }
        } else {
            self.times(start_ms, end_ms, step_ms)?
        };
        let mut plan = None;
        let result = self.run_with(storage, query, times, options, Some(&mut plan))?;
        let plan = plan.ok_or_else(|| QueryError::Execution("the plan was lost".into()))?;
        Ok(Explanation { plan, stats: result.stats, annotations: result.annotations })
    }

    fn times(&self, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Times, QueryError> {
        if step_ms <= 0 || end_ms < start_ms {
            return Err(QueryError::Execution(format!(
                "a range query needs a positive step and an end that is not before its start, got step {step_ms} ms, start {start_ms}, end {end_ms}"
            )));
        }
        let steps = (i128::from(end_ms) - i128::from(start_ms)) / i128::from(step_ms) + 1;
        let Some(n) = usize::try_from(steps).ok().filter(|n| *n <= self.options.max_samples) else {
            return Err(QueryError::Execution(format!(
                "query processing would load too many samples into memory in query execution: {steps} steps"
            )));
        };
        Ok(Times { axis: Axis { start: start_ms, step: step_ms, n }, step_ms, instant: false })
    }

    fn run(
        &self,
        storage: &dyn Queryable,
        query: &str,
        times: Times,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        self.run_with(storage, query, times, options, None)
    }

    fn run_with(
        &self,
        storage: &dyn Queryable,
        query: &str,
        times: Times,
        options: &QueryOptions,
        explained: Option<&mut Option<PlanNode>>,
    ) -> Result<QueryResult, QueryError> {
        let began = Instant::now();
        let expr = self.parse(query)?;
        let kind = expr.value_type();
        if !times.instant && !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            let name = if kind == ValueType::String { "string" } else { "range vector" };
            return Err(QueryError::RangeType(name));
        }
        let stats =
            QueryStats { query_preparation_time: began.elapsed().as_secs_f64(), ..QueryStats::default() };
        let asked = Asked { text: query, expr: &expr, began, repeats: false };
        self.run_parsed(storage, &asked, times, options, stats, explained)
    }

    fn run_parsed(
        &self,
        storage: &dyn Queryable,
        asked: &Asked<'_>,
        times: Times,
        options: &QueryOptions,
        mut stats: QueryStats,
        explained: Option<&mut Option<PlanNode>>,
    ) -> Result<QueryResult, QueryError> {
        let mut span = options.trace.start("promqlExec", SpanKind::Internal);
        span.set("query", asked.text);
        let trace = span.context();
        let timeout = options.timeout.map_or(self.options.timeout, |t| t.min(self.options.timeout));
        let deadline = asked.began + timeout;
        let queued = Instant::now();
        let waiting = trace.start("promqlExecQueue", SpanKind::Internal);
        let _slot = self.gate.enter(deadline, &options.cancel)?;
        drop(waiting);
        stats.exec_queue_time = queued.elapsed().as_secs_f64();
        let _active = self.metrics.enter();
        let job = Job { engine: self, storage, asked, times, options, deadline, trace };
        let result = if is_high(asked.expr) {
            on_large_stack(|| job.evaluate(&mut stats, explained)).unwrap_or_else(|e| {
                Err(QueryError::Execution(format!(
                    "evaluating a long expression in a thread of its own: {e}"
                )))
            })
        } else {
            job.evaluate(&mut stats, explained)
        };
        stats.exec_total_time = asked.began.elapsed().as_secs_f64();
        self.metrics.observe(&stats);
        let log = self.log.read().clone();
        if let Some(log) = log {
            let steps = i64::try_from(times.axis.n.saturating_sub(1)).unwrap_or(i64::MAX);
            log.log(&LoggedQuery {
                query: asked.text,
                start_ms: times.axis.start,
                end_ms: times.axis.start.saturating_add(times.step_ms.saturating_mul(steps)),
                step_ms: times.step_ms,
                error: result.as_ref().err(),
                stats: &stats,
                origin: &options.origin,
            });
        }
        let (value, annotations) = result.inspect_err(|e| span.fail(e))?;
        Ok(QueryResult { value, annotations, stats })
    }
}

/// The query as it was asked.
struct Asked<'a> {
    text: &'a str,
    expr: &'a Expr,
    began: Instant,
    /// It is going to be asked again and again.
    repeats: bool,
}

/// One query on its way.
struct Job<'a> {
    engine: &'a Engine,
    storage: &'a dyn Queryable,
    asked: &'a Asked<'a>,
    times: Times,
    options: &'a QueryOptions,
    deadline: Instant,
    trace: SpanContext,
}

impl Job<'_> {
    fn evaluate(
        &self,
        stats: &mut QueryStats,
        explained: Option<&mut Option<PlanNode>>,
    ) -> Result<(QueryValue, Annotations), QueryError> {
        let settings = &self.engine.options;
        let span = self.trace.start("promqlEval", SpanKind::Internal);
        let within = span.context();
        let prepare = Instant::now();
        let preparing = within.start("promqlPrepare", SpanKind::Internal);
        let axis = self.times.axis;
        let default_subquery_step_ms = self.engine.subquery_step_ms.load(Ordering::Relaxed);
        let plan_options = PlanOptions {
            start_ms: axis.start,
            end_ms: axis.last(),
            step_ms: self.times.step_ms,
            default_subquery_step_ms,
            type_and_unit_labels: settings.type_and_unit_labels,
        };
        let plan = plan(self.asked.expr, &plan_options)?;
        let lookback_ms = self.options.lookback_delta_ms.unwrap_or(settings.lookback_delta_ms);
        let (min_t, max_t) = reach(&plan, axis.start, axis.last(), lookback_ms);
        let rules = Rules {
            lookback_ms,
            delayed_name_removal: settings.delayed_name_removal,
            use_start_timestamps: settings.use_start_timestamps,
            type_and_unit_labels: settings.type_and_unit_labels,
        };
        let limits = Limits {
            max_samples: settings.max_samples,
            max_bytes: settings.max_query_bytes,
            deadline: self.deadline,
            cancel: self.options.cancel.clone(),
            threads: self.engine.threads,
        };
        let per_step = self.options.per_step_stats && settings.per_step_stats;
        let keeping = if per_step || explained.is_some() {
            None
        } else {
            self.keeping(&plan, lookback_ms, default_subquery_step_ms)
        };
        let querier = self.storage.querier(min_t, max_t)?;
        let ctx =
            Context::new(querier, self.asked.text, rules, limits, Arc::clone(&self.engine.memory), per_step)
                .profiled(explained.is_some().then(Profile::default))
                .repeated(self.asked.repeats);
        let ctx = Arc::new(ctx);
        stats.query_preparation_time += prepare.elapsed().as_secs_f64();
        drop(preparing);
        let inner = Instant::now();
        let computing = within.start("promqlInnerEval", SpanKind::Internal);
        let root = Root {
            start_ms: axis.start,
            end_ms: axis.last(),
            step_ms: self.times.step_ms,
            instant: self.times.instant,
        };
        let value = match &keeping {
            Some(keeping) => self.with_cache(keeping, &ctx, &plan, &root),
            None => answer(&ctx, &plan, axis, &root),
        };
        stats.inner_eval_time = inner.elapsed().as_secs_f64();
        drop(computing);
        let counts = ctx.counts();
        (stats.total_queryable_samples, stats.samples_read) = (counts.0, counts.1);
        (stats.peak_samples, stats.peak_bytes) = (counts.2, counts.3);
        stats.samples_per_step = ctx.steps(axis);
        if let (Some(explained), Some(profile)) = (explained, &ctx.profile) {
            *explained = Some(tree(&plan, profile, self.asked.text));
        }
        let mut value = value?;
        let sort = Instant::now();
        let sorting = within.start("promqlSort", SpanKind::Internal);
        sort_matrix(&mut value);
        drop(sorting);
        stats.result_sort_time = sort.elapsed().as_secs_f64();
        stats.eval_total_time = prepare.elapsed().as_secs_f64();
        let annotations = ctx.annotations();
        if let (Some(keeping), QueryValue::Matrix(series)) = (keeping, &value)
            && annotations.is_empty()
        {
            self.engine.cache.keep(keeping.key, axis, keeping.as_of, series);
        }
        Ok((value, annotations))
    }

    /// What is needed to take a part of the answer from the cache and to keep it, unless the query is not of the kind.
    /// Must be called before the view is opened.
    fn keeping(&self, plan: &Plan, lookback_ms: i64, subquery_step_ms: i64) -> Option<Keeping> {
        let axis = self.times.axis;
        if self.times.instant || axis.n < 2 || self.options.no_cache || !self.engine.cache.is_on() {
            return None;
        }
        let around = surroundings(plan, lookback_ms)?;
        let changes = self.storage.changes()?;
        let key = CacheKey {
            storage: changes.id(),
            query: self.asked.text.to_owned(),
            step_ms: axis.step,
            phase_ms: axis.start.rem_euclid(axis.step),
            lookback_ms,
            subquery_step_ms,
        };
        Some(Keeping { key, around, as_of: changes.count(), changes })
    }

    /// Evaluates the steps that are not known.
    fn with_cache(
        &self,
        keeping: &Keeping,
        ctx: &Arc<Context>,
        plan: &Plan,
        root: &Root,
    ) -> Result<QueryValue, QueryError> {
        let axis = self.times.axis;
        let hit = self.engine.cache.find(&keeping.key, axis, keeping.around, &keeping.changes);
        self.engine.metrics.count_cached(hit.as_ref().map_or(0, |hit| hit.known.n), axis.n);
        let Some(hit) = hit else { return answer(ctx, plan, axis, root) };
        let (mut parts, mut known) = (Vec::new(), Some(hit.values()));
        for part in missing(axis, hit.known) {
            if part.start > hit.known.start {
                parts.extend(known.take());
            }
            let mut value = answer(ctx, plan, part, root)?;
            sort_matrix(&mut value);
            match value {
                QueryValue::Matrix(series) => parts.push(series),
                // Range queries have no other value.
                other => return Ok(other),
            }
        }
        parts.extend(known);
        Ok(QueryValue::Matrix(join(parts)))
    }
}

/// How an answer may be found again.
struct Keeping {
    key: CacheKey,
    /// How far around a step its value looks, milliseconds.
    around: (i64, i64),
    /// Changes that the view includes at least.
    as_of: u64,
    changes: Arc<Changes>,
}

fn sort_matrix(value: &mut QueryValue) {
    if let QueryValue::Matrix(series) = value {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
}
