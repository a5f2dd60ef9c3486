//! The doors of rule evaluation: where values come from, where results go, where notifications leave.
//!
//! Time is always an argument, so the same rules run live, in unit tests and over the past.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::{Labels, Matcher};
use crate::query::log::QueryOrigin;
use crate::query::value::PointValue;
use crate::query::{Engine, PreparedQuery, QueryError, QueryOptions, QueryResult, QueryValue, VectorSample};
use crate::telemetry::spans::SpanContext;
use crate::tsdb::{Queryable, SelectHints};

/// The group that a rule belongs to.
#[derive(Debug, Clone)]
pub struct RuleOrigin {
    /// Rule file.
    pub file: String,
    /// Group.
    pub group: String,
}

/// Evaluates expressions of rules and finds stored alert state.
pub trait Evaluator: Send + Sync {
    /// The instant vector of `query` at `t_ms`; a scalar becomes one element without labels.
    fn eval(&self, query: &str, t_ms: i64) -> Result<Vec<VectorSample>, String>;

    /// The same for a rule of a group, which the query log names, as part of a trace.
    fn eval_rule(
        &self,
        group: &RuleOrigin,
        trace: &SpanContext,
        query: &str,
        t_ms: i64,
    ) -> Result<Vec<VectorSample>, String> {
        let _ = (group, trace);
        self.eval(query, t_ms)
    }

    /// The last float sample in `[min_t_ms, max_t_ms]` of each series that satisfies `matchers`.
    fn last_samples(
        &self,
        matchers: &[Matcher],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<Vec<(Labels, i64, f64)>, String>;
}

/// Evaluates with the query engine over a storage.
pub struct EngineEvaluator {
    engine: Arc<Engine>,
    storage: Arc<dyn Queryable>,
    /// The expressions of rules by text. A reload makes a new evaluator, so those of removed rules do not stay.
    prepared: Mutex<HashMap<String, Arc<PreparedQuery>, foldhash::fast::RandomState>>,
}

impl EngineEvaluator {
    /// Evaluates with `engine` over `storage`.
    #[must_use]
    pub fn new(engine: Arc<Engine>, storage: Arc<dyn Queryable>) -> Self {
        Self { engine, storage, prepared: Mutex::default() }
    }

    fn prepare(&self, query: &str) -> Result<Arc<PreparedQuery>, QueryError> {
        if let Some(known) = self.prepared.lock().get(query) {
            return Ok(Arc::clone(known));
        }
        let prepared = Arc::new(self.engine.prepare(query)?);
        self.prepared.lock().insert(query.to_owned(), Arc::clone(&prepared));
        Ok(prepared)
    }
}

fn vector(result: Result<QueryResult, QueryError>) -> Result<Vec<VectorSample>, String> {
    match result.map_err(|e| e.to_string())?.value {
        QueryValue::Vector(samples) => Ok(samples),
        QueryValue::Scalar { t_ms, value } => {
            Ok(vec![VectorSample { labels: Labels::empty(), t_ms, value: PointValue::Float(value) }])
        }
        QueryValue::String { .. } | QueryValue::Matrix(_) => {
            Err("rule result is not a vector or scalar".into())
        }
    }
}

impl Evaluator for EngineEvaluator {
    fn eval(&self, query: &str, t_ms: i64) -> Result<Vec<VectorSample>, String> {
        vector(self.engine.instant(self.storage.as_ref(), query, t_ms, &QueryOptions::default()))
    }

    fn eval_rule(
        &self,
        group: &RuleOrigin,
        trace: &SpanContext,
        query: &str,
        t_ms: i64,
    ) -> Result<Vec<VectorSample>, String> {
        let origin = QueryOrigin::Rule { file: group.file.clone(), group: group.group.clone() };
        let options = QueryOptions { origin, trace: trace.clone(), ..QueryOptions::default() };
        let prepared = self.prepare(query).map_err(|e| e.to_string())?;
        vector(self.engine.instant_again(self.storage.as_ref(), &prepared, t_ms, &options))
    }

    fn last_samples(
        &self,
        matchers: &[Matcher],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<Vec<(Labels, i64, f64)>, String> {
        let querier = self.storage.querier(min_t_ms, max_t_ms).map_err(|e| e.to_string())?;
        let hints = SelectHints { start_ms: min_t_ms, end_ms: max_t_ms, ..SelectHints::default() };
        let set = querier.select(&hints, matchers).map_err(|e| e.to_string())?;
        let mut buffer = crate::model::SampleBuffer::default();
        let mut out = Vec::with_capacity(set.len());
        for i in 0..set.len() {
            set.samples(i, min_t_ms, max_t_ms, &mut buffer).map_err(|e| e.to_string())?;
            if let (Some(t), Some(v)) = (buffer.timestamps.last(), buffer.values.last()) {
                out.push((set.labels(i), *t, *v));
            }
        }
        Ok(out)
    }
}

/// An alert on its way to Alertmanagers or another receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Labels, `alertname` included, external labels not yet added.
    pub labels: Labels,
    /// Annotations in order of name.
    pub annotations: Vec<(String, String)>,
    /// When it began to fire, milliseconds.
    pub starts_at_ms: i64,
    /// When it ended, or until when it is to be believed without news, milliseconds.
    pub ends_at_ms: i64,
    /// Link to the expression.
    pub generator_url: String,
}

/// Takes alerts that must be told. Sending happens behind this door, in the background.
pub trait Notifier: Send + Sync {
    /// Queues notifications; never blocks for the network.
    fn send(&self, notifications: Vec<Notification>);
}

/// Drops every notification: rule unit tests and backfilling tell nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNotifier;

impl Notifier for NoNotifier {
    fn send(&self, _notifications: Vec<Notification>) {}
}
